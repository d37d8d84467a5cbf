"""The report of the ablation study: one page of tables, figures and text, all from one frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import budget_note, split_arms
from psa.analysis.published import Reference
from psa.analysis.regimes import REGIMES
from psa.analysis.stats import LEAST_N
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.ablation.architectures import by_size, has_budgets
from psa.reports.ablation.arms.page import arm_figures, arm_page, holds_arms
from psa.reports.ablation.arms.tables import COMPARED_ARMS, arm_tables
from psa.reports.ablation.cells import COMPARED_CELLS, Cells, cells_of
from psa.reports.ablation.curves import curve_choice
from psa.reports.ablation.effects import (
    aggregate_table,
    identical_arms_sentences,
    paired_table,
    shape_findings,
    shape_table,
)
from psa.reports.ablation.figures import figure_set
from psa.reports.ablation.markdown import (
    convergence_markdown,
    lkg_growth_markdown,
    lkg_markdown,
    summary_markdown,
    trials_markdown,
)
from psa.reports.ablation.numbers import best_mean, regimes
from psa.reports.ablation.published import (
    WITHIN,
    comparable_reference,
    published_agreement,
    published_comparison,
    published_difference,
    regime_table,
)
from psa.reports.ablation.tables import accuracy_table, architecture_table, final_test_table
from psa.reports.contract import ReportContext
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.paired import paired_trials
from psa.reports.rendering.tables import Table
from psa.reports.rendering.trials import CellTrials
from psa.specs.training import MODES
from psa.specs.training.settings import ABLATIVE

_POOLED: Final = ("aggregate", "effects_by_shape")  # tables whose cells are of many architectures
QUESTION: Final = (
    "Persistent Stochastic Ablation keeps the last known good state (LKG) of a network, damages one random "
    "neuron of a copy before every epoch, and keeps the copy only if validation accuracy improved. Does that "
    "help, and which networks?"
)
_PUBLISHED: Final = {"weight_decay": 1e-4, "dropout": 0.1}  # the values of arms that are modes
_CAPTIONS: Final = {
    "design_space": "Every architecture by its depth and width, both on logarithmic axes.",
    "baseline_performance": "Mean validation bounty without ablation.",
    "instability": "The largest standard deviation of any mode over the trials of a cell.",
    "winning_strategy": "The mode with the highest mean bounty.",
    "parameter_matching": "Parameters, and which architectures meet the budget of a network with one layer.",
    "regimes": "The regime of each architecture by the rules of the study.",
    "accuracy_dots": "Mean bounty of every mode, a row per architecture.",
    "heatmaps": "Every architecture and mode: mean, difference from mode none, spread over seeds.",
    "aggregate": "Each mode over the architectures with all trials: interquartile mean, and how probably it "
    "beats mode none, a tie counted as half.",
    "plot_convergence": "Accuracy of the LKG over the meta-loops: panels per architecture, one per mode.",
    "plot_late_breakthroughs": "A late rise of the LKG of an architecture's best trial, or its largest rise.",
    "published_agreement": "Published means beside ours, cell by cell.",
    "published_differences": "Our mean minus the published one, cell by cell.",
}


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables of a frame of one family by name. Raises UserError for several experiments."""
    if holds_arms(frame):
        return arm_tables(frame)
    order, reference = context.order, comparable_reference(frame, context.reference)
    budgets = (order, context.asymmetric) if has_budgets(cells_of(frame).family) else ((), ())
    found = {
        "architectures": architecture_table(frame, order=budgets[0], asymmetric=budgets[1]),
        "accuracies": accuracy_table(frame, order=order, modes=cells_of(frame).modes),
        "test_accuracies": final_test_table(frame, order=order, modes=cells_of(frame).modes),
        "paired": paired_table(frame, order=order),
        "aggregate": aggregate_table(frame),
        "effects_by_shape": shape_table(frame),
        "regimes": regime_table(frame, reference, order=order),
    }
    if reference is not None:
        found["published"] = published_comparison(frame, reference, order=order)
    return {
        name: _by_size(table) for name, table in found.items() if table.rows or name != "effects_by_shape"
    }


