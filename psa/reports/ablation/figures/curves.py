"""Figures of curves over the meta-loops: one panel per architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from psa.reports.ablation.cells import Cells
from psa.reports.ablation.curves import Curve, Jump, Panel
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import (
    GREY,
    GRID,
    MODE_LOOKS,
    REGIME_NUMERALS,
    empty,
    footnote,
    mode_handle,
    plot_style,
)
from psa.specs.training import MODES

# Inches: for the note, for the legend, at the left of the panels.
_FOOT: Final = 0.52
_LEGEND: Final = 0.42
_LEFT: Final = 0.5
_INSET: Final = (0.42, 0.16, 0.55, 0.5)  # of a panel's axes


def _panels(name: str, count: int, height: float, foot: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels of `height` inches, two per row, and `foot` inches for legend and note."""
    return panel_grid(
        name, count, min(count, 2), height,
        left=_LEFT, bottom=foot + 0.42, top=0.58, gap=(_LEFT + 0.42, 0.7), right=0.42,
    )  # fmt: skip


def plot_panel(ax: Axes, panel: Panel, log: bool = False) -> Axes:
    """Draw the mean with its band and, thin, the best trial of each mode; ZeroR as a dashed line."""
    if not panel.curves:
        return empty(ax, f"no meta-loop of {panel.arch}")
    for at, curve in enumerate(panel.curves):
        _plot_curve(ax, curve, at, panel.loops)
    ends = _ends(panel, log)
    _dressed(ax, ends, panel.zero_r, panel.loops, log)
    if not log and _settled(panel, ends):
        _second_half(ax, panel)
    return ax


