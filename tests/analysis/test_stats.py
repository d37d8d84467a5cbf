"""Statistics against other libraries, against what can be counted by hand, and at their edges."""

from __future__ import annotations

import math
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm
from statsmodels.stats.multitest import multipletests

from psa.analysis import stats
from psa.analysis.aggregate_stats import (
    interquartile_mean,
    probability_of_improvement,
    stratified_interval,
)
from psa.core.rng import generator

NAN = float("nan")


def draws(seed: int, *shape: int) -> stats.Values:
    """Some numbers."""
    return generator(seed, "bootstrap").normal(90, 5, shape)


def test_a_summary_says_what_it_divides_by() -> None:
    """sd is the sample's: of 1, 2, 3, 4 it is sqrt(5/3), and the interval follows from it."""
    found = stats.summary([1, 2, 3, 4, NAN])
    assert (found.n, found.mean, found.least, found.greatest) == (4, 2.5, 1, 4)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    expected = scipy_stats.t.interval(0.95, 3, 2.5, math.sqrt(5 / 3) / 2)
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_the_least_p_of_a_sign_flip_test_is_that_of_equal_differences(pairs: int) -> None:
    """No differences are further from 0 than those of one sign and one size."""
    found = stats.paired([1.0] * pairs, [0.0] * pairs)
    assert found.p == pytest.approx(stats.least_sign_flip_p(pairs))


def test_what_is_missing_shifts_nothing() -> None:
    """NaN is left out everywhere, and nothing at all gives n = 0 and no numbers."""
    assert stats.summary([5, NAN, 5, NAN, 5]) == stats.summary([5, 5, 5])
    assert stats.summary([NAN]).n == 0
    assert math.isnan(stats.summary([]).mean)
    assert math.isnan(stats.summary([3.0]).sd)
    pair = stats.paired([1, 2, NAN, 4], [1, NAN, 3, 3])
    assert (pair.n, pair.difference) == (2, 0.5)


def test_pairs_are_compared_seed_by_seed() -> None:
    """A constant gain beneath large differences between seeds: visible in pairs, invisible without."""
    seeds = draws(2, 10)
    gain = stats.paired(seeds + 0.1 + draws(3, 10) / 1e4, seeds)
    assert gain.p == pytest.approx(2 / 2**10)
    assert scipy_stats.ttest_ind(seeds + 0.1, seeds).pvalue > 0.9


def test_the_sign_flip_test_counts_all_flips() -> None:
    """By hand for three pairs: of 8 flips of (1, 2, 3) only +++ and --- reach the mean."""
    assert stats.paired([1, 2, 3], [0, 0, 0]).p == pytest.approx(2 / 8)
    assert stats.paired([1, 2, -3], [0, 0, 0]).p == 1
    assert stats.paired([4, 4, 4], [4, 4, 4]).p == 1
    assert stats.paired([4, 4, 4], [4, 4, 4]).effect == 0


def test_the_rounding_of_fractions_is_no_scatter() -> None:
    """Equal differences of percentages have no effect size, though they differ in their last bits."""
    other = np.array([97.59, 8.04, 0.13])
    assert np.ptp((other + 0.1) - other) > 0
    assert math.isnan(stats.paired(other + 0.1, other).effect)


def test_the_sign_flip_test_is_scipys() -> None:
    """Against its general permutation test, exact, with ties and without."""
    for seed in range(6):
        differences = np.round(draws(seed, 9) - 89, seed % 3)
        expected = scipy_stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        ).pvalue
        assert stats.paired(differences, np.zeros(9)).p == pytest.approx(expected)


@pytest.mark.slow
def test_the_corrections_are_those_of_statsmodels() -> None:
    """Holm and Benjamini-Hochberg, on random p-values with ties."""
    for seed in range(5):
        p_values = np.round(generator(seed, "bootstrap").random(30), 2)
        for ours, name in ((stats.holm, "holm"), (stats.benjamini_hochberg, "fdr_bh")):
            assert ours(p_values) == pytest.approx(multipletests(p_values, method=name)[1])


def test_many_pairs_are_sampled_and_fixed_by_the_seed() -> None:
    """Beyond thirteen pairs flips are drawn; the answer is near the t test's and repeatable."""
    one, other = draws(4, 60), draws(5, 60)
    found = stats.paired(one, other, seed=3)
    assert found == stats.paired(one, other, seed=3)
    assert found.p == pytest.approx(scipy_stats.ttest_rel(one, other).pvalue, abs=0.02)


def test_hedges_g_of_differences() -> None:
    """Mean over sd of the differences, times 1 - 3 / (4 (n - 1) - 1)."""
    differences = np.array([1.0, 2.0, 3.0, 6.0])
    expected = differences.mean() / differences.std(ddof=1) * (1 - 3 / 11)
    assert stats.paired(differences, np.zeros(4)).effect == pytest.approx(expected)


def test_arms_of_different_length_are_no_pairs() -> None:
    """They would be shifted against each other."""
    with pytest.raises(ValueError, match="paired arms must have one shape"):
        stats.paired([1, 2], [1, 2, 3])


