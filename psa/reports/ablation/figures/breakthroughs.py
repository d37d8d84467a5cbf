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
from psa.reports.plotting.style import MODE_LOOKS, OUTLINED, footnote, plot_style

_FOOT: Final = 0.1  # inches below the axes
_LEFT: Final = 0.5  # inches at the left of the panels
_LABEL: Final = (95, 9)  # points: width and height of the text at a jump
_EDGE: Final = 0.1  # of the height, which ZeroR below the axis is written into
_JUMPS: Final = (
    "Coloured: the trial with the highest bounty of all modes (of equal ones that of the earliest meta-loop, "
    "the least seed and the first mode); grey: the other seeds of its mode. "
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
    ax.plot(jump.loop, jump.lkg[jump.loop - 1], marker=look.marker, color=look.colour, markersize=5, zorder=4)
    right = jump.loop > 0.5 * loops
    ax.annotate(
        f"loop {jump.loop}: {jump.gain:+.2f} points", (jump.loop, label_height(ax, jump, right=right)),
        (-5 if right else 5, 0), textcoords="offset points", ha="right" if right else "left", va="center",
        fontsize=7, zorder=5, path_effects=OUTLINED,
    )  # fmt: skip
    return ax


def label_height(ax: Axes, jump: Jump, *, right: bool) -> float:
    """Return the height in percent at which a text beside the jump covers no curve, or the fewest curves; of
    several such heights the nearest to the jump.

    right: the text ends at the jump, else it begins there.
    """
    loops, (low, high) = len(jump.lkg), ax.get_ylim()
    box = np.array(ax.get_window_extent().size) * 72 / ax.figure.dpi
    wide, half = (loops - 1) * _LABEL[0] / box[0], (high - low) * 0.5 * _LABEL[1] / box[1]
    ends = (jump.loop - wide, jump.loop) if right else (jump.loop, jump.loop + wide)
    x = np.arange(1, loops + 1)
    under = np.vstack([jump.lkg, jump.others, np.full(loops, jump.zero_r)])
    edges = [[np.interp(end, x, curve) for end in ends] for curve in under]
    inside = (x > ends[0]) & (x < ends[1])
    covered = np.hstack([under[:, inside], edges])
    covered = covered[~np.isnan(covered).all(axis=1)]  # a trial may end before the text begins
    least, most = np.nanmin(covered, axis=1), np.nanmax(covered, axis=1)
    middle = float(jump.lkg[jump.loop - 2 : jump.loop].mean())
    room = (high - low) * _EDGE
    heights = np.linspace(low + room, high - half, 200)

    def cost(height: float) -> tuple[int, float]:
        covers = (most >= height - half) & (least <= height + half)
        return int(covers.sum()), abs(height - middle)

    return min((float(each) for each in heights), key=cost)


def _name(jumps: Sequence[Jump]) -> str:
    """Return the title, which calls no rise late that is not, and speaks of the panels alone."""
    late, shown = sum(jump.late for jump in jumps), len(jumps)
    if not late:
        of = "this architecture" if shown == 1 else f"these {shown} architectures"
        return f"Largest rises of {of}; none in the second half of the loops reaches {NOTICEABLE:g} point"
    if late < shown:
        return f"Late rises of {late} of {shown} architectures, the largest rises of the others"
    return f"Largest rises of the best trial{'s' * (shown > 1)} in the second half of the loops"


def breakthrough_figure(jumps: Sequence[Jump], cells: Cells, why: str = "") -> Figure:
    """Return a figure with one panel per architecture, showing the jump of its best trial.

    why: a note on the choice of the architectures. Raises ValueError without a jump.
    """
    if not jumps:
        raise ValueError("a figure of breakthroughs must have one")
    with plot_style():
        figure, axes = _panels(_name(jumps), len(jumps), 2.1, _FOOT)
        for ax, jump in zip(axes, jumps, strict=True):
            plot_jump(ax, jump)
            panel_title(
                ax, jump.arch, f"best trial: {jump.mode}, seed {jump.seed}, {np.nanmax(jump.lkg):.2f} %"
            )
        footnote(figure, [*notes_of(cells), why, _JUMPS])
    return figure
