"""The figure that compares the test accuracies of arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from psa.analysis.stats import LEAST_N
from psa.reports.activations.arms import Arm
from psa.reports.activations.curves import foot_of, group_arms, legend, lines_of, rest_of, styles_of
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.style import GRID, LineStyle, footnote, plot_style

_NAME: Final = 44  # letters of a line of a group's name
_ZOOM: Final = 4.0  # points below the best within which arms are shown once more, larger
_BARS: Final = (
    "Marks: means over seeds; bars: 95 % t intervals, cut off at 0 and 100 %, from "
    "three seeds on; ticks: every seed."
)
_TALL: Final = 40  # arms from which on the axis has numbers at both ends
_ENLARGED: Final = 3  # arms from which on an enlarged panel is not almost empty
_LEAST_EDGE: Final = 0.1  # points beside the arms; a single trial has no range to take a part of
_FAR: Final = 12.0  # spread of the arms in points from which on they are enlarged


def comparison_figure(arms: Sequence[Arm], keys: Sequence[str]) -> Figure:
    """Return a figure of the mean test accuracy of each arm with its interval and every seed; a row per
    group. If arms are far apart, the best of them, at least _ENLARGED, are shown again at the right.
    """
    groups, rest = group_arms(arms, keys), rest_of(arms, keys)
    looks = styles_of(list(dict.fromkeys(rest.values())))
    means = [arm.summary("test").mean for arm in arms]
    best, worst = float(np.nanmax(means)), float(np.nanmin(means))
    highs = [np.nanmax([arm.summary("test").high, *arm.values("test"), best]) for arm in arms]
    top = min(100.0, float(max(high for high, mean in zip(highs, means, strict=True) if mean > best - _ZOOM)))
    lows = [np.nanmin([arm.summary("test").low, *arm.values("test")]) for arm in arms]
    ends = [_scale(float(min(lows)), top)]
    near = int(np.sum(np.array(means) >= best - _ZOOM))
    ends += [(best - _ZOOM, top + 0.2)] if best - worst > _FAR and near >= _ENLARGED else []
    with plot_style():
        handles = [
            Line2D([], [], color=each.colour, marker=each.marker, markersize=4, label=name)
            for name, each in looks.items()
            if name
        ]
        foot = foot_of(len(handles), 2) + 0.4
        high = 0.16 * max(len(arms), len(groups)) + 0.2
        names = [line for name in groups for line in lines_of(name, _NAME).splitlines()]
        left = 0.25 + 0.055 * max(map(len, names))
        figure, axes = panel_grid(
            "Test accuracy", len(ends), len(ends), high,
            left=left, bottom=foot, top=0.32, gap=(0.25, 0), right=0.15,
        )  # fmt: skip
        for at, (ax, (low, high_end)) in enumerate(zip(axes, ends, strict=True)):
            _rows(ax, groups, rest, looks, low if at else -np.inf, labelled=at == 0)
            ax.set_xlim(low, high_end)
            ax.tick_params(axis="x", labeltop=len(arms) > _TALL)
            ax.set_xlabel("test accuracy (%)" if at == 0 else f"the same above {low:.1f} %", labelpad=2)
        legend(figure, handles, foot - 0.42)
        enlarged = "Right: the arms with means in that range, enlarged." if len(ends) > 1 else ""
        footnote(figure, [_BARS, enlarged])
    return figure


def _scale(low: float, high: float) -> tuple[float, float]:
    """Return the ends of the scale. It has no mark of ZeroR, which is known of the validation split alone."""
    edge = max(_LEAST_EDGE, 0.05 * (high - low))
    return low - edge, high + edge


def _rows(
    ax: Axes,
    groups: Mapping[str, Sequence[Arm]],
    rest: Mapping[int, str],
    looks: Mapping[str, LineStyle],
    least: float,
    *,
    labelled: bool,
) -> None:
    """Draw a row per arm; one with a mean below `least` is left empty, or its bar would lack a mark."""
    places, at = [], 0.0
    for row, arms in enumerate(groups.values()):
        places.append(at + (len(arms) - 1) / 2)
        if row % 2 == 0:
            ax.axhspan(at - 0.6, at + len(arms) - 0.4, color="#F4F4F4", linewidth=0, zorder=0)
        for arm in arms:
            if arm.summary("test").mean >= least:
                _mark(ax, arm, at, looks[rest[id(arm)]])
            at += 1
        at += 0.2
    ax.set_yticks(places, [lines_of(name, _NAME) for name in groups] if labelled else [""] * len(places))
    ax.set_ylim(at - 0.4, -0.8)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    ax.grid(axis="x", **GRID)


def _mark(ax: Axes, arm: Arm, at: float, look: LineStyle) -> None:
    values, found = arm.values("test"), arm.summary("test")
    if not found.n:
        return
    ax.plot(values, np.full(len(values), at), "|", color="#9A9A9A", markersize=4, zorder=2)
    if found.n >= LEAST_N:
        ax.plot(
            np.clip([found.low, found.high], 0, 100),
            [at, at],
            color=look.colour,
            linewidth=1.6,
            alpha=0.55,
            zorder=2.5,
        )
    ax.plot(found.mean, at, look.marker, color=look.colour, markersize=4.2, markeredgecolor="white",
            markeredgewidth=0.4, zorder=3, gid=f"test {arm.label(arm.settings)}")  # fmt: skip
