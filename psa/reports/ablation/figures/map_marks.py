"""Marks on the maps of the design space, the bar of their colours, and the legend that counts them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from psa.reports.ablation.architectures import Spot
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.figures.design_space import LEFT, MARK, Map, map_notes
from psa.reports.ablation.numbers import notes_of
from psa.reports.plotting.panels import draw_legend
from psa.reports.plotting.scales import label_bar
from psa.reports.plotting.style import GREY, add_axes, footnote, plot_style

Spots = Mapping[str, Spot]
EDGE: Final = "#303030"


@dataclass(frozen=True)
class Scale:
    """A colour scale for numbers. name: of its colours; what: the title of its bar."""

    norm: Normalize
    name: str
    what: str

    @property
    def colours(self) -> Colormap:
        """The colour map."""
        return mpl.colormaps[self.name]

    def rgba(self, values: Sequence[float]) -> Any:
        """Return one colour per value."""
        return self.colours(self.norm(np.array(values, dtype=np.float64)))


def marks(ax: Axes, spots: Spots, archs: Sequence[str], marker: Any, colours: Any, **how: Any) -> Axes:
    """Draw one kind of mark at the positions of these architectures."""
    places = [(spots[arch].depth, spots[arch].width) for arch in archs]
    if places:
        looks: dict[str, Any] = {"s": MARK**2, "edgecolors": EDGE, "linewidths": 0.4, "zorder": 3} | how
        across, up = np.array(places).T
        ax.scatter(across, up, marker=marker, c=colours, **looks)
    return ax


def unknown(ax: Axes, spots: Spots, archs: Sequence[str]) -> Axes:
    """Draw a question mark where there is no number."""
    return marks(ax, spots, archs, "$?$", GREY, linewidths=0.2, edgecolors=GREY)


def nothing(ax: Axes, spots: Spots, archs: Sequence[str]) -> Axes:
    """Draw a crossed-out black square where no trial scored above ZeroR."""
    marks(ax, spots, archs, "s", "black", linewidths=0)
    return marks(ax, spots, archs, "x", "white", s=(0.6 * MARK) ** 2, linewidths=0.7, edgecolors=None)


def dash(ax: Axes, spots: Spots, archs: Sequence[str]) -> Axes:
    """Draw a black dash where all numbers are equal."""
    return marks(ax, spots, archs, "_", "black", linewidths=1.2, edgecolors=None)


def handle(marker: Any, face: str, edge: str = EDGE, size: float = MARK) -> Line2D:
    """Return a mark for a legend."""
    with plot_style():  # "$?$" is set by TeX where the user's matplotlibrc says so
        return Line2D(
            [], [], linestyle="", marker=marker, markerfacecolor=face, markeredgecolor=edge,
            markeredgewidth=0.5, markersize=size,
        )  # fmt: skip


UNKNOWN: Final = handle("$?$", GREY, GREY)
SAME: Final = handle("_", "black", "black")
NOTHING: Final = (
    handle("s", "black", "black"),
    Line2D([], [], linestyle="", marker="x", color="white", markersize=0.6 * MARK, markeredgewidth=0.7),
)


class Legend:
    """A legend of marks with their meanings and numbers of architectures; unused marks are left out."""

    def __init__(self) -> None:
        self.handles: list[Any] = []
        self.labels: list[str] = []

    def add(self, mark: Any, label: str, archs: Collection[str]) -> None:
        """Add a line; several marks are drawn on top of each other."""
        if archs:
            self.handles.append(mark)
            self.labels.append(f"{label} ({len(archs)})")

    def draw(self, drawn: Map, left: float, columns: int = 1, heading: str = "") -> None:
        """Draw the legend below the map, `left` inches from the side of the figure."""
        legend = draw_legend(
            drawn.figure, self.handles, left, drawn.below, columns,
            labels=self.labels, title=heading or None, alignment="left", handletextpad=0.3,
            columnspacing=1.2, handler_map={tuple: HandlerTuple(ndivide=1, pad=0)},
        )  # fmt: skip
        legend.set_gid("legend")


def colour_bar(drawn: Map, scale: Scale) -> None:
    """Draw the colours of a scale with round numbers, below the map at the left."""
    ax = add_axes(drawn.figure, LEFT, drawn.below - 0.2, 2.75, 0.12)
    shown = mpl.cm.ScalarMappable(scale.norm, scale.colours)
    bar = drawn.figure.colorbar(shown, cax=ax, orientation="horizontal")
    label_bar(bar, scale.norm, scale.what)


def finish_map(drawn: Map, cells: Cells, how: str) -> Figure:
    """Label the spots and write the notes below the map. Return the figure."""
    left_out = drawn.write_labels()
    footnote(drawn.figure, [*notes_of(cells), how, *map_notes(tuple(drawn.spots), left_out)])
    return drawn.figure
