"""The figure of arms: the difference of each from mode none, over all architectures or for each of a few."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter

from psa.analysis.stats import LEAST_N, Summary, Values, summary
from psa.core.formatting import pluralize
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.numbers import unequal_arms_note
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.scales import label_bar, linear_ticks, number_text
from psa.reports.plotting.style import GREY, GRID, WIDTH, add_axes, footnote, plot_style

_ROW: Final = 0.17  # inches
_TWO_LINES: Final = 0.19  # inches of a row where a name takes two lines
_OFF: Final = 0.17  # of a row: the mean lies below the marks that it would cover
_LETTER: Final = 0.054  # inches of a letter of an arm's name, whose letters take 0.047 to 0.050
_NAME: Final = 48  # letters of a line of an arm's name; a longer name takes several lines
_BAR: Final = 0.75  # inches for the colour bar with its numbers
_PANEL_AND_BAR: Final = 2  # axes of a figure without an enlarged panel
_ZOOM: Final = 4.0  # points on both sides of mode none that are enlarged
_FAR: Final = 12.0  # range of the differences in points from which on they are enlarged
_ENLARGED: Final = 3  # arms from which on an enlarged panel is not almost empty
_EDGE: Final = 0.2  # points beside the enlarged range
_MEAN: Final = "#000000"
_POINT: Final = "#0072B2"
_SIZES: Final = "plasma"
_AXIS: Final = "bounty minus that of mode none (percentage points)"
_POOLED: Final = (
    "Small marks: architectures, each the mean difference over the seeds that both arms have, coloured by "
    "the number of parameters. Black: mean over architectures, with its 95 % t interval from three "
    "architectures on; their number is in brackets. Rows are sorted by that mean."
)
_RIGHT: Final = (
    f" Right: the arms with means within {_ZOOM:g} points of mode none, enlarged; marks beyond that panel "
    "are in the left one."
)
_SINGLE: Final = (
    "Small marks: seeds. Black: mean over seeds, with its 95 % t interval from three seeds on. Fewer than "
    "three architectures have these arms, so each has a panel of its own. Rows are sorted by the mean over "
    "architectures."
)


@dataclass(frozen=True)
class ArmRow:
    """A line of a panel: its differences in percentage points, and a colour for each."""

    values: Values
    colours: Sequence[str]

    @property
    def summary(self) -> Summary:
        """The mean difference and its interval."""
        return summary(self.values)


def arms_figure(
    pairs: Mapping[str, pd.DataFrame], parameters: Mapping[str, int], loops: int, notes: Sequence[str] = ()
) -> Figure:
    """Return the dot plot of each arm minus mode none: one panel over all architectures or, of one or two,
    a panel for each.

    pairs: by arm, the columns `arm` and `base` in percent, indexed by architecture and seed. parameters: of
    each architecture. Raises ValueError without a pair.
    """
    if not any(map(len, pairs.values())):
        raise ValueError("a figure of arms must have a pair of trials")
    means = {arm: _differences(each).groupby("arch", observed=True).mean() for arm, each in pairs.items()}
    arms = sorted((arm for arm in means if len(means[arm])), key=lambda arm: -float(means[arm].mean()))
    archs = by_size({str(arch) for arm in arms for arch in means[arm].index})
    with plot_style():
        if len(archs) < LEAST_N:
            figure = _panels({arm: _differences(pairs[arm]) for arm in arms}, archs, loops)
        else:
            figure = _pooled({arm: means[arm] for arm in arms}, parameters, loops)
        marks = _SINGLE if len(archs) < LEAST_N else _POOLED
        if marks == _POOLED and len(figure.axes) > _PANEL_AND_BAR:
            marks += _RIGHT
        footnote(figure, [f"{marks} {unequal_arms_note(pairs[arm].index for arm in arms)}".rstrip(), *notes])
    return figure


def _differences(pairs: pd.DataFrame) -> pd.Series:
    found: pd.Series = pairs["arm"] - pairs["base"]
    return found


def _pooled(means: Mapping[str, pd.Series], parameters: Mapping[str, int], loops: int) -> Figure:
    """Return one panel with a mark per architecture, coloured by its size."""
    sizes = [parameters[str(arch)] for each in means.values() for arch in each.index]
    norm = LogNorm(min(sizes), max(*sizes, 1.05 * min(sizes)))
    shades = ListedColormap(colormaps[_SIZES](np.linspace(0, 0.88, 256)))  # without the palest
    rows = {}
    for arm, each in means.items():
        colours = [to_hex(shades(norm(parameters[str(arch)]))) for arch in each.index]
        rows[f"{arm} ({len(each)})"] = ArmRow(each.to_numpy(np.float64), colours)
    near = _near(list(rows.values()))
    figure, axes = _new_figure(list(rows), 1 + (near is not None), loops, _BAR)
    plot_arms(axes[0], list(rows.values()))
    if near is not None:
        plot_arms(axes[1], [row if _is_near(row) else ArmRow(np.empty(0), ()) for row in rows.values()])
    _finish(axes, list(rows), list(rows.values()))
    if near is not None:
        axes[1].set_xlim(*near)
        axes[1].xaxis.set_major_locator(FixedLocator(linear_ticks(*near, 5)))
        axes[1].set_title("enlarged", loc="left")
    place = axes[-1].get_position()
    wide, high = figure.get_size_inches()
    tall = min(1.6, place.height * high)
    bar = figure.colorbar(
        ScalarMappable(norm, shades),
        cax=add_axes(figure, place.x1 * wide + 0.15, place.y1 * high - tall, 0.1, tall),
    )
    label_bar(bar, norm, "parameters", 5)
    bar.ax.tick_params(labelsize=6.5)
    return figure


def _near(rows: Sequence[ArmRow]) -> tuple[float, float] | None:
    """Return the range around 0 that is shown once more, larger: if the arms are far apart, and _ENLARGED or
    more have their means in it.
    """
    ends = [end for row in rows for end in (float(row.values.min()), float(row.values.max()))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    near = sum(map(_is_near, rows))
    if high - low <= _FAR or near < _ENLARGED:
        return None
    return max(low, -_ZOOM) - _EDGE, min(high, _ZOOM) + _EDGE


def _is_near(row: ArmRow) -> bool:
    """Return whether the mean of a row is in the enlarged range: its bar would lack a mark otherwise."""
    return abs(row.summary.mean) <= _ZOOM


def _panels(differences: Mapping[str, pd.Series], archs: Sequence[str], loops: int) -> Figure:
    """Return a panel per architecture with a mark per seed."""
    names = list(differences)
    figure, axes = _new_figure(names, len(archs), loops)
    shown = []
    for ax, arch in zip(axes, archs, strict=True):
        rows = [ArmRow(values, [_POINT] * len(values)) for values in _of_arch(differences, arch)]
        plot_arms(ax, rows).set_title(arch, loc="left")
        shown += rows
    _finish(axes, names, shown)
    return figure


def _of_arch(differences: Mapping[str, pd.Series], arch: str) -> Iterator[Values]:
    for each in differences.values():
        yield each[each.index.get_level_values("arch").astype(str) == arch].to_numpy(np.float64)


def plot_arms(ax: Axes, rows: Sequence[ArmRow]) -> Axes:
    """Draw a line per arm: its differences as small marks, their mean and its interval above them."""
    ax.axvline(0, color=GREY, linewidth=0.8, zorder=1, gid="mode none")
    for place, row in enumerate(rows):
        if place % 2 == 0:
            ax.axhspan(place - 0.5, place + 0.5, color="#F6F6F6", linewidth=0, zorder=0)
        if not len(row.values):
            continue
        ax.scatter(
            row.values, np.full(len(row.values), place - _OFF), s=12, c=list(row.colours), linewidths=0.3,
            edgecolors="white", zorder=2, gid="differences",
        )  # fmt: skip
        found = row.summary
        if found.n >= LEAST_N:
            ax.plot(
                [found.low, found.high],
                [place + _OFF, place + _OFF],
                color=_MEAN,
                linewidth=1.1,
                zorder=3,
                gid="interval",
            )
        ax.plot(
            found.mean, place + _OFF, "D", color=_MEAN, markersize=3.6, markeredgecolor="white",
            markeredgewidth=0.4, zorder=4, gid="mean",
        )  # fmt: skip
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.grid(axis="x", **GRID)
    return ax


def _new_figure(
    names: Sequence[str], count: int, loops: int, beside: float = 0.1
) -> tuple[Figure, list[Axes]]:
    lines = [_in_lines(name).splitlines() for name in names]
    left = 0.2 + _LETTER * max(len(line) for each in lines for line in each)
    return panel_grid(
        f"Each arm minus mode none, after {pluralize(loops, 'loop')}", count, count,
        (_TWO_LINES if max(map(len, lines)) > 1 else _ROW) * len(names),
        left=left, bottom=0.5, top=0.38 + 0.2 * (count > 1), gap=(0.2, 0), right=beside,
        width=None if left < 0.6 * WIDTH else 0.4 * WIDTH,
    )  # fmt: skip


def _in_lines(name: str) -> str:
    """Return the name of an arm in lines that leave the panel its room."""
    return fill(name, _NAME, break_long_words=False, break_on_hyphens=False)


def _finish(axes: Sequence[Axes], names: Sequence[str], rows: Sequence[ArmRow]) -> None:
    """Give all panels one range with round ticks, and the first one the names of the arms."""
    values = [0.0]
    for row in rows:
        found = row.summary
        values += [*row.values.tolist(), *([found.low, found.high] if found.n >= LEAST_N else [])]
    low, high = min(values), max(values)
    room = 0.03 * max(high - low, 0.5)
    for ax in axes:
        ax.set_xlim(low - room, high + room)
        ax.xaxis.set_major_locator(FixedLocator(linear_ticks(low, high, 7 if len(axes) == 1 else 5)))
        ax.xaxis.set_major_formatter(FuncFormatter(number_text))
        ax.yaxis.set_major_locator(FixedLocator(range(len(names))))
        ax.set_yticklabels([])
    axes[0].set_yticklabels(map(_in_lines, names), linespacing=0.9)
    middle = (axes[0].get_position().x0 + axes[-1].get_position().x1) / 2
    figure = axes[0].get_figure(root=True)
    if len(axes) == 1 or figure is None:
        axes[0].set_xlabel(_AXIS, labelpad=2)
    else:
        figure.text(middle, 0.12 / figure.get_size_inches()[1], _AXIS, ha="center", va="bottom", fontsize=8)
