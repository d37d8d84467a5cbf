"""Figures of one run: its curves, the distributions of its weights and activations, its thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from psa.reports.activations.curves import threshold_figure
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import GREY, GRID, empty, footnote, plot_style
from psa.specs.shapes import Linear
from psa.specs.trial import Trial
from psa.storage.records.record import Record

_BEFORE: Final = "#0072B2"
_AFTER: Final = "#009E73"
_WEIGHT: Final = "#56B4E9"
_DASHED: Final = (0, (3, 1.2))
_LAYERS: Final = 12  # drawn at most: the first ones of a deep network
_OVER: Final = (
    "Over the first 1,000 validation samples with the weights of the best epoch; counts on logarithmic axes."
)
_SAME: Final = 1e-3  # relative; float32 sums of a layer differ by less


def run_curves(stats: Mapping[str, Any], name: str) -> Figure:
    """Return a figure of loss and accuracy over the epochs, with the epoch of the tested weights marked."""
    curves, best = stats["curves"], stats["final_metrics"]["best_epoch"]
    panels = (
        ("loss", {"validation": curves["val_loss"], "training (mean over the epoch)": curves["train_loss"]}),
        ("accuracy (%)", {"validation": curves["val_acc"], "training": curves["train_acc"]}),
    )
    with plot_style():
        figure, axes = panel_grid(name, 2, 2, 1.7, left=0.5, bottom=0.75, top=0.45, gap=(0.65, 0), width=2.95)
        for at, (ax, (what, lines)) in enumerate(zip(axes, panels, strict=True)):
            for line, (word, values) in zip(("-", _DASHED), lines.items(), strict=True):
                if values:
                    numbers = np.array(values, dtype=np.float64)
                    ax.plot(curves["epoch"], numbers, linestyle=line, color=_BEFORE if line == "-" else GREY,
                            label=word, marker="o", markersize=2)  # fmt: skip
            if best > 0:
                ax.axvline(best, color=GREY, linewidth=0.7, linestyle=":", label=f"best epoch, {best}")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.set(xlabel="epoch", ylabel=what)
            ax.grid(axis="y", **GRID)
            draw_legend(figure, ax.get_legend_handles_labels()[0], 0.5 + at * 3.6, 0.3, 3)
        finals = stats["final_metrics"]
        lost, test = finals["diverged"], finals["test_acc"]
        note = "" if lost else f"Test accuracy {test:.2f} % with the weights of the best epoch."
        footnote(figure, [note or "Diverged: a loss, a logit or a weight is not finite."])
    return figure


def run_thresholds(stats: Mapping[str, Any], name: str) -> Figure:
    """Return a figure of the threshold of every layer over the epochs."""
    parts = [
        pd.DataFrame(
            {
                "id": name,
                "loop": range(len(each["by_epoch"])),
                "index": at,
                "place": layer,
                "value": each["by_epoch"],
            }
        )
        for at, (layer, each) in enumerate(stats["thresholds"].items())
    ]
    return threshold_figure({"": pd.concat(parts)}, name, "Epoch 0 is before training.")


def weight_figure(record: Record, trial: Trial, name: str) -> Figure:
    """Return a figure with a histogram of each weight matrix of the tested weights."""
    seen = record["probes"]["distributions"]["last"]
    linears = trial.shape.linears
    with plot_style():
        figure, axes, more = _grid(linears, name, 3)
        for ax, linear in zip(axes, linears, strict=False):
            drawn = _histogram(ax, seen, f"weights.{linear.name}.weight", _WEIGHT)
            ax.set_title(f"{linear.name}  {linear.inputs} → {linear.outputs}", loc="left", fontsize=7, pad=3)
            _annotated(ax, [*_moments(drawn), "softmax(V / T)" if linear.simplex else ""])
            ax.set_xlabel("weight", labelpad=1, fontsize=7)
            ax.set_ylabel("count", labelpad=1, fontsize=7)
        footnote(
            figure,
            [
                f"Of the weights of the best epoch; 60 bins from the least to the greatest; counts on "
                f"logarithmic axes.{more}"
            ],
        )
    return figure


def activation_figure(record: Record, trial: Trial, name: str) -> Figure:
    """Plot each hidden layer before (blue) and after (green) activation, of some validation samples."""
    seen = record["probes"]["distributions"]["last"]
    linears = [each for each in trial.shape.linears if each.role != "output"]
    with plot_style():
        figure, axes, more = _grid([each for linear in linears for each in (linear, linear)], name, 2)
        for at, ax in enumerate(axes):
            linear, side = linears[at // 2], ("before", "after")[at % 2]
            drawn = _histogram(ax, seen, f"{side}.{linear.name}", _BEFORE if at % 2 == 0 else _AFTER)
            ax.set_title(f"{linear.name}, {side} the activation", loc="left", fontsize=7, pad=3)
            sums = _summed(seen.get(f"after.{linear.name}.sum", ())) if at % 2 else ""
            _annotated(ax, [*_moments(drawn), sums])
            ax.set_ylabel("count", labelpad=1, fontsize=7)
        footnote(figure, [f"{_OVER}{more}"])
    return figure


def _summed(sums: Sequence[float | None]) -> str:
    """Format the sum of a layer's outputs per sample: mean, and least and greatest if known."""
    if not sums or any(each is None for each in sums):
        return ""
    mean, *ends = (float(each) for each in sums if each is not None)
    if ends and max(ends) - min(ends) <= _SAME * abs(mean):
        return f"sums to {mean:.4g}"
    return f"sums: mean {mean:.4g}" + (f"\n{ends[0]:.4g} to {ends[1]:.4g}" if ends else "")


