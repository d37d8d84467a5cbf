"""psa.execution.worker.benchmark: the time of a step is the least of repeats that take long enough, and pack
sizes that are close take turns.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
import torch
from helpers import trial

from psa.execution.packing import groups_of
from psa.execution.worker import benchmark
from psa.execution.worker.benchmark import (
    LEAST_SECONDS,
    LONG_SECONDS,
    REPEATS,
    ROUNDS,
    STEPS,
    measure_step_times,
    step_times,
)
from psa.specs.training import MODES, RatchetTraining
from psa.specs.trial import Trial


@pytest.mark.parametrize("least", [LEAST_SECONDS, LEAST_SECONDS / 100])
def test_short_steps_are_repeated_until_they_took_long_enough(
    least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first repeat warms up and does not count, even if it was the fastest; the least other is taken."""
    times: list[float] = []

    def step_times(epoch: Callable[..., object], _: object) -> tuple[float, list[float]]:
        first = [] if times else [least / 10] * STEPS + [3 * least] * STEPS + [least] * STEPS
        times.extend(first + [2 * least] * (STEPS * REPEATS - len(first)))
        return 1.0, times[-STEPS * REPEATS :]

    monkeypatch.setattr(benchmark, "step_times", step_times)
    found = measure_step_times((trial("1*4", "none", 1),), torch.device("cpu"))
    assert found == {1: pytest.approx(least)}
    assert sum(times) >= LEAST_SECONDS
    assert len(times) == STEPS * REPEATS or sum(times[: -STEPS * REPEATS]) < LEAST_SECONDS


def test_the_seconds_before_the_first_step_are_those_of_no_step() -> None:
    """Buffers are made once for hundreds of steps."""
    now = itertools.count()
    setup, steps = step_times(lambda start: [start(), next(now), start()], lambda: float(next(now)))
    assert (setup, steps) == (1.0, [2.0, 1.0])


def _per_row(
    monkeypatch: pytest.MonkeyPatch, microseconds: Callable[[int, int], float], trials: Sequence[Trial] = ()
) -> tuple[dict[int, float], dict[int, int]]:
    """Return the microseconds per row that are found for packs of `trials`, by default 12 of one mode, and
    how often each was timed.

    microseconds: of a step per row, given the size of the pack and how often it was timed before.
    """
    visits: dict[int, int] = {}
    sums: dict[int, float] = {}

    def step_times(epoch: Callable[..., object], *_: object) -> tuple[float, list[float]]:
        size = len(epoch.__self__.rows)  # type: ignore[attr-defined]
        visit = visits.get(size, 0)
        times = [microseconds(size, visit) * size / 1e6] * STEPS * REPEATS
        sums[size] = sums.get(size, 0) + sum(times)
        if sums[size] >= LEAST_SECONDS:
            visits[size], sums[size] = visit + 1, 0
        return 0.0, times

    monkeypatch.setattr(benchmark, "step_times", step_times)
    found = measure_step_times(
        trials or [trial("1*4", "none", seed) for seed in range(12)], torch.device("cpu")
    )
    return {size: round(1e6 * seconds / size) for size, seconds in found.items()}, visits


def test_sizes_are_of_rows_and_whole_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modes none and decay are one row, so six modes are five rows of a seed, which read the same samples."""
    trials = groups_of(
        trial("1*4", mode, seed).changed(
            method=RatchetTraining(lr=1e-4, weight_decay=1e-4 * (mode == "decay"))
        )
        for seed in range(10)
        for mode in MODES
    )[0]
    assert set(_per_row(monkeypatch, lambda size, _: 100 / size, trials)[1]) == {1, 2, 5, 10, 30, 50}


def test_a_size_that_was_disturbed_once_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest pack is the fastest, but was slowed down when its turn came first."""
    quiet = {1: 500, 2: 300, 6: 100, 12: 80}
    found, visits = _per_row(
        monkeypatch, lambda size, visit: quiet[size] * (2 if size == 12 and visit == 0 else 1)
    )
    assert found == quiet
    assert visits == {1: 1, 2: 1, 6: 1 + ROUNDS, 12: 1 + ROUNDS}


def test_larger_packs_are_tried_however_slow_smaller_ones_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of other work while two sizes were timed ended the search at packs of one trial."""
    quiet = {1: 500, 2: 400, 6: 250, 12: 100}
    found, visits = _per_row(
        monkeypatch, lambda size, visit: quiet[size] * (3 if size in (2, 6) and visit == 0 else 1)
    )
    assert min(found, key=lambda size: found[size]) == 12
    assert set(visits) == set(quiet)


def test_sizes_far_from_the_fastest_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is the fastest, where no other comes close."""
    _, visits = _per_row(monkeypatch, lambda size, _: {1: 500, 2: 300, 6: 250, 12: 80}[size])
    assert visits == {1: 1, 2: 1, 6: 1, 12: 1}


def test_sizes_whose_few_repeats_take_long_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of wide networks scatter little, and another round of them would take seconds."""
    slow = 1e6 * LONG_SECONDS / STEPS / REPEATS
    _, visits = _per_row(monkeypatch, lambda size, _: slow)
    assert visits == dict.fromkeys((1, 2, 6), 1)
