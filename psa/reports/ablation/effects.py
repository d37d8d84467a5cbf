"""The modes compared: over all architectures (interquartile means, probabilities of improvement), and each
ablative mode with mode none, on each architecture and over those of a shape.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from psa.analysis.aggregate_stats import (
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)
from psa.analysis.pooling import identical_arms
from psa.analysis.stats import ALPHA, LEAST_N, Interval, Paired, Values, paired, present
from psa.core.formatting import pluralize
from psa.reports.ablation.architectures import SHAPES, spots
from psa.reports.ablation.cells import Cells, cells_of, mode_order
from psa.reports.ablation.numbers import cells_note
from psa.reports.rendering.paired import paired_cells, paired_columns, paired_test_note, with_marks
from psa.reports.rendering.tables import Cell, Column, Table, value_of
from psa.specs.training.settings import ABLATIVE

BOOTSTRAP_RESAMPLES: Final = 1_000
_NONE: Final = "none"
_ONE_PAGE: Final = 40  # rows


@dataclass(frozen=True)
class Aggregate:
    """The modes compared over the architectures without missing trials of which any trial beats ZeroR.

    trials: number of trials per mode and architecture; means: interquartile mean (IQM) of the bounty in
    percent; improvements: probability that a trial of a mode beats one of mode `against`, on an architecture
    drawn at random. The intervals are 95 % stratified bootstrap intervals, NaN below LEAST_N trials per mode.
    """

    archs: tuple[str, ...]
    trials: int
    means: dict[str, Interval]
    improvements: dict[str, Interval]


def aggregate(
    cells: Cells, against: str = "none", seed: int = 0, resamples: int = BOOTSTRAP_RESAMPLES
) -> Aggregate:
    """Compare the modes that have trials; `seed` fixes the draws of the bootstrap.

    Architectures with missing trials are excluded, since a mean over others would be another quantity.
    So are those that learn nothing: their bounties are those of constant predictions.
    """
    return _aggregate(cells, against, seed, resamples)


@functools.lru_cache(maxsize=1)  # a table and a figure show the same
def _aggregate(cells: Cells, against: str, seed: int, resamples: int) -> Aggregate:
    archs = tuple(filter(cells.above_zero_r, cells.complete()))
    if not archs:
        return Aggregate((), cells.expected, {}, {})
    scores = {mode: _scores(cells, archs, mode) for mode in cells.modes}
    draws = (seed, resamples)
    means = {mode: _interval(interquartile_mean, [scores[mode]], *draws) for mode in scores}
    improvements = {
        mode: _interval(probability_of_improvement, [scores[mode], scores[against]], *draws)
        for mode in scores
        if against in scores and mode != against
    }
    return Aggregate(archs, cells.expected, means, improvements)


def _scores(cells: Cells, archs: Sequence[str], mode: str) -> Values:
    """Return the bounties [trials, architectures]."""
    return np.stack([present(cells.cell(arch, mode).bounties) for arch in archs], axis=1)


def _interval(
    statistic: Callable[..., ArrayLike], scores: Sequence[Values], seed: int, resamples: int
) -> Interval:
    value = float(np.asarray(statistic(*scores)))
    if len(scores[0]) < LEAST_N:
        return Interval(value, float("nan"), float("nan"))
    low, high = stratified_interval(scores, statistic, seed, resamples=resamples)
    return Interval(value, min(low, value), max(high, value))  # percentiles of resamples may exclude it


def aggregate_table(
    frame: pd.DataFrame,
    *,
    caption: str | None = None,
    label: str = "tab:aggregate",
    seed: int = 0,
) -> Table:
    """Return the interquartile mean of each mode over all trials and architectures, and the probability that
    one of its trials beats one of mode none on an architecture drawn at random, with stratified bootstrap
    intervals (95 %, seeded by `seed`). Architectures with missing trials, or without a trial above ZeroR, are
    excluded; a mode without a requested trial has no row. caption: without one, how many architectures are
    taken.
    """
    cells = cells_of(frame)
    found = aggregate(cells, "none", seed)
    rows: list[tuple[Cell, ...]] = [
        (mode, found.means.get(mode), found.improvements.get(mode)) for mode in cells.modes
    ]
    columns = (
        Column("Mode"),
        Column("Interquartile mean (%)", "interval"),
        Column("P(better than none)", "interval", 3),
    )
    note = f"{_taken(found, len(cells.archs))} {cells_note(cells_taken(frame, found))}"
    return Table(caption or aggregate_title(found, cells), label, columns, tuple(rows), note)


def aggregate_title(found: Aggregate, cells: Cells) -> str:
    """Return a title that says how many of the architectures are taken."""
    taken, count = len(found.archs), len(cells.archs)
    return f"{f'{taken:,} of ' * (0 < taken < count)}{pluralize(count, 'architecture')} together"


def cells_taken(frame: pd.DataFrame, found: Aggregate) -> Cells:
    """Return the cells of the architectures that are taken, or all where none is."""
    return cells_of(frame[frame["arch"].isin(found.archs)] if found.archs else frame)


def _taken(found: Aggregate, count: int) -> str:
    """Return a note on the architectures that are taken, of `count`, and on the intervals."""
    if not found.archs:
        return (
            "No architecture has all trials of every mode shown and one above ZeroR, so there is nothing to "
            "take the mean of."
        )
    how = (
        "Intervals: 95% stratified bootstrap, each arm drawn on its own."
        if found.trials >= LEAST_N
        else f"No intervals: they need at least {LEAST_N} seeds."
    )
    taken = (
        f"Over {len(found.archs):,} of {count:,} architectures, those with all trials of every mode shown "
        "and at least one above ZeroR."
    )
    return f"{taken} {how} P: the probability that a trial is better, plus half that of a tie."


def paired_table(
    frame: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    caption: str = "Best validation accuracy of ablative modes minus mode none, by seed (points)",
    label: str = "tab:paired",
) -> Table:
    """Return a table of each ablative mode minus none, per architecture of a frame of one family: pairs, mean
    difference with its 95 % interval, p of the sign-flip test, p corrected over the whole table (Holm:
    family-wise error; FDR: false discovery rate), Hedges' g. Trials that are not paired by seed are not
    compared, and a mode without a requested trial has no row.
    """
    cells = cells_of(frame)
    modes = [mode for mode in ABLATIVE if mode in cells.modes]
    places = [(arch, mode) for arch in mode_order(cells.archs, order) for mode in modes]
    found = [_compared(cells, *place) for place in places]
    rows = [(*place, *each) for place, each in zip(places, paired_cells(found), strict=True)]
    columns = (Column("Architecture"), Column("Mode"), *paired_columns())
    tests = f"{paired_test_note(found)}{_untested(found)}" if cells.paired else _UNPAIRED
    note = f"{tests} {cells_note(cells)}".strip()
    return Table(caption, label, columns, tuple(rows), note, len(rows) > _ONE_PAGE)


def shape_table(
    frame: pd.DataFrame,
    *,
    caption: str = "Best validation accuracy of ablative modes minus mode none, over architectures (points)",
    label: str = "tab:effects_by_shape",
) -> Table:
    """Return a table of each ablative mode minus none over the architectures of each shape (see SHAPES), of a
    frame of one family: of each architecture the mean over its pairs of seeds, then the mean difference with
    its 95 % interval, p of the sign-flip test and corrections over the table as in paired_table. An
    architecture takes part if it has LEAST_N pairs and a trial above ZeroR. Empty where no shape has LEAST_N
    architectures.
    """
    cells = cells_of(frame)
    groups: dict[tuple[str, str], list[float]] = {}
    for arch, spot in spots(tuple(filter(cells.above_zero_r, cells.archs))).items():
        for mode in ABLATIVE:
            found = _compared(cells, arch, mode)
            if found.n >= LEAST_N:
                groups.setdefault((spot.shape, mode), []).append(found.difference)
    order = {shape: at for at, shape in enumerate(SHAPES)}
    places = sorted(groups, key=lambda place: (order[place[0]], ABLATIVE.index(place[1])))
    means = [paired(groups[place], [0.0] * len(groups[place])) for place in places]
    if max((each.n for each in means), default=0) < LEAST_N:
        places, means = [], []
    rows = [(*place, *with_marks(each)) for place, each in zip(places, paired_cells(means), strict=True)]
    columns = (
        Column("Shape", breaks=4), Column("Mode"),
        *paired_columns("Difference (points)", pairs="Architectures"),
    )  # fmt: skip
    note = (
        f"Of each architecture with a trial above ZeroR and {LEAST_N} or more pairs of seeds the mean "
        "difference; interval and p over architectures. Bold: p < "
        f"{ALPHA:g} after Holm's correction. {paired_test_note(means, 'architectures')}"
    )
    return Table(caption, label, columns, tuple(rows), note)


def shape_findings(table: Table) -> Iterator[str]:
    """Yield a sentence on the modes that differ significantly from none over the architectures of a shape."""
    names = [column.name for column in table.columns]
    parts, tested = [], 0
    for row in table.rows:
        cells = dict(zip(names, map(value_of, row), strict=True))
        p, found = cells["p (Holm)"], cells["Difference (points)"]
        if not isinstance(p, float) or not isinstance(found, Interval) or math.isnan(p):
            continue
        tested += 1
        if p < ALPHA:
            shape = str(cells["Shape"]).partition(":")[0]
            parts.append(
                f"mode {cells['Mode']} over {cells['Architectures']} {shape} architectures by "
                f"{found.value:+.2f} points ({found.low:+.2f} to {found.high:+.2f})"
            )
    if parts:
        yield f"Significantly different from mode none after Holm's correction: {'; '.join(parts)}."
    elif tested:
        yield "Over the architectures of a shape, no mode differs significantly from mode none."


_UNPAIRED: Final = "Nothing is compared: trials with the same number do not share a seed."


def _both(cells: Cells, arch: str, mode: str) -> tuple[Values, Values]:
    """Return the counts of a mode and of mode none; empty if the trials are not paired by seed."""
    arm, none = (cells.cell(arch, each).correct for each in (mode, _NONE))
    return (arm, none) if cells.paired else (arm[:0], none[:0])


def _compared(cells: Cells, arch: str, mode: str) -> Paired:
    """Compare a mode with mode none, in percentage points; without p where no trial beats ZeroR, since two
    numbers of constant predictions say nothing about ablation.
    """
    samples, found = cells.samples, paired(*_both(cells, arch, mode))
    return replace(
        found,
        p=found.p if cells.above_zero_r(arch) else math.nan,
        difference=100 * found.difference / samples,
        low=100 * found.low / samples,
        high=100 * found.high / samples,
    )


def _untested(found: Sequence[Paired]) -> str:
    """Return a note, after a space, on comparisons that have enough pairs but no test; "" without any."""
    count = sum(each.n >= LEAST_N and math.isnan(each.p) for each in found)
    return (
        f" {pluralize(count, 'comparison')} of architectures without any trial above ZeroR: not tested."
        if count
        else ""
    )


def identical_arms_sentences(frame: pd.DataFrame, *, published: bool) -> Iterator[str]:
    """Yield sentences on modes with the results of mode none. published: published results are shown, too."""
    differ = " Published differences between the two are differences between seeds." * published
    for mode, (same, pairs) in identical_arms(frame).items():
        if same == pairs:
            yield (
                f"Mode {mode} has the numbers of mode none in all {pairs:,} pairs: as set here it is the "
                f"same experiment under another name.{differ}{_why_equal(frame, mode)}"
            )
        elif same:
            yield f"In {same:,} of {pairs:,} pairs mode {mode} has the numbers of mode none in every loop."


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
        "precision. psa may therefore train one trial of a pair and store its results for both."
    )
