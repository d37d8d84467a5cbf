"""The figure over all architectures: the modes' interquartile means and probabilities of improvement."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from psa.analysis.stats import LEAST_N, Interval
from psa.core.formatting import pluralize
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.effects import BOOTSTRAP_RESAMPLES, Aggregate
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.style import GREY, GRID, MODE_LOOKS, footnote, plot_style


def plot_estimates(ax: Axes, estimates: Mapping[str, Interval], digits: int) -> Axes:
    """Draw a bar from low to high per mode, and the estimate as a mark and a number."""
    ax.use_sticky_edges = False  # room on both sides of the bars
    ax.xaxis.set_major_locator(MaxNLocator(5))
    for row, (mode, each) in enumerate(estimates.items()):
        look = MODE_LOOKS[mode]
        ax.barh(row, each.high - each.low, 0.55, each.low, color=look.colour, alpha=0.3, linewidth=0)
        ax.plot(
            each.value, row, marker=look.marker, color=look.colour, markersize=5.5,
            markeredgecolor="white", markeredgewidth=0.4, zorder=3,
        )  # fmt: skip
        ax.annotate(
            f"{each.value:.{digits}f}", (1, row), (3, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=6.5,
        )  # fmt: skip
    ax.set_yticks(range(len(estimates)), list(estimates))
    ax.set_ylim(len(estimates) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", **GRID)
    return ax


def aggregate_figure(found: Aggregate, cells: Cells, title: str, against: str = "none") -> Figure:
    """Return a figure of the interval plots side by side; a single plot without a mode to compare with.

    cells: those of the architectures that are taken.

    Raises ValueError without an architecture that has every seed of every mode.
    """
    if not found.means:
        raise ValueError("an aggregate must have a complete architecture")
    count = 1 + bool(found.improvements)
    with plot_style():
        figure, axes = panel_grid(
            title, count, count, 1.25,
            left=0.6, bottom=0.5, top=0.37, gap=(1.1, 0), width=2.45,
        )  # fmt: skip
        plot_estimates(axes[0], found.means, 2)
        axes[0].set_xlabel("interquartile mean of the bounty (%)")
        if found.improvements:
            plot_estimates(axes[1], found.improvements, 3)
            axes[1].axvline(0.5, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
            axes[1].set_xlabel(f"probability that a run beats one of mode {against}")
        bars = (
            f"Bars: 95 % percentile intervals, {BOOTSTRAP_RESAMPLES:,} bootstrap samples stratified by "
            "architecture, each arm drawn on its own."
        )
        how = (
            f"Over {pluralize(len(found.archs), 'architecture')} with all {found.trials} seeds of every "
            "mode shown. "
            f"{bars if found.trials >= LEAST_N else f'No intervals: they need at least {LEAST_N} seeds.'}"
        )
        footnote(figure, [*notes_of(cells), how])
    return figure
