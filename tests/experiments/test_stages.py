"""Stages: who goes on is decided by stored validation counts, and by nothing else."""

from __future__ import annotations

import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from made_up import some_record

from psa.experiments.grid import Grid, GridPoint, load_grid
from psa.experiments.promotion import max_promoted, stage_statuses
from psa.storage.records.record import bounty_after
from psa.storage.store import Store

STAGED = """
study = "ablation"
[base]
family = "simplemlp"
[axes]
arch = ["1*1", "1*2", "1*3"]
mode = ["none", "hidden"]
[[stages]]
name = "screen"
meta_loops = 3
seeds = [0, 1]
[[stages]]
name = "final"
meta_loops = 6
seeds = "0..3"
promote = { best = 1, within = ["mode"] }
"""
VARIANTS = """
[base]
family = "simplemlp"
arch = "1*1"
[variants]
a = { lr = 1e-3 }
b = { lr = 2e-3 }
c = { lr = 3e-3 }
d = { lr = 4e-3 }
e = { lr = 5e-3 }
[[stages]]
name = "screen"
meta_loops = 3
seeds = [0]
[[stages]]
name = "final"
meta_loops = 3
seeds = [1, 2]
settings = { val_size = 5000 }
promote = { always = ["e"], groups = [["a", "b"], ["c", "d"]] }
"""


def made(folder: Path, text: str) -> tuple[Grid, Store]:
    """A grid, and an empty store beside it."""
    (folder / "staged.toml").write_text(text)
    return load_grid(folder / "staged.toml"), Store(folder / "models", folder / "results")


def scored(store: Store, point: GridPoint, correct: list[int], test: int = 0) -> None:
    """Store a record with these validation counts of 10,000, kept where they rise."""
    loops = len(correct)
    record = some_record(loops, point.trial)
    history: dict[str, list[Any]] = record["history"]
    history["correct"] = correct
    history["kept"] = [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)]
    record["samples"]["validation"] = 10_000
    record["finals"]["test"]["correct"] = test
    store.write(point.trial, record, {})


def arms(points: tuple[GridPoint, ...] | None) -> set[tuple[str, str]]:
    """Architecture and mode of some points."""
    return {(each.trial.model.arch.label, each.trial.intervention.mode) for each in points or ()}


def test_the_best_of_each_group_by_mean_validation_go_on(tmp_path: Path) -> None:
    """Within a mode the means over the seeds decide: 1*2 is best in none, 1*3 in hidden."""
    grid, store = made(tmp_path, STAGED)
    best = {("1*2", "none"): [5000, 7000], ("1*3", "hidden"): [6500, 5000]}
    for point in grid.stages[0].points:
        (arm,) = arms((point,))
        score = best.get(arm, [5500, 5800])[point.trial.seed]
        scored(store, point, [100, score, score - 1])
    first, second = stage_statuses(grid, store)
    assert first.points == grid.stages[0].points
    assert arms(second.points) == set(best)
    assert len(second.trials) == 2 * 4


def test_nobody_goes_on_while_a_record_is_missing(tmp_path: Path) -> None:
    """A ranking without one of them could turn out otherwise later."""
    grid, store = made(tmp_path, STAGED)
    for point in grid.stages[0].points[1:]:
        scored(store, point, [1, 2, 3])
    assert [each.points is None for each in stage_statuses(grid, store)] == [False, True]
    scored(store, grid.stages[0].points[0], [1, 2, 3])
    assert [each.points is None for each in stage_statuses(grid, store)] == [False, False]


def test_the_test_split_decides_nothing(tmp_path: Path) -> None:
    """The same validation counts with other test counts promote the same candidates."""
    chosen = []
    for number, seed in enumerate((1, 2, 3)):
        draws, tests = random.Random(7), random.Random(seed)
        (tmp_path / str(number)).mkdir()
        grid, store = made(tmp_path / str(number), STAGED)
        for point in grid.stages[0].points:
            scored(store, point, [draws.randrange(10_000) for _ in range(3)], tests.randrange(10_000))
        chosen.append([each.trials for each in stage_statuses(grid, store)])
    assert chosen[0] == chosen[1] == chosen[2]


