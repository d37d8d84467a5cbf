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
from psa.specs.arch import Arch
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
def test_packs_are_whole_seeds(size: int, expected: list[int], sized: Callable[[int], CostModel]) -> None:
    """Rows of a seed read the same samples, so a seed stays in one pack. A seed has five rows here."""
    packs = packed(groups_of(GRID), 1, sized(size))
    assert [rows(pack) for pack in packs] == expected
    assert sorted(each.id for pack in packs for each in pack.trials) == sorted(each.id for each in GRID)
    seeds = [each for pack in packs for each in {trial.seed for trial in pack.trials}]
    assert sorted(seeds) == list(range(10))


def test_seeds_of_unequal_rows_may_be_one_pack(sized: Callable[[int], CostModel]) -> None:
    """As after a sweep that was interrupted."""
    left = [each for each in GRID if (each.seed, each.intervention.mode) != (0, "hidden")]
    assert [rows(pack) for pack in packed(groups_of(left), 1, sized(49))] == [49]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        (1, [50]),
        (2, [25, 25]),
        (3, [20, 20, 10]),
        (4, [15, 15, 15, 5]),
        (8, [10] * 5),
        (10, [5] * 10),
        (12, [5] * 10),
        (100, [1] * 50),
    ],
)
def test_packs_are_cut_for_idle_workers(
    workers: int, expected: list[int], sized: Callable[[int], CostModel]
) -> None:
    """A pack is cut into whole seeds while there are as many seeds as workers, and into rows beyond that, if
    all of them end sooner. One architecture was one or two packs on a machine of any number of cores.
    """
    packs = packed(groups_of(GRID), 100, sized(60), workers=workers)
    assert [rows(pack) for pack in packs] == expected
    assert sorted(each.id for pack in packs for each in pack.trials) == sorted(each.id for each in GRID)


def test_packs_are_not_cut_where_all_of_them_end_no_sooner(sized: Callable[[int], CostModel]) -> None:
    """Four workers train three packs of one size at once; six halves take two rounds."""
    archs = [Arch.coerce(name) for name in ("1*4", "1*5", "1*6")]
    grid = [
        each.changed(model=each.model.model_copy(update={"arch": arch})) for arch in archs for each in GRID
    ]
    packs = packed(groups_of(grid), 100, sized(60), workers=4)
    assert [rows(pack) for pack in packs] == [50] * 3


def test_parts_train_nothing_twice(sized: Callable[[int], CostModel]) -> None:
    """A row of a seed serves four trials, which stay together in parts of one row."""
    decays = [of_mode("decay", seed, (at + 1) * 1e-6) for seed in range(2) for at in range(4)]
    packs = packed(groups_of(decays), 100_000, sized(60), workers=2)
    assert [(rows(pack), len(pack.trials)) for pack in packs] == [(1, 4), (1, 4)]


@pytest.mark.parametrize("hours", [3, 10, 26, 35, 47, 1000])
def test_packs_for_another_machine_take_four_hours_at_most(
    hours: int, sized: Callable[[int], CostModel]
) -> None:
    """A job of a cluster or cloud may be stopped at a limit, and no other can help with its pack."""
    costs = sized(60)
    (whole,) = packed(groups_of(GRID), 1, costs)
    horizon = math.ceil(hours * 3600 / costs.loop_seconds(whole.trials))
    seconds = [
        horizon * costs.loop_seconds(pack.trials)
        for pack in packed(groups_of(GRID), horizon, costs, workers=None)
    ]
    assert max(seconds) <= max(PACK_SECONDS, horizon * costs.loop_seconds(whole.trials[:1]))
    assert (len(seconds) > 1) == (horizon * costs.loop_seconds(whole.trials) > PACK_SECONDS)


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
