"""The figure of accuracy against depth: a panel per width."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.analysis.stats import LEAST_N, Values, present, share_summary, summary
from psa.reports.glonet.figures.panels import MODEL_LOOKS, finish_panels, model_line, panels
from psa.reports.glonet.networks import CHANCE, GlonetResults, Trained, mean
from psa.reports.plotting.style import plot_style

_COLUMNS: Final = 3
_ENLARGED: Final = 10.0  # points below the best mean
_OFFSET: Final = 0.14  # of a step between depths: the marks of models stand beside each other


def plot_depths(ax: Axes, results: GlonetResults, features: int, least: float = -math.inf) -> Axes:
    """Draw the mean test accuracy of each model with its 95 % t interval, and every trial as a dot, over
    depths at equal distances. ZeroR has no line: it is known of the validation split alone.

    least: the lower end of the panel, below which the line goes on; networks with a mean there have no
    interval and no dots, which would stand without a mark.
    """
    for at, model in enumerate(results.models):
        look = MODEL_LOOKS[model]
        networks = [each for each in results.of(model, features) if len(present(each.test))]
        if not networks:
            continue
        shift = _OFFSET * (at - (len(results.models) - 1) / 2)
        x = np.array([results.layers.index(each.network.layers) + shift for each in networks])
        found = [summary(each.test) for each in networks]
        means = np.array([each.mean for each in found])
        wide = np.array([each.n >= LEAST_N and each.mean >= least for each in found])[None]
        reach = np.array([[each.mean - each.low, min(each.high, 100.0) - each.mean] for each in found]).T
        ax.errorbar(
            x, means, np.nan_to_num(reach) * wide, color=look.colour, linestyle=look.line, marker=look.marker,
            markersize=4.5, markeredgecolor="white", markeredgewidth=0.4, elinewidth=0.8, capsize=1.5,
            linewidth=1.1, zorder=3, gid=f"mean {model}",
        )  # fmt: skip
        for each, place in zip(networks, x, strict=True):
            values = present(each.test) if mean(each.test) >= least else np.array([])
            ax.plot(np.full(len(values), place), values, ".", color=look.colour, alpha=0.45, markersize=2.5)
    ax.set_xticks(range(len(results.layers)), [str(layers) for layers in results.layers])
    ax.set_xlim(-0.5, len(results.layers) - 0.5)
    return ax


def _drawn(results: GlonetResults) -> list[Trained]:
    """Return the networks with a finished trial that the figure has a panel for."""
    widths = results.features[:_COLUMNS]
    return [each for model in results.models for wide in widths for each in results.of(model, wide) if each.n]


def _span(each: Trained) -> tuple[float, float]:
    """Return the ends of the interval and of the trials of a network together."""
    found = share_summary(each.test)
    return float(np.fmin(found.low, found.least)), float(np.fmax(found.high, found.greatest))


def _learned_range(results: GlonetResults) -> tuple[float, float] | None:
    """Return a range far above ZeroR, where differences between depths are visible, with the whole interval
    and all trials of every mean in it. It begins with the networks that lie within ten points of the best
    mean. None if a width has no mean there, since its panel would be empty.
    """
    drawn = _drawn(results)
    spans = np.array([_span(each) for each in drawn]).reshape(-1, 2)
    means = np.array([float(mean(each.test)) for each in drawn])
    best = max(means, default=np.nan)
    chosen = (means > results.zero_r + CHANCE) & (spans[:, 0] > best - _ENLARGED)
    if not chosen.any():
        return None
    ends = _ends(spans[chosen])
    while (means >= ends[0]).sum() > chosen.sum():
        chosen = means >= ends[0]
        ends = _ends(spans[chosen])
    shown = {each.network.features for each, there in zip(drawn, chosen, strict=True) if there}
    return ends if shown.issuperset(results.features[:_COLUMNS]) else None


def _ends(spans: Values) -> tuple[float, float]:
    """Return the limits of a panel that shows these spans [networks, 2], with some room."""
    low, high = float(spans[:, 0].min()), float(spans[:, 1].max())
    room = max(0.1 * (high - low), 0.3)
    return low - room, min(100.0, high + room)


def accuracy_figure(results: GlonetResults) -> Figure:
    """Plot test accuracy over depth: the full range above, the networks close to the best below."""
    shown = _learned_range(results)
    count = min(len(results.features), _COLUMNS)
    with plot_style():
        figure, axes = panels("Accuracy and depth", 1 if shown is None else 2, count, 1.75)
        for column, features in enumerate(results.features[:_COLUMNS]):
            upper = plot_depths(axes[0][column], results, features)
            upper.set_ylim(0, 103)
            upper.set_title(f"width {features}", loc="left")
            if shown is not None:
                low, high = shown
                lower = plot_depths(axes[1][column], results, features, low)
                lower.set_ylim(low, high)
                lower.set_title("the upper end, enlarged", loc="left", fontsize=7, color="#404040")
            axes[-1][column].set_xlabel("layers, the head included")
        for row in axes:
            row[0].set_ylabel("test accuracy (%)")
        how = (
            "Marks: mean over seeds, bars: 95 % t interval of the mean; dots: trials. Depths stand at equal "
            "distances."
        )
        how += " The panels of a row share their axes." if count > 1 else ""
        how += _enlarged_note(results, shown)
        return finish_panels(figure, results, map(model_line, results.models), [how, _left_out(results)])


def _enlarged_note(results: GlonetResults, shown: tuple[float, float] | None) -> str:
    """Return a sentence, after a space, on what the enlarged range leaves out; "" without one. `plot_depths`
    hides trials inside the range where their mean is below it.
    """
    if shown is None:
        return ""
    hidden = any(mean(each.test) < shown[0] for each in _drawn(results))
    rest = ", and so are the interval and the trials of each mean below it" if hidden else ""
    return f" What lies outside the enlarged range is in the panel above it{rest}."


def _left_out(results: GlonetResults) -> str:
    rest = results.features[_COLUMNS:]
    return f"Widths {', '.join(map(str, rest))} are in the table alone." if rest else ""
