"""The modes compared over all architectures: interquartile means and probabilities of improvement."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from psa.analysis.aggregate_stats import (
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)
from psa.analysis.stats import LEAST_N, Interval, Values, present
from psa.reports.ablation.cells import Cells, cells_of
from psa.reports.ablation.numbers import cells_note
from psa.reports.rendering.tables import Cell, Column, Table

BOOTSTRAP_RESAMPLES: Final = 1_000


@dataclass(frozen=True)
class Aggregate:
    """The modes compared over the architectures without missing trials.

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
    """
    return _aggregate(cells, against, seed, resamples)


@functools.lru_cache(maxsize=1)  # a table and a figure show the same
def _aggregate(cells: Cells, against: str, seed: int, resamples: int) -> Aggregate:
    archs = cells.complete()
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
    intervals (95 %, seeded by `seed`). Architectures with missing trials are excluded; a mode without a
    requested trial has no row. caption: without one, how many architectures are taken.
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
    return (
        f"{taken:,} of {count:,} architectures together"
        if 0 < taken < count
        else "All architectures together"
    )


def cells_taken(frame: pd.DataFrame, found: Aggregate) -> Cells:
    """Return the cells of the architectures that are taken, or all where none is."""
    return cells_of(frame[frame["arch"].isin(found.archs)] if found.archs else frame)


def _taken(found: Aggregate, count: int) -> str:
    """Return a note on the architectures that are taken, of `count`, and on the intervals."""
    if not found.archs:
        return "No architecture has all trials of every mode shown, so there is nothing to take the mean of."
    how = (
        "Intervals: 95% stratified bootstrap, each arm drawn on its own."
        if found.trials >= LEAST_N
        else f"No intervals: they need at least {LEAST_N} seeds."
    )
    taken = (
        f"Over {len(found.archs):,} of {count:,} architectures, those with all trials of every mode shown."
    )
    return f"{taken} {how} P: the probability that a trial is better, plus half that of a tie."
