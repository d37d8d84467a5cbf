"""The dot plot of a few architectures: mean bounty of each mode with its interval, and single trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from psa.analysis.stats import LEAST_N, present
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import notes_of, regimes
from psa.reports.plotting.panels import draw_legend, panel
from psa.reports.plotting.scales import linear_ticks, number_text, within_reach
from psa.reports.plotting.style import (
    GREY,
    GRID,
    MODE_LOOKS,
    REGIME_NAMES,
    WIDTH,
    footnote,
    mode_handle,
    plot_style,
)
from psa.reports.wording import zero_r_note

_STEP: Final = 0.075  # inches between modes
_APART: Final = 0.12  # inches between architectures
_LETTER: Final = 0.068  # inches of a letter of a row's name
_RIGHT: Final = 1.55  # inches for the names of regimes
_BARS: Final = "Bars: 95 % t intervals of the mean, within 0 and 100 %"
_HOW: Final = (
    "Large marks: means over seeds; small marks: trials. {bars} Rows are sorted by depth, then width; in "
    "brackets the parameters. Right: the regime by the study's rules. "
)


def plot_dots(ax: Axes, cells: Cells, archs: Sequence[str]) -> Axes:
    """Draw a band per architecture with a line per mode; the y axis is in inches from the top."""
    modes = cells.modes
    band = _STEP * len(modes) + _APART
    for row, arch in enumerate(archs):
        if row % 2 == 0:
            ax.axhspan(row * band, (row + 1) * band, color="#F6F6F6", linewidth=0, zorder=0)
        for at, mode in enumerate(modes):
            _plot_cell(ax, cells, arch, mode, row * band + _APART / 2 + _STEP * (at + 0.5))
    ax.set_ylim(len(archs) * band, 0)
    ax.yaxis.set_major_locator(FixedLocator([(row + 0.5) * band for row in range(len(archs))]))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", **GRID)
    return ax


def _plot_cell(ax: Axes, cells: Cells, arch: str, mode: str, height: float) -> None:
    look, cell = MODE_LOOKS[mode], cells.cell(arch, mode)
    values = present(cell.bounties)
    if not len(values):
        return
    ax.plot(
        values, np.full(len(values), height), look.marker, color=look.colour, markersize=2, alpha=0.45,
        markeredgewidth=0, gid=f"trials {mode}",
    )  # fmt: skip
    found = cell.summary
    if found.n >= LEAST_N:
        ends = np.clip([found.low, found.high], 0, 100)
        ax.plot(ends, [height, height], color=look.colour, linewidth=1.1, zorder=2, gid=f"interval {mode}")
    ax.plot(
        found.mean, height, look.marker, color=look.colour, markersize=4.4, markeredgecolor="white",
        markeredgewidth=0.4, zorder=3, gid=f"mean {mode}",
    )  # fmt: skip


def dot_figure(cells: Cells, archs: Sequence[str]) -> Figure:
    """Return the dot plot of these architectures, smallest depth first."""
    rows = [arch for arch in by_size(archs) if arch in cells.archs]
    names = [f"{arch} ({cells.parameters[arch]:,})" for arch in rows]
    with plot_style():
        left = 0.2 + _LETTER * max(map(len, names))
        high = (_STEP * len(cells.modes) + _APART) * len(rows)
        figure, ax = panel("Accuracy of every mode", WIDTH - left - _RIGHT, high, left, 0.65, 0.38)
        plot_dots(ax, cells, rows)
        ax.set_yticklabels(names, fontsize=7)
        shown = _set_range(ax, cells, rows)
        found = regimes(cells, rows)
        for row, arch in enumerate(rows):
            ax.annotate(
                REGIME_NAMES[found[arch]], (1, ax.get_yticks()[row]), (6, 0),
                xycoords=("axes fraction", "data"), textcoords="offset points", va="center", fontsize=6,
                color=GREY,
            )  # fmt: skip
        handles = [mode_handle(mode) for mode in cells.modes]
        for handle in handles:
            handle.set_linestyle("")
        draw_legend(figure, handles, left, 0.25, 6, handletextpad=0.2, columnspacing=1.5)
        footnote(
            figure,
            [*notes_of(cells), _HOW.format(bars=_bars(cells, rows)) + zero_r_note(cells.zero_r, shown=shown)],
        )
    return figure


def _bars(cells: Cells, archs: Sequence[str]) -> str:
    """Return what the bars are, and from how many seeds on if some mean has none."""
    counts = [n for arch in archs for mode in cells.modes if (n := cells.cell(arch, mode).summary.n)]
    if all(n < LEAST_N for n in counts):
        return f"No intervals: they need at least {LEAST_N} seeds."
    return _BARS + (f", from {LEAST_N} seeds on." if any(n < LEAST_N for n in counts) else ".")


def _set_range(ax: Axes, cells: Cells, archs: Sequence[str]) -> bool:
    """Set the x axis to the range of the trials and intervals, and draw ZeroR if it is within reach.

    Return whether it is.
    """
    values = list(_ends(cells, archs))
    low, high = min(values, default=cells.zero_r), max(values, default=cells.zero_r)
    if shown := within_reach(cells.zero_r, low, high):
        low, high = min(low, cells.zero_r), max(high, cells.zero_r)
        ax.axvline(cells.zero_r, color=GREY, linewidth=0.8, linestyle=(0, (6, 3)), zorder=1, gid="zero_r")
    room = 0.03 * max(high - low, 0.5)
    ax.set_xlim(low - room, high + room)
    ax.xaxis.set_major_locator(FixedLocator(linear_ticks(low, high)))
    ax.xaxis.set_major_formatter(FuncFormatter(number_text))
    ax.set_xlabel("bounty: validation accuracy of the LKG (%)", labelpad=2)
    return shown


def _ends(cells: Cells, archs: Sequence[str]) -> Iterator[float]:
    """Yield every trial, and the ends of every interval, in percent."""
    for cell in (cells.cell(arch, mode) for arch in archs for mode in cells.modes):
        yield from present(cell.bounties).tolist()
        if cell.summary.n >= LEAST_N:
            yield from np.clip([cell.summary.low, cell.summary.high], 0, 100).tolist()
