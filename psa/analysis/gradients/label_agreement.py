"""Agreement of two labellings of the same samples: purity, NMI, ARI with bootstrap intervals. Pure.

All three are functions of the contingency table alone, and drawing N samples with replacement is drawing that
table from a multinomial: so a thousand resamples of 60,000 samples take milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from psa.analysis.stats import LEVEL, Interval
from psa.core.rng import generator

LABEL_RESAMPLES: Final = 2_000

Counts = NDArray[np.int64]
_Values = NDArray[np.float64]


@dataclass(frozen=True)
class LabelAgreement:
    """The agreement of N clustered samples with their labels. purity: share of samples with the most frequent
    label of their cluster (1 also where every sample is a cluster). nmi: mutual information over the mean
    of both entropies, 0 to 1. ari: pairs agreed upon, corrected for chance (Hubert & Arabie 1985): 0 by
    chance, 1 for equal labellings.

    The bootstrap intervals cover other samples of the same size with the same centres; they do not cover
    other outcomes of k-means. They contain their value (see _estimate).
    """

    samples: int
    purity: Interval
    nmi: Interval
    ari: Interval


def label_agreement(
    clusters: Counts, labels: Counts, seed: int, resamples: int = LABEL_RESAMPLES
) -> LabelAgreement:
    """Compare two labellings, int64 [N] each, N > 0. Raises ValueError for lengths that differ."""
    table = contingency(clusters, labels)
    total = int(table.sum())
    drawn = generator(seed, "bootstrap").multinomial(total, table.ravel() / total, size=resamples)
    tables = np.concatenate([table[None], drawn.reshape(-1, *table.shape)])
    return LabelAgreement(
        total, _estimate(cluster_purity(tables)), _estimate(nmi(tables)), _estimate(ari(tables), -1.0)
    )


def contingency(clusters: Counts, labels: Counts) -> Counts:
    """Return the count of each pair, [clusters, labels], rows and columns in rising order of their values."""
    if clusters.shape != labels.shape or clusters.ndim != 1 or not len(clusters):
        raise ValueError(f"clusters and labels must have one shape, got {clusters.shape} and {labels.shape}")
    rows, row = np.unique(clusters, return_inverse=True)
    columns, column = np.unique(labels, return_inverse=True)
    pairs = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return pairs.reshape(len(rows), len(columns)).astype(np.int64)


def cluster_purity(tables: Counts) -> _Values:
    """Return the purity of tables [R, clusters, labels], shape [R]."""
    return np.asarray(tables.max(axis=2).sum(axis=1) / tables.sum(axis=(1, 2)))


def nmi(tables: Counts) -> _Values:
    """Return the NMI of tables [R, clusters, labels], shape [R]; 1 if both have one class (scikit-learn)."""
    total = tables.sum(axis=(1, 2))
    both = _entropy(tables.reshape(len(tables), -1), total)
    rows, columns = _entropy(tables.sum(axis=2), total), _entropy(tables.sum(axis=1), total)
    mean = (rows + columns) / 2
    shared = np.maximum(rows + columns - both, 0)
    return np.where(mean > 0, shared / np.where(mean > 0, mean, 1), 1.0)


def _entropy(counts: Counts, total: Counts) -> _Values:
    shares = counts / total[:, None]
    return np.asarray(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(axis=1))


def ari(tables: Counts) -> _Values:
    """Return the ARI of tables [R, clusters, labels], shape [R]; 1 if both have one class or N classes."""
    pairs = _pairs(tables).sum(axis=(1, 2))
    rows, columns = _pairs(tables.sum(axis=2)).sum(axis=1), _pairs(tables.sum(axis=1)).sum(axis=1)
    expected = rows * columns / np.maximum(_pairs(tables.sum(axis=(1, 2))), 1)
    most = (rows + columns) / 2
    room = most - expected
    return np.where(room > 0, (pairs - expected) / np.where(room > 0, room, 1), 1.0)


def _pairs(counts: Counts) -> _Values:
    found = counts.astype(np.float64)
    return found * (found - 1) / 2


def _estimate(values: _Values, least: float = 0.0) -> Interval:
    """Return the interval of values, of which the first is that of the samples and the others resampled.

    Resampling adds agreement by chance to purity and NMI, so that their percentiles may lie above the value
    itself: they are shifted by the bootstrap's estimate of bias, the mean of the resampled values minus the
    value (Efron & Tibshirani 1993, chapter 10), and restricted to the possible values, `least` to 1.
    """
    value, drawn = float(values[0]), values[1:]
    ends = np.percentile(drawn, [50 * (1 - LEVEL), 50 * (1 + LEVEL)]) - (float(drawn.mean()) - value)
    low, high = np.clip(ends, least, 1.0)
    return Interval(value, min(float(low), value), max(float(high), value))
