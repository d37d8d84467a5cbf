"""The figures of the ablation study by name, each drawn from some of the rows of one frame."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.published import Reference
from psa.core.errors import UserError
from psa.core.formatting import join_names
from psa.reports.ablation.architectures import has_budgets, sizes
from psa.reports.ablation.cells import Cells, cells_of
from psa.reports.ablation.curves import jumps_of, latest_jumps, panel_of
from psa.reports.ablation.effects import aggregate, aggregate_title, cells_taken
from psa.reports.ablation.figures.aggregate import aggregate_figure
from psa.reports.ablation.figures.breakthroughs import breakthrough_figure
from psa.reports.ablation.figures.curves import convergence_figure
from psa.reports.ablation.figures.design_space import design_space_figure
from psa.reports.ablation.figures.dots import dot_figure
from psa.reports.ablation.figures.heatmaps import heat_map_figure
from psa.reports.ablation.figures.maps import baseline_map, effects_map, instability_map, regimes_map
from psa.reports.ablation.figures.published import agreement_figure, beside, difference_figure
from psa.reports.ablation.figures.size_map import matching_map
from psa.reports.ablation.figures.winner_map import strategy_map
from psa.reports.ablation.numbers import WinnerBy

Named = Iterator[tuple[str, Figure]]
MANY: Final = 20  # architectures from which the maps of the design space are drawn
_OF_MEANS: Final = ("baseline_performance", "parameter_matching")  # maps that need no LEAST_N trials
BREAKTHROUGHS: Final = ("18*18", "10*10", "17*17", "4*2")  # those of the study


def chosen(frame: pd.DataFrame, archs: Sequence[str]) -> pd.DataFrame:
    """Return the rows of these architectures. Raises UserError if there are none."""
    rows = frame[frame["arch"].isin(archs)]
    if not len(rows):
        there = join_names(sorted(map(str, frame["arch"].unique())), 6)
        raise UserError("none of the requested architectures has a trial", f"There are trials of {there}")
    return rows


def maps(
    frame: pd.DataFrame,
    archs: Sequence[str],
    asymmetric: Collection[str],
    effects: Sequence[str] = ("full",),
    order: Sequence[str] = (),
    winner: WinnerBy = "mean",
) -> Named:
    """Yield the six maps of these architectures (one of effects per mode in `effects`), with or without
    trials. order: all architectures of the study. winner: decided by the mean bounty of a mode, or by its
    maximum. Raises UserError if none has a trial.
    """
    rows = trials_of(chosen(frame, archs))
    cells = cells_of(rows)
    yield "baseline_performance", baseline_map(cells, archs)
    for mode in effects:
        yield f"ablation_effects_{mode}", effects_map(cells, archs, mode)
    yield "instability", instability_map(cells, archs)
    yield "winning_strategy", strategy_map(cells, archs, by=winner)
    if (order or asymmetric) and has_budgets(cells.family):  # else nothing is known but the parameters
        yield "parameter_matching", matching_map(archs, sizes(cells), asymmetric, order)
    yield "regimes", regimes_map(cells, archs)


def heat_maps(frame: pd.DataFrame, archs: Sequence[str]) -> Named:
    """Yield the heat maps of these architectures: architecture x mode. Raises UserError without a trial."""
    cells = cells_of(trials_of(chosen(frame, archs)))
    yield "heatmaps", heat_map_figure(cells, [arch for arch in archs if arch in cells.archs])


def overview(
    frame: pd.DataFrame,
    archs: Sequence[str],
    asymmetric: Collection[str],
    effects: Sequence[str] = ("full",),
    order: Sequence[str] = (),
) -> Named:
    """Yield the figures that suit the number of architectures: of a few a dot plot and heat maps, of many
    the maps of the design space, too, which would be almost empty otherwise. Without a finished trial there
    is nothing to draw but the design space.
    """
    cells = cells_of(trials_of(chosen(frame, archs)))
    finished = cells.any_finished
    if len(archs) < MANY:
        if finished:
            yield "accuracy_dots", dot_figure(cells, archs)
            yield from heat_maps(frame, archs)
        return
    yield "design_space", design_space_figure(archs)
    if not finished:
        return
    yield from heat_maps(frame, archs)
    judged = any(map(cells.judged, archs))
    for name, drawn in maps(frame, archs, asymmetric, effects, order):
        if judged or name in _OF_MEANS:
            yield name, drawn


def convergence(
    frame: pd.DataFrame, targets: Sequence[str], log: bool = False, current: bool = False, why: str = ""
) -> Named:
    """Yield one figure with a block of panels per target, none if no target has a meta-loop.

    current: with the accuracy of each loop, too. why: a note on the choice of the targets.
    Raises UserError for a target without a trial.
    """
    for target in targets:
        chosen_target(frame, target)
    rows = chosen(frame, targets)
    cells = cells_of(rows)
    panels = [panel_of(rows, cells, target) for target in targets]
    if any(panel.curves for panel in panels):
        yield "plot_convergence", convergence_figure(panels, cells, log, current, why)


def chosen_target(frame: pd.DataFrame, target: str) -> None:
    """Raise UserError if a requested architecture has no trial."""
    if target not in set(frame["arch"]):
        there = join_names(sorted(map(str, frame["arch"].unique())), 6)
        raise UserError(
            f"--targets must name architectures with trials, got {target}", f"There are trials of {there}"
        )


def breakthroughs(frame: pd.DataFrame, targets: Sequence[str] = ()) -> Named:
    """Yield one figure with a panel per target, none without a trial of two loops.

    Without targets, show the study's four if all of them have trials, otherwise those whose best trial rose
    most in the second half of its loops.
    """
    for target in targets:
        chosen_target(frame, target)
    cells = cells_of(frame)
    published = cells.family == "simplemlp" and all(map(cells.numbers, BREAKTHROUGHS))
    jumps = jumps_of(frame, cells, targets or BREAKTHROUGHS) if targets or published else []
    jumps = jumps or latest_jumps(frame, cells)
    if jumps:
        shown = [jump.arch for jump in jumps]
        why = "" if targets else _chosen_jumps(shown, cells, published=published)
        counted = cells_of(chosen(frame, shown))
        yield "plot_late_breakthroughs", breakthrough_figure(jumps, counted, why)


def _chosen_jumps(archs: Sequence[str], cells: Cells, *, published: bool) -> str:
    """Return why these architectures are shown and no others; nothing if there are no others."""
    if published and set(archs) == set(BREAKTHROUGHS):
        return f"Shown: the {len(BREAKTHROUGHS)} architectures of the published figure."
    above = sum(map(cells.above_zero_r, cells.archs))
    if len(archs) < above:
        return (
            f"Shown: {len(archs):,} of the {above:,} architectures with a trial above ZeroR, those whose "
            "best trial rose most, late rises first."
        )
    return "" if above == len(cells.archs) else "Shown: the architectures with a trial above ZeroR."


def comparison(frame: pd.DataFrame, published: Reference | None) -> Named:
    """Yield the modes over all complete architectures and, if given, published cells against ours."""
    cells = cells_of(frame)
    found = aggregate(cells)
    if found.means:
        yield "aggregate", aggregate_figure(found, cells_taken(frame, found), aggregate_title(found, cells))
    both = pd.DataFrame() if published is None else beside(published, cells)
    if len(both):
        yield "published_agreement", agreement_figure(both, cells)
        yield "published_differences", difference_figure(both, cells)
