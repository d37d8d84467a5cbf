"""Figures of the use of layers: their outputs, their parameters through training, early exits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from psa.analysis.stats import Values
from psa.reports.glonet.figures.panels import MODEL_LOOKS, bands, finish_panels, model_line, panels, thin_line
from psa.reports.glonet.layer_use import NEAR, Use
from psa.reports.glonet.networks import GlonetResults, Network, mean
from psa.reports.glonet.usage_table import exits_of, partly_learned_note, use_of_learned
from psa.reports.plotting.scales import label_bar
from psa.reports.plotting.style import GREY, add_axes, plot_style

_COLUMNS: Final = 4
_BAR: Final = 0.75  # inches for the scale of a heat map
_COLOURS: Final = "PuOr_r"  # diverging around no change, and made for readers with colour deficiencies
_LINEAR: Final = 0.01  # percent of change up to which the colour scale is linear

_AT_START: Final = "#404040"  # of a line before training that several models share

_Draw = Callable[[Axes, Sequence[Use]], Axes]


def _by_depth(
    uses: Mapping[Network, Use],
    features: int,
    models: Sequence[str],
    observed: Callable[[Use], bool],
) -> dict[int, list[Use]]:
    """Return the observed networks of a width, by their layers, in the order of the models.

    observed: whether a network has what a figure shows.
    """
    there = sorted(
        (
            each
            for each in uses
            if each.features == features and each.model in models and observed(uses[each])
        ),
        key=lambda each: (each.layers, models.index(each.model)),
    )
    found: dict[int, list[Use]] = {}
    for network in there:
        found.setdefault(network.layers, []).append(uses[network])
    return found


def _drawn(
    name: str, found: Mapping[int, Sequence[Use]], draw: _Draw, labels: tuple[str, str], right: float = 0.0
) -> tuple[Figure, list[Axes]]:
    """Draw a panel per depth; labels: of the axes."""
    rows = math.ceil(len(found) / _COLUMNS)
    columns = math.ceil(len(found) / rows)
    figure, axes = panels(name, rows, columns, 1.25, right)
    flat = [ax for row in axes for ax in row]
    for number, ax in enumerate(flat):
        if number >= len(found):
            ax.remove()
        elif number >= len(found) - columns:  # the last panel of its column
            ax.set_xlabel(labels[0])
    for ax, (layers, uses) in zip(flat, found.items(), strict=False):
        draw(ax, uses)
        ax.set_title(f"{layers} layers", loc="left", fontsize=7.5, pad=2)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
    for row in axes:
        row[0].set_ylabel(labels[1])
    return figure, flat[: len(found)]


def _equal_at_start(uses: Sequence[Use]) -> bool:
    """Return True if several networks use their layers equally before training, as of equal weights."""
    return len(uses) > 1 and all(np.array_equal(use.shares_at_start, uses[0].shares_at_start) for use in uses)


def _start_label(panels: Iterable[Sequence[Use]]) -> str:
    """Return what the legend says of the lines before training, for the networks of each panel."""
    equal = {_equal_at_start(uses) for uses in panels}
    if equal == {True}:
        return "before training, equal for all models"
    return f"before training, in the model's colour{', dark where equal' if True in equal else ''}"


def plot_usage(ax: Axes, uses: Sequence[Use]) -> Axes:
    """Draw the share of each hidden layer in the total mean output, after training and (thin) before it."""
    hidden = max(len(use.shares) for use in uses)
    for use in uses:
        look = MODEL_LOOKS[use.network.model]
        x = np.arange(1, len(use.shares) + 1)
        marker = look.marker if len(x) <= 25 else ""
        colour = _AT_START if _equal_at_start(uses) else look.colour
        ax.plot(x, 100 * use.shares_at_start, color=colour, linewidth=0.8, linestyle=":", zorder=2)
        ax.plot(
            x, 100 * use.shares, color=look.colour, linestyle=look.line, linewidth=1.2, marker=marker,
            markersize=3, markeredgecolor="white", markeredgewidth=0.3, zorder=3,
            gid=f"usage {use.network.model}",
        )  # fmt: skip
    ax.set_xlim(0.5, hidden + 0.5)
    for count in {len(use.shares) for use in uses} - {0}:
        ends, equal = (0.5, count + 0.5), 100 / count
        ax.plot(ends, (equal, equal), color=GREY, linewidth=0.8, linestyle="--", zorder=1, gid="equal use")
    ax.set_ylim(bottom=0)
    return ax


def usage_figure(results: GlonetResults, uses: Mapping[Network, Use], features: int) -> Figure | None:
    """Plot the contribution of each layer, per depth, in the trials that the table of use is of; None if
    nothing was observed.
    """
    wide = {network: use for network, use in uses.items() if network.features == features}
    shown = {network: use for network, use in wide.items() if len(use.shares)}
    learned = {network: use_of_learned(results, use) for network, use in shown.items()}
    found = _by_depth(learned, features, results.models, lambda use: len(use.shares) > 0)
    if not found:
        return None
    with plot_style():
        labels = ("hidden layer", "share of output (%)")
        figure, _ = _drawn(f"Use of each layer, width {features}", found, plot_usage, labels)
        handles = [
            *(model_line(model) for model in results.models),
            thin_line(_start_label(found.values()), ":", _AT_START),
            thin_line("equal use"),
        ]
        how = (
            "Mean |h| of a hidden layer after its activation, over the validation split, as a share of the "
            "sum over hidden layers; mean over the seeds that learned, or over all where none did. Only "
            "GloNet's head reads the sum; that of the others reads the last layer."
            + partly_learned_note(results, shown)
        )
        return finish_panels(figure, results, handles, [how])


def plot_exits(ax: Axes, uses: Sequence[Use]) -> Axes:
    """Draw accuracy when the head reads the first k layers: mean, least and greatest seed."""
    for use in uses:
        look = MODEL_LOOKS[use.network.model]
        middle, low, high = bands(use.exits)
        there = ~np.isnan(middle)  # a residual network has exits only after its blocks
        x = np.flatnonzero(there) + 1
        ax.fill_between(x, low[there], high[there], color=look.colour, alpha=0.13, linewidth=0)
        ax.plot(
            x,
            middle[there],
            color=look.colour,
            linestyle=look.line,
            zorder=3,
            gid=f"exit {use.network.model}",
        )
    ax.set_xlim(0.5, max(use.exits.shape[1] for use in uses) + 0.5)
    ax.set_ylim(0, 104)
    return ax


def _mark(ax: Axes, results: GlonetResults, uses: Sequence[Use]) -> None:
    """Draw a mark for every seed where an exit is as good as the whole network."""
    for use in uses:
        look, found = MODEL_LOOKS[use.network.model], exits_of(results, use, results.trained[use.network])
        for seed in np.flatnonzero(~np.isnan(found)):
            k = int(found[seed])
            ax.plot(
                k, use.exits[seed, k - 1], marker=look.marker, markersize=4.5, markerfacecolor="none",
                markeredgecolor=look.colour, markeredgewidth=1, zorder=4, clip_on=False,
                gid=f"near {use.network.model}",
            )  # fmt: skip


def exits_figure(results: GlonetResults, uses: Mapping[Network, Use], features: int) -> Figure | None:
    """Plot accuracy against the layer at which the network is left; None if nothing was observed."""
    found = _by_depth(uses, features, results.models, lambda use: use.exits.shape[1] > 0)
    if not found:
        return None
    with plot_style():
        labels = ("hidden layers read", "accuracy (%)")
        figure, axes = _drawn(f"Early exits, width {features}", found, plot_exits, labels)
        for ax, each in zip(axes, found.values(), strict=True):
            _mark(ax, results, each)
            ax.axhline(results.zero_r, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        handles = [*map(model_line, results.models), thin_line(f"ZeroR, {results.zero_r_shown}")]
        how = (
            "Validation accuracy of the final weights when the head reads only the first k hidden layers: "
            "their sum in a GloNet, the k-th alone in the others. Lines: mean over all seeds; bands: least "
            "to greatest seed; marks: of each seed the smallest k from which on it is within "
            f"{NEAR:g} point of the whole network, if that learned. The panels share the axis of accuracy."
        )
        return finish_panels(figure, results, handles, [how])


def norm_changes(use: Use) -> Values:
    """Return [layers, epochs + 1] the change of the L1 norm of a layer's parameters since before training, in
    percent of that, mean over seeds; NaN where it was 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = use.norms / use.norms[:, :1]
    return 100 * (mean(np.where(np.isfinite(ratios), ratios, np.nan), axis=0).T - 1)