def test_what_a_trial_reached_later_does_not_count(tmp_path: Path) -> None:
    """A promoted trial trains on; when the stages are asked for again its early score still decides."""
    grid, store = made(tmp_path, STAGED)
    for point in grid.stages[0].points:
        scored(store, point, [1000, 2000, 3000 + point.candidate])
    before = [each.trials for each in stage_statuses(grid, store)]
    for point in grid.stages[0].points:
        if point.candidate == 0:
            scored(store, point, [1000, 2000, 3000, 9000, 9500, 9900])
    assert [each.trials for each in stage_statuses(grid, store)] == before


def test_groups_of_variants_and_those_that_always_go_on(tmp_path: Path) -> None:
    """The best of each list, and e whatever it scores; stage settings change the data they are trained on."""
    grid, store = made(tmp_path, VARIANTS)
    for point, score in zip(grid.stages[0].points, (5000, 6000, 8000, 7000, 1), strict=True):
        scored(store, point, [score, score, score])
    *_, last = stage_statuses(grid, store)
    assert {point.variant for point in last.points or ()} == {"b", "c", "e"}
    assert {trial.data.val_size for trial in last.trials} == {5000}
    assert {trial.data.val_size for trial in grid.stages[0].trials} == {10_000}
    assert len(last.trials) == 6


def test_equal_scores_go_by_the_order_of_the_file(tmp_path: Path) -> None:
    """No draw is decided by chance or by a digest."""
    grid, store = made(tmp_path, VARIANTS)
    for point in grid.stages[0].points:
        scored(store, point, [5, 5, 5])
    *_, last = stage_statuses(grid, store)
    assert {point.variant for point in last.points or ()} == {"a", "c", "e"}


def test_the_number_of_seats_is_known_before_the_scores(tmp_path: Path) -> None:
    """So that a plan can say what is still to come."""
    for text, count in ((STAGED, 2), (VARIANTS, 3), (STAGED.replace("best = 1", "best = 9"), 6)):
        grid, _ = made(tmp_path, text)
        promotion = grid.stages[1].promotion
        assert promotion is not None
        assert max_promoted(promotion, grid.stages[0].points) == count


def test_overrides_reach_one_stage_or_all(tmp_path: Path) -> None:
    """`final.meta_loops=4` is of one stage, `seeds=5` of both."""
    path = tmp_path / "staged.toml"
    path.write_text(STAGED)
    grid = load_grid(path, ["final.meta_loops=4", "seeds=5", "final.lr=1e-2"])
    assert [stage.meta_loops for stage in grid.stages] == [3, 4]
    assert [{trial.seed for trial in stage.trials} for stage in grid.stages] == [{5}, {5}]
    assert [{trial.method.lr for trial in stage.trials} for stage in grid.stages] == [{1e-4}, {1e-2}]


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_the_score_is_that_of_the_lkg(tmp_path: Path, loops: int) -> None:
    """Not of the last loop: what was not kept does not count."""
    grid, store = made(tmp_path, STAGED)
    point = grid.stages[0].points[0]
    scored(store, point, [50, 40, 60])
    record = store.read(point.trial)
    assert record is not None
    assert bounty_after(record, loops) == Fraction((50, 50, 60)[loops - 1], 10_000)


def test_a_damaged_record_keeps_the_next_stage_waiting(tmp_path: Path) -> None:
    """It is as good as missing; who looks at the stage itself names it."""
    grid, store = made(tmp_path, STAGED)
    for point in grid.stages[0].points:
        scored(store, point, [1, 2, 3])
    store.record_path(grid.stages[0].trials[3]).write_bytes(b"{}")
    assert [each.points is None for each in stage_statuses(grid, store)] == [False, True]


def test_who_goes_on_does_not_depend_on_what_is_looked_at(tmp_path: Path) -> None:
    """--only selects after everybody was ranked: the loser alone is no winner."""
    grid, store = made(tmp_path, STAGED)
    for point in grid.stages[0].points:
        scored(store, point, [1, 2, 3000 + point.candidate])
    *_, everyone = stage_statuses(grid, store)
    for only in ("arch=1*1", "seed=2", "mode=hidden"):
        _, shown = stage_statuses(load_grid(tmp_path / "staged.toml", only=only), store)
        assert set(shown.trials) <= set(everyone.trials)
    assert not list(stage_statuses(load_grid(tmp_path / "staged.toml", only="arch=1*1"), store))[1].trials
