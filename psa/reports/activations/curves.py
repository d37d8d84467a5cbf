"""Figures of arms: training curves and learned thresholds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psa.reports.activations.arms import Arm, layers_of
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.scales import log_axis
from psa.reports.plotting.style import GREY, GRID, MODE_LOOKS, LineStyle, footnote, plot_style

PANELS: Final = 20  # per figure; more are continued in another
_COLUMNS: Final = 4
# Inches: below a panel; a panel's height.
_BELOW, _HIGH = 0.4, 1.05
_SHARED: Final = "The panels share their axes."
_LOG_FROM: Final = 30  # times from least to greatest from which losses are drawn on a logarithmic axis
_THIN: Final = "Thin: every seed; thick: their mean, as far as all of them were trained."
_MEANS: Final = "Lines: means over seeds, as far as all of them were trained."
_SEEDS_UP_TO: Final = 4  # arms of a panel; of more, the lines of single seeds cannot be told apart
_MARKS: Final = 5  # about so many on a line that others share a panel with
_RUNNING: Final = "The training loss is the mean over the epoch, with dropout where there is some."


def styles_of(names: Sequence[str]) -> dict[str, LineStyle]:
    """Return a colour, marker and line for each name; colours from dark to light for more than six."""
    known = list(MODE_LOOKS.values())
    if len(names) <= len(known):
        return dict(zip(names, known, strict=False))
    scale = mpl.colormaps["viridis"]
    colours = [mpl.colors.to_hex(scale(0.92 * at / (len(names) - 1))) for at in range(len(names))]
    return {
        name: LineStyle(colour, known[at % 6].marker)
        for at, (name, colour) in enumerate(zip(names, colours, strict=True))
    }


def group_arms(arms: Sequence[Arm], keys: Sequence[str]) -> dict[str, list[Arm]]:
    """Group arms by the heading of their panel: the first of the settings in which they differ."""
    found: dict[str, list[Arm]] = {}
    for arm in arms:
        found.setdefault(arm.label(_first(arms, keys)), []).append(arm)
    return found


def _first(arms: Sequence[Arm], keys: Sequence[str]) -> list[str]:
    differing = [key for key in keys if len({arm.settings[key] for arm in arms}) > 1]
    return differing[:1] or list(keys[:1])


def rest_of(arms: Sequence[Arm], keys: Sequence[str]) -> dict[int, str]:
    """Return what distinguishes an arm within its panel, by the arm's id(); empty if nothing does."""
    first = _first(arms, keys)
    others = [key for key in keys if key not in first and len({arm.settings[key] for arm in arms}) > 1]
    return {id(arm): arm.label(others) for arm in arms}


def _panels(
    name: str, count: int, foot: float, columns: int = _COLUMNS, height: float = _HIGH
) -> tuple[Figure, list[Axes]]:
    return panel_grid(
        name, count, min(columns, count), height,
        left=0.46, bottom=foot + _BELOW, top=0.68, gap=(0.52, 0.36 + _BELOW), right=0.16,
    )  # fmt: skip


def legend(figure: Figure, handles: Sequence[Line2D], foot: float) -> None:
    """Draw the legend at the left, its upper end `foot` inches above the lower edge."""
    draw_legend(figure, handles, 0.1, foot, _COLUMNS, handlelength=2.6, columnspacing=1.2)


def foot_of(handles: int, lines: int = 2) -> float:
    """Return the height in inches of the legend and the lines of the note."""
    return 0.16 * math.ceil(handles / _COLUMNS) + 0.12 + 0.11 * lines + 0.08


# Curves


def curves_of(arm: Arm, frame: pd.DataFrame, column: str) -> list[np.ndarray[Any, Any]]:
    """Return the column after each epoch, one array per seed that has any number."""
    of = frame[frame["id"].isin(arm.ids) & frame["loop"].notna()].sort_values(["id", "loop"])
    parts = [
        part[column].to_numpy(dtype=np.float64, na_value=np.nan)
        for _, part in of.groupby("id", observed=True)
    ]
    return [part for part in parts if np.isfinite(part).any()]


