"""Statistics of seeds: intervals, paired comparisons, corrections for many of them, winners. Pure.

Values are percentages or counts, one per trial; NaN stands for a trial that is missing. The arms of a seed
share initial weights and batches, so that modes are compared seed by seed; a seed that lacks one arm is left
out of that comparison and of its counts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats as scipy_stats

from psa.core.rng import generator

Values = NDArray[np.float64]
LEVEL: Final = 0.95
ALPHA: Final = 0.05
LEAST_N: Final = 3  # trials or pairs from which there are intervals and tests: those of two say nothing
TIE: Final = 0.01  # points between unrounded means within which arms share a win
_RESAMPLES: Final = 5_000
EXACT_PAIRS: Final = 13  # all 2^n sign flips are tried up to here, a sample of them beyond
_ROUNDING: Final = 1e-9  # rounding error of a difference of two decimal fractions


@dataclass(frozen=True)
class Interval:
    """A number and the interval around it, whose ends are NaN if there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """Summary statistics of trials. sd is the sample's (ddof 1), low and high the t interval of the mean at
    LEVEL; NaN where n does not allow them.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float
    least: float
    greatest: float


def present(values: ArrayLike) -> Values:
    """Return the values that are not NaN."""
    found = np.asarray(values, dtype=np.float64)
    return found[~np.isnan(found)]


def summary(values: ArrayLike) -> Summary:
    """Return count, mean, sd, interval and range of the values that are not NaN."""
    found = present(values)
    if not len(found):
        return Summary(0, *[float("nan")] * 6)
    sd = float(found.std(ddof=1)) if len(found) > 1 else float("nan")
    low, high = t_interval(found)
    return Summary(len(found), float(found.mean()), sd, low, high, float(found.min()), float(found.max()))


def t_interval(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """Return Student's interval of the mean; NaN below LEAST_N values, a point where all are equal."""
    found = present(values)
    if len(found) < LEAST_N:
        return float("nan"), float("nan")
    half = float(scipy_stats.t.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found)))
    return float(found.mean()) - half, float(found.mean()) + half


def share_summary(values: ArrayLike, total: float = 100.0) -> Summary:
    """Return the summary of shares, such as percentages (total: 100) or counts of correct samples (total:
    all samples), with the interval restricted to 0 .. total.

    The true mean lies there, so the restricted interval covers it as often as Student's does.
    """
    found = summary(values)
    return replace(found, low=float(np.maximum(found.low, 0)), high=float(np.minimum(found.high, total)))


@dataclass(frozen=True)
class Paired:
    """One arm minus another, seed by seed: n pairs, mean difference with its t interval, the p-value of
    the sign-flip permutation test (two-sided), and Hedges' g of the differences (d_z with the small-sample
    correction J = 1 - 3 / (4 (n - 1) - 1)).
    """

    n: int
    difference: float
    low: float
    high: float
    p: float
    effect: float

    @property
    def interval(self) -> Interval:
        """The mean difference and its interval."""
        return Interval(self.difference, self.low, self.high)


def paired(one: ArrayLike, other: ArrayLike, seed: int = 0) -> Paired:
    """Compare two arms whose values are in the order of the same seeds. Raises ValueError for lengths
    that differ. Without any difference p is 1; below LEAST_N pairs, only n and the difference are not NaN.
    """
    first, second = np.asarray(one, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"paired arms must have one shape, got {first.shape} and {second.shape}")
    differences = present(first - second)
    n = len(differences)
    mean = float(differences.mean()) if n else float("nan")
    if n < LEAST_N:
        return Paired(n, mean, *[float("nan")] * 4)
    low, high = t_interval(differences)
    return Paired(n, mean, low, high, _sign_flip_p(differences, seed), _effect(differences))


def _sign_flip_p(differences: Values, seed: int) -> float:
    """Return p from all flips of few pairs, or a sample of them for many. Computed as a matrix product: a
    table has thousands of tests, and scipy's general permutation test takes milliseconds for each.
    """
    n = len(differences)
    if n <= EXACT_PAIRS:
        flipped, extra = _all_flips(n) @ differences, 0
    else:
        draws = generator(seed, "permutation")
        flipped, extra = draws.choice((-1.0, 1.0), (_RESAMPLES, n)) @ differences, 1  # and the one observed
    seen = abs(float(differences.sum()))
    reached = np.abs(flipped) >= seen - 1e-12 * max(1.0, seen)
    return float((reached.sum() + extra) / (len(flipped) + extra))


def least_sign_flip_p(pairs: int) -> float:
    """Return the least p that a two-sided sign-flip test of up to EXACT_PAIRS pairs allows: two of all flips
    reach the sum of differences of one sign.
    """
    return 2.0 ** (1 - pairs)


@lru_cache
def _all_flips(n: int) -> Values:
    """Return every choice of n signs, [2^n, n]."""
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    return 1.0 - 2.0 * bits.astype(np.float64)


@dataclass(frozen=True)
class Difference:
    """One mean minus another with its interval at LEVEL, and the two-sided p that they are equal."""

    value: float
    low: float
    high: float
    p: float


def welch(one: Summary, other: Summary, alike: float = 0.0) -> Difference:
    """Compare the means of two independent samples (Welch 1947); of each only n, mean and sd are used.

    All but the difference is NaN below LEAST_N values of either. Where neither varies the interval is a
    point, and p is 1 for means not further apart than `alike`, else the least p of a permutation test.
    """
    value = one.mean - other.mean
    if min(one.n, other.n) < LEAST_N:
        return Difference(value, *[float("nan")] * 3)
    parts = np.array([one.sd**2 / one.n, other.sd**2 / other.n])
    error = float(np.sqrt(parts.sum()))
    if error == 0:
        p = 1.0 if abs(value) <= alike else 2 / math.comb(one.n + other.n, one.n)
        return Difference(value, value, value, p)
    freedom = float(parts.sum() ** 2 / (parts**2 / (one.n - 1, other.n - 1)).sum())
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, freedom)) * error
    p = 2 * float(scipy_stats.t.sf(abs(value) / error, freedom))
    return Difference(value, value - half, value + half, p)


