"""The figure of accuracy against the temperature of stochastic layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.analysis.stats import LEAST_N
from psa.reports.activations.arms import Arm
from psa.reports.activations.curves import styles_of
from psa.reports.plotting.panels import panel
from psa.reports.plotting.scales import log_axis
from psa.reports.plotting.style import GRID, LineStyle, footnote, plot_style

_APART: Final = 1.045  # times the temperature, from one line to the next
_BARS: Final = (
    "Marks: means over seeds; bars: 95 % t intervals, cut off at 0 and 100 %, from three seeds on. Lines are "
    "set apart by a few per cent of the temperature, so that their bars do not cover each other."
)


def temperatures(arms: Sequence[Arm]) -> list[float]:
    """Return every temperature that occurs, ascending."""
    return sorted({float(each) for arm in arms if (each := arm.settings.get("temperature")) is not None})


def temperature_figure(arms: Sequence[Arm], keys: Sequence[str]) -> Figure:
    """Plot mean test accuracy with its interval, a line for each combination of the other settings."""
    others = [key for key in keys if key not in ("temperature", "simplex")]
    others = [key for key in others if len({arm.settings[key] for arm in arms}) > 1]
    lines: dict[str, list[Arm]] = {}
    for arm in arms:
        if arm.settings.get("temperature") is not None and arm.n:
            lines.setdefault(arm.label(others), []).append(arm)
    looks = styles_of(list(lines))
    with plot_style():
        name = "Test accuracy and temperature of stochastic layers"
        figure, ax = panel(name, 4.4, 1.85, 0.55, 0.75, 0.4)
        for at, (name, found) in enumerate(lines.items()):
            _plot(ax, found, looks[name], name, _APART ** (at - (len(lines) - 1) / 2))
        ax.set_xscale("log")
        log_axis(ax.xaxis, *ax.get_xlim())
        ax.set(xlabel="temperature", ylabel="test accuracy (%)")
        ax.grid(axis="y", **GRID)
        ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1), borderaxespad=0, handlelength=2.6)
        footnote(figure, [_BARS])
    return figure


def _plot(ax: Axes, arms: Sequence[Arm], look: LineStyle, name: str, shift: float) -> None:
    """Draw a line at the temperatures times `shift`, or the bars of several lines would cover each other."""
    points = [(shift * float(arm.settings["temperature"]), arm.summary("test")) for arm in arms]
    points.sort(key=lambda point: point[0])
    where, found = [at for at, _ in points], [each for _, each in points]
    ax.plot(
        where, [each.mean for each in found], color=look.colour, linestyle=look.line, marker=look.marker,
        markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, label=name or None, gid=f"line {name}",
    )  # fmt: skip
    for at, each in points:
        if each.n >= LEAST_N:
            ends = [max(0.0, each.low), min(100.0, each.high)]
            ax.plot([at, at], ends, color=look.colour, linewidth=1.4, alpha=0.45, zorder=1.5)
