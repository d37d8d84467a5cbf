"""Figures of the study of memory and growth: computed numbers and axes in, axes out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from textwrap import fill
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from psa.analysis.stats import LEAST_N, share_summary
from psa.core.formatting import format_range
from psa.probes.memory import EDGES, PARTS
from psa.reports.memory.arm_names import KNN
from psa.reports.plotting.panels import draw_legend, panel, panel_grid
from psa.reports.plotting.scales import log_axis_with_zero, number_text, spans_decades
from psa.reports.plotting.style import (
    GREY,
    PALE,
    WIDTH,
    LineStyle,
    footnote,
    plot_style,
    title,
)

_DrawPanel = Callable[[Axes, pd.DataFrame], Axes]
LOOKS: Final = {
    "nn": LineStyle("#000000", "o"),
    "hybrid": LineStyle("#D55E00", "^"),
    "random_memory": LineStyle("#56B4E9", "D"),
    "hybrid_inactive": LineStyle("#0072B2", "s"),
    "embedding_knn": LineStyle("#009E73", "v"),
}
_LINE: Final = 0.19  # inches of a row, and of each further line of its name
_NAME: Final = 60  # letters of a line of the name of an arm
_LETTER: Final = 0.047  # inches of a letter of the name
_HELP, _HARM = "#009E73", "#D55E00"
_PERCENTAGES: Final = ("test", "validation")


def figures_of(
    runs: pd.DataFrame, last: pd.DataFrame, observed: pd.DataFrame | None, memory: str | None
) -> Iterator[tuple[str, Figure]]:
    """Yield every figure that the runs allow. last: those of the final stage; memory: the arm to judge."""
    with plot_style():
        yield "test_accuracy", _arms(last, "test", "test accuracy (%)")
        first = runs[runs["stage"] == runs["stage"].iloc[0]]
        if len(runs["stage"].unique()) > 1:
            later = set(runs["arm"][runs["stage"] != runs["stage"].iloc[0]])
            yield "first_stage_validation", _arms(first, "validation", "validation accuracy (%)", later)
        with_memory = last[last["helped"].notna()]
        if len(with_memory):
            yield "helped_and_harmed", _helped(with_memory)
            if last[list(_COSTS)].notna().any(axis=None):
                yield "cost_of_the_memory", _cost(last)
            yield (
                "size_of_the_effect",
                _arms(
                    with_memory.assign(relative=100 * with_memory["relative"]),
                    "relative",
                    "mean change of a hidden vector (% of its length)",
                ),
            )
        if observed is not None and memory is not None:
            ids = last.loc[last["arm"] == memory, "id"]
            seen = observed[observed["id"].isin(ids) & (observed["probe"] == "toggle")]
            if any(draw is not None for draw in _panels_of(seen)):
                yield "loss_changes", _changes(seen, memory)


def _arms(runs: pd.DataFrame, column: str, label: str, later: Collection[str] = ()) -> Figure:
    """Plot a line per arm, best above: its seeds, their mean, and its interval. later: arms to emphasise."""
    order = list(runs.groupby("arm")[column].mean().sort_values().index)
    figure, ax = _panel_of(order)
    arm_axes(ax, runs, column, order)
    for arm, name in zip(order, ax.get_yticklabels(), strict=True):
        name.set_fontweight("bold" if arm in later else "normal")
    ax.set_xlabel(label)
    wide = column not in _PERCENTAGES and spans_decades(runs[column].dropna().tolist())
    if wide:
        log_axis_with_zero(ax, runs[column].dropna().tolist())
    scale = " The axis is logarithmic and has a place for 0." if wide else ""
    bold = " Bold: arms that went on to a later stage." if later else ""
    footnote(
        figure,
        [
            f"Small marks are seeds ({_per_arm(runs)} per arm), large ones their means; bars are 95 % t "
            f"intervals of the mean, from three seeds on. Arms are sorted by their means.{scale}{bold}"
        ],
    )
    shown = label.partition(" (")[0]
    title(figure, f"{shown[:1].upper()}{shown[1:]}: {runs['stage'].iloc[0]}")
    return figure


def arm_name(arm: str) -> str:
    """Return the whole name of an arm, in lines that fit beside a panel."""
    return fill(arm, _NAME, break_long_words=False, break_on_hyphens=False)


def _panel_of(arms: Sequence[str]) -> tuple[Figure, Axes]:
    """Return a figure with a panel that has a row per arm; its title is written last."""
    lines = [line for arm in arms for line in arm_name(arm).splitlines()]
    left = 0.25 + _LETTER * max(map(len, lines))
    rows = len(arms) + 0.5 * (len(lines) - len(arms))
    return panel("", max(2.8, WIDTH - 0.2 - left), _LINE * rows, left, 0.5, 0.35)


def _per_arm(runs: pd.DataFrame) -> str:
    return format_range(runs.groupby("arm")["seed"].nunique())


def arm_axes(ax: Axes, runs: pd.DataFrame, column: str, order: Sequence[str]) -> Axes:
    """Draw the values of a column for each arm, from the bottom to the top in the order given."""
    for height, arm in enumerate(order):
        mine = runs[runs["arm"] == arm]
        values, look = mine[column].dropna(), LOOKS[str(mine["method"].iloc[0])]
        ax.axhline(height, color=PALE, linewidth=0.4, zorder=0)
        ax.plot(values, [height] * len(values), look.marker, color=look.colour, markersize=2.5, alpha=0.6)
        if len(values) >= LEAST_N:
            # an effect has no upper limit; accuracies are percentages
            found = share_summary(values, 100.0 if column in _PERCENTAGES else math.inf)
            ax.plot(
                [found.low, found.high], [height, height], color=look.colour, linewidth=1.1, gid="interval"
            )
        if len(values):
            ax.plot(values.mean(), height, look.marker, color=look.colour, markersize=5.5)
    ax.set_yticks(range(len(order)), list(map(arm_name, order)), fontsize=6, linespacing=0.95)
    ax.set_ylim(-0.6, len(order) - 0.4)
    return ax


def _helped(runs: pd.DataFrame) -> Figure:
    """Plot the shares of test samples whose loss fell and rose with the memory, side by side."""
    means = runs.groupby("arm")[["helped", "harmed", "strong_help", "strong_harm"]].mean()
    means = means.sort_values("helped")
    figure, ax = _panel_of(list(means.index))
    heights = np.arange(len(means))
    ax.barh(heights, means["helped"], 0.7, color=_HELP, label="helped")
    ax.barh(heights, -means["harmed"], 0.7, color=_HARM, label="harmed")
    ax.barh(heights, means["strong_help"], 0.3, color="#000000", label="beyond 0.2 nats")
    ax.barh(heights, -means["strong_harm"], 0.3, color="#000000")
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.set_yticks(heights, list(map(arm_name, means.index)), fontsize=6, linespacing=0.95)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: number_text(abs(value))))
    ax.set_xlabel("test samples (%): harmed to the left, helped to the right")
    draw_legend(figure, ax.get_legend_handles_labels()[0], ax.get_position().x0 * WIDTH, 0.12, 3)
    footnote(figure, ["Same weights, with and without the memory; changes up to 1e-6 nats are neither. "
                  "Black: changes beyond 0.2 nats."])  # fmt: skip
    title(figure, "Test samples that the memory helps and harms")
    return figure


_COSTS: Final = {"footprint": "memory (MB)", "throughput": "training (samples/s), evaluation included"}


def _cost(runs: pd.DataFrame) -> Figure:
    """Plot the bytes and the speed of a memory against the accuracy of its arm, as far as measured."""
    shown = [column for column in _COSTS if runs[column].notna().any()]
    figure, axes = panel_grid(
        "", len(shown), len(shown), 1.85, left=0.6, bottom=0.75, top=0.4, gap=(0.3, 0), width=3.0
    )
    handles: dict[str, Line2D] = {}
    for at, (ax, column) in enumerate(zip(axes, shown, strict=True)):
        there = runs.dropna(subset=[column])
        for method, mine in there.groupby("method"):
            look = LOOKS[str(method)]
            (drawn,) = ax.plot(mine[column], mine["test"], look.marker, color=look.colour, markersize=4)
            drawn.set_label(str(method))
            handles[str(method)] = drawn
        _widen(ax, there[column].to_numpy(np.float64))
        ax.set_xlabel(_COSTS[column])
        if at:
            ax.tick_params(labelleft=False)
    _share_accuracies(axes)
    axes[0].set_ylabel("test accuracy (%)")
    draw_legend(figure, list(handles.values()), 0.6, 0.3, 5)
    note = (
        f"A mark per trial{_without_bytes(runs, shown)}. Speed is of the machine and its load at that time."
    )
    footnote(figure, [note, *(["The panels share the axis of accuracy."] if len(axes) > 1 else [])])
    title(figure, "What the memory costs")
    return figure


def _without_bytes(runs: pd.DataFrame, shown: Sequence[str]) -> str:
    """Return what the note says of trials that have a speed and no bytes of a memory, after a comma."""
    if list(shown) != list(_COSTS):
        return ""
    methods = runs[runs["footprint"].isna() & runs["throughput"].notna()]["method"].unique()
    if not len(methods):
        return ""
    stored = "; the embeddings among which embedding_knn votes are not measured" if KNN in methods else ""
    return f", on the left of arms with a memory alone{stored}"


def _share_accuracies(axes: Sequence[Axes]) -> None:
    """Give all panels one range of accuracies, that of the marks of all of them."""
    ends = [end for ax in axes for end in ax.get_ylim()]
    for ax in axes:
        ax.set_ylim(min(ends), max(ends))


def _widen(ax: Axes, values: np.ndarray[Any, Any]) -> None:
    """Begin the x axis at 0, so that values that differ by rounding do not seem far apart."""
    ax.set_xlim(0, 1.08 * float(values.max()) or 1.0)
    ax.xaxis.set_major_locator(MaxNLocator(5))  # five labels of samples per second do not touch
    ax.xaxis.set_major_formatter(FuncFormatter(number_text))


_PARTS_NOTE: Final = (
    f"Each point of the curve is the mean of one of {PARTS} equal parts of the test samples, by the distance "
    "of their retrieved entries."
)


def _panels_of(seen: pd.DataFrame) -> tuple[_DrawPanel | None, _DrawPanel | None]:
    """Return the functions that draw the panels of which there are numbers, None for the others."""
    histogram = None if _of(seen, "histogram.test").empty else histogram_axes
    return histogram, None if _of(seen, "distance.test").empty else distance_axes


def _changes(seen: pd.DataFrame, memory: str) -> Figure:
    """Plot the change of loss on the test split, and its dependence on the distance of retrieved entries."""
    draws = [draw for draw in _panels_of(seen) if draw is not None]
    figure, axes = panel_grid(
        "", len(draws), len(draws), 1.75, left=0.6, bottom=0.95, top=0.5, gap=(0.9, 0), width=2.8
    )
    for ax, draw in zip(axes, draws, strict=True):
        draw(ax, seen)
    colours = {"helped": _HELP, "neither": GREY, "harmed": _HARM}
    handles = [Patch(color=colour, label=name) for name, colour in colours.items()]
    if histogram_axes in draws:
        draw_legend(figure, handles, 0.6, 0.14, 3)
    missing = "" if len(draws) == 2 else " The memory found no entries, or no samples were tested."
    parts = [_PARTS_NOTE] if distance_axes in draws else []
    first = f"Arm: {memory}. Means over the seeds of the final stage; test split, same weights.{missing}"
    footnote(figure, [first, *parts])
    title(figure, "Change of loss by the memory")
    return figure


def _of(seen: pd.DataFrame, quantity: str) -> pd.Series:
    """Return the means over trials of a quantity's numbers, in their order."""
    return seen[seen["quantity"] == quantity].groupby("index")["value"].mean()


def histogram_axes(ax: Axes, seen: pd.DataFrame) -> Axes:
    """Draw the number of samples per bin of the change of loss."""
    counts = _of(seen, "histogram.test")
    names = [f"< {number_text(EDGES[0])}", *map(number_text, EDGES)]
    ax.bar(counts.index, counts, color=[_colour(at) for at in counts.index])
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    ax.set_xlabel("change of loss (nats), lower edge of the bin")
    ax.set_ylabel("test samples")
    return ax


def _colour(number: int) -> str:
    """Return the colour of a bin: help, neither, or harm."""
    middle = len(EDGES) // 2
    return _HELP if number < middle else GREY if number == middle else _HARM


def distance_axes(ax: Axes, seen: pd.DataFrame) -> Axes:
    """Draw the mean change of loss of PARTS equal parts of the samples, by the distance of their retrieved
    entries.
    """
    distance, change = _of(seen, "distance.test"), _of(seen, "change.test")
    ax.plot(distance, change, "-o", color=LOOKS["hybrid"].colour, markersize=3)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xlabel("mean distance of the retrieved entries")
    ax.set_ylabel("mean change of loss (nats)")
    return ax
