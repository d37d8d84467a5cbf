"""Figures of losses and accuracy over the epochs: a row of panels per depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from psa.analysis.stats import Values
from psa.reports.glonet.figures.panels import MODEL_LOOKS, bands, finish_panels, model_line, panels, thin_line
from psa.reports.glonet.networks import GlonetResults, Trained
from psa.reports.glonet.training_accuracy import TrainingAccuracies
from psa.reports.plotting.scales import linear_ticks, log_axis, number_text, within_reach
from psa.reports.plotting.style import GREY, plot_style

_QUANTITIES: Final = ("training loss", "validation loss", "validation accuracy (%)", "training accuracy (%)")
_LOSSES: Final = 2  # of the quantities
ROWS: Final = 8  # of panels per page


def _of(each: Trained, training: TrainingAccuracies) -> tuple[Values, Values, Values, Values]:
    shown_training = training.get(each.network, np.full_like(each.accuracies, np.nan))
    return each.train_losses, each.losses, each.accuracies, shown_training


def plot_epochs(ax: Axes, curves: Sequence[tuple[str, Values]]) -> Axes:
    """Draw the mean over seeds, and the range from the least to the greatest, for each model.

    curves: a model and [seeds, epochs]. A mean is over the trials that were trained that far.
    """
    longest = max(values.shape[1] for _, values in curves)
    for at, (model, values) in enumerate(curves):
        look, x = MODEL_LOOKS[model], np.arange(1, values.shape[1] + 1)
        middle, low, high = bands(values)
        every = max(1, longest // 6)
        ax.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
        ax.plot(
            x, middle, color=look.colour, linestyle=look.line, linewidth=1.1, marker=look.marker,
            markersize=3.2, markeredgecolor="white", markeredgewidth=0.3,
            # the marks of the models stand at different epochs, or they would hide each other
            markevery=(at * every // 2 % longest, every), zorder=3, gid=f"mean {model}",
        )  # fmt: skip
    ax.set_xlim(1 - 0.03 * longest, longest + 0.03 * longest)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    return ax


def _dress_loss(ax: Axes, range_: tuple[float, float] | None) -> None:
    ax.set_yscale("log")
    if range_ is not None:
        ax.set_ylim(*range_)
        log_axis(ax.yaxis, *range_, 5)


def _range(results: GlonetResults, at: int) -> tuple[float, float] | None:
    """Return the range of a loss over all networks, from its means over seeds; None without any."""
    found = [bands(_of(each, {})[at])[0] for each in results.trained.values() if each.n]
    values = np.concatenate(found or [np.empty(0)])
    values = values[np.isfinite(values) & (values > 0)]
    return (float(values.min()) / 1.3, float(values.max()) * 1.3) if len(values) else None


def trained_depths(results: GlonetResults, features: int) -> list[int]:
    """Return the depths of which a network of this width has a trial."""
    return [
        layers
        for layers in results.layers
        if any(
            (each := results.get(model, layers, features)) is not None and each.n for model in results.models
        )
    ]


def curves_figure(
    results: GlonetResults, features: int, layers: Sequence[int], training: TrainingAccuracies | None = None
) -> Figure:
    """Plot training loss, validation loss (each on one logarithmic range) and validation accuracy, per depth;
    where any trial has it, also training accuracy.

    layers: depths with at least one trained network, see `trained_depths`. training: see
    psa.reports.glonet.training_accuracy.
    """
    shown_training = {
        network: values for network, values in (training or {}).items() if network.features == features
    }
    ranges = [_range(results, at) for at in range(_LOSSES)]
    shown = _QUANTITIES if shown_training else _QUANTITIES[:-1]
    with plot_style():
        figure, axes = panels(f"Learning curves, width {features}", len(layers), len(shown), 0.85)
        for row, depth in enumerate(layers):
            there = [
                each
                for model in results.models
                if (each := results.get(model, depth, features)) is not None and each.n
            ]
            for at, ax in enumerate(axes[row]):
                lines = [(each.network.model, _of(each, shown_training)[at]) for each in there]
                lines = [(model, values) for model, values in lines if np.isfinite(values).any()]
                if not lines:
                    ax.remove()
                    continue
                plot_epochs(ax, lines)
                ax.set_title(f"{depth} layers", loc="left", fontsize=7.5, pad=2)
                if at < _LOSSES:
                    _dress_loss(ax, ranges[at])
                else:
                    # ZeroR is of the validation split
                    dress_accuracy(ax, lines, results.zero_r if at == _LOSSES else float("nan"))
        below = "\n " if shown_training else ""  # in four columns a name stands on a line of its own
        for ax, quantity in zip(axes[0], shown, strict=True):
            ax.set_title(f"{quantity}{below}", loc="right", fontsize=7.5, color="#404040", pad=2)
        for ax in axes[-1]:
            ax.set_xlabel("epoch")
        zero_r = f"ZeroR, {results.zero_r_shown}, where it is on the scale"
        handles = [*map(model_line, results.models), thin_line(zero_r)]
        how = "Lines: mean over seeds, bands: from the least to the greatest. The training loss is the mean "
        how += "over the batches of an epoch, the validation loss that of the weights after it. "
        if shown_training:
            how += "The training accuracy is that of the weights after an epoch, on the training split. "
        how += "The panels of a column share the axis of a loss; each panel of accuracies has the range of "
        how += "its data."
        return finish_panels(figure, results, handles, [how])


def dress_accuracy(ax: Axes, curves: Sequence[tuple[str, Values]], zero_r: float) -> None:
    """Set the range of a panel to that of its trials, with a line at ZeroR (percent, NaN for none) where that
    leaves the curves apart.
    """
    found = np.concatenate([values[np.isfinite(values)] for _, values in curves])
    low, high = float(found.min()), float(found.max())
    if within_reach(zero_r, low, high):
        ax.axhline(zero_r, color=GREY, linewidth=0.9, linestyle="--", zorder=1, gid="zero_r")
        low, high = min(low, zero_r), max(high, zero_r)
    room = max(0.06 * (high - low), 0.2)
    ax.set_ylim(low - room, high + room)
    ax.yaxis.set_major_locator(FixedLocator(linear_ticks(low - room, high + room, 4)))
    ax.yaxis.set_major_formatter(FuncFormatter(number_text))