def norms_figure(
    results: GlonetResults, uses: Mapping[Network, Use], features: int, model: str
) -> Figure | None:
    """Plot a heat map per depth: the change of the parameters of each layer (from below) over the epochs."""
    found = _by_depth(uses, features, [model], lambda use: use.norms.shape[2] > 0)
    values = [norm_changes(each[0]) for each in found.values()]
    finite = np.concatenate([each[np.isfinite(each)] for each in values] or [np.empty(0)])
    if not len(finite):
        return None
    norm = _scale(finite)
    shown_networks = [each[0].network for each in found.values()]

    def draw(ax: Axes, each: Sequence[Use]) -> Axes:
        shown = norm_changes(each[0])
        layers, times = shown.shape
        ax.pcolormesh(
            np.arange(times + 1) - 0.5, np.arange(layers + 1) + 0.5, shown, norm=norm, cmap=_COLOURS,
            rasterized=True,
        )  # fmt: skip
        ax.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        ax.grid(visible=False)
        if not (np.abs(shown) >= _LINEAR).any():
            ax.text(
                0.5, 0.5, f"no layer changed\nby {_LINEAR:g} % or more", transform=ax.transAxes, ha="center",
                va="center", fontsize=6, color="#404040",
            )  # fmt: skip
        return ax

    with plot_style():
        name = f"Parameters of each layer through training: {model}, width {features}"
        figure, axes = _drawn(name, found, draw, ("epoch", "layer"), _BAR)
        _bar(figure, axes[0], norm)
        how = (
            f"Shown: the networks of {model} alone. Change of the entrywise L1 norm of a layer's weights "
            "and biases since before training (epoch 0), in percent of it; mean over all seeds. The last "
            f"layer is the head. The panels share one scale, logarithmic beyond {_LINEAR:g} % on both sides."
            + partly_learned_note(results, {network: uses[network] for network in shown_networks})
        )
        return finish_panels(figure, results, (), [how])


def _scale(values: Values) -> Normalize:
    """Return a scale as long below 0 as above, on which changes of 0.01 % and of 10 % can be seen."""
    most = max(float(np.abs(values).max()), 10 * _LINEAR)
    return SymLogNorm(_LINEAR, linscale=0.5, vmin=-most, vmax=most)


def _bar(figure: Figure, beside: Axes, norm: Normalize) -> None:
    """Draw the colour bar at the right of the first row."""
    wide, high = figure.get_size_inches()
    place = beside.get_position()
    ax = add_axes(figure, wide - _BAR + 0.1, place.y0 * high, 0.1, place.height * high)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, _COLOURS), cax=ax)
    label_bar(bar, norm, "change of the L1 norm (%)")
    bar.ax.tick_params(labelsize=6, length=2)
