"""psa.interventions.schedule: rates over loops, switches of mode, and the rate of harm."""

from __future__ import annotations

from typing import Any

import pytest

from psa.interventions.schedule import mode_of_loop, rate_of_loop
from psa.specs.training import Ablation


def history(*loops: tuple[int, bool, bool]) -> dict[str, list[Any]]:
    """A history of loops: correct samples, whether the loop ablated, whether it was kept."""
    return {
        "loop": list(range(1, len(loops) + 1)),
        "layer": [0 if ablated else None for _, ablated, _ in loops],
        "correct": [correct for correct, _, _ in loops],
        "loss": [1.0] * len(loops),
        "train_loss": [1.0] * len(loops),
        "kept": [kept for _, _, kept in loops],
    }


EMPTY = history()


def test_a_constant_rate_is_the_share_of_loops_that_ablate() -> None:
    """Over many loops of one seed, and not the same loops for another seed."""
    ablation = Ablation(mode="full", rate=0.3)
    hits = [mode_of_loop(ablation, 1, loop, EMPTY) == "full" for loop in range(2, 5002)]
    others = [mode_of_loop(ablation, 2, loop, EMPTY) == "full" for loop in range(2, 5002)]
    assert sum(hits) / len(hits) == pytest.approx(0.3, abs=0.02)
    assert hits != others
    certain = Ablation(mode="full")
    assert all(mode_of_loop(certain, 1, loop, EMPTY) == "full" for loop in range(1, 50))


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [("linear", [0.8, 0.7, 0.6, 0.5, 0.4, 0.4, 0.4]), ("cosine", [0.8, 0.741, 0.6, 0.459, 0.4, 0.4, 0.4])],
)
def test_schedules_fall_to_their_end(schedule: Any, rates: list[float]) -> None:
    """From the rate in loop 1 to the end rate in loop `schedule_loops`, and stay there."""
    ablation = Ablation(mode="full", rate=0.8, end_rate=0.4, schedule=schedule, schedule_loops=5)
    assert [rate_of_loop(ablation, loop, EMPTY) for loop in range(1, 8)] == pytest.approx(rates, abs=1e-3)


def test_an_adaptive_rate_falls_with_the_harm_it_does() -> None:
    """h is the share of ablated loops of the window that ended below the LKG that they began from."""
    ablation = Ablation(mode="full", schedule="adaptive", schedule_loops=4, end_rate=0.2)
    assert rate_of_loop(ablation, 1, EMPTY) == 1
    one = [(50, False, True), (60, True, True), (55, True, False)]
    assert rate_of_loop(ablation, 4, history(*one)) == pytest.approx(0.2 + 0.8 * 0.5)
    equal = [*one, (60, True, False)]  # as good as the LKG: not harmful, though rejected
    assert rate_of_loop(ablation, 5, history(*equal)) == pytest.approx(0.2 + 0.8 * (1 - 1 / 3))
    later = [*equal, (40, True, False), (41, True, False)]
    assert rate_of_loop(ablation, 7, history(*later)) == pytest.approx(0.2 + 0.8 * 0.25)
    quiet = [*later, *[(40, False, False)] * 4]  # nothing was ablated in the window: it begins anew
    assert rate_of_loop(ablation, 11, history(*quiet)) == 1


def test_a_diverged_loop_is_harm() -> None:
    """Whatever its count says."""
    ablation = Ablation(mode="full", schedule="adaptive", schedule_loops=4)
    lost = history((50, False, True), (60, True, False))
    lost["loss"][1] = None
    assert rate_of_loop(ablation, 3, lost) == 0


def test_harm_is_measured_against_the_lkg_and_not_the_bounty() -> None:
    """With patience a worse LKG is what later loops begin from."""
    ablation = Ablation(mode="full", schedule="adaptive", schedule_loops=2)
    told = history((50, False, True), (40, False, False), (45, True, False))
    assert rate_of_loop(ablation, 4, told) == 0
    assert rate_of_loop(ablation, 4, told | {"accepted": [True, True, True]}) == 1


def test_switches_name_the_mode_from_a_loop_on() -> None:
    """The mode before, in and after each."""
    ablation = Ablation(mode="none", switch=("5:hidden", "9:none", "12:output"))
    modes = [mode_of_loop(ablation, 1, loop, EMPTY) for loop in (1, 4, 5, 8, 9, 11, 12, 500)]
    assert modes == ["none", "none", "hidden", "hidden", "none", "none", "output", "output"]
