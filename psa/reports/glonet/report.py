"""The report of the depth study: the effect of depth on GloNet, and the use of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import budget_note
from psa.analysis.stats import Values, share_summary
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.contract import ReportContext
from psa.reports.glonet import claims, document
from psa.reports.glonet import tables as glonet_tables
from psa.reports.glonet.fallen_trials import fallen_trials_text
from psa.reports.glonet.figures.accuracy import accuracy_figure
from psa.reports.glonet.figures.curves import ROWS, curves_figure, trained_depths
from psa.reports.glonet.figures.layers import exits_figure, norms_figure, usage_figure
from psa.reports.glonet.layer_use import Use, layers_csv, uses_of
from psa.reports.glonet.networks import (
    COMPARED_NETWORKS,
    MODEL_NAMES,
    GlonetResults,
    Network,
    Trained,
    glonet_results,
)
from psa.reports.glonet.training_accuracy import training_accuracies_of, training_accuracy_csv
from psa.reports.glonet.usage_table import usage_table
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.paired import paired_trials
from psa.reports.rendering.tables import Table
from psa.reports.rendering.trials import CellTrials
from psa.reports.wording import apart_text, pages_of, shared_settings

QUESTION: Final = (
    "GloNet's head reads the sum of all hidden layers, so that every layer is one step away from the answer. "
    "Does a deep network then learn as well as a shallow one, does a plain MLP not, and are only the first "
    "layers used?"
)
_CAPTIONS: Final = {
    "accuracy": "Test accuracy over depth, for each width.",
    "curves": "Losses and accuracies over the epochs at {width}: a row per depth.",
    "usage": "Share of each hidden layer in the mean output at {width}: before and after training, by depth.",
    "early": "Accuracy at {width} when the head reads only the first k hidden layers: a panel per depth.",
    "parameters": "L1 norm of each layer's parameters in {model} of {width}: through training, by depth.",
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
    def lacking(self) -> list[str]:
        """The conditions that these trials lack to be compared with the claims of the earlier document."""
        return document.claims_missing(trials_of(self.frame), self.results)

    @cached_property
    def uses(self) -> dict[Network, Use]:
        return uses_of(self.results, self.context.observed)

    @cached_property
    def training(self) -> dict[Network, Values]:
        return training_accuracies_of(self.results, self.context.observed)


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each study and, if its trials differ in settings other than model, depth, width and
    seed, for each of those settings; a trial that is only known to be missing is on a page of its study.
    """
    for study, rows in frame.groupby("study", observed=True, sort=False):
        yield from pages_of(str(study), rows, COMPARED_NETWORKS)


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables by name. Raises UserError if the frame holds several experiments."""
    seen = _Seen(frame, context)
    results = seen.results
    found = {
        "accuracy": glonet_tables.accuracy_table(results, seen.training),
        "paired": glonet_tables.paired_table(results),
        "convergence": glonet_tables.convergence_table(results),
    }
    if not seen.lacking:
        found["claims"] = glonet_tables.claims_table(results)
    if seen.uses:
        found["usage"] = usage_table(results, seen.uses)
    return found


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures by name."""
    seen = _Seen(frame, context)
    results = seen.results
    yield "accuracy_by_depth", accuracy_figure(results)
    for features in results.features:
        depths = trained_depths(results, features)
        for at in range(0, len(depths), ROWS):
            part = f"_{at // ROWS + 1}" if len(depths) > ROWS else ""
            shown = depths[at : at + ROWS]
            yield f"curves_{features}{part}", curves_figure(results, features, shown, seen.training)
        made = {
            f"usage_{features}": usage_figure(results, seen.uses, features),
            f"early_exit_{features}": exits_figure(results, seen.uses, features),
        }
        for model in results.models:
            name = f"parameters_{model.lower()}_{features}"
            made[name] = norms_figure(results, seen.uses, features, model)
        yield from ((name, figure) for name, figure in made.items() if figure is not None)


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return layers.csv: every layer of every network, means over seeds; training_accuracy.csv: every epoch
    of every trial. Each is left out where no trial was observed.
    """
    seen = _Seen(frame, context)
    found = {"layers.csv": layers_csv(seen.uses.values())} if seen.uses else {}
    if seen.training:
        found["training_accuracy.csv"] = training_accuracy_csv(seen.results, seen.training)
    return found


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
        tuple(_sources(seen)),
        tuple(_warnings(seen)),
        {table.label: _cell_trials(name, table) for name, table in made.items()},
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


def _cell_trials(name: str, table: Table) -> CellTrials:
    """Return the trials of the cells of a table; the paired one has a model minus its baseline."""
    rows = {"Model": "Model", "Features": "Features", "Layers": "Layers"}
    if name == "paired":
        return paired_trials(table, rows, lambda row: {"Model": glonet_tables.BASELINE})
    return CellTrials(rows)


def _title(seen: _Seen) -> str:
    """Return the study, its networks, and the settings of this page if the study has several pages."""
    layers = seen.results.layers
    span = f"{layers[0]} to {layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
    apart = apart_text(seen.frame)
    of = f"{pluralize(len(seen.results.trained), 'network')} of {span} layers"
    return f"{seen.frame['study'].iloc[0]}{apart}: {of}"


def _caption(name: str) -> str:
    kind, *rest = name.split("_")
    models = {model.lower(): model for model in MODEL_NAMES.values()}
    numbers = [part for part in rest if part.isdecimal()]
    width = f"width {numbers[0]}" if numbers else ""
    part = f" (part {numbers[1]})" if len(numbers) > 1 else ""
    return _CAPTIONS[kind].format(model=models.get(rest[0] if rest else "", ""), width=width + part)


def _facts(seen: _Seen) -> Iterator[Fact]:
    results = seen.results
    done, total = results.statuses.get("done", 0), sum(results.statuses.values())
    yield Fact("Trials", f"{done:,} of {total:,}", f"{pluralize(len(results.seeds), 'seed')} per network")
    for model in results.models:
        deepest = [each for width in results.features for each in claims.measured(results, model, width)]
        if deepest:
            yield _deepest(max(deepest, key=lambda each: (each.network.layers, each.network.features)))
    for features in results.features:
        if claims.measured(results, "MLP", features):
            yield Fact(f"MLP of width {features} at chance", *claims.chance_fact(results, "MLP", features))
    yield Fact("ZeroR", results.zero_r_shown, "always predicting the majority class of the validation split")


def _deepest(each: Trained) -> Fact:
    found, network = share_summary(each.test), each.network
    detail = (
        f"test accuracy with {network.layers} layers of {network.features}; {wording.interval_text(found)}"
    )
    return Fact(f"Deepest {network.model}", f"{found.mean:.2f} %", detail)


def _sections(seen: _Seen, pictures: Mapping[str, Picture], made: Mapping[str, Table]) -> Iterator[Section]:
    results, uses = seen.results, seen.uses

    def shown(*starts: str) -> tuple[Picture, ...]:
        return tuple(picture for name, picture in pictures.items() if name.startswith(starts))

    listed = partial(pick, made)
    # every table has the settings that distinguish networks
    shared = shared_settings(trials_of(seen.frame), ("arch", "family"))
    rivals = [model for model in results.models if model != "GloNet"]
    chance = [text for model in rivals for text in claims.chance(results, model)]
    sentences = (*claims.resilience(results), *chance, *fallen_trials_text(results))
    sentences += (f"All trials share: {shared}.",) if shared else ()
    yield Section("Depth and accuracy", sentences, shown("accuracy"), listed("accuracy", "paired"))
    heading = "Comparison with the earlier document"
    if "claims" in made:
        yield Section(heading, tuple(document.degradation(results)), (), listed("claims"))
    else:
        yield Section(
            heading,
            (
                "Not compared: the accuracies that an earlier document claims are of MNIST with all ten "
                "digits "
                f"and images, width {glonet_tables.CLAIMED_FEATURES}, after {glonet_tables.CLAIMED_EPOCHS}; "
                f"these trials lack {', '.join(seen.lacking)}.",
            ),
        )
    learning = tuple(claims.speed_of_learning(results))
    yield Section("Learning", learning, shown("curves"), listed("convergence"))
    yield Section(
        "What layers are used for",
        tuple(claims.usage(results, uses, beside=not seen.lacking))
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


def _warnings(seen: _Seen) -> Iterator[str]:
    results, rows = seen.results, trials_of(seen.frame)
    if absent := wording.absence(rows):
        yield f"{absent}. Each table and figure lists what is missing; means use finished trials only."
    trained = glonet_tables.network_order(results)
    lost = [each.network.label for each in trained if "diverged" in each.statuses]
    if lost:
        yield f"Diverged, and so without any accuracy: {'; '.join(lost)}."
    if unequal := wording.other_lengths(seen.frame) or budget_note(rows, "epochs"):
        yield unequal
    if few := wording.few_trials(max((each.n for each in trained), default=0)):
        yield few
    if devices := wording.several_devices(rows):
        yield f"{devices}."


def _sources(seen: _Seen) -> Iterator[str]:
    layers = " layers.csv in that folder holds every layer of every network, means over all of its trials."
    yield wording.origin(trials_of(seen.frame), "every epoch of every trial") + layers * bool(seen.uses)
    yield (
        "A validation split is kept apart from the training images; the test split is evaluated once, with "
        "the final weights. Intervals are 95 % t intervals of the mean over seeds, restricted to 0 to 100; "
        "paired tests are sign-flip permutation tests, corrected over the table they stand in."
    )
