"""A grid with stages from end to end: short runs for all, full length for those that earn it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from psa.cli.app import PSA, run
from psa.execution.machine import Machine
from psa.execution.packing import groups_of
from psa.execution.worker.run import run_pack
from psa.experiments.grid import load_grid
from psa.experiments.promotion import stage_statuses
from psa.specs.trial import Pack
from psa.storage.store import Store

GRID = """
name = "staged"
[base]
family = "simplemlp"
lr = 1e-3
digits = [0, 1]
[axes]
arch = ["1*1", "1*4"]
mode = ["none", "hidden"]
[[stages]]
name = "short"
meta_loops = 1
seeds = [0, 1]
[[stages]]
name = "full"
meta_loops = 3
seeds = "0..2"
promote = { best = 1, within = ["mode"] }
"""
PACKS = ("--pack-size", "4")  # by a size that is given nothing is measured first: one worker less to start
Psa = Callable[..., tuple[int, str]]


@pytest.fixture
def psa(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Psa:
    """Run `psa` on the grid in an empty folder that has the data; exit code and what it said."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    (tmp_path / "staged.toml").write_text(GRID)

    def call(command: str, *words: str) -> tuple[int, str]:
        code = run(PSA, [command, "staged.toml", *words])
        said = capfd.readouterr()
        assert "Traceback" not in said.err
        return code, said.out + said.err

    return call


@pytest.mark.slow
def test_the_best_are_trained_on_and_the_others_are_not(psa: Psa, tmp_path: Path) -> None:
    """One command does both stages; promoted trials hold three loops, the others one."""
    code, said = psa("plan")
    assert code == 0
    assert "stage short: 8 trials of 1 meta-loop" in said
    assert "stage full: up to 6 trials, chosen when stage short is complete" in said
    code, said = psa("sweep", "--workers", "2")
    assert code == 0
    assert "stage short: 8 of 8 trials done" in said
    assert "stage full: 6 of 6 trials done" in said
    store, grid = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "staged.toml")
    first, second = stage_statuses(grid, store)
    loops = {trial.id: (store.read(trial) or {})["loops"] for trial in first.trials}
    assert sorted(loops.values()) == [1] * 4 + [3] * 4
    assert {trial.id for trial in second.trials if trial.seed < 2} == {
        trial for trial, count in loops.items() if count == 3
    }
    code, said = psa("status")
    assert "stage full: 6 of 6 trials done" in said
    assert psa("sweep")[0] == 0


@pytest.mark.slow
def test_weights_are_kept_for_those_who_go_on(psa: Psa, tmp_path: Path, data_dir: Path) -> None:
    """With --keep-weights none the promoted go on from theirs to the records of an undisturbed training, and
    nothing is left at the end.
    """
    code, said = psa("sweep", "--keep-weights", "none", "--workers", "1", "--pack-size", "8")
    assert code == 0, said
    assert not list((tmp_path / "models").rglob("*.safetensors"))
    store = Store(tmp_path / "models", tmp_path / "results")
    alone = Store(tmp_path / "alone/models", tmp_path / "alone/results")
    for status in stage_statuses(load_grid(tmp_path / "staged.toml"), store):
        for group in groups_of(status.trials):
            run_pack(Pack(trials=tuple(group), horizon=status.meta_loops), alone, Machine(data_dir, "cpu"))
    for path in store.record_paths():
        assert (alone.results / path.relative_to(store.results)).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_no_weights_are_dropped_while_it_is_open_who_goes_on(psa: Psa, tmp_path: Path) -> None:
    """One failure in the first stage must not cost the others the loops they have."""
    assert psa("sweep", "--only", "seed=0,1", "full.meta_loops=1", "--workers", "1", *PACKS)[0] == 0
    store, grid = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "staged.toml")
    bad = grid.stages[0].trials[0]
    for path in (store.state_file(bad).path, store.state_file(bad).previous):
        path.write_bytes(b"damaged")
    store.record_path(bad).unlink()
    states = set((tmp_path / "models").rglob("lkg.safetensors"))
    code, said = psa("sweep", "--keep-weights", "none", "--workers", "1", *PACKS)
    assert code == 1, said
    assert "stage short: 7 of 8 trials done, 1 failed" in said
    assert set((tmp_path / "models").rglob("lkg.safetensors")) == states


def test_best_keeps_one_seed_of_each_arm_over_all_stages(psa: Psa, tmp_path: Path) -> None:
    """Also where the stages have different seeds."""
    assert psa("sweep", "--keep-weights", "best", "--workers", "1", "full.seeds=0", *PACKS)[0] == 0
    kept = [path.parts[-4:-2] for path in (tmp_path / "models").rglob("lkg.safetensors")]
    assert len(kept) == len(set(kept)) == 4


def test_a_stage_that_needs_trials_outside_of_only_is_not_a_failure(psa: Psa, tmp_path: Path) -> None:
    """The sweep ends with 0 when all that it may train is done; it, plan and status count the others."""
    store, grid = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "staged.toml")
    first = [trial for trial in grid.stages[0].trials if trial.seed == 0]
    for group in groups_of(first):
        run_pack(Pack(trials=tuple(group), horizon=1), store, Machine(tmp_path / "dataset", "cpu"))
    text = "chosen when stage short is complete; --only leaves out 4 unfinished trials that it depends on"
    for command, expected in (("sweep", 0), ("plan", 0), ("status", 3)):
        code, said = psa(command, "--only", "seed=0")
        assert (code, text in said) == (expected, True), said
    assert "leaves out" not in psa("status")[1]
