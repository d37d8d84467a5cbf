"""The report of the ablation study: one page of tables, figures and text, all from one frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.published import Reference
from psa.analysis.regimes import REGIMES, regime_of
from psa.analysis.stats import summary
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.ablation.cells import Cells, cells_of
from psa.reports.ablation.effects import aggregate_table, arm_tables, paired_table
from psa.reports.ablation.figures import figure_set
from psa.reports.ablation.figures.design_space import design_space_figure
from psa.reports.ablation.markdown import (
    convergence_markdown,
    lkg_growth_markdown,
    summary_markdown,
    trials_markdown,
)
from psa.reports.ablation.published import WITHIN, published_agreement, published_comparison, regime_table
from psa.reports.ablation.tables import accuracy_table, architecture_table
from psa.reports.contract import ReportContext
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.tables import Table

QUESTION: Final = (
    "Persistent Stochastic Ablation keeps the last known good state of a network, damages one random neuron "
    "of a copy before every epoch, and keeps the copy only if validation accuracy improved. Does that help, "
    "and which networks?"
)
_CAPTIONS: Final = {
    "design_space": "Every architecture by its depth and width, both on logarithmic axes.",
    "baseline_performance": "Mean validation bounty without ablation.",
    "instability": "The largest standard deviation of any mode over the trials of a cell.",
    "winning_strategy": "The mode with the highest mean bounty.",
    "parameter_matching": "Parameters, and which architectures meet the budget of a network with one layer.",
    "regimes": "The regime of each architecture by the rules of the study.",
    "aggregate": "Each mode over all architectures: interquartile mean, and how probably it beats mode none.",
    "plot_convergence": "Accuracy of the LKG over the meta-loops: a panel per architecture, a line per mode.",
    "plot_late_breakthroughs": "Where the LKG of the best trials rose most.",
    "published_agreement": "Published means beside ours, cell by cell.",
    "published_differences": "Our mean minus the published one, cell by cell.",
}


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables of a frame of one family by name. Raises UserError for several experiments."""
    if _holds_arms(frame):
        return arm_tables(frame)
    order = context.order
    found = {
        "architectures": architecture_table(frame, order=order, asymmetric=context.asymmetric),
        "accuracies": accuracy_table(frame, order=order),
        "paired": paired_table(frame, order=order),
        "aggregate": aggregate_table(frame),
        "regimes": regime_table(frame, context.reference, order=order),
    }
    if context.reference is not None:
        found["published"] = published_comparison(frame, context.reference, order=order)
    return found


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures of a frame of one family by name; none of one that compares arms."""
    if _holds_arms(frame):
        return
    cells = cells_of(frame)
    archs = [arch for arch in context.order if arch in cells.archs]
    archs += [arch for arch in cells.archs if arch not in archs]
    ablative = [
        mode for mode in ("full", "hidden", "output") if mode in cells.modes and "none" in cells.modes
    ]
    yield "design_space", design_space_figure(archs)
    yield from figure_set.maps(frame, archs, context.asymmetric, ablative, context.order)
    yield from figure_set.comparison(frame, context.reference)
    yield from figure_set.convergence(frame, _telling(cells))
    yield from figure_set.breakthroughs(frame)


def _telling(cells: Cells) -> list[str]:
    """Return the architectures whose curves are shown: those of the study if present, else the most accurate
    one and the one with the widest spread.
    """
    study: list[str] = [arch for arch in ("1*1024", "18*18") if arch in cells.archs]
    if study:
        return study
    numbers = {arch: cells.numbers(arch).values() for arch in cells.archs if cells.numbers(arch)}
    if not numbers:
        return list(cells.archs[:1])
    best = max(numbers, key=lambda arch: max(cell.mean for cell in numbers[arch]))
    widest = max(numbers, key=lambda arch: max(cell.sd for cell in numbers[arch]))
    return list(dict.fromkeys((best, widest)))


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each family of networks of each study: of its modes, and one more of further arms."""
    for (study, family), rows in frame.groupby(["study", "family"], observed=True, sort=False):
        published = rows[rows["arm"].astype(str) == rows["mode"].astype(str)]
        if len(published):
            yield f"{study}_{family}", published
        if len(published) < len(rows):
            yield f"{study}_{family}_arms", rows


