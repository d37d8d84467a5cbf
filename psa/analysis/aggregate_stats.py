"""Statistics of runs over several tasks: interquartile mean, probability of improvement, and their stratified
bootstrap (Agarwal et al. 2021). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as scipy_stats

from psa.analysis.stats import LEVEL, Values
from psa.core.rng import generator

_BATCH: Final = 2_000_000  # scores of a bootstrap that are in memory at a time


def interquartile_mean(scores: ArrayLike) -> Values:
    """Return the mean of the middle half of all scores [..., runs, tasks] (Agarwal et al. 2021)."""
    found = np.asarray(scores, dtype=np.float64)
    together = found.reshape(*found.shape[:-2], -1)
    return np.asarray(scipy_stats.trim_mean(together, proportiontocut=0.25, axis=-1))


def probability_of_improvement(one: ArrayLike, other: ArrayLike) -> Values:
    """Return the probability that a run of `one` beats one of `other` on a random task: the mean over tasks
    of P(x > y) + P(x = y) / 2, for scores [..., runs, tasks] (Agarwal et al. 2021); run counts may differ.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    tasks = range(first.shape[-1])
    return np.asarray(np.mean([_probability(first[..., at], second[..., at]) for at in tasks], axis=0))


def _probability(one: Values, other: Values) -> Values:
    """Return P(x > y) + P(x = y) / 2 for scores [..., runs] of one task, by ranks (Mann & Whitney 1947): all
    pairs of 980 runs would take gigabytes in a bootstrap.
    """
    n, m = one.shape[-1], other.shape[-1]
    ranks = scipy_stats.rankdata(np.concatenate([one, other], axis=-1), axis=-1)
    return np.asarray((ranks[..., :n].sum(axis=-1) - n * (n + 1) / 2) / (n * m))


def stratified_interval(
    scores: Sequence[ArrayLike],
    statistic: Callable[..., ArrayLike],
    seed: int,
    level: float = LEVEL,
    resamples: int = 1_000,
) -> tuple[float, float]:
    """Return the percentile interval of statistic(*scores), with the runs of every task resampled separately.

    scores: one matrix [runs, tasks] per argument; the statistic takes many at once, [resamples, runs, tasks].
    """
    matrices = [np.asarray(each, dtype=np.float64) for each in scores]
    ends = np.cumsum([each.shape[1] for each in matrices])[:-1]

    def of_columns(*columns: Values, axis: int) -> ArrayLike:
        runs_last = [np.moveaxis(column, axis, -1) for column in columns]
        parts = np.split(np.arange(len(columns)), ends)
        return statistic(*[np.stack([runs_last[at] for at in part], axis=-1) for part in parts])

    runs = sum(each.size for each in matrices)
    result = scipy_stats.bootstrap(
        [column for each in matrices for column in each.T],
        of_columns,
        n_resamples=resamples,
        batch=max(1, min(resamples, _BATCH // max(1, runs))),
        confidence_level=level,
        method="percentile",
        rng=generator(seed, "bootstrap"),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)