def _by_size(table: Table) -> Table:
    """Return a table of architectures with its rows sorted by depth, then width, as figures have them."""
    if table.columns[0].name != "Architecture":
        return table
    place = {arch: at for at, arch in enumerate(by_size({str(row[0]) for row in table.rows}))}
    return replace(table, rows=tuple(sorted(table.rows, key=lambda row: place[str(row[0])])))


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures of a frame of one family by name."""
    if holds_arms(frame):
        yield from arm_figures(frame)
        return
    cells = cells_of(frame)
    archs = [arch for arch in context.order if arch in cells.archs]
    archs += [arch for arch in cells.archs if arch not in archs]
    ablative = [mode for mode in ABLATIVE if mode in cells.modes and "none" in cells.modes]
    yield from figure_set.overview(frame, archs, context.asymmetric, ablative, context.order)
    yield from figure_set.comparison(frame, comparable_reference(frame, context.reference))
    shown, why = curve_choice(cells)
    yield from figure_set.convergence(frame, shown, why=why)
    yield from figure_set.breakthroughs(frame)


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield pages for each family of each study: of the modes, one for each set of other settings in which
    trials differ, and likewise those that compare further arms, such as modes of plugins.
    """
    for (study, family), found in frame.groupby(["study", "family"], observed=True, sort=False):
        rows = split_arms(found, _PUBLISHED)
        modes = rows[rows["arm"].astype(str).isin(MODES)]  # a mode of a plugin is an arm, too
        yield from wording.pages_of(f"{study}_{family}", modes, COMPARED_CELLS) if len(modes) else ()
        if len(modes) < len(rows):
            yield from wording.pages_of(f"{study}_{family}_arms", rows, COMPARED_ARMS, by_length=False)


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return the Markdown files of the published format, by file name; none for further arms."""
    if holds_arms(frame):
        return {}
    family = cells_of(frame).family
    found = {
        f"psa_{family}_summary.md": summary_markdown(frame),
        f"psa_{family}_trials.md": trials_markdown(frame),
        f"psa_{family}_trials_convergence.md": convergence_markdown(frame),
        f"psa_{family}_trials_lkg.md": lkg_markdown(frame),
        f"psa_{family}_trials_lkg_growth.md": lkg_growth_markdown(frame),
    }
    return {name: text.encode() for name, text in found.items()}


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report of a frame of one family, from its tables and the stored PNG of each figure."""
    if holds_arms(frame):
        return arm_page(frame, made, stored, tuple(_sources(frame)), tuple(_warnings(frame)))
    cells = cells_of(frame)
    pictures = {name: Picture(path, _caption(name)) for name, path in stored.items()}
    study = str(frame["study"].iloc[0])
    return Page(
        f"{study}{wording.apart_text(frame)}: {cells.family}, {pluralize(len(cells.archs), 'architecture')}",
        QUESTION,
        tuple(_facts(frame, cells, context)),
        tuple(_sections(pictures, made, frame, cells, context.reference)),
        tuple(_sources(frame)),
        tuple(_warnings(frame)),
        _cells(made),
    )


def _cells(made: Mapping[str, Table]) -> dict[str, CellTrials]:
    """Return the trials of the cells of each table: rows are architectures, columns or cells are modes."""
    rows = {"Architecture": "arch", "Mode": "mode"}
    modes = {mode.capitalize(): {"mode": mode} for mode in MODES}
    found = {made[name].label: CellTrials(rows, modes) for name in made if name not in _POOLED}
    compared = made["paired"]
    return found | {compared.label: paired_trials(compared, rows, lambda row: {"mode": "none"})}


def _caption(name: str) -> str:
    if name.startswith("ablation_effects_"):
        return f"Mode {name.removeprefix('ablation_effects_')} minus mode none, seed by seed."
    return _CAPTIONS[name]


