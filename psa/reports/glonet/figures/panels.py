"""Shared parts of the figures of the depth study: styles of models, a grid of panels, legend and note."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from psa.analysis.stats import Values, summary
from psa.reports.glonet.networks import GlonetResults
from psa.reports.glonet.tables import seeds_note
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import GREY, GRID, LineStyle, footnote, styled_handle

MODEL_LOOKS: Final = {
    "GloNet": LineStyle("#0072B2", "o"),
    "MLP": LineStyle("#D55E00", "s", (0, (4, 1.5))),
    "ResMLP": LineStyle("#009E73", "^", (0, (4, 1.2, 1, 1.2))),
}
_NOTE: Final = 0.46  # inches below the legend


def panels(
    name: str, rows: int, columns: int, height: float, right: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with rows of panels of `height` inches and room for a legend and a note below; right:
    inches that stay free beside the panels.
    """
    figure, axes = panel_grid(
        name, rows * columns, columns, height,
        left=0.5, bottom=1.08, top=0.54, gap=(0.58, 0.58), right=right + 0.08,
    )  # fmt: skip
    for ax in axes:
        ax.grid(axis="y", **GRID)
    return figure, [axes[start : start + columns] for start in range(0, len(axes), columns)]


def model_line(model: str) -> Line2D:
    """Return the line of a model, for a legend."""
    return styled_handle(MODEL_LOOKS[model], model)


def thin_line(label: str, line: Literal["--", ":"] = "--", colour: str = GREY) -> Line2D:
    """Return a thin line for a legend that does not belong to a model."""
    return Line2D([], [], color=colour, linestyle=line, linewidth=0.9, label=label)


def finish_panels(
    figure: Figure, results: GlonetResults, handles: Iterable[Line2D], how: Sequence[str]
) -> Figure:
    """Draw legend and note below the panels."""
    lines = list(handles)
    if lines:
        options = {"loc": "lower left", "handlelength": 3.0, "columnspacing": 1.6}
        draw_legend(figure, lines, 0.1, _NOTE, len(lines), **options)
    footnote(figure, [seeds_note(results), *how])
    return figure


def bands(values: Values) -> tuple[Values, Values, Values]:
    """Return mean, least and greatest of the seeds for each column of [seeds, columns]; NaN if there is none.

    A t interval of three seeds would cover the panel, and on a logarithmic axis begin below 0.
    """
    found = [summary(column) for column in values.T]
    return (
        np.array([each.mean for each in found]),
        np.array([each.least for each in found]),
        np.array([each.greatest for each in found]),
    )