def _settled(panel: Panel, ends: tuple[float, float]) -> bool:
    """Return whether the means end close together near the top of the axis, with room for an inset below."""
    late = np.concatenate([curve.mean[panel.loops // 2 :] for curve in panel.curves])
    return panel.loops >= 10 and bool(np.all(late > ends[0] + 0.72 * (ends[1] - ends[0])))


def _second_half(ax: Axes, panel: Panel) -> None:
    """Draw the second half of the loops as an inset, large enough to distinguish the modes."""
    inner = ax.inset_axes(_INSET)
    first = panel.loops // 2
    for at, curve in enumerate(panel.curves):
        _plot_curve(inner, curve, at, panel.loops)
    low = min(float(curve.mean[first]) for curve in panel.curves)
    high = max(float(np.nanmax(curve.best)) for curve in panel.curves)
    room = 0.08 * max(high - low, 0.05)
    inner.set(xlim=(first, panel.loops), ylim=(low - room, high + room))
    inner.tick_params(labelsize=6, length=2)
    inner.set_title("second half", fontsize=6, color=GREY, pad=1)
    inner.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _plot_curve(ax: Axes, curve: Curve, at: int, loops: int) -> None:
    look = MODE_LOOKS[curve.mode]
    x = np.arange(1, loops + 1)
    every = max(1, loops // 8)
    ax.fill_between(
        x, np.clip(curve.low, 0, 100), np.clip(curve.high, 0, 100), color=look.colour, alpha=0.13,
        linewidth=0,
    )  # fmt: skip
    ax.plot(
        x, curve.mean, color=look.colour, linestyle=look.line, linewidth=1.4, marker=look.marker,
        # the marks of the modes stand at different loops, or they would hide each other
        markevery=(at * every // 6, every), markersize=4, markeredgecolor="white", markeredgewidth=0.4,
        zorder=3, gid=f"mean {curve.mode}",
    )  # fmt: skip
    ax.plot(x, curve.best, color=look.colour, linewidth=0.5, zorder=2, gid=f"best {curve.mode}")


def _ends(panel: Panel, log: bool) -> tuple[float, float]:
    """Return the least and the greatest value; bands do not affect the lower end of a logarithmic axis."""
    parts = [
        np.concatenate([each.mean, each.mean if log else each.low, each.high, each.best])
        for each in panel.curves
    ]
    values = np.clip(np.concatenate(parts), 0, 100)
    return float(np.nanmin(values)), float(np.nanmax(values))


def _dressed(ax: Axes, ends: tuple[float, float], zero_r: float, loops: int, log: bool) -> Axes:
    """Set limits, ticks and labels of the axes; show ZeroR as a line if near the values, else as text."""
    low, high = _zero_r(ax, ends, zero_r)
    if log:
        ax.set_yscale("log")
        wide = high > 3 * low
        ax.yaxis.set_major_locator(
            LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(5, steps=[1, 2, 5, 10])
        )
        ax.yaxis.set_minor_formatter(NullFormatter())
    room = 0.06 * max(high - low, 0.5)
    ax.set_ylim(low * 0.97 if log else low - room, high * 1.03 if log else high + room)
    ax.set_xlim(1 - 0.01 * loops, loops + 0.01 * loops)
    ax.set_xticks(sorted({1, *range(loops // 5, loops + 1, max(1, loops // 5))} - {0}))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xlabel("Meta-loop", labelpad=1)
    ax.set_ylabel("LKG, validation accuracy (%)", labelpad=2)
    ax.grid(axis="y", **GRID)
    return ax


def _zero_r(ax: Axes, ends: tuple[float, float], zero_r: float) -> tuple[float, float]:
    """Draw ZeroR. Return the ends of the axis, extended to its line."""
    low, high = ends
    span = max(high - low, 0.5)
    how: dict[str, Any] = {"fontsize": 6, "color": GREY, "gid": "zero_r"}
    if low - span < zero_r < high + span:
        ax.axhline(zero_r, color=GREY, linewidth=0.9, linestyle=(0, (6, 3)), zorder=1, gid="zero_r")
        ax.annotate(
            f"ZeroR\n{zero_r:.2f} %", (1, zero_r), (2, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="left", va="center", **how,
        )  # fmt: skip
        return min(low, zero_r), max(high, zero_r)
    where = "below" if zero_r < low else "above"
    text = f"ZeroR {zero_r:.2f} %, {where} the axis"
    ax.text(1, 0.02, text, transform=ax.transAxes, ha="right", va="bottom", **how)
    return low, high


def panel_title(ax: Axes, arch: str, rest: str) -> Axes:
    """Write the architecture at the left, and `rest` at the right."""
    ax.set_title(arch, loc="left", pad=4)
    ax.set_title(rest, loc="right", fontsize=7, color="#404040", pad=4)
    return ax


def convergence_figure(panels: Sequence[Panel], cells: Cells, log: bool = False) -> Figure:
    """Return a figure with one panel per target architecture and all modes in each."""
    with plot_style():
        figure, axes = _panels("Convergence", len(panels), 2.5, _LEGEND + _FOOT)
        for ax, panel in zip(axes, panels, strict=True):
            plot_panel(ax, panel, log)
            panel_title(ax, panel.arch, f"{REGIME_NUMERALS[panel.regime]} {panel.regime}")
        handles: list[Line2D | Patch] = [
            mode_handle(mode)
            for mode in MODES
            if any(curve.mode == mode for panel in panels for curve in panel.curves)
        ]
        handles += [
            Patch(color=GREY, alpha=0.25, linewidth=0, label="95 % t interval of the mean"),
            Line2D([], [], color=GREY, linewidth=0.5, label="best trial of the mode"),
        ]
        draw_legend(figure, handles, _LEFT, _FOOT + _LEGEND, 4, handlelength=3.2, columnspacing=1.4)
        footnote(figure, [*notes_of(cells), *_panel_notes(panels)])
    return figure


def _panel_notes(panels: Sequence[Panel]) -> list[str]:
    """Return a note on the number of seeds of each mean."""
    counts = {panel.arch: {curve.mode: curve.n for curve in panel.curves} for panel in panels if panel.curves}
    lines = []
    for arch, found in counts.items():
        if len(set(found.values())) == 1:
            lines.append(f"{arch}: n = {next(iter(found.values()))} in each of {len(found)} modes")
        else:
            lines.append(f"{arch}: n = " + ", ".join(f"{count} ({mode})" for mode, count in found.items()))
    shorter = sum(curve.shorter for panel in panels for curve in panel.curves)
    left_out = f" {shorter} shorter trials have no part in the means." if shorter else ""
    return [f"Lines with marks: means over seeds. {'; '.join(lines)}.{left_out}"]


_JUMPS: Final = (
    "Coloured: the trial with the highest bounty of all modes; grey: the other seeds of its mode. "
    "Marked: the largest rise of the LKG within one meta-loop after half of the loops, or of all loops where "
    "that is below 1 point."
)


def plot_jump(ax: Axes, jump: Jump) -> Axes:
    """Draw the best trial, the other seeds of its mode in grey, and the loop of the jump."""
    loops, look = len(jump.lkg), MODE_LOOKS[jump.mode]
    x = np.arange(1, loops + 1)
    for other in jump.others:
        ax.plot(x, other, color="#BBBBBB", linewidth=0.6, zorder=1.5)
    ax.plot(x, jump.lkg, color=look.colour, linewidth=1.5, zorder=3, gid="best")
    values = np.concatenate([jump.lkg, jump.others.ravel()])
    _dressed(ax, (float(np.nanmin(values)), float(np.nanmax(values))), jump.zero_r, loops, log=False)
    ax.axvline(jump.loop, color=look.colour, linewidth=0.7, linestyle=":", zorder=2, gid="jump")
    after, before = jump.lkg[jump.loop - 1], jump.lkg[jump.loop - 2]
    ax.plot(jump.loop, after, marker=look.marker, color=look.colour, markersize=5, zorder=4)
    right = jump.loop > 0.5 * loops
    ax.annotate(
        f"loop {jump.loop}: {jump.gain:+.2f} points", (jump.loop, (before + after) / 2),
        (-5 if right else 5, 0), textcoords="offset points", ha="right" if right else "left", va="center",
        fontsize=7, zorder=5, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.8},
    )  # fmt: skip
    return ax


def breakthrough_figure(jumps: Sequence[Jump], cells: Cells) -> Figure:
    """Return a figure with one panel per architecture, showing the jump of its best trial."""
    with plot_style():
        late = any(jump.late for jump in jumps) or not jumps
        name = "Late breakthroughs" if late else "Largest rises; none in the second half of the loops"
        figure, axes = _panels(name, max(1, len(jumps)), 2.1, _FOOT)
        if not jumps:
            empty(axes[0], "no finished trial of two meta-loops or more")
        for ax, jump in zip(axes, jumps, strict=False):
            plot_jump(ax, jump)
            panel_title(ax, jump.arch, f"best trial: {jump.mode}, seed {jump.seed}, {max(jump.lkg):.2f} %")
        footnote(figure, [*notes_of(cells), _JUMPS])
    return figure
