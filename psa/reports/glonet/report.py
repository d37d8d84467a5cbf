"""The report of the depth study: the effect of depth on GloNet, and the use of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_columns import LABELS
from psa.analysis.frame_schema import trials_of
from psa.analysis.stats import Values
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.contract import ReportContext
from psa.reports.glonet import claims
from psa.reports.glonet import tables as glonet_tables
from psa.reports.glonet.figures.accuracy import accuracy_figure, speed_figure
from psa.reports.glonet.figures.curves import ROWS, curves_figure, trained_depths
from psa.reports.glonet.figures.layers import exits_figure, norms_figure, usage_figure
from psa.reports.glonet.layer_use import Use, layers_csv, uses_of
from psa.reports.glonet.networks import (
    MODEL_NAMES,
    SHARED_SETTINGS,
    GlonetResults,
    Network,
    Trained,
    glonet_results,
    seconds_of,
)
from psa.reports.glonet.tables import CLAIMED, CLAIMED_OF
from psa.reports.rendering.html import CellTrials, Fact, Page, Picture, Section, pick
from psa.reports.rendering.tables import Table
from psa.reports.wording import shared_settings

QUESTION: Final = (
    "GloNet's head reads the sum of all hidden layers, so that every layer is one step away from the answer. "
    "Does a deep network then learn as well as a shallow one, does a plain MLP not, and are only the first "
    "layers used?"
)
_CAPTIONS: Final = {
    "accuracy": "Test accuracy over depth, for each width.",
    "speed": "Time per epoch and trial over depth, for each width.",
    "curves": "Training loss, validation loss and validation accuracy over the epochs, a row per depth.",
    "usage": "The share of each hidden layer in the mean output, before and after training, by depth.",
    "early": "Accuracy when the head reads only the first k hidden layers, a panel per depth.",
    "parameters": "{model}: the L1 norm of each layer's parameters through training, a panel per depth.",
}


@dataclass(frozen=True)
class _Seen:
    """The numbers that tables, figures and page share."""

    frame: pd.DataFrame
    context: ReportContext

    @cached_property
    def results(self) -> GlonetResults:
        return glonet_results(self.frame)

    @cached_property
    def claimed(self) -> bool:
        """True if the earlier document covers such networks, on such data."""
        data = trials_of(self.frame)[["dataset", "digits"]]
        alike = set(data["dataset"].dropna()) == {CLAIMED_OF} and data["digits"].isna().all()
        return bool(alike) and any(layers in CLAIMED for layers in self.results.layers)

    @cached_property
    def uses(self) -> dict[Network, Use]:
        return uses_of(self.results, self.context.observed)

    @cached_property
    def seconds(self) -> dict[Network, Values]:
        return seconds_of(self.results, self.context.store)


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each study and, if its trials differ in settings other than model, depth, width and
    seed, for each of those settings; a trial that is only known to be missing is on a page of its study.
    """
    for study, rows in frame.groupby("study", observed=True, sort=False):
        known = rows[rows["dataset"].notna()]
        varied = [name for name in SHARED_SETTINGS if known[name].astype(str).nunique() > 1]
        if not varied:
            yield str(study), rows
            continue
        # without a grid the setting of a missing trial is unknown
        for values, part in known.groupby([known[name].astype(str) for name in varied], sort=True):
            named = zip(varied, map(str, values), strict=True)
            part.attrs["apart"] = dict(named)  # which the page cannot tell from its own rows
            name = "_".join(f"{key}-{_plain(value)}" for key, value in part.attrs["apart"].items())
            yield f"{study}_{name}", part


def _plain(value: str) -> str:
    return "".join(each if each.isalnum() or each in ".-" else "-" for each in value)


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables by name. Raises UserError if the frame holds several experiments."""
    seen = _Seen(frame, context)
    results = seen.results
    found = {
        "accuracy": glonet_tables.accuracy_table(results),
        "paired": glonet_tables.paired_table(results),
        "convergence": glonet_tables.convergence_table(results),
    }
    if seen.claimed:
        found["claims"] = glonet_tables.claims_table(results)
    if seen.uses:
        found["usage"] = glonet_tables.usage_table(results, seen.uses)
    if seen.seconds:
        found["speed"] = glonet_tables.speed_table(results, seen.seconds)
    return found


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures by name."""
    seen = _Seen(frame, context)
    results = seen.results
    yield "accuracy_by_depth", accuracy_figure(results)
    if seen.seconds:
        yield "speed", speed_figure(results, seen.seconds)
    for features in results.features:
        depths = trained_depths(results, features)
        for at in range(0, len(depths), ROWS):
            part = f"_{at // ROWS + 1}" if len(depths) > ROWS else ""
            yield f"curves_{features}{part}", curves_figure(results, features, depths[at : at + ROWS])
        made = {
            f"usage_{features}": usage_figure(results, seen.uses, features),
            f"early_exit_{features}": exits_figure(results, seen.uses, features),
        }
        for model in results.models:
            name = f"parameters_{model.lower()}_{features}"
            made[name] = norms_figure(results, seen.uses, features, model)
        yield from ((name, figure) for name, figure in made.items() if figure is not None)


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return layers.csv: every layer of every network, means over seeds."""
    seen = _Seen(frame, context)
    if not seen.uses:
        return {}
    return {"layers.csv": layers_csv(seen.uses.values())}


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report, from its tables and the stored PNG of each of its figures."""
    seen = _Seen(frame, context)
    pictures = {name: Picture(path, _caption(name)) for name, path in stored.items()}
    return Page(
        _title(seen),
        QUESTION,
        tuple(_facts(seen)),
        tuple(_sections(seen, pictures, made)),
        tuple(_sources(frame)),
        tuple(_warnings(seen)),
        {
            table.label: CellTrials({"Model": "Model", "Features": "Features", "Layers": "Layers"})
            for table in made.values()
        },
        {
            name: {
                "Model": each.network.model,
                "Features": each.network.features,
                "Layers": each.network.layers,
            }
            for each in seen.results.trained.values()
            for name in each.ids
        },
    )


