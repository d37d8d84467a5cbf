"""Agreement of clusters with digits and predictions: scikit-learn's numbers, intervals that cover."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn import metrics

from psa.analysis.gradients.label_agreement import (
    Counts,
    ari,
    cluster_purity,
    contingency,
    label_agreement,
    nmi,
)
from psa.analysis.stats import LEVEL

labellings = st.lists(st.tuples(st.integers(0, 4), st.integers(3, 6)), min_size=1, max_size=60)


def made_up(samples: int, right: float, seed: int = 0) -> tuple[Counts, Counts]:
    """Ten classes; a cluster that is the class (renumbered) for a share of the samples, else any."""
    draws = np.random.Generator(np.random.Philox(seed))
    labels = draws.integers(10, size=samples)
    anywhere = draws.integers(10, size=samples)
    return np.where(draws.random(samples) < right, 9 - labels, anywhere), labels


@settings(max_examples=60, deadline=None)
@given(labellings)
def test_the_measures_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    """For any two labellings, also of one sample and of one class."""
    clusters, labels = np.array(pairs, dtype=np.int64).T
    table = contingency(clusters, labels)
    theirs = metrics.cluster.contingency_matrix(labels, clusters).T
    assert np.array_equal(table, theirs)
    assert cluster_purity(table[None])[0] == pytest.approx(theirs.max(axis=1).sum() / len(labels))
    assert nmi(table[None])[0] == pytest.approx(
        metrics.normalized_mutual_info_score(labels, clusters), abs=1e-9
    )
    assert ari(table[None])[0] == pytest.approx(metrics.adjusted_rand_score(labels, clusters), abs=1e-9)


def test_the_intervals_are_those_of_the_bootstrap() -> None:
    """Drawing tables is drawing samples: scipy's percentile bootstrap of the samples says the same."""
    clusters, labels = made_up(500, 0.7)
    found = label_agreement(clusters, labels, 0)
    theirs = scipy_stats.bootstrap(
        (clusters, labels),
        metrics.adjusted_rand_score,
        paired=True,
        vectorized=False,
        n_resamples=600,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.Generator(np.random.Philox(1)),
    )
    assert found.ari.low == pytest.approx(theirs.confidence_interval.low, abs=0.015)
    assert found.ari.high == pytest.approx(theirs.confidence_interval.high, abs=0.015)
    assert found.purity.low < found.purity.value < found.purity.high
    assert found.nmi.high - found.nmi.low < 0.1
    assert found.samples == 500


def test_equal_and_unrelated_labellings() -> None:
    """1, and 0 but for chance; the numbers of the clusters mean nothing."""
    clusters, labels = made_up(60_000, 1.0)
    equal = label_agreement(clusters, labels, 0)
    assert (equal.purity.value, equal.nmi.value, equal.ari.value) == pytest.approx((1, 1, 1))
    assert equal.purity.low == equal.purity.high == 1
    unrelated = label_agreement(*made_up(60_000, 0.0), 0)
    assert abs(unrelated.ari.value) < 1e-3
    assert unrelated.nmi.value < 1e-3


def test_the_seed_decides() -> None:
    """The same intervals each time."""
    pair = made_up(200, 0.5)
    assert label_agreement(*pair, 4) == label_agreement(*pair, 4)
    assert label_agreement(*pair, 4) != label_agreement(*pair, 5)


def test_labellings_of_other_lengths_are_refused() -> None:
    """As are none at all."""
    with pytest.raises(ValueError, match="must have one shape"):
        contingency(np.array([1, 2]), np.array([1]))
    with pytest.raises(ValueError, match="must have one shape"):
        contingency(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
