"""psa.execution.packing: trials that are trained as one stay together, within limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import trial

from psa.engine.probing import TrainingProbe
from psa.execution.cost_model import CostModel
from psa.execution.packing import PACK_SECONDS, groups_of, packed
from psa.experiments.studies import ablation
from psa.probes.gradients import GradientsOnline
from psa.specs.probes import PROBES, TRAINING_PROBES
from psa.specs.training import MODES, Mode, RatchetTraining
from psa.specs.trial import Pack, Trial, training_key


def of_mode(mode: Mode, seed: int = 0, weight_decay: float = 1e-4, lr: float = 1e-4) -> Trial:
    """A trial of a mode, with weight decay in mode decay."""
    method = RatchetTraining(lr=lr, weight_decay=weight_decay if mode == "decay" else 0.0)
    return trial("1*4", mode, seed).changed(method=method)


@pytest.fixture
def costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CostModel:
    """Costs of a machine on which packs of two rows are the fastest."""
    monkeypatch.setattr(CostModel, "best_size", lambda *_: 2)
    return CostModel(tmp_path / "costs.json")


def rows(pack: Pack) -> int:
    """The number of rows that a pack trains."""
    return len({training_key(each) for each in pack.trials})


def test_packs_are_filled_by_rows(costs: CostModel) -> None:
    """Modes none and decay take one row: six modes of four seeds are ten packs of two rows."""
    trials = [of_mode(mode, seed) for seed in range(4) for mode in MODES]
    packs = packed(groups_of(trials), 1, costs)
    assert sorted(each.id for pack in packs for each in pack.trials) == sorted(each.id for each in trials)
    assert [rows(pack) for pack in packs] == [2] * 10
    assert all(
        {"none", "decay"} <= modes or not {"none", "decay"} & modes
        for pack in packs
        for seed in range(4)
        for modes in [{each.intervention.mode for each in pack.trials if each.seed == seed}]
    )


@pytest.fixture
def sized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], CostModel]:
    """Return costs of a machine on which packs of some size are the fastest, and a row takes 1 s a step."""

    def sized(size: int) -> CostModel:
        monkeypatch.setattr(CostModel, "best_size", lambda *_: size)
        monkeypatch.setattr(CostModel, "step", lambda self, trial, rows: float(rows))
        return CostModel(tmp_path / "costs.json")

    return sized


GRID = [of_mode(mode, seed) for seed in range(10) for mode in MODES]  # 50 rows


@pytest.mark.parametrize(
    ("size", "expected"), [(6, [5] * 10), (12, [10] * 5), (16, [15, 15, 15, 5]), (30, [25, 25]), (60, [50])]
)
def test_packs_are_whole_seeds_of_about_equal_number(
    size: int, expected: list[int], sized: Callable[[int], CostModel]
) -> None:
    """The rows of a seed read the same samples, which a pack gathers once. Five rows are a seed here."""
    packs = packed(groups_of(GRID), 1, sized(size))
    assert [rows(pack) for pack in packs] == expected
    assert sorted(each.id for pack in packs for each in pack.trials) == sorted(each.id for each in GRID)
    seeds = [each for pack in packs for each in {trial.seed for trial in pack.trials}]
    assert sorted(seeds) == list(range(10))


@pytest.mark.parametrize(
    ("workers", "expected"),
    [(1, [50]), (2, [25, 25]), (4, [15, 15, 15, 5]), (5, [10] * 5), (10, [5] * 10), (100, [1] * 50)],
)
def test_every_worker_has_something_to_train(
    workers: int, expected: list[int], sized: Callable[[int], CostModel]
) -> None:
    """One architecture was one or two packs on a machine of any number of cores."""
    packs = packed(groups_of(GRID), 100, sized(60), workers=workers)
    assert [rows(pack) for pack in packs] == expected
    assert sorted(each.id for pack in packs for each in pack.trials) == sorted(each.id for each in GRID)


def test_packs_for_another_machine_take_about_four_hours(sized: Callable[[int], CostModel]) -> None:
    """A job of a cluster or cloud may be stopped at a limit, and no other can help with its pack."""
    costs = sized(60)
    (whole,) = packed(groups_of(GRID), 1, costs)
    hours = math.ceil(10 * 3600 / costs.loop_seconds(whole.trials))
    packs = packed(groups_of(GRID), hours, costs, workers=None)
    assert [rows(pack) for pack in packs] == [20, 20, 10]
    assert max(costs.loop_seconds(pack.trials) for pack in packs) * hours <= 1.2 * PACK_SECONDS
    assert [rows(pack) for pack in packed(groups_of(GRID), 1, costs, workers=None)] == [50]


def test_packs_stay_whole_where_others_would_gain_nothing(
    sized: Callable[[int], CostModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A size that is named, work that ends before another worker has started, steps as long for any size."""
    costs = sized(60)
    assert [rows(pack) for pack in packed(groups_of(GRID), 100, costs, 60, workers=4)] == [50]
    costs.startup_seconds = 1e9
    assert [rows(pack) for pack in packed(groups_of(GRID), 100, costs, workers=4)] == [50]
    costs.startup_seconds = 1.0
    monkeypatch.setattr(CostModel, "step", lambda self, trial, rows: 1.0)
    assert [rows(pack) for pack in packed(groups_of(GRID), 100, costs, workers=4)] == [50]


def test_equal_trials_are_limited_by_memory(costs: CostModel) -> None:
    """A pack has at most twice as many trials as the rows for which there is room."""
    trials = [of_mode("decay", 0, (at + 1) * 1e-6) for at in range(11)]
    assert sorted(len(pack.trials) for pack in packed(groups_of(trials), 1, costs)) == [3, 4, 4]


def test_a_size_that_is_named_is_kept(costs: CostModel) -> None:
    """`--pack-size 1` trains every trial alone."""
    trials = [of_mode(mode) for mode in MODES]
    assert [len(pack.trials) for pack in packed(groups_of(trials), 1, costs, 1)] == [1] * len(MODES)


def test_probes_that_follow_training_are_known() -> None:
    """The planner, which imports no torch, has the names of the probes that follow the steps of an epoch."""
    from importlib import import_module

    found = set()
    for name, place in PROBES.items():
        module, _, cls = place.partition(":")
        if issubclass(getattr(import_module(module), cls), TrainingProbe):
            found.add(name)
    assert found == TRAINING_PROBES
    assert issubclass(GradientsOnline, TrainingProbe)


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([of_mode("none"), of_mode("full")], None),
        ([of_mode("decay", lr=1e-2)], None),
        ([of_mode("decay"), of_mode("none")], "its trials have"),
        ([of_mode("decay"), of_mode("decay", lr=1e-2)], "1 of its 2 trials have"),
    ],
)
def test_a_decay_without_effect_is_said(trials: list[Trial], said: str | None) -> None:
    """The warning counts the trials with such a decay, and no others."""
    found = ablation.warnings(trials)
    assert (said is None) == (found == [])
    assert said is None or said in found[0]
