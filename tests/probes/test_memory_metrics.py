"""psa.probes.metrics and psa.probes.metrics: numbers that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psa.probes.metrics import by_class, confusion, expected_calibration_error, toggle


def test_a_calibrated_network_has_an_error_near_0_and_a_boastful_one_has_its_excess() -> None:
    """Answers right as often as promised; then 20 points less often."""
    draws = np.random.default_rng(0)
    confidence = draws.uniform(0.3, 1, 200_000)
    right = draws.random(200_000) < confidence
    assert expected_calibration_error(confidence, right) < 0.005
    boastful = draws.random(200_000) < confidence - 0.2
    assert expected_calibration_error(confidence, boastful) == pytest.approx(0.2, abs=0.005)


def test_bins_are_open_on_the_left() -> None:
    """A confidence on an edge belongs to the bin below it, 0 to the first, 1 to the last."""
    # In one bin errors of 0.5 and -0.5 cancel; in two they add up.
    same = expected_calibration_error(np.array([0.5, 0.5]), np.array([True, False]), bins=2)
    apart = expected_calibration_error(np.array([0.5, 0.5 + 1e-9]), np.array([True, False]), bins=2)
    assert same == pytest.approx(0)
    assert apart == pytest.approx(0.5)
    ends = expected_calibration_error(np.array([0.0, 1.0]), np.array([True, False]))
    assert ends == pytest.approx(1)


def naive(confidence: list[float], right: list[bool]) -> float:
    """The definition, bin by bin."""
    total = 0.0
    for at in range(15):
        left, end = np.linspace(0, 1, 16)[[at, at + 1]]
        pairs = list(zip(confidence, right, strict=True))
        inside = [(c, r) for c, r in pairs if left < c <= end or (at == 0 and c == 0)]
        if inside:
            gap = np.mean([c for c, _ in inside]) - np.mean([r for _, r in inside])
            total += abs(gap) * len(inside) / len(confidence)
    return total


# Not st.floats: denormals are flushed here, as in a worker, and Hypothesis refuses to draw without them.
SHARES = st.integers(0, 15_000).map(lambda number: number / 15_000)


@given(st.lists(st.tuples(SHARES, st.booleans()), min_size=1, max_size=60))
def test_the_error_is_the_definition(samples: list[tuple[float, bool]]) -> None:
    """Against the sum over bins written out."""
    confidence, right = [c for c, _ in samples], [r for _, r in samples]
    mine = expected_calibration_error(np.array(confidence), np.array(right))
    assert mine == pytest.approx(naive(confidence, right), abs=1e-9)


@pytest.mark.parametrize("confidence", [[0.5], [[0.5, 0.5]], [1.5, 0.5], [np.nan, 0.5]])
def test_what_is_no_confidence_is_refused(confidence: list[float]) -> None:
    """Another number of them, or what is no probability."""
    with pytest.raises(ValueError, match=r"confidence"):
        expected_calibration_error(np.array(confidence), np.array([True, False]))


def test_no_samples_have_no_error() -> None:
    """Missing, not 0."""
    assert np.isnan(expected_calibration_error(np.empty(0), np.empty(0)))
    assert np.isnan(toggle(np.empty(0), np.empty(0)).shares["helped"])


@given(
    st.lists(st.tuples(SHARES, SHARES.map(lambda share: 2 * share - 1)), min_size=1, max_size=60),
    SHARES.map(lambda share: share / 5),
)
def test_helped_harmed_and_neutral_are_all_there_is(pairs: list[tuple[float, float]], band: float) -> None:
    """Shares add up to 1; strong ones are among the helped and harmed."""
    without = np.array([loss for loss, _ in pairs])
    result = toggle(without + np.array([change for _, change in pairs]), without, band)
    shares = result.shares
    assert shares["helped"] + shares["harmed"] + shares["neutral"] == pytest.approx(1)
    assert result.helped + result.harmed + result.neutral == len(pairs)
    assert result.strong_help <= result.helped
    assert result.strong_harm <= result.harmed


def test_toggles_by_hand() -> None:
    """Rounding is neutral; 0.2 nats are not yet strong."""
    without = np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    result = toggle(without + np.array([-0.5, -0.1, 1e-9, 0.125, 0.3]), without)
    assert (result.helped, result.harmed, result.neutral) == (2, 2, 1)
    assert (result.strong_help, result.strong_harm) == (1, 1)
    assert result.mean == pytest.approx(-0.035)
    assert result.std == pytest.approx(np.std([-0.5, -0.1, 0, 0.125, 0.3]))


def test_losses_that_cannot_be_compared_are_refused() -> None:
    """Of other samples, or no numbers, or a band beyond what counts as strong."""
    with pytest.raises(ValueError, match="same samples"):
        toggle(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="finite"):
        toggle(np.array([np.nan]), np.zeros(1))
    with pytest.raises(ValueError, match="band"):
        toggle(np.zeros(1), np.zeros(1), band=0.3)


def test_the_confusion_matrix_and_what_it_says_of_each_class() -> None:
    """Rows are what a sample is; a class without samples has no recall, one never predicted no precision."""
    matrix = confusion(np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 2]), 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    each = by_class(matrix)
    assert each.support.tolist() == [3, 2, 0, 0]
    assert each.precision[:3].tolist() == [1.0, 0.5, 0.0]
    assert each.recall[:2].tolist() == pytest.approx([2 / 3, 0.5])
    assert each.f1[:3].tolist() == pytest.approx([0.8, 0.5, 0.0])
    assert np.isnan([each.precision[3], each.recall[2], each.recall[3], each.f1[3]]).all()
    for labels, predicted in (([4], [0]), ([0], [-1]), ([0, 1], [0])):
        with pytest.raises(ValueError, match=r"numbered|differ"):
            confusion(np.array(labels), np.array(predicted), 4)
