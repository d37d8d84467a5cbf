"""Figures of accuracy and training speed against depth: a panel per width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.analysis.stats import LEAST_N, Values, present, summary
from psa.reports.glonet.figures.panels import MODEL_LOOKS, finish_panels, model_line, panels, thin_line
from psa.reports.glonet.networks import CHANCE, GlonetResults, Network, Trained, mean
from psa.reports.glonet.tables import times_of_packs
from psa.reports.plotting.scales import log_axis
from psa.reports.plotting.style import GREY, plot_style

_COLUMNS: Final = 3
_OFFSET: Final = 0.14  # of a step between depths: the marks of models stand beside each other

Numbers = Callable[[Trained], Values]


def plot_depths(
    ax: Axes,
    results: GlonetResults,
    features: int,
    numbers: Numbers,
    most: float = math.inf,
    least: float = -math.inf,
    *,
    intervals: bool = True,
) -> Axes:
    """Draw the mean with its 95 % t interval (if `intervals`) per model, and every trial as a dot, over
    depths at equal distances.

    most: the greatest possible number, at which an interval ends. least: the lower end of the panel, below
    which the line goes on; networks with a mean there have no interval and no dots, which would stand without
    a mark.
    """
    for at, model in enumerate(results.models):
        look = MODEL_LOOKS[model]
        networks = [each for each in results.of(model, features) if len(present(numbers(each)))]
        if not networks:
            continue
        shift = _OFFSET * (at - (len(results.models) - 1) / 2)
        x = np.array([results.layers.index(each.network.layers) + shift for each in networks])
        found = [summary(numbers(each)) for each in networks]
        means = np.array([each.mean for each in found])
        wide = np.array([intervals and each.n >= LEAST_N and each.mean >= least for each in found])[None]
        reach = np.array([[each.mean - each.low, min(each.high, most) - each.mean] for each in found]).T
        ax.errorbar(
            x, means, np.nan_to_num(reach) * wide, color=look.colour, linestyle=look.line, marker=look.marker,
            markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.8, capsize=1.5,
            linewidth=1.1, zorder=3, gid=f"mean {model}",
        )  # fmt: skip
        for each, place in zip(networks, x, strict=True):
            values = present(numbers(each)) if mean(numbers(each)) >= least else np.array([])
            ax.plot(np.full(len(values), place), values, ".", color=look.colour, alpha=0.45, markersize=2.5)
    ax.set_xticks(range(len(results.layers)), [str(layers) for layers in results.layers])
    ax.set_xlim(-0.5, len(results.layers) - 0.5)
    return ax


def _zero_r(ax: Axes, results: GlonetResults) -> None:
    if not np.isnan(results.zero_r):
        ax.axhline(results.zero_r, color=GREY, linewidth=0.9, linestyle="--", zorder=1, gid="zero_r")


def _learned_range(results: GlonetResults) -> tuple[float, float] | None:
    """Return the range of the means far above ZeroR, where differences between depths are visible; None if a
    width has no mean there, since its panel would be empty.
    """
    means = np.array([mean(each.test) for each in results.trained.values() if each.n])
    means = means[means > max(results.zero_r + CHANCE, means.max() - 10)] if len(means) else means
    if not len(means):
        return None
    room = max(float(np.ptp(means)) * 0.3, 0.3)
    low, high = float(means.min()) - room, min(100.0, float(means.max()) + room)
    for features in results.features[:_COLUMNS]:
        trained = [each for model in results.models for each in results.of(model, features) if each.n]
        if not any(mean(each.test) >= low for each in trained):
            return None
    return low, high


def accuracy_figure(results: GlonetResults) -> Figure:
    """Plot test accuracy over depth: the full range above, within ten points of the best below."""
    shown = _learned_range(results)
    count = min(len(results.features), _COLUMNS)
    with plot_style():
        figure, axes = panels("Accuracy and depth", 1 if shown is None else 2, count, 1.75)
        for column, features in enumerate(results.features[:_COLUMNS]):
            upper = plot_depths(axes[0][column], results, features, lambda each: each.test, 100.0)
            _zero_r(upper, results)
            upper.set_ylim(0, 103)
            upper.set_title(f"width {features}", loc="left")
            if shown is not None:
                low, high = shown
                lower = plot_depths(axes[1][column], results, features, lambda each: each.test, 100.0, low)
                _zero_r(lower, results)
                lower.set_ylim(low, high)
                lower.set_title("the upper end, enlarged", loc="left", fontsize=7, color="#404040")
            axes[-1][column].set_xlabel("layers, the head included")
        for row in axes:
            row[0].set_ylabel("test accuracy (%)")
        zero_r = thin_line(f"ZeroR of validation, {results.zero_r_shown}")
        handles = [*map(model_line, results.models), zero_r]
        how = (
            "Marks: mean over seeds, bars: 95 % t interval of the mean; dots: trials. Depths stand at equal "
        )
        how += "distances."
        how += " The panels of a row share their axes." if count > 1 else ""
        how += "" if shown is None else " What lies outside the enlarged range is in the panel above it"
        how += _below(results, shown)
        return finish_panels(figure, results, handles, [how, _left_out(results)])


def _below(results: GlonetResults, shown: tuple[float, float] | None) -> str:
    """Return the end of the sentence on the enlarged range: `plot_depths` hides trials inside the range where
    their mean is below it.
    """
    if shown is None:
        return ""
    low, _ = shown
    drawn = [
        each for network, each in results.trained.items() if network.features in results.features[:_COLUMNS]
    ]
    hidden = any(mean(each.test) < low for each in drawn if each.n)
    return ", and so are the interval and the trials of each mean below it." if hidden else "."


def _left_out(results: GlonetResults) -> str:
    rest = results.features[_COLUMNS:]
    return f"Widths {', '.join(map(str, rest))} are in the table alone." if rest else ""


def speed_figure(results: GlonetResults, seconds: Mapping[Network, Values]) -> Figure:
    """Plot milliseconds per epoch and trial over depth, as the table has them."""
    with plot_style():
        count = min(len(results.features), _COLUMNS)
        figure, axes = panels("Training speed", 1, count, 1.9)
        for ax, features in zip(axes[0], results.features, strict=False):
            # no interval: that of two or three packs reaches below 0, where a logarithmic axis has no place
            plot_depths(
                ax,
                results,
                features,
                lambda each: 1000 * times_of_packs(seconds, each.network),
                intervals=False,
            )
            ax.set_yscale("log")
            ax.set_title(f"width {features}", loc="left")
            ax.set_xlabel("layers, the head included")
        _one_range([ax for ax in axes[0] if ax.lines])
        axes[0][0].set_ylabel("milliseconds per epoch and trial")
        how = "The time of a pack divided by the epochs of all its trials. Marks: mean over packs; dots: "
        how += "packs. Depths stand at equal distances."
        how += " The panels share their axes." if count > 1 else ""
        return finish_panels(figure, results, map(model_line, results.models), [how, _left_out(results)])


def _one_range(axes: list[Axes]) -> None:
    """Set the same limits on all axes, from the data of all, so that panels can be compared."""
    values = [
        np.asarray(line.get_ydata(), dtype=np.float64)[np.asarray(line.get_ydata(), dtype=np.float64) > 0]
        for ax in axes
        for line in ax.lines
    ]
    drawn = np.concatenate(values or [np.empty(0)])
    drawn = drawn[~np.isnan(drawn)]
    for ax in axes:
        if len(drawn):
            low, high = float(drawn.min()) / 1.6, float(drawn.max()) * 1.6
            ax.set_ylim(low, high)
            log_axis(ax.yaxis, low, high)
