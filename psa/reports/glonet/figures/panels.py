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
from psa.reports.plotting.style import GREY, WIDTH, LineStyle, add_axes, footnote, new_figure, title

MODEL_LOOKS: Final = {
    "GloNet": LineStyle("#0072B2", "o"),
    "MLP": LineStyle("#D55E00", "s", (0, (4, 1.5))),
    "ResMLP": LineStyle("#009E73", "^", (0, (4, 1.2, 1, 1.2))),
}
# Inches: above all panels, for the note, for the legend; at the left of a panel, above and below it.
_HEAD: Final = 0.32
_FOOT: Final = 0.46
LEGEND: Final = 0.26
_LEFT: Final = 0.5
_GAP: Final = 0.08
_ABOVE: Final = 0.22
_BELOW: Final = 0.36


def panels(
    name: str, rows: int, columns: int, height: float, right: float = 0.0
) -> tuple[Figure, list[list[Axes]]]:
    """Return a figure with rows of panels of `height` inches and room for a legend and a note below; right:
    inches that stay free beside the panels.
    """
    each = _ABOVE + height + _BELOW
    figure = new_figure(_HEAD + rows * each + LEGEND + _FOOT)
    title(figure, name)
    wide = (WIDTH - right) / columns
    axes = [
        [
            add_axes(
                figure,
                _LEFT + column * wide,
                _FOOT + LEGEND + (rows - 1 - row) * each + _BELOW,
                wide - _LEFT - _GAP,
                height,
            )
            for column in range(columns)
        ]
        for row in range(rows)
    ]
    for ax in (ax for row_ in axes for ax in row_):
        ax.grid(axis="y", color="#E8E8E8", linewidth=0.5)
    return figure, axes


def model_line(model: str, label: str = "") -> Line2D:
    """Return the line of a model, for a legend."""
    look = MODEL_LOOKS[model]
    return Line2D(
        [], [],
        color=look.colour, linestyle=look.line, marker=look.marker, markersize=4.5,
        markeredgecolor="white", markeredgewidth=0.4, label=label or model,
    )  # fmt: skip


def thin_line(label: str, line: Literal["--", ":"] = "--", colour: str = GREY) -> Line2D:
    """Return a thin line for a legend that does not belong to a model."""
    return Line2D([], [], color=colour, linestyle=line, linewidth=0.9, label=label)


def finish_panels(
    figure: Figure, depths: GlonetResults, handles: Iterable[Line2D], how: Sequence[str]
) -> Figure:
    """Draw legend and note below the panels."""
    wide, high = figure.get_size_inches()
    found = list(handles)
    if found:
        figure.legend(
            handles=found, loc="lower left", bbox_to_anchor=(0.1 / wide, _FOOT / high), ncols=len(found),
            borderaxespad=0, handlelength=3.0, columnspacing=1.6,
        )  # fmt: skip
    footnote(figure, [seeds_note(depths), *how])
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
