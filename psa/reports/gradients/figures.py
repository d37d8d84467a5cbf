"""Figures of gradient space: its embedding, agreement of clusters, number of clusters, norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from psa.analysis.gradients.cluster_metrics import Choice
from psa.analysis.gradients.label_agreement import LABEL_RESAMPLES, LabelAgreement
from psa.analysis.stats import Interval
from psa.reports.plotting.panels import panel, panel_grid
from psa.reports.plotting.scales import log_axis
from psa.reports.plotting.style import GREY, GRID, OUTLINED, footnote, plot_style
from psa.reports.rendering.tables import rounded

_Labels = NDArray[np.int64]
_Values = NDArray[np.float64]

# Petroff (2021), "Accessible color sequences for data visualization": ten that are told apart with any of the
# usual colour deficiencies. Numbers stand beside them, for readers without colours.
COLOURS: Final = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
_MEASURES: Final = {
    "silhouette": "silhouette (high is good)",
    "calinski_harabasz": "Calinski-Harabasz (high is good)",
    "davies_bouldin": "Davies-Bouldin (low is good)",
}
_BINS: Final = 60


def colour(number: int) -> str:
    """Return the colour of a digit or a cluster; the colours repeat after ten."""
    return COLOURS[number % len(COLOURS)]


def plot_classes(ax: Axes, coordinates: _Values, classes: _Labels, *, numbered: bool = True) -> Axes:
    """Draw points [n, 2] in the colours of their classes int64 [n], and with `numbered` the number of each
    class at its median.
    """
    ax.scatter(
        coordinates[:, 0], coordinates[:, 1], s=1.6, linewidths=0, rasterized=True,
        c=[colour(int(number)) for number in classes],
    )  # fmt: skip
    for number in np.unique(classes) if numbered else ():
        x, y = _middle(coordinates[classes == number])
        text = ax.text(x, y, str(number), ha="center", va="center", fontsize=8, fontweight="bold")
        text.set_path_effects(OUTLINED)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_aspect("equal", "datalim")
    ax.spines[["left", "bottom"]].set_visible(False)
    return ax


def _middle(points: _Values) -> _Values:
    """Return the point nearest to the median, so that a number always lies on its class."""
    apart = np.abs(points - np.median(points, axis=0)).sum(axis=1)
    return np.asarray(points[apart.argmin()])


def tsne_figure(
    coordinates: _Values,
    digits: _Labels,
    clusters: _Labels,
    predictions: _Labels,
    notes: Sequence[str] = (),
    heading: str = "Gradient space",
) -> Figure:
    """Plot the same n points three times: by class, by cluster, by prediction (as a class)."""
    with plot_style():
        panels = {"class": digits, "cluster": clusters, "prediction": predictions}
        figure, axes = panel_grid(
            heading, 3, 3, 2.0, left=0.1, bottom=0.4, top=0.55, gap=(0.12, 0), width=2.26
        )
        for ax, (name, classes) in zip(axes, panels.items(), strict=True):
            # the samples of a prediction lie in several groups, none of which its number would belong to
            plot_classes(ax, coordinates, classes, numbered=name != "prediction").set_title(f"by {name}")
        right = float((digits == predictions).mean())
        found = (
            f"t-SNE after PCA of the gradients of {len(coordinates):,} samples: distances between groups and "
            f"the axes have no meaning. The predictions are right for {100 * right:.1f} % of them. Clusters "
            "are numbered by size; their numbers and colours are not those of classes. Predictions "
            "have the colours of classes."
        )
        footnote(figure, [*notes, found])
        return figure


def plot_agreements(ax: Axes, estimates: Sequence[Interval], colours: Sequence[str]) -> Axes:
    """Draw a bar per estimate from 0, its interval as a line, the number beside it."""
    for row, (each, fill) in enumerate(zip(estimates, colours, strict=True)):
        ax.barh(row, each.value, 0.62, color=fill, linewidth=0)
        ax.plot([each.low, each.high], [row, row], color="black", linewidth=1.1, solid_capstyle="butt")
        ax.annotate(
            rounded(each.value, 3), (1, row), (4, 0), xycoords=("axes fraction", "data"),
            textcoords="offset points", va="center", fontsize=6.5,
        )  # fmt: skip
    ax.set_ylim(len(estimates) - 0.45, -0.55)
    ax.set_xlim(min(0, *(each.low for each in estimates)), 1)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", **GRID)
    return ax


def agreement_figure(found: Mapping[str, Mapping[str, LabelAgreement]], notes: Sequence[str] = ()) -> Figure:
    """Plot purity, NMI and ARI side by side. found: what was clustered -> compared with what -> agreement."""
    rows = [
        (f"{name}: {other}", each, colour(at))
        for name, compared in found.items()
        for at, (other, each) in enumerate(compared.items())
    ]
    high = 0.19 * len(rows)
    with plot_style():
        panels = {"purity": "purity", "nmi": "mutual information (NMI)", "ari": "adjusted Rand index (ARI)"}
        figure, axes = panel_grid(
            "Agreement of clusters", 3, 3, high, left=2.3, bottom=0.72, top=0.38, gap=(0.45, 0), width=1.2
        )
        for at, (ax, (measure, name)) in enumerate(zip(axes, panels.items(), strict=True)):
            plot_agreements(ax, [getattr(each, measure) for _, each, _ in rows], [fill for *_, fill in rows])
            ax.set_yticks(range(len(rows)), [] if at else [label for label, *_ in rows])
            ax.set_xlabel(name)
        samples = sorted({each.samples for _, each, _ in rows})
        counted = " and ".join(f"{count:,}" for count in samples)
        how = (
            f"Over {counted} samples. Lines: 95 % percentile intervals, {LABEL_RESAMPLES:,} bootstrap "
            "samples with "
            "the same centres. By chance ARI is 0, and purity the share of the most frequent label or more."
        )
        footnote(figure, [*notes, how])
        return figure


def choice_figure(choice: Choice, expected: int | None = None, notes: Sequence[str] = ()) -> Figure:
    """Plot each measure over the number of clusters, its best one marked; expected: the number of classes."""
    counts = [each.clusters for each in choice.qualities]
    with plot_style():
        shown = {
            measure: name
            for measure, name in {"inertia": "inertia", **_MEASURES}.items()
            if not np.isnan([getattr(each, measure) for each in choice.qualities]).all()
        }
        figure, axes = panel_grid(
            "How many clusters",
            len(shown),
            len(shown),
            1.05,
            left=0.5,
            bottom=0.65,
            top=0.45,
            gap=(0.46, 0),
            width=1.3,
        )
        for ax, (measure, name) in zip(axes, shown.items(), strict=True):
            best = choice.best(measure) if measure in _MEASURES else None
            plot_choice(ax, counts, [getattr(each, measure) for each in choice.qualities], best)
            ax.set_title(name, fontsize=6.5)
            ax.set_xlabel("clusters")
            if expected is not None:
                ax.axvline(expected, color=GREY, linewidth=0.8, linestyle="--", zorder=1)
        best_ones = [
            f"{name.split(' (')[0]} {choice.best(each) or 'none'}" for each, name in _MEASURES.items()
        ]
        dashed = f" Dashed: the {expected} classes there are." if expected is not None else ""
        how = f"k-means of {choice.samples:,} gradients. Orange, best: {', '.join(best_ones)} clusters."
        absent = [name.split(" (")[0] for measure, name in _MEASURES.items() if measure not in shown]
        missing = f" Not defined: {', '.join(absent)}." if absent else ""
        footnote(figure, [*notes, how + dashed + missing])
        return figure


def plot_choice(ax: Axes, counts: Sequence[int], values: Sequence[float], best: int | None) -> Axes:
    """Draw a measure over the number of clusters, with a mark at the best; a gap where it is not defined."""
    ax.plot(counts, values, color="#0072B2", marker="o", markersize=2.5)
    if best is not None:
        ax.plot(best, values[counts.index(best)], "o", color="#D55E00", markersize=5, zorder=3)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.yaxis.set_major_locator(MaxNLocator(4))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4))
    ax.yaxis.get_offset_text().set_fontsize(6)
    return ax


def norms_figure(
    norms: _Values,
    clusters: _Labels,
    count: int,
    notes: Sequence[str] = (),
    heading: str = "Norms by cluster",
) -> Figure:
    """Plot the lengths of the gradients of each cluster: one histogram per row, on one logarithmic axis.

    norms: [N], of the raw gradients, not all 0; clusters: int64 [N] in 0..count-1. Gradients of zero are only
    counted. Raises ValueError if all are.
    """
    if not norms.any():
        raise ValueError("a figure of norms must have a gradient that is not zero")
    positive, zero = norms[norms > 0], int((norms == 0).sum())
    high = 0.3 * count
    with plot_style():
        figure, ax = panel(heading, 5.7, high, 1.2, 0.65, 0.35)
        edges = np.geomspace(positive.min(), positive.max() * (1 + 1e-9), _BINS + 1)
        for number in range(count):
            plot_norms(ax, norms[clusters == number], number, edges)
        ax.set_xscale("log")
        ax.set_xlim(edges[0], edges[-1])
        log_axis(ax.xaxis, float(edges[0]), float(edges[-1]))
        ax.set_ylim(count - 0.05, -0.05)
        names = [f"cluster {number} ({int((clusters == number).sum()):,})" for number in range(count)]
        ax.set_yticks(np.arange(count) + 0.75, names)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("norm of a sample's gradient")
        how = (
            "Each histogram is as high as its own highest bin; in brackets how many samples. Lines: medians. "
            f"{len(norms):,} gradients{f', of which {zero:,} are zero and not shown' if zero else ''}."
        )
        footnote(figure, [*notes, how])
        return figure


def plot_norms(ax: Axes, norms: _Values, row: int, edges: _Values) -> Axes:
    """Draw the histogram of one cluster, standing on the line row + 1."""
    found = norms[norms > 0]
    if not len(found):
        return ax
    counts, _ = np.histogram(found, edges)
    heights = 0.85 * counts / counts.max()
    ax.stairs(row + 1 - heights, edges, baseline=row + 1, fill=True, color=colour(row))
    median = float(np.median(found))
    ax.plot([median, median], [row + 0.15, row + 1], color="black", linewidth=0.9)
    return ax
