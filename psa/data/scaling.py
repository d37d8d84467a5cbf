"""Scaling of samples: of bytes by a table, of other numbers by what the training split alone says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from psa.core.errors import UserError
from psa.core.formatting import pluralize

MEAN: Final = (
    0.1307  # of MNIST's training pixels; used for MNIST and Fashion-MNIST, as the published studies did
)
STD: Final = 0.3081
SIMPLEX_SUM: Final = 100.0
_ROWS: Final = 4_096  # samples that are scaled at once, so that float64 copies stay small
_BRIGHTEST: Final = 255

Floats = npt.NDArray[np.float32]
_Moments = npt.NDArray[np.float64]  # of each feature or channel
SampleScaling = Callable[[npt.NDArray[Any]], Floats]


@dataclass(frozen=True)
class PixelScaling:
    """The scaling (x / divisor - offset) / spread of bytes x, each operation in float32."""

    divisor: float
    offset: float
    spread: float


def pixel_scaling(scaling: str) -> PixelScaling | None:
    """Return the scaling of the pixels of MNIST and Fashion-MNIST, as torchvision's ToTensor and Normalize
    have it. None of `simplex`, which is not a function of one pixel.
    """
    found = {
        "none": PixelScaling(1, 0, 1),
        "unit": PixelScaling(_BRIGHTEST, 0, 1),
        "standard": PixelScaling(_BRIGHTEST, MEAN, STD),
    }
    return found.get(scaling)


def pixel_values(scaling: str) -> Floats:
    """Return the scaled value of each byte, float32 [256]; with `simplex` before its shift.

    A table, because a byte has 256 values: one look-up per pixel in place of three passes over 150 MB.
    """
    constants = pixel_scaling(scaling) or PixelScaling(_BRIGHTEST, 0, 1)
    divisor, offset, spread = map(np.float32, (constants.divisor, constants.offset, constants.spread))
    values = np.arange(256, dtype=np.float32)
    return np.asarray((values / divisor - offset) / spread, dtype=np.float32)


def of_bytes(scaling: str) -> SampleScaling:
    """Return the scaling of the pixels of MNIST and Fashion-MNIST, the same for both."""
    values = pixel_values(scaling)
    return lambda samples: simplex(values[samples]) if scaling == "simplex" else values[samples]


def simplex(samples: Floats) -> Floats:
    """Return samples [N, features], each shifted and scaled so that it is positive and sums to 100."""
    raised = samples - samples.min(axis=1, keepdims=True) + np.float32(1e-8)
    total = raised.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(raised * (SIMPLEX_SUM / total), dtype=np.float32)


def fitted(training: npt.NDArray[Any], scaling: str) -> SampleScaling:
    """Return the scaling that fits a training split [N, features] or [N, channels, pixels].

    Per feature, or per channel of images: `standard` subtracts the mean and divides by the population
    standard deviation, `unit` maps the least value to 0 and the greatest to 1 (of bytes: 0 and 255),
    `simplex` does that and then makes each sample sum to 100, `none` changes nothing. A feature that is
    constant in the training split becomes 0 there. Sums run over the samples in order, so that every machine
    has the same bits. Raises UserError where float64 cannot hold a sum.
    """
    axes = (0, *range(2, training.ndim))
    if scaling == "standard":
        offset, spread = _moments(training, axes)
    elif scaling == "none":
        offset, spread = np.zeros(training.shape[1]), np.ones(training.shape[1])
    elif training.dtype == np.uint8:
        offset, spread = np.zeros(training.shape[1]), np.full(training.shape[1], float(_BRIGHTEST))
    else:
        offset = training.min(axis=axes).astype(np.float64)
        with np.errstate(over="ignore"):
            spread = training.max(axis=axes).astype(np.float64) - offset
    spread = np.where(spread == 0, 1.0, spread)

    def scale(samples: npt.NDArray[Any]) -> Floats:
        found = np.empty((len(samples), int(np.prod(samples.shape[1:]))), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            for at in range(0, len(samples), _ROWS):
                part = samples[at : at + _ROWS].astype(np.float64)
                part = (part - _shaped(offset, part)) / _shaped(spread, part)
                found[at : at + _ROWS] = part.reshape(len(part), -1)
        if not np.isfinite(found).all():
            raise UserError(
                f"scaling {scaling} must give values that float32 can hold, got larger ones",
                "Use scaling standard, or divide large columns first",
            )
        return simplex(found) if scaling == "simplex" else found

    return scale


def _moments(training: npt.NDArray[Any], axes: tuple[int, ...]) -> tuple[_Moments, _Moments]:
    """Return the mean and the population standard deviation of each feature or channel, those of a constant
    one exactly: a rounded mean would make its deviation tiny in place of 0, and other values huge.
    """
    low, high = (function(axis=axes).astype(np.float64) for function in (training.min, training.max))
    constant = low == high
    offset = np.where(constant, low, _mean(training, axes, lambda part: part))
    with np.errstate(over="ignore", invalid="ignore"):
        largest = np.maximum(high - offset, offset - low)
    if beyond := int((~np.isfinite(largest)).sum()):
        raise UserError(
            f"scaling standard must have sums that float64 can hold, got larger ones in "
            f"{pluralize(beyond, 'column')}",
            "Divide large columns first, or replace values such as 1e308 that stand for missing ones",
        )
    spread = np.sqrt(_mean(training, axes, lambda part: np.square(part - _shaped(offset, part))))
    spread[constant] = 0
    extreme = ~constant & ((spread == 0) | ~np.isfinite(spread))  # their squares are no numbers of float64
    if extreme.any():
        unit = np.where(extreme, largest, 1.0)
        spread[extreme] = (unit * np.sqrt(_mean(training, axes, lambda part: _squares(part, offset, unit))))[
            extreme
        ]
    return offset, spread


def _squares(part: npt.NDArray[np.float64], offset: _Moments, unit: _Moments) -> npt.NDArray[np.float64]:
    return np.square((part - _shaped(offset, part)) / _shaped(unit, part))


def _mean(
    samples: npt.NDArray[Any],
    axes: tuple[int, ...],
    function: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> npt.NDArray[np.float64]:
    """Return the mean of a function of all samples per feature or channel, float64."""
    total = np.zeros(samples.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(samples), _ROWS):
            total += function(samples[at : at + _ROWS].astype(np.float64)).sum(axis=axes)
        return total / float(np.prod([samples.shape[axis] for axis in axes]))


def _shaped(values: npt.NDArray[np.float64], samples: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return a value per feature or channel in the shape that fits samples."""
    return values.reshape(1, -1, *[1] * (samples.ndim - 2))
