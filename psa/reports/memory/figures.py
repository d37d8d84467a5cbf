"""Figures of the study of memory and growth: computed numbers and axes in, axes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.probes.memory import EDGES
from psa.reports.plotting.panels import panel, panel_grid
from psa.reports.plotting.style import GREY, PALE, LineStyle, empty, footnote, plot_style, title

LOOKS: Final = {
    "nn": LineStyle("#000000", "o"),
    "hybrid": LineStyle("#D55E00", "^"),
    "random_memory": LineStyle("#56B4E9", "D"),
    "hybrid_inactive": LineStyle("#0072B2", "s"),
    "embedding_knn": LineStyle("#009E73", "v"),
}
_LEFT: Final = 3.0  # inches for the names of arms
_LINE: Final = 0.19


def figures_of(
    runs: pd.DataFrame, last: pd.DataFrame, observed: pd.DataFrame | None, memory: str | None
) -> Iterator[tuple[str, Figure]]:
    """Yield every figure that the runs allow. last: those of the final stage; memory: the arm to judge."""
    with plot_style():
        yield "test_accuracy", _arms(last, "test", "Test accuracy, percent")
        first = runs[runs["stage"] == runs["stage"].iloc[0]]
        if len(runs["stage"].unique()) > 1:
            yield "first_stage_validation", _arms(first, "validation", "Validation accuracy, percent")
        with_memory = last[last["helped"].notna()]
        if len(with_memory):
            yield "helped_and_harmed", _helped(with_memory)
            yield "cost_of_the_memory", _cost(last)
            yield (
                "size_of_the_effect",
                _arms(with_memory, "relative", "Mean change of a hidden vector, share of its length"),
            )
        if observed is not None and memory is not None:
            ids = last.loc[last["arm"] == memory, "id"]
            seen = observed[observed["id"].isin(ids) & (observed["probe"] == "toggle")]
            if len(seen):
                yield "loss_changes", _panels(seen, memory)


def _arms(runs: pd.DataFrame, column: str, label: str) -> Figure:
    """Plot a line per arm, best above: its seeds, and their mean."""
    order = list(runs.groupby("arm")[column].mean().sort_values().index)
    figure, ax = _panel_of(len(order))
    arm_axes(ax, runs, column, order)
    ax.set_xlabel(label)
    footnote(figure, [f"Small marks are seeds ({_per_arm(runs)} per arm), large ones their means."])
    title(figure, f"{label.partition(',')[0]}: {runs['stage'].iloc[0]}")
    return figure


def _panel_of(arms: int) -> tuple[Figure, Axes]:
    """Return a figure with a panel that has a line per arm; its title is written last."""
    return panel("", 7.0 - _LEFT, _LINE * arms, _LEFT, 0.65, 0.35)


def _per_arm(runs: pd.DataFrame) -> str:
    seeds = runs.groupby("arm")["seed"].nunique()
    return f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"


def arm_axes(ax: Axes, runs: pd.DataFrame, column: str, order: Sequence[str]) -> Axes:
    """Draw the values of a column for each arm, from the bottom to the top in the order given."""
    for height, arm in enumerate(order):
        mine = runs[runs["arm"] == arm]
        values, look = mine[column].dropna(), LOOKS[str(mine["method"].iloc[0])]
        ax.axhline(height, color=PALE, linewidth=0.4, zorder=0)
        ax.plot(values, [height] * len(values), look.marker, color=look.colour, markersize=2.5, alpha=0.6)
        if len(values):
            ax.plot(values.mean(), height, look.marker, color=look.colour, markersize=5.5)
    ax.set_yticks(range(len(order)), order, fontsize=6)
    ax.set_ylim(-0.6, len(order) - 0.4)
    return ax


def _helped(runs: pd.DataFrame) -> Figure:
    """Plot the shares of test samples whose loss fell and rose with the memory, side by side."""
    means = runs.groupby("arm")[["helped", "harmed", "strong_help", "strong_harm"]].mean()
    means = means.sort_values("helped")
    figure, ax = _panel_of(len(means))
    heights = np.arange(len(means))
    ax.barh(heights, means["helped"], 0.7, color="#009E73", label="helped")
    ax.barh(heights, -means["harmed"], 0.7, color="#D55E00", label="harmed")
    ax.barh(heights, means["strong_help"], 0.3, color="#000000")
    ax.barh(heights, -means["strong_harm"], 0.3, color="#000000")
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.set_yticks(heights, list(means.index), fontsize=6)
    ax.set_xlabel("Percent of test samples: harmed to the left, helped to the right")
    footnote(figure, ["Same weights, with and without the memory; changes up to 1e-6 nats are neither. "
                  "Black: changes beyond 0.2 nats."])  # fmt: skip
    title(figure, "Whom the memory helps")
    return figure


def _cost(runs: pd.DataFrame) -> Figure:
    """Plot the bytes and the speed of a memory against the accuracy of its arm."""
    labels = {"footprint": "Memory, MB", "throughput": "Training, images a second, evaluation included"}
    figure, axes = panel_grid("", 2, 2, 1.85, left=0.6, bottom=0.65, top=0.4, gap=(0.7, 0), width=2.8)
    for ax, (column, label) in zip(axes, labels.items(), strict=True):
        there = runs.dropna(subset=[column])
        if there.empty:
            empty(ax, "not measured")
            continue
        for method, mine in there.groupby("method"):
            look = LOOKS[str(method)]
            ax.plot(mine[column], mine["test"], look.marker, color=look.colour, markersize=4, label=method)
        ax.set_xlabel(label)
        ax.set_ylabel("Test accuracy, percent")
    figure.axes[-1].legend(fontsize=5.5)
    footnote(figure, ["A mark per trial. Speed is of the machine and its load at that time."])
    title(figure, "What the memory costs")
    return figure


def _panels(seen: pd.DataFrame, memory: str) -> Figure:
    """Plot the change of loss on the test split, and its dependence on the distance of retrieved entries."""
    figure, (left, right) = panel_grid(
        "", 2, 2, 1.75, left=0.6, bottom=0.75, top=0.4, gap=(0.9, 0), width=2.8
    )
    histogram_axes(left, seen)
    distance_axes(right, seen)
    footnote(figure, ["Means over the seeds of the final stage; test split, same weights."])
    title(figure, memory)
    return figure


def _of(seen: pd.DataFrame, quantity: str) -> pd.Series:
    """Return the means over trials of a quantity's numbers, in their order."""
    return seen[seen["quantity"] == quantity].groupby("index")["value"].mean()


