"""Image figures of the gradient study: centres of a first layer, samples of clusters, predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from psa.analysis.gradients.cluster_metrics import CentreImages, ClusterSummary
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.style import add_axes, footnote, new_figure, plot_style, title

RIGHT: Final = "#009E73"
WRONG: Final = "#D55E00"
ACROSS: Final = 12
_RANKS: Final = ("longest row", "2nd", "3rd")

_Labels = NDArray[np.int64]
Images = NDArray[Any]


def pictures_of(samples: Images, shape: Sequence[int]) -> Images:
    """Return samples [..., features] as pictures [..., height, width]: of channels the mean, of a table with
    these columns one row.
    """
    lead = samples.shape[:-1]
    if len(shape) == 1:
        return samples.reshape(*lead, 1, -1)
    found: Images = samples.reshape(*lead, -1, *shape[:2]).mean(axis=-3)
    return found


def plot_image(ax: Axes, image: Images, limit: float | None = None) -> Axes:
    """Draw an image without axes: dark on white, or with a limit blue (below 0) and red (above 0).

    image: [height, width], or the pixels [side * side] of a square one.
    """
    side = math.isqrt(image.size)
    picture = image if image.ndim > 1 else image.reshape(side, side)
    aspect: Any = "auto" if len(picture) == 1 else "equal"  # the features of a table are one row
    if limit is None:
        ax.imshow(picture, cmap="gray_r", aspect=aspect)
    else:
        ax.imshow(picture, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect=aspect)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_linewidth(0.3)
    return ax


def centres_figure(
    images: CentreImages, groups: Sequence[ClusterSummary], notes: Sequence[str] = ()
) -> Figure:
    """Plot the centres of a first layer, a column each: their common input, then their strongest units."""
    count, shown = len(images.pattern), images.units.shape[1]
    step = min(1.1, 6.5 / count)
    side = step - 0.05
    with plot_style():
        figure = new_figure((shown + 1) * (step + 0.12) + 1.13)
        title(figure, "Changes of the first layer, by cluster centre")
        high = float(figure.get_size_inches()[1])
        for number, group in enumerate(groups):
            left, bottom = 0.6 + number * step, high - 0.68 - side
            pattern = add_axes(figure, left, bottom, side, side)
            plot_image(pattern, images.pattern[number], _limit(images.pattern[number]))
            pattern.set_title(f"{number}: {_who(group)}\n{images.share[number]:.0%}", fontsize=6, pad=2)
            for row in range(shown):
                ax = add_axes(figure, left, bottom - (row + 1) * (step + 0.12), side, side)
                plot_image(ax, images.rows[number, row], _limit(images.rows[number, row]))
                ax.set_title(f"unit {images.units[number, row]}", fontsize=5.5, pad=1.5)
                if number == 0:
                    ax.set_ylabel(_RANKS[row] if row < len(_RANKS) else f"{row + 1}th", fontsize=6.5)
            if number == 0:
                pattern.set_ylabel("pattern", fontsize=6.5)
        how = (
            "Columns are clusters; above: number, most frequent digit with its share in brackets, and the "
            "part of the squared norm of the centre that the pattern holds. Pattern: the first right "
            "singular vector of the centre, the input on which its rows agree most; its sign is arbitrary, "
            "so that red and blue may be exchanged. Below: the rows of the units with the longest ones, "
            "which are means of the inputs weighted by delta. Red above 0, blue below, each image on a "
            "scale of its own."
        )
        footnote(figure, [*notes, how])
        return figure


def _limit(image: Images) -> float:
    return float(np.abs(image).max()) or 1.0


def _who(group: ClusterSummary) -> str:
    """Return the digit of most samples and its share, `3 (98 %)`, or `empty`."""
    return "empty" if group.digit is None else f"{group.digit} ({group.digit_share:.0%})"


def samples_figure(
    images: Sequence[Images],
    digits: Sequence[_Labels],
    groups: Sequence[ClusterSummary],
    notes: Sequence[str] = (),
) -> Figure:
    """Plot samples of each cluster, a row each.

    images: per cluster [m, height, width] or [m, side * side]; digits: per cluster [m].
    """
    most = max((len(each) for each in images), default=1)
    side = min(0.5, 5.5 / max(1, most) - 0.03)
    step = side + 0.03
    with plot_style():
        figure = new_figure(len(images) * step + 0.85)
        title(figure, "Samples of each cluster")
        high = float(figure.get_size_inches()[1])
        for number, (pictures, names) in enumerate(zip(images, digits, strict=True)):
            group, bottom = groups[number], high - 0.32 - (number + 1) * step
            most_of = "" if group.digit is None else "mostly "
            text = f"cluster {number}: {group.size:,} samples\n{most_of}{_who(group)}"
            figure.text(0.1 / 7.2, (bottom + side / 2) / high, text, va="center", fontsize=6.5)
            for at, (picture, name) in enumerate(zip(pictures, names, strict=True)):
                ax = plot_image(add_axes(figure, 1.35 + at * step, bottom, side, side), picture)
                _frame(ax, RIGHT if name == group.digit else WRONG)
        how = (
            "Drawn at random from each cluster. In brackets: the share of its most frequent digit. Frames "
            "are green for that digit, orange and thick for another."
        )
        footnote(figure, [*notes, how])
        return figure


def _frame(ax: Axes, colour: str) -> None:
    ax.spines[:].set_color(colour)
    ax.spines[:].set_linewidth(1.6 if colour == WRONG else 0.7)


def predictions_figure(
    images: Images,
    digits: _Labels,
    predictions: _Labels,
    notes: Sequence[str] = (),
    name: str = "Predictions",
) -> Figure:
    """Plot n images with their predictions: green if equal to the digit, else orange with both."""
    with plot_style():
        figure, axes = panel_grid(
            name, len(images), ACROSS, 0.5,
            left=0.12, bottom=0.37, top=0.5, gap=(0.08, 0.22), width=0.5,
        )  # fmt: skip
        for ax, image, digit, predicted in zip(axes, images, digits, predictions, strict=True):
            fill = RIGHT if digit == predicted else WRONG
            text = f"{predicted}" if digit == predicted else f"{predicted}, is {digit}"
            plot_image(ax, image).set_title(text, fontsize=6.5, color=fill, pad=2, fontweight="bold")
            _frame(ax, fill)
        right = int((digits == predictions).sum())
        footnote(figure, [*notes, f"{right:,} of the {len(digits):,} shown are right (green)."])
        return figure
