"""Whether a network is as sure as it is right: the expected calibration error."""

from __future__ import annotations

import numpy as np


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Sum over bins of |mean confidence - accuracy| x share of samples (Guo et al. 2017, equation 3).

    confidence: [N], the greatest probability of each sample. right: bool [N]. The bins are of equal width,
    (left, right]; a confidence of 0 belongs to the first. NaN for no samples. Raises ValueError for a
    confidence outside 0..1 or lengths that differ.
    """
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if confidence.shape != right.shape or confidence.ndim != 1:
        raise ValueError(f"confidence {confidence.shape} and right {right.shape} are not two lists of N")
    # Float32 probabilities may exceed 1 by a rounding.
    if not np.all((confidence >= 0) & (confidence <= 1 + 1e-6)):
        raise ValueError("a confidence is a probability, from 0 to 1")
    if not len(confidence):
        return float("nan")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    gap = np.bincount(bin_of, confidence, bins) - np.bincount(bin_of, right.astype(np.float64), bins)
    return float(np.abs(gap).sum() / len(confidence))
