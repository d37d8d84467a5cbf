"""The figure of late breakthroughs: the best trial of each architecture, and its largest late rise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.reports.ablation.cells import Cells
from psa.reports.ablation.curves import NOTICEABLE, Jump
from psa.reports.ablation.figures.curves import dress_curves
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.style import MODE_LOOKS, footnote, plot_style

_FOOT: Final = 0.1  # inches below the axes
_LEFT: Final = 0.5  # inches at the left of the panels
_JUMPS: Final = (
    "Coloured: the trial with the highest bounty of all modes; grey: the other seeds of its mode. "
    "Marked: the largest rise of the LKG within one meta-loop after half of the loops, or of all loops where "
    "that is below 1 point."
)


def _panels(name: str, count: int, height: float, foot: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels of `height` inches, two per row, and `foot` inches below their axes."""
    return panel_grid(
        name, count, min(count, 2), height,
        left=_LEFT, bottom=foot + 0.42, top=0.58, gap=(_LEFT + 0.42, 0.7), right=0.42,
    )  # fmt: skip


def panel_title(ax: Axes, arch: str, rest: str) -> Axes:
    """Write the architecture at the left, and `rest` at the right."""
    ax.set_title(arch, loc="left", pad=4)
    ax.set_title(rest, loc="right", fontsize=7, color="#404040", pad=4)
    return ax


def plot_jump(ax: Axes, jump: Jump) -> Axes:
    """Draw the best trial, the other seeds of its mode in grey, and the loop of the jump."""
    loops, look = len(jump.lkg), MODE_LOOKS[jump.mode]
    x = np.arange(1, loops + 1)
    for other in jump.others:
        ax.plot(x, other, color="#BBBBBB", linewidth=0.6, zorder=1.5)
    ax.plot(x, jump.lkg, color=look.colour, linewidth=1.5, zorder=3, gid="best")
    values = np.concatenate([jump.lkg, jump.others.ravel()])
    dress_curves(ax, (float(np.nanmin(values)), float(np.nanmax(values))), jump.zero_r, loops, log=False)
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
    """Return a figure with one panel per architecture, showing the jump of its best trial.

    Raises ValueError without a jump.
    """
    if not jumps:
        raise ValueError("a figure of breakthroughs must have one")
    with plot_style():
        late = any(jump.late for jump in jumps)
        none_late = f"Largest rises; none of {NOTICEABLE:g} point or more in the second half of the loops"
        name = "Late breakthroughs" if late else none_late
        figure, axes = _panels(name, len(jumps), 2.1, _FOOT)
        for ax, jump in zip(axes, jumps, strict=True):
            plot_jump(ax, jump)
            panel_title(ax, jump.arch, f"best trial: {jump.mode}, seed {jump.seed}, {max(jump.lkg):.2f} %")
        footnote(figure, [*notes_of(cells), _JUMPS])
    return figure
