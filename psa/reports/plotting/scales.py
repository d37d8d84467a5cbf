"""Round ticks for axes and colour bars, on linear and logarithmic scales."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize, SymLogNorm
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

_ROUND: Final = (1, 2, 2.5, 5, 10)  # steps that are read at a glance
_SHORT: Final = (
    1,
    2,
    5,
    10,
)  # those that add no digit: 120,025 is hard to read on a narrow range
_PER_DECADE: Final = ((1, 2, 5), (1, 3), (1,))  # from dense to sparse
_ROUNDING: Final = 1e-9  # relative: a tick at the end of a range counts as within it
_MOST: Final = 7  # ticks of a scale
_WIDE: Final = 30.0  # ratio of the greatest to the least value from which on an axis is logarithmic
_REACH: Final = 2.0  # times the range of the data that a scale may extend beyond them


def within_reach(reference: float, low: float, high: float) -> bool:
    """Return whether a scale for data from `low` to `high` can be extended to a reference value.

    If it is far away, the data would be pressed into a strip in which they cannot be told apart.
    """
    return max(low - reference, reference - high) <= _REACH * (high - low)


def linear_ticks(low: float, high: float, most: int = _MOST) -> list[float]:
    """Return two to about `most` round numbers from `low` to `high`; a single one for an empty range."""
    return _steps(low, high, most, _ROUND)


def _steps(low: float, high: float, most: int, steps: Sequence[float]) -> list[float]:
    if not low < high:
        return [low]
    for bins in itertools.count(max(2, most - 1)):
        found = _within(MaxNLocator(bins, steps=list(steps)).tick_values(low, high), low, high)
        if len(found) >= 2:
            return found
    raise AssertionError("unreachable")


def log_ticks(low: float, high: float, most: int = _MOST) -> list[float]:
    """Return two to `most` round numbers from `low` to `high`, both above 0, for a logarithmic scale.

    Over several decades they are powers of ten, at equal distances; within one they are at equal steps where
    1, 2 and 5 are too few.
    """
    steps = _steps(low, high, most, _SHORT)
    for found in _log_candidates(low, high, most):
        if len(found) == 2 < len(steps) <= most and high <= 10 * low:
            return steps
        if 2 <= len(found) <= most:
            return found
    return steps


def _log_candidates(low: float, high: float, most: int) -> Iterator[list[float]]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in _PER_DECADE:
        numbers = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        yield _within(numbers, low, high)
    for step in range(2, max(3, last - first)):
        powers = range(math.ceil(first / step) * step, last + 1, step)
        yield _within([10.0**power for power in powers], low, high)


def _within(numbers: Sequence[float], low: float, high: float) -> list[float]:
    low, high = low - _ROUNDING * abs(low), high + _ROUNDING * abs(high)
    return [float(number) for number in numbers if low <= number <= high]


def number_text(value: float, _: int | None = None) -> str:
    """Format the number of a tick: `0.03`, `−10`, `100,000`, `1e+07`."""
    return f"{value:,.6g}".replace("-", "−")


def log_axis(axis: Axis, low: float, high: float, most: int = _MOST) -> None:
    """Set ticks with numbers on a logarithmic axis from `low` to `high`, and no others."""
    axis.set_major_locator(FixedLocator(log_ticks(low, high, most)))
    axis.set_major_formatter(FuncFormatter(number_text))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def spans_decades(values: Sequence[float]) -> bool:
    """Return whether positive values differ so much that a linear axis would press most of them together."""
    positive = [value for value in values if value > 0]
    return bool(positive) and max(positive) > _WIDE * min(positive)


def log_axis_with_zero(ax: Axes, values: Sequence[float]) -> None:
    """Set a logarithmic horizontal scale that has a place for 0: it is linear below the power of ten under
    the least positive value. The ticks are 0 and powers of ten. values: none below 0, at least one above.
    """
    positive = [value for value in values if value > 0]
    first, last = (
        10.0 ** math.floor(math.log10(min(positive))),
        10.0 ** math.ceil(math.log10(max(positive))),
    )
    ax.set_xscale("symlog", linthresh=first, linscale=0.5)
    ax.set_xlim(-0.4 * first, 1.2 * max(last, float(ax.dataLim.x1)))
    ax.xaxis.set_major_locator(FixedLocator([0.0, *log_ticks(first, last)]))
    ax.xaxis.set_major_formatter(FuncFormatter(number_text))
    ax.xaxis.set_minor_locator(NullLocator())


def norm_ticks(norm: Normalize, most: int = _MOST) -> list[float]:
    """Return at least two round numbers within the range of a colour scale."""
    low, high = float(norm.vmin or 0.0), float(norm.vmax or 0.0)
    if isinstance(norm, SymLogNorm):
        return _symmetric_ticks(low, high, float(norm.linthresh))
    return log_ticks(low, high, most) if isinstance(norm, LogNorm) else linear_ticks(low, high, most)


def _symmetric_ticks(low: float, high: float, linear: float) -> list[float]:
    """Return 0 and the powers of ten on both sides of it, from the end of the linear part on."""
    first = math.ceil(math.log10(linear) - _ROUNDING)
    powers = [10.0**power for power in range(first, math.ceil(math.log10(max(abs(low), high))) + 1)]
    return _within([-each for each in reversed(powers)] + [0.0] + powers, low, high)


def label_bar(bar: Colorbar, norm: Normalize, what: str, most: int = _MOST) -> None:
    """Set round ticks and the title of a colour bar; both lie beside its long side."""
    axis = bar.ax.xaxis if bar.orientation == "horizontal" else bar.ax.yaxis
    axis.set_major_locator(FixedLocator(norm_ticks(norm, most)))
    axis.set_major_formatter(FuncFormatter(number_text))
    axis.set_minor_locator(NullLocator())
    bar.set_label(what, fontsize=7, labelpad=2)
    bar.outline.set_linewidth(0.4)