def _holds_arms(frame: pd.DataFrame) -> bool:
    """Return True for rows with other arms than those of the modes."""
    return bool((frame["arm"].astype(str) != frame["mode"].astype(str)).any())


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return the Markdown files of the published format, by file name; none for further arms."""
    if _holds_arms(frame):
        return {}
    family = cells_of(frame).family
    found = {
        f"psa_{family}_summary.md": summary_markdown(frame),
        f"psa_{family}_trials.md": trials_markdown(frame),
        f"psa_{family}_trials_convergence.md": convergence_markdown(frame),
        f"psa_{family}_trials_lkg_growth.md": lkg_growth_markdown(frame),
    }
    return {name: text.encode() for name, text in found.items()}


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report of a frame of one family, from its tables and the stored PNG of each figure."""
    if _holds_arms(frame):
        return _page_of_arms(frame, made)
    cells = cells_of(frame)
    pictures = {name: Picture(path, _caption(name)) for name, path in stored.items()}
    study = str(frame["study"].iloc[0])
    return Page(
        f"{study}: {cells.family}, {pluralize(len(cells.archs), 'architecture')}",
        QUESTION,
        tuple(_facts(frame, cells, context.reference)),
        tuple(_sections(pictures, made, frame)),
        tuple(_sources(frame)),
        tuple(_warnings(frame)),
    )


def _page_of_arms(frame: pd.DataFrame, made: Mapping[str, Table]) -> Page:
    """Return the page that compares the arms of a study, a section for each length of its trials."""
    rows = trials_of(frame)
    family, lengths = rows["family"].iloc[0], dict.fromkeys(name.rpartition("_")[2] for name in made)
    done = int((rows["status"] == "done").sum())
    counts = f"{rows['arm'].nunique()} arms of {pluralize(rows['arch'].nunique(), 'architecture')}"
    sections = [
        Section(
            f"After {loops} loops", (), (), tuple(made[name] for name in made if name.endswith(f"_{loops}"))
        )
        for loops in lengths
    ]
    return Page(
        f"{rows['study'].iloc[0]}: {family}, arms",
        "Does any of these settings help the ratchet, and where?",
        (Fact("Trials", f"{done:,} of {len(rows):,}", counts),),
        tuple(sections),
        tuple(_sources(frame)),
        tuple(_warnings(frame)),
    )


def _caption(name: str) -> str:
    if name.startswith("ablation_effects_"):
        return f"Mode {name.removeprefix('ablation_effects_')} minus mode none, seed by seed."
    return _CAPTIONS[name]


def _facts(frame: pd.DataFrame, cells: Cells, reference: Reference | None) -> Iterator[Fact]:
    rows = trials_of(frame)
    done = int((rows["status"] == "done").sum())
    yield Fact("Trials", f"{done:,} of {len(rows):,}", f"{cells.expected} per architecture and mode")
    means = {(arch, mode): cell.mean for arch in cells.archs for mode, cell in cells.numbers(arch).items()}
    if means:
        arch, mode = max(means, key=lambda cell: means[cell])
        best = summary(cells.cell(arch, mode).bounties)
        interval = f"95 % interval {best.low:.2f} to {best.high:.2f}, n = {best.n}" if best.n > 1 else "n = 1"
        yield Fact("Best mean bounty", f"{best.mean:.2f} %", f"{arch}, mode {mode}; {interval}")
    yield Fact(
        "ZeroR", f"{cells.zero_r:.2f} %", "always answering the majority class of the validation split"
    )
    counts = Counter(regime_of(cells.numbers(arch), cells.zero_r) for arch in cells.archs)
    shown = [f"{counts[regime]} {regime}" for regime in REGIMES if counts[regime]]
    decided = len(cells.archs) - counts["unknown"]
    yield Fact("Regimes", f"{decided} of {len(cells.archs)} decided", ", ".join(shown))
    if reference is not None:
        near = published_agreement(cells, reference)
        detail = f"cells within {WITHIN:g} points of the mean; of networks that train {near.training}"
        yield Fact("Compared with the published results", str(near), detail)