def histogram_axes(ax: Axes, seen: pd.DataFrame) -> Axes:
    """Draw the number of samples per bin of the change of loss."""
    counts = _of(seen, "histogram.test")
    if counts.empty:
        return empty(ax, "no test samples")
    names = [f"< {EDGES[0]:g}", *(f"{edge:g}" for edge in EDGES)]
    ax.bar(counts.index, counts, color=[_colour(at) for at in counts.index])
    ax.set_xticks(range(len(names)), names, rotation=90, fontsize=5)
    ax.set_xlabel("Change of loss from there, nats")
    ax.set_ylabel("Test samples")
    return ax


def _colour(number: int) -> str:
    """Return the colour of a bin: help, neither, or harm."""
    middle = len(EDGES) // 2
    return "#009E73" if number < middle else GREY if number == middle else "#D55E00"


def distance_axes(ax: Axes, seen: pd.DataFrame) -> Axes:
    """Draw the mean change of loss of tenths of the samples, by the distance of their retrieved entries."""
    distance, change = _of(seen, "distance.test"), _of(seen, "change.test")
    if distance.empty:
        return empty(ax, "the memory found nothing, or did not act")
    ax.plot(distance, change, "-o", color=LOOKS["hybrid"].colour, markersize=3)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xlabel("Mean distance of the entries found")
    ax.set_ylabel("Mean change of loss, nats")
    return ax
