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
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import GREY, MODE_LOOKS, empty, footnote, mode_handle, plot_style
from psa.specs.training import MODES

_COLUMNS: Final = (
    "mean_published", "mean_ours", "half_published", "half_ours", "difference", "half",
)  # fmt: skip
_BAND: Final = 2.0  # points that the study's own criterion of success allows
_NEAR: Final = (86.0, 99.2)  # percent; the range of most cells that train


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
    """Draw published means (x) and ours (y) with their intervals, the diagonal and the band around it."""
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
    """Return a figure with two panels: all cells, and those that train."""
    with plot_style():
        figure, axes = panel_grid(
            "Published and our means", 2, 2, 3.0, left=0.5, bottom=1.1, top=0.55, gap=(0.55, 0), width=3.0
        )
        near = _near(both)
        ranges = {"all cells": (0.0, 102.0), f"{near[0]:g} to {near[1]:g} %": near}
        for ax, (name, ends) in zip(axes, ranges.items(), strict=True):
            ax.set_title(name, loc="left", fontsize=8)
            if len(both):
                plot_agreement(ax, both, ends)
            else:
                empty(ax, "no cell that both have")
        _mode_legend(figure, both, 0.72)
        footnote(figure, _notes(both, cells, "Bars: 95 % t intervals of the means. "))
    return figure


def _near(both: pd.DataFrame) -> tuple[float, float]:
    """Return the range of the second panel: the cells that train or, if none does, all cells."""
    means = both[["mean_published", "mean_ours"]]
    if not len(both) or (means > _NEAR[0]).all(axis=1).any():
        return _NEAR
    return float(np.floor(means.min().min())) - 1, float(np.ceil(means.max().max())) + 1


def _mode_legend(figure: Figure, both: pd.DataFrame, up: float) -> None:
    handles = [mode_handle(mode) for mode in MODES if (both["mode"] == mode).any()]
    for handle in handles:
        handle.set_linestyle("")
    draw_legend(figure, handles, 0.5, up, 6, handletextpad=0.2, columnspacing=1.5)


def _notes(both: pd.DataFrame, cells: Cells, how: str) -> list[str]:
    within = int((both["difference"].abs() <= _BAND).sum())
    apart = int((both["difference"].abs() > both["half"]).sum())
    return [
        *notes_of(cells),
        f"{how}Grey: ±{_BAND:g} percentage points; {within:,} of {pluralize(len(both), 'cell')} within it. "
        f"The 95 % interval of the difference (Welch) excludes 0 in {apart:,} of them, not corrected for "
        "their number.",
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
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
    ax.tick_params(axis="x", labelsize=5.5, pad=1.5)
    within = int((rows["difference"].abs() <= _BAND).sum())
    ax.set_title(f"{mode}\n{within} of {len(rows)} within ±{_BAND:g}", fontsize=6.5, pad=3)
    ax.hlines(range(len(archs)), -100, 100, color="#F0F0F0", linewidth=0.4, zorder=0.5)
    return ax


def difference_figure(both: pd.DataFrame, cells: Cells) -> Figure:
    """Return a figure of one page with six columns, one per mode, and a row per architecture."""
    archs = list(dict.fromkeys(both["arch"]))
    with plot_style():
        height = max(0.8, 0.082 * len(archs))
        figure, axes = panel_grid(
            "Our means minus the published ones", len(MODES), len(MODES), height,
            left=0.58, bottom=0.88, top=0.62, gap=(0.06, 0),
        )  # fmt: skip
        for at, (ax, mode) in enumerate(zip(axes, MODES, strict=True)):
            if not (both["mode"] == mode).any():
                empty(ax, f"no cell\nof {mode}")
                continue
            plot_differences(ax, both, mode, archs)
            ax.set_yticks(range(len(archs)) if at == 0 else [], archs if at == 0 else [], fontsize=5)
            ax.tick_params(axis="y", length=1.5, pad=1)
            ax.spines["left"].set_visible(at == 0)
        figure.text(
            0.5, 0.6 / (height + 1.5), "difference of the mean bounty (percentage points)",
            ha="center", va="center", fontsize=7,
        )  # fmt: skip
        footnote(figure, _notes(both, cells, "Bars: 95 % intervals of the difference. "))
    return figure
