"""Ticks: at least two, round, within the axis, on scales of any range."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, SymLogNorm

from psa.reports.plotting.scales import label_bar, linear_ticks, log_axis, log_ticks, norm_ticks, number_text
from psa.reports.plotting.style import new_figure

LOWS = st.floats(1e-6, 1e6)


def is_round(value: float, digits: int) -> bool:
    """A number that needs no more than so many digits."""
    return math.isclose(value, float(f"{value:.{digits}g}"), rel_tol=1e-12)


@given(LOWS, st.floats(1.001, 1e14))
@example(120001.0, 1.001)
def test_a_logarithmic_scale_of_any_range_has_round_ticks(low: float, factor: float) -> None:
    """From a thousandth of its value to fourteen decades; powers of ten where it spans several."""
    ticks = log_ticks(low, low * factor)
    assert len(ticks) >= 2
    assert ticks == sorted(set(ticks))
    assert low * (1 - 1e-6) <= ticks[0] <= ticks[-1] <= low * factor * (1 + 1e-6)
    assert all(is_round(tick, 5) for tick in ticks)
    if factor > 1e6:
        assert all(is_round(tick, 1) for tick in ticks)
        assert len(ticks) <= 7


@pytest.mark.parametrize(("low", "high"), [(3.2, 15.5), (1.5, 6.0), (805, 1600), (200, 600)])
def test_a_logarithmic_scale_within_a_decade_has_three_ticks(low: float, high: float) -> None:
    """Between two numbers alone a reader cannot see that the scale is logarithmic."""
    assert len(log_ticks(low, high)) >= 3


@given(st.floats(-1e4, 1e4, allow_subnormal=False), st.floats(0.01, 1e4))
@example(1e4, 0.125)
def test_a_linear_scale_of_any_range_has_round_ticks(low: float, span: float) -> None:
    """Two at least, in equal steps, of no more digits than tell them apart: 10,000.025, but 0.25."""
    ticks = linear_ticks(low, low + span)
    digits = 3 + math.ceil(math.log10(max(1, abs(low) / span, abs(low + span) / span)))
    assert len(ticks) >= 2
    steps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6)
    assert all(is_round(tick, digits) for tick in ticks)


@pytest.mark.parametrize(
    "norm",
    [
        LogNorm(805, 1600), LogNorm(1594, 1623), LogNorm(0.989, 1.02), LogNorm(0.03, 50), LogNorm(3, 2.9e16),
        Normalize(53.1084, 97.2), Normalize(11.02, 12.02), SymLogNorm(0.1, vmin=-1, vmax=1),
        SymLogNorm(0.1, vmin=-87.3, vmax=87.3),
    ],
    ids=lambda norm: f"{type(norm).__name__} {norm.vmin:g} to {norm.vmax:g}",
)  # fmt: skip
@pytest.mark.parametrize("orientation", ["horizontal", "vertical"])
def test_every_colour_bar_has_two_round_ticks_or_more(norm: Normalize, orientation: str) -> None:
    """Those that had one tick, none, 53.1084 or 0.998 are among them."""
    figure = new_figure(1)
    bar = figure.colorbar(ScalarMappable(norm, "viridis"), cax=figure.add_subplot(), orientation=orientation)
    label_bar(bar, norm, "parameters")
    figure.draw_without_rendering()
    axis = bar.ax.xaxis if orientation == "horizontal" else bar.ax.yaxis
    shown = [label.get_text() for label in axis.get_ticklabels()]
    assert len(shown) >= 2
    assert len(set(shown)) == len(shown)
    assert "" not in shown
    assert max(len(text.replace(",", "").replace("−", "")) for text in shown) <= 6
    assert norm_ticks(norm) == [tick for tick in norm_ticks(norm) if norm.vmin <= tick <= norm.vmax]
    assert not axis.get_minorticklocs().size


def test_an_axis_over_sixteen_decades_has_numbers() -> None:
    """A locator with few ticks and several in each decade showed none from six decades on."""
    ax = new_figure(2).add_subplot()
    ax.set_yscale("log")
    ax.set_ylim(1e-3, 2.9e16)
    log_axis(ax.yaxis, 1e-3, 2.9e16, 5)
    ax.figure.draw_without_rendering()
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert 3 <= len(shown) <= 5
    assert all(shown)


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234.5"), (-0.1, "−0.1"), (1e7, "1e+07"), (0.03, "0.03"), (805.0, "805")]
)
def test_numbers_of_ticks_are_short(value: float, text: str) -> None:
    """With a true minus, as in the texts beside them."""
    assert number_text(value) == text
