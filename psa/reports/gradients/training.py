"""The learning curves of the gradient study."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.typing import LineStyleType

from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import GREY, GRID, footnote, plot_style

_BLUE: Final = "#0072B2"
_DASHED: Final = (0, (3, 1.2))


def finished_rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the loops of finished trials."""
    return frame[(frame["status"] == "done") & frame["loop"].notna()]


def gradient_curves(frame: pd.DataFrame) -> Figure:
    """Plot losses and accuracy over the epochs, a line per trial, after a single epoch a point.

    frame: rows of the trials of a page, of which `finished_rows` are drawn.
    """
    rows = finished_rows(frame)
    once = rows["loop"].nunique() == 1
    dashed: LineStyleType = "none" if once else _DASHED
    solid: LineStyleType = "none" if once else "-"
    with plot_style():
        figure, (losses, accuracies) = panel_grid(
            "Losses and accuracy after one epoch" if once else "Learning curves",
            2,
            2,
            1.7,
            left=0.5,
            bottom=0.75,
            top=0.45,
            gap=(0.65, 0),
            width=2.95,
        )
        for _, mine in rows.groupby("id", observed=True):
            epochs = mine["loop"].to_numpy(np.float64)
            for ax, column, colour, style in (
                (losses, "train_loss", GREY, dashed),
                (losses, "loss", _BLUE, solid),
                (accuracies, "accuracy", _BLUE, solid),
            ):
                values = mine[column].to_numpy(np.float64)
                ax.plot(
                    epochs, values, color=colour, linestyle=style, marker="o", markersize=2.5, linewidth=0.9
                )
        for ax, label in ((losses, "loss (nats)"), (accuracies, "accuracy (%)")):
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
            ax.set(xlabel="epoch", ylabel=label)
            ax.grid(axis="y", **GRID)
        handles = [
            Line2D([], [], color=_BLUE, linestyle=solid, marker="o", markersize=2.5, label="validation"),
            Line2D(
                [],
                [],
                color=GREY,
                linestyle=dashed,
                marker="o",
                markersize=2.5,
                label="training (mean over the epoch)",
            ),
        ]
        draw_legend(figure, handles, 0.5, 0.3, 2)
        count = rows["id"].nunique()
        mark = "point" if once else "line"
        footnote(figure, [f"A {mark} per trial (n = {count}); validation is of the weights after an epoch."])
        return figure