def _grid(linears: Sequence[Linear], name: str, columns: int) -> tuple[Figure, list[Axes], str]:
    """Return a figure, a panel for each layer that fits, and a note on the layers left out."""
    most = _LAYERS * (2 if columns == 2 else 1)
    count = min(len(linears), most)
    columns = min(columns, max(2, count))
    figure, axes = panel_grid(
        name, count, columns, 1.15, left=0.5, bottom=0.63, top=0.58, gap=(0.62, 0.64), right=0.12
    )
    layers = (len(linears) - count) // (2 if most > _LAYERS else 1)
    return figure, axes, f" {layers} further layers are in run_stats.json." if layers else ""


def _histogram(ax: Axes, seen: Mapping[str, Any], name: str, colour: str) -> Sequence[float | None]:
    """Draw the counts of one place on a logarithmic axis. Return its moments, empty if not finite."""
    moments: Sequence[float | None] = seen.get(f"{name}.moments", ())
    counts: Sequence[int] = seen.get(f"{name}.counts", ())
    if not moments or moments[2] is None or moments[3] is None:
        empty(ax, "not finite")
        return ()
    low, high = float(moments[2]), float(moments[3])
    if high <= low:
        empty(ax, f"all are {low:.4g}")
        return moments
    edges = np.linspace(low, high, len(counts) + 1)
    ax.stairs(np.maximum(counts, 0.5), edges, fill=True, color=colour, baseline=0.5)
    ax.set_yscale("log")
    ax.set_ylim(0.5, 0.5 * (2 * max(counts)) ** 1.45)  # room for the text above the bars
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.tick_params(labelsize=6)
    ax.minorticks_off()
    return moments


def _moments(moments: Sequence[float | None]) -> list[str]:
    if not moments or moments[0] is None:
        return []
    mean, sd, _, _, zeros, negative = (float(each or 0) for each in moments)
    return [f"mean {mean:.3g}, sd {sd:.3g}", f"{100 * zeros:.1f} % zero, {100 * negative:.1f} % negative"]


def _annotated(ax: Axes, lines: Sequence[str]) -> Axes:
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
    text = "\n".join(line for line in lines if line)
    where: dict[str, Any] = {"transform": ax.transAxes, "ha": "right", "va": "top"}
    ax.text(0.98, 0.97, text, fontsize=5.5, linespacing=1.3, bbox=box, **where)
    return ax
