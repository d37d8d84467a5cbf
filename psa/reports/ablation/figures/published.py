"""Figures of published means against ours, cell by cell: agreement and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from psa.analysis.published import Reference
from psa.analysis.stats import Summary, welch
from psa.core.formatting import pluralize
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.scales import number_text
from psa.reports.plotting.style import GREY, MODE_LOOKS, WIDTH, footnote, mode_handle, plot_style
from psa.specs.training import MODES

_COLUMNS: Final = (
    "mean_published", "mean_ours", "half_published", "half_ours", "difference", "half",
)  # fmt: skip
_BAND: Final = 2.0  # points that the study's own criterion of success allows
_TRAINED: Final = 86.0  # percent; most cells that train are above it
_MANY: Final = 40  # rows; more are set smaller


def beside(published: Reference, cells: Cells) -> pd.DataFrame:
    """Return the cells of which both have trials, in the order of the published numbers: arch, mode,
    mean_published, mean_ours with half_published and half_ours (of the 95 % t intervals); difference: ours -
    published, with half of its interval by Welch; NaN where an n is below two.
    """
    pairs = (
        (arch, mode, there, here)
        for (arch, mode), there in published.cells.items()
        if (here := cells.cell(arch, mode).summary).n
    )
    rows = [(arch, mode, *_sides(there, here)) for arch, mode, there, here in pairs]
    return pd.DataFrame(rows, columns=["arch", "mode", *_COLUMNS])


def _sides(there: Summary, here: Summary) -> tuple[float, ...]:
    apart = welch(here, there)
    return (
        there.mean, here.mean, there.high - there.mean, here.high - here.mean, apart.value,
        apart.high - apart.value,
    )  # fmt: skip


def plot_agreement(ax: Axes, both: pd.DataFrame, ends: tuple[float, float]) -> Axes:
    """Draw published means (x) and ours (y) with their intervals, the diagonal and the band around it.

    ends: of both axes. A cell beyond them is left out: its bars would begin at an edge, with no mark.
    """
    means = both[["mean_published", "mean_ours"]]
    both = both[(means.ge(ends[0]) & means.le(ends[1])).all(axis=1)]
    ax.fill_between(
        ends, (ends[0] - _BAND, ends[1] - _BAND), (ends[0] + _BAND, ends[1] + _BAND), color="#EBEBEB",
        linewidth=0, zorder=0,
    )  # fmt: skip
    ax.plot(ends, ends, color=GREY, linewidth=0.6, zorder=1)
    for mode, look in MODE_LOOKS.items():
        rows = both[both["mode"] == mode]
        ax.errorbar(
            rows["mean_published"], rows["mean_ours"], xerr=rows["half_published"], yerr=rows["half_ours"],
            linestyle="", marker=look.marker, color=look.colour, markersize=3.6, markeredgecolor="white",
            markeredgewidth=0.3, elinewidth=0.4, ecolor=(look.colour, 0.6), zorder=3,
        )  # fmt: skip
    ax.set(xlim=ends, ylim=ends, xlabel="published mean bounty (%)", ylabel="our mean bounty (%)")
    ax.set_aspect("equal")
    return ax


def agreement_figure(both: pd.DataFrame, cells: Cells) -> Figure:
    """Return a figure of all cells and, if some train and others do not, of those that train, enlarged."""
    ranges = [_range(both)]
    trained = (both[["mean_published", "mean_ours"]] > _TRAINED).all(axis=1)
    if trained.any() and not trained.all():
        ranges.append(_range(both[trained]))
    with plot_style():
        left = 0.5 if len(ranges) > 1 else (WIDTH - 3.0) / 2  # one panel stands in the middle
        figure, axes = panel_grid(
            "Published and our means", len(ranges), len(ranges), 3.0,
            left=left, bottom=0.75, top=0.55, gap=(0.55, 0), width=3.0,
        )  # fmt: skip
        for ax, ends in zip(axes, ranges, strict=True):
            name = "all cells" if ends is ranges[0] else f"enlarged: {ends[0]:.1f} to {ends[1]:.1f} %"
            ax.set_title(name, loc="left", fontsize=8)
            plot_agreement(ax, both, ends)
        _mode_legend(figure, both, left, 0.34)
        footnote(figure, _notes(both, cells, "Bars: 95 % t intervals of the means. "))
    return figure


def _range(both: pd.DataFrame) -> tuple[float, float]:
    """Return the range of all means and their intervals, with a margin of a twentieth."""
    means = both[["mean_published", "mean_ours"]].to_numpy(dtype=np.float64)
    halves = np.nan_to_num(both[["half_published", "half_ours"]].to_numpy(dtype=np.float64))
    low, high = float((means - halves).min()), float((means + halves).max())
    room = max(0.05 * (high - low), 0.5)
    return max(-0.5, low - room), min(100.5, high + room)


def _mode_legend(figure: Figure, both: pd.DataFrame, left: float, up: float) -> None:
    handles = [mode_handle(mode) for mode in MODES if (both["mode"] == mode).any()]
    for handle in handles:
        handle.set_linestyle("")
    draw_legend(figure, handles, left, up, 6, handletextpad=0.2, columnspacing=1.5)


def _notes(both: pd.DataFrame, cells: Cells, how: str) -> list[str]:
    within = int((both["difference"].abs() <= _BAND).sum())
    apart, judged = int((both["difference"].abs() > both["half"]).sum()), int(both["half"].notna().sum())
    return [
        *notes_of(cells),
        f"{how}Grey: ±{_BAND:g} percentage points; {within:,} of {pluralize(len(both), 'cell')} within it. "
        f"The 95 % interval of the difference (Welch) excludes 0 in {apart:,} of "
        f"{pluralize(judged, 'cell')} that {'has' if judged == 1 else 'have'} one, not corrected for their "
        "number.",
    ]


def plot_differences(ax: Axes, both: pd.DataFrame, mode: str, archs: Sequence[str]) -> Axes:
    """Draw ours minus published, one row per architecture; linear within the band, logarithmic beyond."""
    look = MODE_LOOKS[mode]
    rows = both[both["mode"] == mode]
    ax.axvspan(-_BAND, _BAND, color="#EBEBEB", linewidth=0, zorder=0)
    ax.axvline(0, color=GREY, linewidth=0.6, zorder=1)
    ax.set_xscale("symlog", linthresh=_BAND, linscale=1.2)
    ax.errorbar(
        rows["difference"], [archs.index(arch) for arch in rows["arch"]], xerr=rows["half"], linestyle="",
        marker=look.marker, markersize=3, color=look.colour, markeredgewidth=0, elinewidth=0.45, zorder=3,
    )  # fmt: skip
    ax.set(xlim=(-100, 100), ylim=(len(archs) - 0.4, -0.6))
    ax.xaxis.set_major_locator(FixedLocator((-20, -2, 0, 2, 20)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(number_text))
    ax.tick_params(axis="x", labelsize=5.5, pad=1.5)
    within = int((rows["difference"].abs() <= _BAND).sum())
    ax.set_title(f"{mode}\n{within} of {len(rows)} within ±{_BAND:g}", fontsize=6.5, pad=3)
    ax.hlines(range(len(archs)), -100, 100, color="#F0F0F0", linewidth=0.4, zorder=0.5)
    return ax


def difference_figure(both: pd.DataFrame, cells: Cells) -> Figure:
    """Return a figure with a column per mode and a row per architecture, smallest depth first."""
    archs = by_size(dict.fromkeys(both["arch"]))
    modes = [mode for mode in MODES if (both["mode"] == mode).any()]
    with plot_style():
        row = 0.082 if len(archs) > _MANY else 0.17
        high = max(0.5, row * len(archs))
        figure, axes = panel_grid(
            "Our means minus the published ones", len(modes), len(modes), high,
            left=0.62, bottom=0.5, top=0.62, gap=(0.1, 0),
        )  # fmt: skip
        for at, (ax, mode) in enumerate(zip(axes, modes, strict=True)):
            plot_differences(ax, both, mode, archs)
            names = archs if at == 0 else []
            ax.set_yticks(range(len(names)), names, fontsize=5 if len(archs) > _MANY else 6.5)
            ax.tick_params(axis="y", length=1.5, pad=1)
            ax.spines["left"].set_visible(at == 0)
        what = "difference of the mean bounty (percentage points)"
        up = 0.2 / float(figure.get_size_inches()[1])
        figure.text(0.5, up, what, ha="center", va="center", fontsize=7)
        shared = "The panels share their axes: linear within the grey band, logarithmic beyond. "
        footnote(figure, _notes(both, cells, f"{shared}Bars: 95 % intervals of the difference. "))
    return figure
