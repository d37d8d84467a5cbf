"""Gradients of a few kinds, made up."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from psa.analysis.gradients.factored import Factored


def gradients(samples: int = 300, kinds: int = 4, seed: int = 0, spread: float = 0.3) -> Factored:
    """Samples of a few kinds, each with a delta and an input of its own, float64; the norms vary widely."""
    draws = np.random.Generator(np.random.Philox(seed))
    kind = np.arange(samples) % kinds
    delta = draws.normal(size=(kinds, 6))[kind] + spread * draws.normal(size=(samples, 6))
    activation = draws.normal(size=(kinds, 8))[kind] + spread * draws.normal(size=(samples, 8))
    delta *= np.exp(draws.normal(size=(samples, 1)))
    return Factored(torch.from_numpy(delta), torch.from_numpy(activation))


def dense(points: Factored) -> NDArray[np.float64]:
    """Written out, [N, outputs * inputs]."""
    return points.dense(slice(None)).flatten(1).numpy()
