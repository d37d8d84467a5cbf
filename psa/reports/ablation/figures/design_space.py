"""The design space: depth x width of every architecture on two logarithmic axes, shared by all maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from psa.core.formatting import pluralize
from psa.reports.ablation.architectures import SHAPES, Spot, spots
from psa.reports.plotting.labels import place_label
from psa.reports.plotting.panels import draw_legend, panel
from psa.reports.plotting.style import GREY, GRID, LineStyle, footnote, plot_style
from psa.specs.arch import Arch

MARK: Final = 5.4  # diameter of a mark in points
LOW: Final = 0.8
_SIDE: Final = 6.5  # inches of the map
LEFT: Final = 0.58  # inches beside it, above it and below it
_HEAD: Final = 0.32
_FOOT: Final = 1.7
_CROWDED: Final = 6.5  # points between neighbours below which their labels need more room than there is
_WORTH_IT: Final = 1.5  # the least magnification for which an enlargement is drawn
_FEWEST: Final = 6
_MARGIN: Final = (0.05, 0.1)  # decades around the crowd that are enlarged, too: labels need room at the right
_SHORT: Final = 30  # times from end to end below which an axis has too few powers of ten to be read
_GAP: Final = 0.13  # decades left free around the enlargement

SHAPE_LOOKS: Final = dict(
    zip(
        SHAPES,
        (
            LineStyle("#0072B2", "o"),
            LineStyle("#000000", "s"),
            LineStyle("#D55E00", "^"),
            LineStyle("#009E73", "D"),
        ),
        strict=True,
    )
)


@dataclass(frozen=True)
class Enlarged:
    """A crowded square of the map [low, high] on both axes, and the free one [place, top] it is drawn in."""

    low: float
    high: float
    place: float
    top: float

    def holds(self, spot: Spot) -> bool:
        """Return whether a spot lies in the enlarged square."""
        return self.low < min(spot.depth, spot.width) and max(spot.depth, spot.width) < self.high


def end_of(sizes: Iterable[int]) -> float:
    """Return the upper end of an axis, beyond the largest size: 3,900 for a width of 2,048."""
    return 1.9 * max([3, *sizes])


def limit(found: Sequence[Spot]) -> float:
    """Return the upper end of both axes of a square map."""
    return end_of(max(spot.depth, spot.width) for spot in found)


def enlargement(found: Sequence[Spot], side: float = _SIDE * 72) -> Enlarged | None:
    """Return the crowded square of a map of `side` points, None if no enlargement is needed or fits."""
    if len(found) < _FEWEST:
        return None
    logs = np.log10([(spot.depth, spot.width) for spot in found])
    scale = side / math.log10(limit(found) / LOW)
    gaps = np.linalg.norm(logs[:, None] - logs[None], axis=2) * scale
    near = np.where(gaps + np.eye(len(found)) * 1e9 < _CROWDED, gaps, np.inf).min(axis=1)
    crowded = logs[np.isfinite(near)]
    if len(crowded) < _FEWEST:
        return None
    low, high = float(crowded.min()) - _MARGIN[0], float(crowded.max()) + _MARGIN[1]
    beyond = float(logs.min(axis=1).max()) + _GAP
    top = math.log10(limit(found)) - 0.06
    if (top - beyond) / (high - low) < _WORTH_IT:
        return None
    return Enlarged(10**low, 10**high, 10**beyond, 10**top)


@dataclass(frozen=True)
class Map:
    """A figure with the axes of a map, and those of its enlarged part if there is one."""

    figure: Figure
    spots: Mapping[str, Spot]
    axes: tuple[Axes, ...]
    enlarged: Enlarged | None
    foot: float

    @property
    def below(self) -> float:
        """The upper end of the legend, in inches from the foot of the figure, clear of the axis."""
        return self.foot - 0.42

    def draw(self, plot: Callable[[Axes], Axes]) -> None:
        """Draw the same content into each of the axes."""
        for ax in self.axes:
            plot(ax)

    def write_labels(self, texts: Mapping[str, str] | None = None, background: bool = False) -> list[str]:
        """Label every spot, enlarged ones in their enlargement. Return the archs without room for a label."""
        inside = {arch for arch, spot in self.spots.items() if self.enlarged and self.enlarged.holds(spot)}
        left_out = []
        for ax, archs in zip(self.axes, (self.spots.keys() - inside, inside), strict=False):
            # a set has no order, and the order of placement matters
            chosen = [arch for arch in self.spots if arch in archs]
            marks = chosen + [arch for arch in self.spots if arch not in archs and ax is self.axes[0]]
            places = [(float(self.spots[arch].depth), float(self.spots[arch].width)) for arch in marks]
            left_out += place_label(
                ax, places, [(texts or {}).get(arch, arch) for arch in chosen], MARK / 2, background
            )
        return left_out


def new_map(archs: Sequence[str], name: str, foot: float = _FOOT) -> Map:
    """Return a figure with empty log-log axes for these architectures, and `foot` inches for content below
    them.

    Call within plot_style().
    """
    found = spots(archs)
    enlarged = enlargement(list(found.values()))
    right, top = (end_of(getattr(spot, side) for spot in found.values()) for side in ("depth", "width"))
    if enlarged is not None:  # an enlargement needs a square map
        right = top = limit(list(found.values()))
    # decades are equally long on both axes, unless the map would become too tall
    height = _SIDE * min(1.0, math.log10(top / LOW) / math.log10(right / LOW))
    figure, ax = panel(name, _SIDE, height, LEFT, foot, _HEAD)
    _log_log(ax, (LOW, right), (LOW, top))
    ax.set_xlabel("Depth (hidden layers; of residual networks blocks)", labelpad=1)
    ax.set_ylabel("Width (units)", labelpad=1)
    axes = (ax,) if enlarged is None else (ax, _window(ax, enlarged))
    return Map(figure, found, axes, enlarged, foot)


def _log_log(ax: Axes, across: tuple[float, float], up: tuple[float, float]) -> Axes:
    ax.set(xscale="log", yscale="log", xlim=across, ylim=up)
    for axis, (low, high) in ((ax.xaxis, across), (ax.yaxis, up)):
        axis.set_major_locator(LogLocator(10))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_minor_locator(LogLocator(10, subs=range(2, 10)))
        axis.set_minor_formatter(NullFormatter() if high / low > _SHORT else FuncFormatter(_two_or_five))
    ax.grid(which="major", **GRID)
    return ax


def _two_or_five(value: float, _: int | None) -> str:
    """Return the label of a tick at 2, 5, 20 or 50 on a short axis, else an empty text."""
    return f"{value:.0f}" if round(value, 6) in (2, 5, 20, 50) else ""


def _window(ax: Axes, enlarged: Enlarged) -> Axes:
    """Add axes in the free corner that show the crowded square, and frame that square in the map."""
    place, size = enlarged.place, enlarged.top - enlarged.place
    inner = ax.inset_axes((place, place, size, size), transform=ax.transData, zorder=4)
    both = (enlarged.low, enlarged.high)
    _log_log(inner, both, both)
    inner.set_xticks([])
    inner.set_yticks([])
    inner.minorticks_off()
    inner.grid(visible=False)
    for spine in inner.spines.values():
        spine.set(visible=True, color=GREY, linewidth=0.5)
    larger = math.log10(enlarged.top / place) / math.log10(enlarged.high / enlarged.low)
    inner.set_title(f"the framed part, {larger:.1f} times larger", fontsize=7, color=GREY, pad=2)
    span = enlarged.high - enlarged.low
    ax.add_patch(
        Rectangle((enlarged.low, enlarged.low), span, span, fill=False, color=GREY, linewidth=0.5, zorder=1)
    )
    for one, other in (((0, 1), (0, 1)), ((1, 0), (1, 0))):
        start = [enlarged.high if each else enlarged.low for each in one]
        end = [enlarged.top if each else place for each in other]
        ax.plot(*zip(start, end, strict=True), color=GREY, linewidth=0.35, linestyle=":", zorder=1)
    return inner


def rectangles(ax: Axes, found: Sequence[Spot]) -> Axes:
    """Draw a rectangle from (1, 1) to each architecture, and a mark at its corner; squares on top."""
    ordered = sorted(found, key=lambda spot: (spot.depth == spot.width, -spot.depth * spot.width))
    for layer, spot in enumerate(ordered):
        look = SHAPE_LOOKS[spot.shape]
        ax.add_patch(
            Rectangle(
                (1, 1), spot.depth - 1, spot.width - 1,
                facecolor=(*_rgb(look.colour), 0.007), edgecolor=(*_rgb(look.colour), 0.5),
                linewidth=0.45, zorder=1 + layer / 1000,
            )
        )  # fmt: skip
    for shape, look in SHAPE_LOOKS.items():
        here = [spot for spot in found if spot.shape == shape]
        ax.scatter(
            [spot.depth for spot in here], [spot.width for spot in here], s=MARK**2, c=look.colour,
            marker=look.marker, edgecolors="white", linewidths=0.4, zorder=3,
        )  # fmt: skip
    return ax


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def design_space_figure(archs: Sequence[str], name: str = "Testing design space") -> Figure:
    """Return the figure of every architecture as the rectangle of its depth and width."""
    with plot_style():
        drawn = new_map(archs, name, foot=1.0)
        found = list(drawn.spots.values())
        drawn.draw(lambda ax: rectangles(ax, found))
        left_out = drawn.write_labels(background=True)
        counts = {shape: sum(spot.shape == shape for spot in found) for shape in SHAPES}
        handles = [
            Patch(
                facecolor=(*_rgb(look.colour), 0.2), edgecolor=look.colour, label=f"{shape} ({counts[shape]})"
            )
            for shape, look in SHAPE_LOOKS.items()
            if counts[shape]
        ]
        draw_legend(drawn.figure, handles, LEFT, drawn.below, 2)
        footnote(drawn.figure, map_notes(archs, left_out))
    return drawn.figure


def map_notes(archs: Sequence[str], left_out: Sequence[str]) -> list[str]:
    """Return the note of every map: the meaning of labels, and the number of labels left out."""
    mixed = [arch for arch in archs if len(Arch.coerce(arch).stacks) > 1]
    lines = [f"{pluralize(len(archs), 'architecture')}, labelled depth*width."]
    if mixed:
        lines.append(f"{pluralize(len(mixed), 'architecture')} of mixed widths stand at their widest layer.")
    if left_out:
        lines.append(f"No room for {pluralize(len(left_out), 'label')}.")
    return [" ".join(lines)]
