"""The grid of panels of a figure, and the legend below it. All lengths are in inches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from psa.reports.plotting.style import WIDTH, add_axes, new_figure, title


def panel_grid(
    name: str,
    count: int,
    columns: int,
    height: float,
    *,
    left: float,
    bottom: float,
    top: float,
    gap: tuple[float, float] = (0.0, 0.0),
    width: float | None = None,
    right: float = 0.1,
) -> tuple[Figure, list[Axes]]:
    """Return a figure titled `name` and its panels, row by row from the top left.

    left, bottom, top: the room around all panels; gap: that between two of a row, and between two rows.
    Without a `width` the panels of a row fill the text width, with `right` beside them. name: empty where
    the caller writes the title later.
    """
    rows = math.ceil(count / columns)
    if width is None:
        width = (WIDTH - left - right - (columns - 1) * gap[0]) / columns
    figure = new_figure((top - gap[1]) + rows * (height + gap[1]) + bottom)
    title(figure, name)
    axes = []
    for row, column in (divmod(number, columns) for number in range(count)):
        x, y = left + column * (width + gap[0]), bottom + (rows - 1 - row) * (height + gap[1])
        axes.append(add_axes(figure, x, y, width, height))
    return figure, axes


def panel(
    name: str, width: float, height: float, left: float, bottom: float, top: float
) -> tuple[Figure, Axes]:
    """Return a figure titled `name` with a single panel."""
    figure, (ax,) = panel_grid(name, 1, 1, height, left=left, bottom=bottom, top=top, width=width)
    return figure, ax


def draw_legend(
    figure: Figure, handles: Sequence[Artist], x: float, y: float, columns: int, **options: Any
) -> Legend:
    """Draw a legend whose upper left corner is `x` from the left and `y` from the foot of the figure."""
    wide, high = figure.get_size_inches()
    return figure.legend(
        handles=list(handles),
        bbox_to_anchor=(x / wide, y / high),
        ncols=columns,
        borderaxespad=0,
        **{"loc": "upper left"} | options,
    )