def _facts(frame: pd.DataFrame, cells: Cells, context: ReportContext) -> Iterator[Fact]:
    rows, reference = trials_of(frame), comparable_reference(frame, context.reference)
    done = int((rows["status"] == "done").sum())
    expected = "" if done == len(rows) else "expected "
    counted = f"{cells.expected} {expected}per architecture and mode"
    if listed := len(set(context.order) & set(cells.archs)):
        counted += f"; {listed} of the {len(context.order)} listed architectures"
    yield Fact("Trials", f"{done:,} of {len(rows):,}", counted)
    if (best := best_mean(cells, rows)) is not None:
        yield Fact("Best mean bounty", *best)
    if cells.any_finished:
        yield Fact(
            "ZeroR", f"{cells.zero_r:.2f} %", "always predicting the majority class of the validation split"
        )
    counts = Counter(regimes(cells, cells.archs).values())
    shown = [f"{counts[regime]} {regime}" for regime in REGIMES if counts[regime]]
    decided = len(cells.archs) - counts["unknown"]
    yield Fact("Regimes", f"{decided} of {len(cells.archs)} decided", ", ".join(shown))
    if reference is not None:
        near = published_agreement(cells, reference)
        trained = f"of networks that train {near.near_trained:,} of {near.trained:,}"
        yield Fact(
            "Compared with the published results",
            f"{near.near:,} of {near.compared:,}",
            f"cells within {WITHIN:g} points of the mean; {trained}",
        )


def _sections(
    pictures: Mapping[str, Picture],
    made: Mapping[str, Table],
    frame: pd.DataFrame,
    cells: Cells,
    reference: Reference | None,
) -> Iterator[Section]:
    shown = partial(pick, pictures)
    effects = tuple(name for name in pictures if name.startswith("ablation_effects_"))
    yield Section("The grid", (), shown("design_space", "parameter_matching"), (made["architectures"],))
    yield Section(
        "How accurate each network became",
        ("The bounty of a trial is the best validation accuracy that its LKG reached.",),
        shown("accuracy_dots", "baseline_performance", "instability"),
        (made["accuracies"], made["test_accuracies"]),
    )
    yield Section(
        "What ablation does",
        (
            "The arms of a seed share initial weights and batches, so they are compared in pairs.",
            *identical_arms_sentences(frame, published="published" in made),
            *_of_residual(cells),
            *(shape_findings(made["effects_by_shape"]) if "effects_by_shape" in made else ()),
        ),
        shown("heatmaps", *effects, "winning_strategy", "aggregate"),
        pick(made, "effects_by_shape", "paired", "aggregate"),
    )
    yield Section("Regimes", (), shown("regimes"), (made["regimes"],))
    yield Section("Learning curves", (), shown("plot_convergence", "plot_late_breakthroughs"))
    compared = "Compared with the published results"
    if "published" in made:
        figures = shown("published_agreement", "published_differences")
        yield Section(compared, (), figures, (made["published"],))
    elif reference is not None and (why := published_difference(frame, reference)):
        yield Section(compared, (why,))


def _of_residual(cells: Cells) -> Iterator[str]:
    if cells.family == "resmlp" and "hidden" in cells.modes:
        yield (
            "In these residual networks the skip connection still carries the output of a neuron that mode "
            "hidden ablates, and the neurons of the first layer are never chosen. The effects of this mode "
            "on plain networks are therefore not comparable."
        )


def _warnings(frame: pd.DataFrame) -> Iterator[str]:
    rows = trials_of(frame)
    if absent := wording.absence(rows):
        yield f"{absent}. Each table and figure lists what is missing; means use finished trials only."
    if unequal := wording.other_lengths(frame) or budget_note(rows):
        yield unequal
    counts = rows[rows["status"] == "done"].groupby(["arm", "arch"], observed=True).size()
    if len(counts) and not holds_arms(frame) and (few := wording.few_trials(int(counts.max()))):
        yield few
    if devices := wording.several_devices(rows):
        yield f"{devices}."


def _sources(frame: pd.DataFrame) -> Iterator[str]:
    yield wording.origin(trials_of(frame), "every loop of every trial")
    yield (
        "Intervals are 95 % t intervals of the mean over seeds unless a note says otherwise, those of "
        f"percentages restricted to 0 to 100; intervals, tests and regimes need at least {LEAST_N} trials. "
        "Paired tests are sign-flip permutation tests, corrected by Holm's method over the table they stand "
        "in, those of winners by Bonferroni's method over all pairs of modes of their architecture."
    )