def _sections(
    pictures: Mapping[str, Picture], made: Mapping[str, Table], frame: pd.DataFrame
) -> Iterator[Section]:
    shown = partial(pick, pictures)
    effects = tuple(name for name in pictures if name.startswith("ablation_effects_"))
    yield Section("The grid", (), shown("design_space", "parameter_matching"), (made["architectures"],))
    yield Section(
        "How accurate each network became",
        ("The bounty of a trial is the best validation accuracy that its LKG reached.",),
        shown("baseline_performance", "instability"),
        (made["accuracies"],),
    )
    yield Section(
        "What ablation does",
        (
            "The arms of a seed share initial weights and batches, so they are compared in pairs.",
            *_equal(frame),
        ),
        shown(*effects, "winning_strategy", "aggregate"),
        (made["paired"], made["aggregate"]),
    )
    yield Section("Regimes", (), shown("regimes"), (made["regimes"],))
    yield Section("Learning curves", (), shown("plot_convergence", "plot_late_breakthroughs"))
    if "published" in made:
        yield Section(
            "Compared with the published results",
            (),
            shown("published_agreement", "published_differences"),
            (made["published"],),
        )


def identical_arms(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return for each mode but none: the number of pairs whose loops all equal those of mode none, and the
    number of pairs. An arm whose pairs are all equal duplicates mode none.
    """
    loops = frame[frame["loop"].notna()]
    keys = ["arch", "seed", "loop"]
    columns = ["accuracy", "loss", "train_loss"]
    base = loops[loops["mode"] == "none"].set_index(keys)[columns]
    found = {}
    for mode in loops["mode"].cat.remove_unused_categories().cat.categories:
        other = loops[loops["mode"] == mode].set_index(keys)[columns]
        both = other.merge(base, left_index=True, right_index=True, suffixes=("", " of none"))
        if mode == "none" or both.empty:
            continue
        same = pd.concat([both[name].eq(both[f"{name} of none"]) for name in columns], axis=1).all(axis=1)
        pairs = same.groupby(["arch", "seed"], observed=True).all()
        found[str(mode)] = (int(pairs.sum()), len(pairs))
    return found


def _why_equal(frame: pd.DataFrame, mode: str) -> str:
    """Return a reason why mode decay equals none: 1 - lr * weight_decay may be 1 in single precision."""
    rows = frame[frame["mode"] == mode].dropna(subset=["lr", "weight_decay"])
    if mode != "decay" or not len(rows):
        return ""
    share = float((rows["lr"] * rows["weight_decay"]).max())
    if np.float32(1 - share) != 1:
        return ""
    return (
        f" Weight decay shrinks a weight by the factor 1 − {share:.0e} in each step, which is 1 in single "
        "precision."
    )


def _equal(frame: pd.DataFrame) -> Iterator[str]:
    for mode, (same, pairs) in identical_arms(frame).items():
        if same == pairs:
            yield (
                f"Mode {mode} equals mode none to the last bit in every number of all {pairs:,} pairs: as "
                "set here it is the same experiment under another name, and published differences between "
                f"the two are differences between seeds.{_why_equal(frame, mode)}"
            )
        elif same:
            yield f"In {same:,} of {pairs:,} pairs mode {mode} equals mode none in every loop."


def _warnings(frame: pd.DataFrame) -> Iterator[str]:
    rows = trials_of(frame)
    if absent := wording.absence(rows):
        yield f"{absent}. Every table and figure says what it lacks; means are of the trials that are there."
    whole = rows[(rows["status"] == "done") & ~rows["stopped_early"].fillna(value=False).astype(bool)]
    if unequal := wording.unequal_lengths(sorted(set(whole["loops"].dropna())), "meta-loops"):
        yield unequal
    if devices := wording.several_devices(rows):
        yield f"{devices}."


def _sources(frame: pd.DataFrame) -> Iterator[str]:
    yield wording.origin(trials_of(frame), "every loop of every trial")
    yield (
        "Intervals are 95 % t intervals of the mean over seeds unless a note says otherwise; paired tests "
        "are sign-flip permutation tests, corrected by Holm's method over the table they stand in."
    )