def _title(seen: _Seen) -> str:
    """Return the study, its networks, and the settings of this page if the study has several pages."""
    layers = seen.results.layers
    span = f"{layers[0]} to {layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
    named = seen.frame.attrs.get("apart", {}).items()
    apart = ", ".join(f"{LABELS[key].lower()} {_value_text(key, value)}" for key, value in named)
    of = f"{pluralize(len(seen.results.trained), 'network')} of {span} layers"
    return f"{seen.frame['study'].iloc[0]}{f', {apart}' if apart else ''}: {of}"


def _value_text(key: str, value: str) -> str:
    """Format a setting that may be missing; missing digits mean all of them."""
    return value if value not in ("nan", "None", "<NA>") else "all" if key == "digits" else "none"


def _caption(name: str) -> str:
    kind, *rest = name.split("_")
    models = {model.lower(): model for model in MODEL_NAMES.values()}
    return _CAPTIONS[kind].format(model=models.get(rest[0] if rest else "", ""))


def _facts(seen: _Seen) -> Iterator[Fact]:
    results = seen.results
    done, total = results.statuses.get("done", 0), sum(results.statuses.values())
    yield Fact("Trials", f"{done:,} of {total:,}", f"{pluralize(len(results.seeds), 'seed')} per network")
    for model in results.models:
        deepest = [each for width in results.features for each in claims.measured(results, model, width)]
        if deepest:
            yield _deepest(max(deepest, key=lambda each: (each.network.layers, each.network.features)))
    for features in results.features:
        first = claims.chance_from(results, "MLP", features)
        if claims.measured(results, "MLP", features):
            value = "at no depth" if first is None else f"from {first} layers on"
            yield Fact(f"MLP of width {features} at chance", value, "validation accuracy beside ZeroR")
    yield Fact("ZeroR", results.zero_r_shown, "always answering the majority class of the validation split")


def _deepest(each: Trained) -> Fact:
    found = glonet_tables.with_interval(each.test)
    if found is None:
        raise ValueError(f"{each.network.label} has no trial")
    interval = f"95 % interval {found.low:.2f} to {found.high:.2f}, " if each.n > 1 else ""
    layers, features = each.network.layers, each.network.features
    detail = f"test accuracy with {layers} layers of {features}; {interval}n = {each.n}"
    return Fact(f"Deepest {each.network.model}", f"{found.value:.2f} %", detail)


def _sections(seen: _Seen, pictures: Mapping[str, Picture], made: Mapping[str, Table]) -> Iterator[Section]:
    results, uses = seen.results, seen.uses

    def shown(*starts: str) -> tuple[Picture, ...]:
        return tuple(picture for name, picture in pictures.items() if name.startswith(starts))

    listed = partial(pick, made)
    # every table has the settings that distinguish networks
    shared = shared_settings(trials_of(seen.frame), ("arch", "family"))
    sentences = (*claims.resilience(results), *claims.chance(results))
    sentences += (f"All trials share: {shared}.",) if shared else ()
    yield Section("Depth and accuracy", sentences, shown("accuracy"), listed("accuracy", "paired"))
    if "claims" in made:
        yield Section(
            "Comparison with the earlier document", tuple(claims.degradation(results)), (), listed("claims")
        )
    learning = tuple(claims.speed_of_learning(results))
    yield Section("Learning", learning, shown("curves"), listed("convergence"))
    yield Section(
        "What layers are used for",
        tuple(claims.usage(results, uses, beside=seen.claimed))
        or ("Not measured: the trials ran without the probe layer_usage.",),
        shown("usage"),
        listed("usage"),
    )
    yield Section("Parameters through training", (), shown("parameters"))
    yield Section(
        "Early exits",
        tuple(claims.exits(results, uses)) or ("No early exit was observed in a network that learned.",),
        shown("early"),
    )
    sentences = (glonet_tables.SPEED,) if seen.seconds else ("The records have no sidecars with times.",)
    yield Section("Training speed", sentences, shown("speed"), listed("speed"))


def _warnings(seen: _Seen) -> Iterator[str]:
    results, rows = seen.results, trials_of(seen.frame)
    if absent := wording.absence(rows):
        yield f"{absent}. Every table and figure says what it lacks; means are of the trials that are there."
    trained = glonet_tables.network_order(results)
    lost = [each.network.label for each in trained if "diverged" in each.statuses]
    if lost:
        yield f"Diverged, and so without any accuracy: {'; '.join(lost)}."
    if unequal := wording.unequal_lengths(results.epochs, "epochs"):
        yield unequal
    few = len(results.seeds)
    if few < 3:
        yield f"There {'is' if few == 1 else 'are'} {pluralize(few, 'seed')}: differences may be chance."
    if devices := wording.several_devices(rows):
        yield f"{devices}, and their speeds cannot be compared."


def _sources(frame: pd.DataFrame) -> Iterator[str]:
    yield wording.origin(trials_of(frame), "every epoch of every trial, layers.csv every layer")
    yield (
        "A validation split is kept apart from the training images; the test split is looked at once, with "
        "the final weights. Intervals are 95 % t intervals of the mean over seeds; paired tests are "
        "sign-flip permutation tests, corrected over the table they stand in."
    )