def plot_arm_curves(
    ax: Axes,
    curves: Sequence[np.ndarray[Any, Any]],
    look: LineStyle,
    line: Any,
    gid: str,
    *,
    seeds: bool = True,
    marked: bool = False,
) -> Axes:
    """Draw the mean over seeds as far as all of them were trained, with `marked` with the marker of its look,
    and with `seeds` each as a thin line.
    """
    for curve in curves if seeds else ():
        ax.plot(
            np.arange(1, len(curve) + 1), curve, color=look.colour, linewidth=0.4, alpha=0.45, linestyle=line
        )
    common = min(map(len, curves), default=0)
    if common:
        mean = np.mean([curve[:common] for curve in curves], axis=0)
        ax.plot(
            np.arange(1, common + 1), mean, color=look.colour, linestyle=line, linewidth=1.3, gid=gid,
            marker=look.marker if common == 1 or marked else None, markersize=4 if common == 1 else 3,
            markevery=max(1, common // _MARKS), markeredgecolor="white", markeredgewidth=0.3,
        )  # fmt: skip
    return ax


def curve_figures(
    arms: Sequence[Arm], keys: Sequence[str], frame: pd.DataFrame, columns: Mapping[str, str], what: str
) -> Iterator[tuple[str, Figure]]:
    """Yield figures with a panel per group of arms. columns: of the frame, with their labels; the first is
    drawn solid, the second dashed. what: the axis; the figures are called `training_WHAT`, then
    `training_WHAT_2`.
    """
    groups, rest = list(group_arms(arms, keys).items()), rest_of(arms, keys)
    looks = styles_of(list(dict.fromkeys(rest.values())))
    for number, start in enumerate(range(0, len(groups), PANELS), 1):
        name = what.partition(" ")[0] + (f"_{number}" if number > 1 else "")
        yield f"training_{name}", _curves(groups[start : start + PANELS], rest, looks, frame, columns, what)


def _curves(
    groups: Sequence[tuple[str, list[Arm]]],
    rest: Mapping[int, str],
    looks: Mapping[str, LineStyle],
    frame: pd.DataFrame,
    columns: Mapping[str, str],
    what: str,
) -> Figure:
    lines: dict[str, Any] = dict(zip(columns, ("-", (0, (3, 1.2))), strict=False))
    with plot_style():
        handles = [
            Line2D([], [], color=look.colour, marker=look.marker, markersize=3.5, label=name)
            for name, look in looks.items()
            if name
        ]
        handles += [
            Line2D([], [], color=GREY, linestyle=lines[column], label=word)
            for column, word in columns.items()
        ]
        seeds = max(len(arms) for _, arms in groups) <= _SEEDS_UP_TO
        foot = foot_of(len(handles), 2)
        when = "" if "loss" in what else " after each epoch"  # the training loss is of the epoch itself
        figure, axes = _panels(f"{what[:1].upper()}{what[1:]}{when}", len(groups), foot)
        for at, (ax, (name, arms)) in enumerate(zip(axes, groups, strict=True)):
            for arm in arms:
                for column in columns:
                    found = curves_of(arm, frame, column)
                    plot_arm_curves(
                        ax, found, looks[rest[id(arm)]], lines[column],
                        f"{column} {arm.label(arm.settings)}", seeds=seeds, marked=len(looks) > 1,
                    )  # fmt: skip
            _dressed(ax, name, (f"{what} (nats)" if what == "loss" else what) if at % _COLUMNS == 0 else "")
        share_range(axes, log=what == "loss")
        legend(figure, handles, foot - 0.02)
        footnote(figure, [_THIN if seeds else _MEANS, _SHARED, _RUNNING if "loss" in what else ""])
    return figure


def share_range(axes: Sequence[Axes], *, log: bool = False) -> None:
    """Set the same limits on both axes of all panels, so that they can be compared.

    log: with a logarithmic y axis where the values span more than a factor of thirty.
    """
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for ax in axes for line in ax.lines])
    values = values[np.isfinite(values)]
    ends = [max(ax.get_xlim()[1] for ax in axes), min(ax.get_xlim()[0] for ax in axes)]
    for ax in axes:
        ax.set_xlim(ends[1], ends[0])
    if not len(values):
        return
    low, high = float(values.min()), float(values.max())
    if log and low > 0 and high > _LOG_FROM * low:
        for ax in axes:
            ax.set_yscale("log")
            ax.set_ylim(low / 1.2, high * 1.2)
            log_axis(ax.yaxis, low / 1.2, high * 1.2, 5)
        return
    room = 0.04 * (high - low) or 0.5
    for ax in axes:
        ax.set_ylim(low - room, high + room)


