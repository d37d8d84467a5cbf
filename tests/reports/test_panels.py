"""The grid of panels: its places in inches, whatever the size of the figure."""

from __future__ import annotations

import pytest
from matplotlib.lines import Line2D

from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.style import WIDTH


def test_panels_stand_row_by_row_from_the_top() -> None:
    """The last row is shorter, and the room around all panels is as asked."""
    figure, axes = panel_grid("Loss", 5, 3, 1.0, left=0.5, bottom=0.75, top=0.25, gap=(0.2, 0.5), width=1.5)
    high = figure.get_size_inches()[1]
    assert high == pytest.approx(0.75 + 2 * 1.0 + 0.5 + 0.25)
    places = [ax.get_position() for ax in axes]
    assert [round(place.x0 * WIDTH, 6) for place in places] == [0.5, 2.2, 3.9, 0.5, 2.2]
    assert [round(place.y0 * high, 6) for place in places] == [2.25] * 3 + [0.75] * 2
    assert {(round(place.width * WIDTH, 6), round(place.height * high, 6)) for place in places} == {
        (1.5, 1.0)
    }


def test_panels_without_a_width_fill_the_text_width() -> None:
    """Up to the room at the right."""
    _, axes = panel_grid("", 4, 4, 1.0, left=0.4, bottom=0.5, top=0.5, gap=(0.3, 0), right=0.2)
    assert axes[-1].get_position().x1 * WIDTH == pytest.approx(WIDTH - 0.2)


def test_a_legend_has_its_corner_where_it_was_put() -> None:
    """In inches from the lower left corner of the figure."""
    figure, _ = panel_grid("", 1, 1, 1.0, left=0.5, bottom=1.0, top=0.0)
    legend = draw_legend(figure, [Line2D([], [], label="mean")], 0.1, 0.5, 1)
    corner = legend.get_bbox_to_anchor()
    assert (corner.x0, corner.y0) == pytest.approx((0.1 * figure.dpi, 0.5 * figure.dpi))