def all_equal(differences: Values) -> bool:
    """Return True if all of at least one difference are equal, the rounding of decimal fractions aside, which
    would otherwise be taken for scatter.
    """
    return bool(np.ptp(differences) <= _ROUNDING)


def _effect(differences: Values) -> float:
    if all_equal(differences):
        return 0.0 if abs(differences[0]) <= _ROUNDING else float("nan")
    n, sd = len(differences), float(differences.std(ddof=1))
    return float(differences.mean()) / sd * (1 - 3 / (4 * (n - 1) - 1))


def holm(p_values: ArrayLike) -> Values:
    """Adjust p-values for the chance of any false alarm (Holm 1979). NaN stays NaN and is not counted."""
    found = np.array(p_values, dtype=np.float64)
    order = np.argsort(found)[: np.count_nonzero(~np.isnan(found))]  # NaN are sorted last
    found[order] = np.minimum(1, np.maximum.accumulate(found[order] * np.arange(len(order), 0, -1)))
    return found


def benjamini_hochberg(p_values: ArrayLike) -> Values:
    """Adjust p-values for the share of false alarms (Benjamini & Hochberg 1995). NaN stays NaN, uncounted."""
    found = np.array(p_values, dtype=np.float64)
    there = ~np.isnan(found)
    if there.any():
        found[there] = scipy_stats.false_discovery_control(found[there])
    return found


@dataclass(frozen=True)
class Winners:
    """The arms with the greatest mean: those within a tolerance of it, and those that a paired test cannot
    tell from it, corrected by Bonferroni's method for all pairs of arms, since the best is known only from
    the same values (none where no other arm has LEAST_N pairs with the best). In the order in which the arms
    were given.
    """

    best: tuple[str, ...]
    by_tolerance: tuple[str, ...]
    by_test: tuple[str, ...]


def winners(arms: Mapping[str, ArrayLike], tolerance: float = TIE, alpha: float = ALPHA) -> Winners:
    """Return the winners among arms whose values are in the order of the same seeds; empty without values.

    Means are compared unrounded: 98.115 and 98.105 tie at a tolerance of 0.01, 98.12 and 98.1099 do not.
    """
    means = {arm: float(present(values).mean()) for arm, values in arms.items() if len(present(values))}
    if not means:
        return Winners((), (), ())
    top = max(means.values())
    best = next(arm for arm, mean in means.items() if mean == top)
    rivals = [arm for arm in means if arm != best]
    p_values = np.array([paired(arms[best], arms[arm]).p for arm in rivals]) * math.comb(len(means), 2)
    tested = bool(rivals) and not np.isnan(p_values).all()
    indistinct = {arm for arm, p in zip(rivals, p_values, strict=True) if not p < alpha} | {best}
    return Winners(
        tuple(arm for arm, mean in means.items() if top - mean <= _ROUNDING),
        tuple(arm for arm, mean in means.items() if top - mean <= tolerance + _ROUNDING),
        tuple(arm for arm in means if arm in indistinct) if tested else (),
    )


def t_test(one: ArrayLike, other: ArrayLike) -> float:
    """Return the two-sided p of the paired t test of two arms with values in the order of the same seeds.

    1 without any difference; NaN below LEAST_N pairs. Counts of samples are whole numbers, so that a few
    differences may be one and the same by chance; p is then that of the sign-flip test, where a t test
    would give 0.
    """
    differences = present(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64))
    if len(differences) < LEAST_N:
        return float("nan")
    if all_equal(differences):
        return 1.0 if abs(differences[0]) <= _ROUNDING else least_sign_flip_p(len(differences))
    return float(scipy_stats.ttest_1samp(differences, 0.0).pvalue)


def _orders(values: Values) -> int:
    """Return in how many orders the values can stand, equal ones exchanged counted once."""
    counts = np.unique(np.round(values, 6), return_counts=True)[1]
    return math.factorial(len(values)) // math.prod(map(math.factorial, counts.tolist()))


def blocked_f_test(table: ArrayLike) -> float:
    """Return p of the F test that several arms have one mean, with the seeds as blocks.

    Source: R. A. Fisher, The Design of Experiments (1935), on randomized blocks. For two arms it is the
    paired t test. SciPy has no parametric test of several arms with blocks; statsmodels has one, and is
    installed for tests only.

    Args:
        table: Values of shape (seeds, arms); a seed that lacks an arm is left out.

    Returns:
        1 without any difference; NaN below LEAST_N seeds or two arms. Where the arms differ by the same
        amounts with every seed, the least p of a permutation test in place of 0 (see `t_test`).

    """
    values = np.asarray(table, dtype=np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    seeds, arms = values.shape
    if seeds < LEAST_N or arms < 2:
        return float("nan")
    of_arms = values.mean(axis=0) - values.mean()
    rest = values - values.mean(axis=1, keepdims=True) - of_arms
    if np.abs(rest).max() <= _ROUNDING:
        return 1.0 if np.abs(of_arms).max() <= _ROUNDING else float(_orders(of_arms)) ** (1 - seeds)
    ratio = seeds * (of_arms**2).sum() * (seeds - 1) / (rest**2).sum()
    return float(scipy_stats.f.sf(ratio, arms - 1, (arms - 1) * (seeds - 1)))
