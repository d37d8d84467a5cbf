"""The figure of convergence over the meta-loops: a block of panels per architecture, one per mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psa.analysis.stats import LEAST_N
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.curves import Curve, Panel
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import draw_legend
from psa.reports.plotting.scales import linear_ticks, log_axis, number_text
from psa.reports.plotting.style import (
    GREY,
    GRID,
    MODE_LOOKS,
    OUTLINED,
    REGIME_NAMES,
    add_axes,
    footnote,
    new_figure,
    plot_style,
    title,
)

_FOOT: Final = 0.1  # inches below the legend
_LEGEND: Final = 0.3  # inches for the legend
_LEFT: Final = 0.56  # inches at the left of the panels
_COLUMNS: Final = 3  # panels beside each other, one per mode
_PANEL: Final = (2.02, 1.2)  # inches of a panel
_GAP: Final = (0.12, 0.26)  # inches between panels of an architecture
_HEAD: Final = 0.42  # inches above the panels of an architecture, for its name
_BELOW: Final = 0.36  # inches below them, for the x axis
_INSET: Final = (0.42, 0.16, 0.55, 0.5)  # of a panel's axes
_NAME: Final = 0.08  # of the height of the values, which the word ZeroR takes
_CURRENT: Final = (0, (1, 1))
_DASHED: Final = (0, (4, 1.5))


def alike(curves: Sequence[Curve]) -> list[list[Curve]]:
    """Group the modes whose accuracies are the same in every loop, in the order of their first ones."""
    groups: list[list[Curve]] = []
    for curve in curves:
        group = next((group for group in groups if group[0].equals(curve)), None)
        groups.append([curve]) if group is None else group.append(curve)
    return groups


def plot_mode(ax: Axes, curve: Curve, base: Curve | None, *, current: bool = False) -> Axes:
    """Draw the mean of a mode with its interval, its best trial dashed and, in grey, mode none."""
    look, x = MODE_LOOKS[curve.mode], np.arange(1, len(curve.mean) + 1)
    if base is not None:
        ax.plot(x, base.mean, color="#9A9A9A", linewidth=1.0, zorder=2, gid="none for comparison")
    if curve.n >= LEAST_N:
        ends = np.clip(curve.low, 0, 100), np.clip(curve.high, 0, 100)
        ax.fill_between(x, *ends, color=look.colour, alpha=0.18, linewidth=0, gid=f"interval {curve.mode}")
    if current:
        ax.plot(
            x, curve.current, color=look.colour, linestyle=_CURRENT, linewidth=0.8, zorder=2.5,
            gid=f"current {curve.mode}",
        )  # fmt: skip
    ax.plot(x, curve.best, color=look.colour, linewidth=0.7, linestyle=_DASHED, gid=f"best {curve.mode}")
    ax.plot(x, curve.mean, color=look.colour, linewidth=1.5, zorder=3, gid=f"mean {curve.mode}")
    return ax


def _settled(panel: Panel, ends: tuple[float, float]) -> bool:
    """Return whether means and intervals end near the top of the axis, with room for an inset below."""
    from_ = int(_INSET[0] * panel.loops)  # the inset begins there
    drawn = [curve.low if curve.n >= LEAST_N else curve.mean for curve in panel.curves]
    late = np.concatenate([each[from_:] for each in drawn])
    return panel.loops >= 10 and bool(np.all(late > ends[0] + 0.72 * (ends[1] - ends[0])))


def _second_half(ax: Axes, panel: Panel, curve: Curve, base: Curve | None) -> None:
    """Draw the second half of the loops as an inset, on one range for all modes of the architecture."""
    inner = ax.inset_axes(_INSET)
    first = panel.loops // 2
    plot_mode(inner, curve, base)
    drawn = [
        each[max(0, first - 1) :]
        for curve in panel.curves
        for each in (curve.mean, curve.best, *((curve.low, curve.high) if curve.n >= LEAST_N else ()))
    ]
    low, high = float(np.nanmin(drawn)), float(np.nanmax(drawn))
    room = 0.08 * max(high - low, 0.05)
    inner.set(xlim=(first, panel.loops), ylim=(low - room, high + room))
    inner.tick_params(labelsize=5, length=1.5, pad=1)
    inner.set_title("second half", fontsize=5.5, color=GREY, pad=1)
    inner.set_yticks(linear_ticks(low, high, 3))
    inner.yaxis.set_major_formatter(FuncFormatter(number_text))
    inner.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _ends(panel: Panel, log: bool, current: bool) -> tuple[float, float]:
    """Return the least and the greatest value, of a logarithmic axis without the ends of intervals below."""
    parts = []
    for each in panel.curves:
        ribbon = (each.high, *(() if log else (each.low,))) if each.n >= LEAST_N else ()
        parts += [each.mean, each.best, *ribbon, *((each.current,) if current else ())]
    values = np.clip(np.concatenate(parts), 0, 100)
    return float(np.nanmin(values)), float(np.nanmax(values))


def dress_curves(
    ax: Axes, ends: tuple[float, float], zero_r: float, loops: int, log: bool, *, named: bool = True
) -> Axes:
    """Set limits, ticks and labels of the axes; show ZeroR as a line if near the values, else as text.

    named: also write ZeroR, unless it stands above the panels.
    """
    low, high = _zero_r(ax, ends, zero_r, named)
    if log:
        ax.set_yscale("log")
        log_axis(ax.yaxis, max(low, 0.1), high, 5)
    room = 0.06 * max(high - low, 0.5)
    ax.set_ylim(low * 0.97 if log else low - room, high * 1.03 if log else high + room)
    ax.set_xlim(1 - 0.01 * loops, loops + 0.01 * loops)
    ax.set_xticks(sorted({1, *range(loops // 5, loops + 1, max(1, loops // 5))} - {0}))
    ax.yaxis.set_major_formatter(FuncFormatter(number_text))
    ax.set_xlabel("Meta-loop", labelpad=1)
    ax.set_ylabel("LKG, validation accuracy (%)", labelpad=2)
    ax.grid(axis="y", **GRID)
    return ax


def _zero_r(ax: Axes, ends: tuple[float, float], zero_r: float, named: bool) -> tuple[float, float]:
    """Draw ZeroR. Return the ends of the axis, extended to its line."""
    low, high = ends
    span = max(high - low, 0.5)
    how: dict[str, Any] = {"fontsize": 6, "color": GREY, "gid": "zero_r"}
    if low - span < zero_r < high + span:
        ax.axhline(zero_r, color=GREY, linewidth=0.9, linestyle=(0, (6, 3)), zorder=1, gid="zero_r")
        if named:
            above = _freer_side(ax, zero_r, span, 1 if zero_r < (low + high) / 2 else -1)
            ax.annotate(
                f"ZeroR {zero_r:.2f} %", (1, zero_r), (-1, 2 * above),
                xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                va="bottom" if above > 0 else "top", zorder=4, path_effects=OUTLINED, **how,
            )  # fmt: skip
        return min(low, zero_r), max(high, zero_r)
    text = f"ZeroR {zero_r:.2f} %{_beyond(zero_r, low)}"
    if named:
        back = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # lines pass behind the words
        ax.text(1, 0.02, text, transform=ax.transAxes, ha="right", va="bottom", bbox=back, zorder=5, **how)
    return low, high


def _freer_side(ax: Axes, zero_r: float, span: float, usual: int) -> int:
    """Return where ZeroR is written, 1 above its line or -1 below: on the usual side, unless curves run there
    at the end of the loops and none on the other.
    """
    curves = [
        np.asarray(line.get_ydata(), dtype=np.float64) for line in ax.lines if line.get_gid() != "zero_r"
    ]
    ends = np.concatenate([curve[-max(1, len(curve) // 4) :] for curve in curves]) if curves else np.empty(0)
    apart = (ends - zero_r) * usual
    there, other = ((apart > 0) & (apart < _NAME * span)).any(), ((apart < 0) & (apart > -_NAME * span)).any()
    return -usual if there and not other else usual


def convergence_figure(
    panels: Sequence[Panel], cells: Cells, log: bool = False, current: bool = False, why: str = ""
) -> Figure:
    """Return a figure with a block per target architecture and a panel per mode, on axes that they share.

    Modes with the same accuracies in every loop share a panel. current: also draw the accuracy of each loop.
    why: a note on the choice of the architectures.
    """
    drawn = [panel for panel in panels if panel.curves]
    with plot_style():
        blocks = [alike(panel.curves) for panel in drawn]
        figure = new_figure(0.25 + sum(map(_block_height, blocks)) + _LEGEND + _FOOT)
        title(figure, "Convergence")
        top = float(figure.get_size_inches()[1]) - 0.25
        for panel, groups in zip(drawn, blocks, strict=True):
            _draw_block(figure, panel, groups, top, log=log, current=current)
            top -= _block_height(groups)
        draw_legend(
            figure, _handles(figure, current), _LEFT, _FOOT + _LEGEND, 6, handlelength=2.4, columnspacing=1.1
        )
        footnote(figure, [*notes_of(cells), why, *_panel_notes(panels, blocks)])
    return figure


def _block_height(groups: Sequence[Sequence[Curve]]) -> float:
    rows = math.ceil(len(groups) / _COLUMNS)
    return _HEAD + rows * (_PANEL[1] + _GAP[1]) - _GAP[1] + _BELOW


def _draw_block(
    figure: Figure, panel: Panel, groups: Sequence[Sequence[Curve]], top: float, *, log: bool, current: bool
) -> None:
    """Draw the panels of an architecture below `top`, in inches; only the outer ones have tick labels."""
    base = next((group[0] for group in groups if group[0].mode == "none"), None)
    ends, first = _ends(panel, log, current), None
    rows = math.ceil(len(groups) / _COLUMNS)
    for at, group in enumerate(groups):
        row, column = divmod(at, _COLUMNS)
        left = _LEFT + column * (_PANEL[0] + _GAP[0])
        ax = add_axes(figure, left, top - _HEAD - row * (_PANEL[1] + _GAP[1]) - _PANEL[1], *_PANEL)
        other = None if group[0] is base else base
        plot_mode(ax, group[0], other, current=current)
        dress_curves(ax, ends, panel.zero_r, panel.loops, log, named=False)
        ax.set_title(" = ".join(each.mode for each in group), loc="left", fontsize=7.5, pad=2)
        if not log and not current and _settled(panel, ends):
            _second_half(ax, panel, group[0], other)
        if first is None:
            first = ax
            _head(figure, panel, top, ax.get_ylim())
        else:
            ax.sharex(first)
            ax.sharey(first)
        last = at + _COLUMNS >= len(groups)
        ax.tick_params(labelleft=column == 0, labelbottom=last)
        ax.set_xlabel("Meta-loop" if last else "", labelpad=1)
        ax.set_ylabel("LKG (%)" if column == 0 and row == (rows - 1) // 2 else "", labelpad=2)


def _head(figure: Figure, panel: Panel, top: float, ends: tuple[float, float]) -> None:
    """Write the architecture, its regime and ZeroR above its panels; ends: of their y axes."""
    wide, high = figure.get_size_inches()
    named = "regime unknown" if panel.regime == "unknown" else REGIME_NAMES[panel.regime]
    text = f"{panel.arch}: {named}"
    up = (top - 0.06) / high
    figure.text(_LEFT / wide, up, text, va="top", fontsize=8.5, fontweight="bold")
    beyond = "" if ends[0] < panel.zero_r < ends[1] else _beyond(panel.zero_r, ends[0])
    right = (_LEFT + _COLUMNS * _PANEL[0] + (_COLUMNS - 1) * _GAP[0]) / wide
    zero_r = f"ZeroR {panel.zero_r:.2f} %{beyond}"
    figure.text(right, up, zero_r, va="top", ha="right", fontsize=7, color=GREY)


def _beyond(zero_r: float, low: float) -> str:
    return f", {'below' if zero_r < low else 'above'} the axis"


def _handles(figure: Figure, current: bool) -> list[Line2D | Patch]:
    """Return the handles of what some panel shows."""
    look: dict[str, Any] = {"color": "black"}
    drawn = {str(part.get_gid()) for ax in figure.axes for part in (*ax.lines, *ax.collections)}
    interval = any(name.startswith("interval") for name in drawn)
    handles: list[tuple[bool, Line2D | Patch]] = [
        (True, Line2D([], [], linewidth=1.5, label="mean", **look)),
        (interval, Patch(alpha=0.2, linewidth=0, label="95 % t interval", **look)),
        (True, Line2D([], [], linewidth=0.7, linestyle=_DASHED, label="best trial", **look)),
        (
            "none for comparison" in drawn,
            Line2D([], [], linewidth=1.0, color="#9A9A9A", label="mean of mode none"),
        ),
        (
            "zero_r" in drawn,
            Line2D([], [], linewidth=0.9, color=GREY, linestyle=(0, (6, 3)), label="ZeroR"),
        ),
        (current, Line2D([], [], linestyle=_CURRENT, label="accuracy of each loop, mean", **look)),
    ]
    return [handle for shown, handle in handles if shown]


def _panel_notes(panels: Sequence[Panel], blocks: Sequence[Sequence[Sequence[Curve]]]) -> list[str]:
    """Return notes on the number of seeds of each mean, on identical modes and on what is shared."""
    counts = {panel.arch: {curve.mode: curve.n for curve in panel.curves} for panel in panels if panel.curves}
    lines = []
    for arch, found in counts.items():
        if len(set(found.values())) == 1:
            lines.append(f"{arch}: n = {next(iter(found.values()))} in each of {len(found)} modes")
        else:
            lines.append(f"{arch}: n = " + ", ".join(f"{count} ({mode})" for mode, count in found.items()))
    shorter = sum(curve.shorter for panel in panels for curve in panel.curves)
    left_out = f" {shorter} shorter trials have no part in the means." if shorter else ""
    without = [f"No meta-loop of {panel.arch}: it has no panel." for panel in panels if not panel.curves]
    equal = {" and ".join(each.mode for each in group) for block in blocks for group in block if group[1:]}
    alike = "have the same accuracies in every loop and share a panel"
    same = [f"Modes {names} {alike}." for names in sorted(equal)]
    shared = f"The panels of an architecture share both axes.{_without_intervals(panels)}"
    return [f"Means over seeds. {'; '.join(lines)}.{left_out}", *same, *without, shared]


def _without_intervals(panels: Sequence[Panel]) -> str:
    """Return a note on means without an interval; nothing if there are none."""
    few = [curve.n < LEAST_N for panel in panels for curve in panel.curves]
    if all(few):
        return f" No intervals: they need at least {LEAST_N} seeds."
    return f" Intervals need at least {LEAST_N} seeds." if any(few) else ""