def lines_of(name: str, most: int) -> str:
    """Return a whole name in lines of about `most` letters, broken between words and before brackets."""
    broken = name.replace("(", " (", 1) if len(name) > most else name
    return fill(broken, most, break_long_words=False, break_on_hyphens=False)


def _dressed(ax: Axes, name: str, label: str) -> Axes:
    ax.set_title(lines_of(name, 27), loc="left", fontsize=6.5, pad=3)
    ax.set_xlabel("epoch", labelpad=1, fontsize=7)
    ax.set_ylabel(label, labelpad=2, fontsize=7)
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.tick_params(labelsize=6)
    ax.grid(axis="y", **GRID)
    return ax


# Thresholds


def threshold_figures(
    arms: Sequence[Arm], keys: Sequence[str], observed: pd.DataFrame | None
) -> Iterator[tuple[str, Figure]]:
    """Yield figures with a panel per arm that learns thresholds, and a line per layer."""
    seen = {arm.label(keys): layers_of(observed, arm.ids) for arm in arms}
    seen = {name: each for name, each in seen.items() if len(each)}
    for number, start in enumerate(range(0, len(seen), PANELS), 1):
        part = dict(list(seen.items())[start : start + PANELS])
        yield "thresholds" + (f"_{number}" if number > 1 else ""), threshold_figure(part)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a sort key by which numbers in names count as numbers: `hidden.2` before `hidden.16`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def threshold_figure(
    panels: Mapping[str, pd.DataFrame],
    heading: str = "Learned thresholds",
    remark: str = f"{_THIN} Epoch 0 is before training.",
) -> Figure:
    """Plot thresholds by panel (id, loop, index, place, value) over the epochs; loop 0 is before training."""
    places = sorted({str(place) for each in panels.values() for place in each["place"]}, key=natural_key)
    looks = styles_of(places)
    with plot_style():
        handles = [
            Line2D([], [], color=each.colour, linestyle=each.line, label=name) for name, each in looks.items()
        ]
        foot = foot_of(len(handles), 1)
        figure, axes = _panels(heading, len(panels), foot, 3, 1.25)
        for at, (ax, (name, seen)) in enumerate(zip(axes, panels.items(), strict=True)):
            _trajectories(ax, seen, looks)
            _dressed(ax, name, "threshold" if at % 3 == 0 else "")
        share_range(axes)
        legend(figure, handles, foot - 0.02)
        footnote(figure, [remark, _SHARED if len(axes) > 1 else ""])
    return figure


def _trajectories(ax: Axes, seen: pd.DataFrame, looks: Mapping[str, LineStyle]) -> None:
    loops = seen[seen["loop"].notna()]
    for place, part in loops.groupby("place", observed=True):
        look = looks[str(place)]
        curves = [
            each.sort_values("loop")["value"].to_numpy() for _, each in part.groupby("id", observed=True)
        ]
        for curve in curves if len(curves) > 1 else ():
            ax.plot(np.arange(len(curve)), curve, color=look.colour, linewidth=0.4, alpha=0.45)
        common = min(map(len, curves))
        mean = np.mean([curve[:common] for curve in curves], axis=0)
        ax.plot(np.arange(common), mean, color=look.colour, linestyle=look.line, gid=f"threshold {place}")