def test_corrections_by_hand() -> None:
    """Holm: .01 x 3, .02 x 2, .04 x 1, never falling. Benjamini-Hochberg: p x m / rank, never rising back."""
    assert stats.holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert stats.benjamini_hochberg([0.02, 0.01, 0.04]) == pytest.approx([0.03, 0.03, 0.04])
    found = stats.holm([NAN, 0.01, 0.04])
    assert math.isnan(found[0])
    assert found[1:] == pytest.approx([0.02, 0.04])
    assert math.isnan(stats.holm([NAN])[0])
    assert len(stats.holm([])) == 0


TIES = {
    "a hundredth apart is a tie": ({"a": [98.12], "b": [98.11]}, ("a", "b")),
    "a little more is none": ({"a": [98.12], "b": [98.1099]}, ("a",)),
    "unrounded means decide": ({"a": [98.124, 98.124], "b": [98.106, 98.106]}, ("a",)),
    "rounding alone is no win": ({"a": [98.115], "b": [98.105]}, ("a", "b")),
    "all equal": ({"a": [11.02] * 3, "b": [11.02] * 3, "c": [11.02] * 3}, ("a", "b", "c")),
    "an arm with nothing is no rival": ({"a": [90.0], "b": [NAN]}, ("a",)),
    "one seed fewer does not shift a mean": ({"a": [90.0, 90.0], "b": [90.0, NAN]}, ("a", "b")),
    "nothing at all": ({"a": [NAN]}, ()),
}


@pytest.mark.parametrize("case", TIES)
def test_ties_by_tolerance(case: str) -> None:
    """Who shares first place at a tolerance of 0.01 points."""
    arms, expected = TIES[case]
    assert stats.winners(arms).by_tolerance == expected


def test_ties_by_test() -> None:
    """Three arms: the best, one that the seeds cannot tell from it, and one that is worse in every seed."""
    base, noise = draws(6, 10), generator(9, "bootstrap").normal(0, 1, 10)
    arms = {"worse": base - 3 + noise / 10, "like it": base + noise - noise.mean() - 0.05, "best": base}
    found = stats.winners(arms)
    assert found.best == ("best",)
    assert found.by_test == ("like it", "best")
    assert found.by_tolerance == ("best",)


def test_the_aggregates_are_those_of_rliable() -> None:
    """Interquartile mean and probability of improvement, for matrices of runs and tasks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what rliable imports
        from rliable import metrics
    for seed in range(5):
        one, other = draws(seed, 10, 6), draws(seed + 100, 8, 6)
        assert interquartile_mean(one) == pytest.approx(metrics.aggregate_iqm(one))
        expected = metrics.probability_of_improvement(one, other)
        assert probability_of_improvement(one, other) == pytest.approx(expected)
    ties = np.round(draws(3, 10, 4) / 10)
    expected = metrics.probability_of_improvement(ties, ties[::-1])
    assert probability_of_improvement(ties, ties[::-1]) == pytest.approx(expected)


@pytest.mark.slow
def test_stratified_intervals_draw_runs_within_each_task() -> None:
    """Against a loop in plain numpy; that of rliable cannot be imported beside present pandas."""
    scores = draws(11, 10, 8) + np.arange(8) * 20
    generator = np.random.default_rng(0)
    found = []
    for _ in range(2000):
        columns = [generator.choice(scores[:, task], 10) for task in range(8)]
        found.append(interquartile_mean(np.stack(columns, axis=1)))
    expected = np.quantile(found, [0.025, 0.975])
    interval = stratified_interval([scores], interquartile_mean, seed=0, resamples=2000)
    assert interval == pytest.approx(expected, abs=0.3)
    assert interval == stratified_interval([scores], interquartile_mean, seed=0, resamples=2000)
    both = stratified_interval([scores, scores - 100], probability_of_improvement, seed=0)
    assert both == (1.0, 1.0)


def test_welch_is_the_one_of_scipy() -> None:
    """The same p and the same interval; only n, mean and sd are used."""
    one, other = np.array([1.0, 2.0, 4.0, 7.0]), np.array([2.5, 2.75, 3.0])
    expected = scipy_stats.ttest_ind(one, other, equal_var=False)
    found = stats.welch(stats.summary(one), stats.summary(other))
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert math.isnan(stats.welch(stats.summary(one), stats.summary(other[:1])).p)


def test_arms_without_any_spread_are_compared_as_printed() -> None:
    """Within what printing rounds away they do not differ, else they do; the interval is a point."""
    arms = [stats.Summary(10, mean, 0.0, mean, mean, mean, mean) for mean in (11.02, 11.0204, 11.03)]
    assert stats.welch(arms[0], arms[1], alike=0.0006).p == 1
    found = stats.welch(arms[0], arms[2], alike=0.0006)
    assert found.p == pytest.approx(2 / math.comb(20, 10))  # of a permutation test
    assert found.low == found.high == found.value


def test_nothing_is_concluded_from_fewer_than_three() -> None:
    """Two values have a mean and a difference; an interval, a test or an effect of them would say nothing."""
    for two in (stats.summary([1.0, 2.0]), stats.share_summary([1.0, 2.0])):
        assert (two.n, two.mean) == (2, 1.5)
        assert np.isnan([two.low, two.high]).all()
    pair = stats.paired([5.0, 7.0], [4.0, 4.0])
    assert (pair.n, pair.difference) == (2, 2.0)
    assert np.isnan([pair.low, pair.high, pair.p, pair.effect]).all()
    assert math.isnan(stats.t_test([5.0, 7.0], [4.0, 4.0]))
    apart = stats.welch(stats.summary([1.0, 2.0]), stats.summary([5.0, 6.0, 7.0]))
    assert apart.value == -4.5
    assert np.isnan([apart.low, apart.high, apart.p]).all()
    assert stats.winners({"a": [5.0, 5.0], "b": [1.0, 1.0]}).by_test == ()
    three = stats.paired([5.0, 7.0, 9.0], [4.0, 4.0, 4.0])
    assert not np.isnan([three.low, three.high, three.p, three.effect]).any()


@pytest.mark.parametrize("values", [[99.0, 99.9, 99.9], [0.0, 0.1, 2.0], [0.0, 100.0, 50.0], [100.0] * 3])
def test_the_interval_of_shares_stays_within_them(values: list[float]) -> None:
    """It is Student's, restricted to 0 to 100, and contains the mean."""
    found, free = stats.share_summary(values), stats.summary(values)
    assert 0 <= found.low <= found.mean <= found.high <= 100
    assert (found.low, found.high) == (max(free.low, 0), min(free.high, 100))


