"""Figures of accuracy and training speed against depth: a panel per width."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.analysis.stats import LEAST_N, Values, present, share_summary, summary
from psa.reports.glonet.figures.panels import MODEL_LOOKS, finish_panels, model_line, panels, thin_line
from psa.reports.glonet.networks import CHANCE, GlonetResults, Network, Trained, mean
from psa.reports.glonet.tables import times_of_packs
from psa.reports.plotting.scales import log_axis
from psa.reports.plotting.style import GREY, plot_style

_COLUMNS: Final = 3
_ENLARGED: Final = 10.0  # points below the best mean
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
            "distances."
        )
        how += " The panels of a row share their axes." if count > 1 else ""
        how += _enlarged_note(results, shown)
        return finish_panels(figure, results, handles, [how, _left_out(results)])


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
        how += (
            "packs, whose time depends on their size, too (see the table). Depths stand at equal distances."
        )
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
