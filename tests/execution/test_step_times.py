"""psa.execution.worker.benchmark: the time of a step is the least of repeats that take long enough, and pack
sizes that are close take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from helpers import trial

from psa.execution.worker import benchmark
from psa.execution.worker.benchmark import LEAST_SECONDS, REPEATS, ROUNDS, STEPS, measure_step_times


@pytest.mark.parametrize("least", [LEAST_SECONDS, LEAST_SECONDS / 100])
def test_short_steps_are_repeated_until_they_took_long_enough(
    least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first repeat warms up and does not count, even if it was the fastest; the least other is taken."""
    times: list[float] = []

    def measured() -> Iterator[float]:
        yield least / 10
        yield 3 * least
        while True:
            yield 2 * least if len(times) != REPEATS - 1 else least

    each = measured()

    def seconds_per_step(epoch: Callable[..., object], steps: int, _: object) -> float:
        assert steps == STEPS
        times.append(next(each))
        return times[-1]

    monkeypatch.setattr(benchmark, "seconds_per_step", seconds_per_step)
    found = measure_step_times((trial("1*4", "none", 1),), torch.device("cpu"))
    assert found == {1: least}
    assert len(times) >= REPEATS
    assert sum(times) * STEPS >= LEAST_SECONDS
    assert len(times) == REPEATS or sum(times[:-1]) * STEPS < LEAST_SECONDS


def _per_trial(
    monkeypatch: pytest.MonkeyPatch, microseconds: Callable[[int, int], float]
) -> tuple[dict[int, float], dict[int, int]]:
    """Return the microseconds per trial that are found for packs of up to 12 trials, and how often each was
    timed.

    microseconds: of a step per trial, given the size of the pack and how often it was timed before.
    """
    visits: dict[int, int] = {}
    repeats: dict[int, int] = {}

    def seconds_per_step(epoch: Callable[..., object], *_: object) -> float:
        size = len(epoch.__self__.rows)  # type: ignore[attr-defined]
        visit = visits.get(size, 0)
        seconds = microseconds(size, visit) * size / 1e6
        repeats[size] = repeats.get(size, 0) + 1
        if repeats[size] * STEPS * seconds >= LEAST_SECONDS:
            visits[size], repeats[size] = visit + 1, 0
        return seconds

    monkeypatch.setattr(benchmark, "seconds_per_step", seconds_per_step)
    trials = [trial("1*4", "none", seed) for seed in range(12)]
    found = measure_step_times(trials, torch.device("cpu"))
    return {size: round(1e6 * seconds / size) for size, seconds in found.items()}, visits


def test_a_size_that_was_disturbed_once_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest pack is the fastest, but was slowed down when its turn came first."""
    quiet = {1: 500, 2: 300, 6: 100, 12: 80}
    found, visits = _per_trial(
        monkeypatch, lambda size, visit: quiet[size] * (2 if size == 12 and visit == 0 else 1)
    )
    assert found == quiet
    assert visits == {1: 1, 2: 1, 6: 1 + ROUNDS, 12: 1 + ROUNDS}


def test_larger_packs_are_tried_however_slow_smaller_ones_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of other work while two sizes were timed ended the search at packs of one trial."""
    quiet = {1: 500, 2: 400, 6: 250, 12: 100}
    found, visits = _per_trial(
        monkeypatch, lambda size, visit: quiet[size] * (3 if size in (2, 6) and visit == 0 else 1)
    )
    assert min(found, key=lambda size: found[size]) == 12
    assert set(visits) == set(quiet)


def test_sizes_far_from_the_fastest_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is the fastest, where no other comes close."""
    _, visits = _per_trial(monkeypatch, lambda size, _: {1: 500, 2: 300, 6: 250, 12: 80}[size])
    assert visits == {1: 1, 2: 1, 6: 1, 12: 1}


def test_sizes_whose_few_repeats_take_long_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of wide networks scatter little, and another round of them would take seconds."""
    slow = 1e6 * LEAST_SECONDS
    _, visits = _per_trial(monkeypatch, lambda size, _: slow)
    assert visits == dict.fromkeys((1, 2, 6), REPEATS)