def test_the_probability_of_improvement_takes_little_memory() -> None:
    """Ranks give the share of all pairs; 980 x 980 pairs in each of 1,000 resamples would be gigabytes."""
    one, other = draws(5, 40, 2).round(), draws(6, 30, 2).round()
    pairs = [np.sign(one[:, None, at] - other[None, :, at]).mean() for at in range(2)]
    assert probability_of_improvement(one, other) == pytest.approx((np.mean(pairs) + 1) / 2)
    many = [draws(7, 980, 1), draws(8, 980, 1)]
    tracemalloc.start()
    stratified_interval(many, probability_of_improvement, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300e6


def test_the_test_of_several_arms_is_a_two_way_analysis_of_variance() -> None:
    """Seeds are the blocks; for two arms it is the paired t test, and its edges are those of that test."""
    values = draws(5, 4, 6) + np.arange(6)  # of 4 seeds and 6 arms
    frame = pd.DataFrame(
        [(seed, arm, values[seed, arm]) for seed in range(4) for arm in range(6)],
        columns=["seed", "arm", "value"],
    )
    variances = anova_lm(ols("value ~ C(arm) + C(seed)", frame).fit())
    assert stats.blocked_f_test(values) == pytest.approx(variances.loc["C(arm)", "PR(>F)"])
    pair = values[:, :2]
    assert stats.blocked_f_test(pair) == pytest.approx(stats.t_test(pair[:, 0], pair[:, 1]))
    lacking = np.vstack([values, [NAN, *range(5)]])
    assert stats.blocked_f_test(lacking) == stats.blocked_f_test(values)
    assert stats.blocked_f_test(np.tile(values[:, :1], (1, 3))) == 1
    assert stats.blocked_f_test(values[:, :1] + np.arange(3)) == pytest.approx(6.0**-3)
    assert stats.blocked_f_test(values[:, :1] + [0, 0, 2]) == pytest.approx(3.0**-3)
    apart = values[:, :1] + np.arange(2)
    assert stats.blocked_f_test(apart) == stats.t_test(apart[:, 0], apart[:, 1]) == 0.5**3
    assert math.isnan(stats.blocked_f_test(values[:2]))
    assert math.isnan(stats.blocked_f_test(values[:, :1]))


def test_arms_without_an_effect_are_rarely_told_apart() -> None:
    """However many they are: the rate of false alarms is ALPHA."""
    found = [stats.blocked_f_test(draws(seed, 3, 20)) < stats.ALPHA for seed in range(400)]
    assert 0.02 < np.mean(found) < 0.09


def test_equal_differences_of_few_counts_prove_little() -> None:
    """One sample more with each of three seeds: a t test would give 0, which no correction could change."""
    assert stats.t_test([97.51, 97.52, 97.53], [97.50, 97.51, 97.52]) == 0.25
    assert stats.t_test([97.5] * 3, [97.5] * 3) == 1


def test_the_rivals_of_the_best_arm_are_rarely_excluded_by_chance() -> None:
    """Six arms have the same mean, and the best one is selected from the values that are tested."""
    found = [
        len(stats.winners(dict(enumerate(draws(seed, 6, 10)))).by_test) < 6  # of 6 arms and 10 seeds
        for seed in range(300)
    ]
    assert np.mean(found) < 0.06
