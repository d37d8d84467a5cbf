"""The modes over all architectures at once: interquartile means and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from psa.reports.figure_numbers import Bounties, named
from psa.reports.figures import GREY, MODE_LOOKS, add_axes, empty, new_figure, note, style, title
from psa.stats import Values, interquartile_mean, probability_of_improvement, stratified_interval
from psa.trial import MODES

RESAMPLES: Final = 1_000
_SEED: Final = 0


@dataclass(frozen=True)
class Estimate:
    """A statistic of a mode with its 95 % stratified bootstrap interval."""

    mode: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Aggregate:
    """The modes compared over the architectures in which none of their seeds is missing."""

    archs: tuple[str, ...]
    seeds: int
    means: tuple[Estimate, ...]
    improvements: tuple[Estimate, ...]


def aggregate(bounties: Bounties, against: str = "none", resamples: int = RESAMPLES) -> Aggregate:
    """IQM of the bounty per mode, and how probably a run of it beats one of `against`.

    Modes without any trial are left out; then architectures that lack a seed of a mode, since a mean over
    other architectures would be another quantity.
    """
    there = ~np.isnan(bounties.correct)
    modes = [mode for at, mode in enumerate(MODES) if there[:, at].any()]
    columns = [MODES.index(mode) for mode in modes]
    whole: NDArray[np.bool_] = np.all(there[:, columns], axis=(1, 2))
    archs = tuple(arch for arch, complete in zip(bounties.archs, list(whole), strict=True) if complete)
    seeds = len(bounties.seeds)
    if not archs or seeds < 2:
        return Aggregate(archs, seeds, (), ())
    scores = {
        mode: 100 * bounties.correct[whole, at].T / bounties.samples
        for mode, at in zip(modes, columns, strict=True)
    }
    means = tuple(_estimate(mode, [scores[mode]], resamples) for mode in modes)
    improvements = tuple(
        _estimate(mode, [scores[mode], scores[against]], resamples)
        for mode in modes
        if against in scores and mode != against
    )
    return Aggregate(archs, seeds, means, improvements)


def _estimate(mode: str, scores: Sequence[Values], resamples: int) -> Estimate:
    statistic = interquartile_mean if len(scores) == 1 else probability_of_improvement
    low, high = stratified_interval(scores, statistic, _SEED, resamples=resamples)
    return Estimate(mode, statistic(*scores), low, high)


def plot_estimates(ax: Axes, estimates: Sequence[Estimate], digits: int) -> Axes:
    """A bar from low to high per mode, the estimate as its mark and as a number."""
    ax.use_sticky_edges = False  # room on both sides of the bars
    ax.xaxis.set_major_locator(MaxNLocator(5))
    for row, each in enumerate(estimates):
        look = MODE_LOOKS[each.mode]
        ax.barh(row, each.high - each.low, 0.55, each.low, color=look.colour, alpha=0.3, linewidth=0)
        ax.plot(
            each.value, row, marker=look.marker, color=look.colour, markersize=5.5,
            markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
        ax.annotate(
            f"{each.value:.{digits}f}", (1, row), (3, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=6.5,
        )  # fmt: skip
    ax.set_yticks(range(len(estimates)), [each.mode for each in estimates])
    ax.set_ylim(len(estimates) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", color="#E8E8E8", linewidth=0.5)
    return ax


def aggregate_figure(found: Aggregate, bounties: Bounties, against: str = "none") -> Figure:
    """Interval plots side by side."""
    with style():
        figure = new_figure(2.5)
        title(figure, "All architectures together")
        left, right = (add_axes(figure, at, 0.88, 2.45, 1.25) for at in (0.6, 4.15))
        if found.means:
            plot_estimates(left, found.means, 2)
            left.set_xlabel("interquartile mean of the bounty (%)")
        else:
            empty(left, "no architecture with\nevery seed of every mode")
        if found.improvements:
            plot_estimates(right, found.improvements, 3)
            right.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
            right.set_xlabel(f"probability that a run beats one of mode {against}")
        else:
            empty(right, f"nothing to compare with {against}")
        how = (
            f"Over {named(len(found.archs), 'architecture')} with all {found.seeds} seeds of every mode. "
            f"Bars: 95 % percentile intervals, {RESAMPLES:,} bootstrap samples stratified by architecture."
        )
        note(figure, [*bounties.notes, how])
    return figure
