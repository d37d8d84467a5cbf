"""Trials in the hands of others are looked at without a worker, and trained once they are free."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS, children, end, sweep, until

from psa.cli import app as cli
from psa.experiments.grid import load_grid
from psa.experiments.study import study_named
from psa.specs.trial import Trial
from psa.storage import locks
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps

GRID = Path("reproduction/smoke.toml").absolute()
ARCH = ("arch=1*4", "meta_loops=1")
HOLDER = """
import pathlib, sys
from psa.storage import locks as leases
from psa.experiments.grid import load_grid
from psa.storage.store import Store
trials = load_grid(pathlib.Path(sys.argv[1]), sys.argv[3:]).trials
with leases.lock_trials(Store(pathlib.Path(sys.argv[2]), pathlib.Path("none")), trials):
    print(len(trials), flush=True)
    sys.stdin.read()
"""


def trials() -> tuple[Trial, ...]:
    """Twelve, of one arch."""
    return load_grid(GRID, ARCH).trials


def store_of(folder: Path) -> Store:
    """The trees of a folder."""
    return Store(folder / "models", folder / "results")


def test_a_look_takes_and_leaves_nothing(tmp_path: Path) -> None:
    """Free is what nobody holds, in this process or another; looking makes no file and no lease."""
    store, all_of_them = store_of(tmp_path), trials()
    assert locks.unlocked_trials(store, all_of_them) == list(all_of_them)
    assert not (tmp_path / "models").exists()
    with locks.lock_trials(store, all_of_them[:3]) as got:
        assert locks.unlocked_trials(store, all_of_them) == list(all_of_them[3:])
        assert got == list(all_of_them[:3])
    assert locks.unlocked_trials(store, all_of_them) == list(all_of_them)
    with locks.lock_trials(store, all_of_them) as got:
        assert got == list(all_of_them)


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    """Another process has them until it is killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(GRID), str(tmp_path / "models"), *ARCH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "12\n"
    assert locks.unlocked_trials(store_of(tmp_path), trials()) == []
    assert locks.any_leased(tmp_path / "models")
    holder.kill()
    holder.communicate()
    assert not locks.any_leased(tmp_path / "models")
    assert locks.unlocked_trials(store_of(tmp_path), trials()) == list(trials())


@pytest.mark.parametrize("command", [["--all"], ["s.safetensors"], []])
def test_clean_removes_nothing_while_a_trial_is_trained(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no sweep is listed: a task of Slurm, or a worker that has outlived its sweep."""
    store = store_of(tmp_path)
    state = store.state_file(trials()[0]).path
    checkpoints = [state, store.models / "s.safetensors", store.models / "mnist_lkg.safetensors"]
    for path in checkpoints:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    with locks.lock_trials(store, trials()[:1]):
        assert cli.run(cli.CLEAN, [*command, "--yes", "--model-dir", str(store.models)]) == 2
    assert capsys.readouterr().err.startswith(f"error: a worker is training trials of {store.models}. ")
    assert all(path.exists() for path in checkpoints)
    assert cli.run(cli.CLEAN, [*command, "--yes", "--model-dir", str(store.models)]) == 0


def test_train_trains_no_trial_that_another_process_trains(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even the trial of a study, whose folders are those of sweeps."""
    store, study = store_of(tmp_path), study_named("glonet", "glonet")
    sizes = {"train_size": 500, "val_size": 1000, "test_size": 100}
    trial = study.from_settings(study.Settings(**sizes), 0, "glonet")
    options = [f"--{name.replace('_', '-')}={size}" for name, size in sizes.items()]
    folders = ["--model-dir", str(store.models), "--results-dir", str(tmp_path / "results")]
    words = ["--study", "glonet", "--epochs", "1", *options, *folders, "--data-dir", str(data_dir)]
    with locks.lock_trials(store, [trial]):
        assert cli.run(cli.TRAIN, words) == 2
    assert "another process is training this network into the same folder" in capsys.readouterr().err
    assert store.read(trial) is None
    assert cli.run(cli.TRAIN, words) == 0
    assert store.read(trial) is not None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the workers in /proc")
def test_no_worker_is_started_for_what_others_have_in_hand(
    tmp_path: Path, data_dir: Path, request: pytest.FixtureRequest
) -> None:
    """The free half is trained by workers, the other half is waited for without any, and then trained."""
    store, mine = store_of(tmp_path), trials()[:6]
    with locks.lock_trials(store, mine):
        process = sweep(tmp_path, data_dir, *ARCH, "--pack-size", "12", "--workers", "1")
        request.addfinalizer(partial(end, process))
        until(lambda: any("waiting for 6 trials" in str(one) for one in active_sweeps(store.models)), process)
        assert len(store.progress(trials(), 1).done) == 6
        ends = time.monotonic() + 5
        while time.monotonic() < ends:
            assert children(process.pid) == []
            time.sleep(0.02)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, "")
    lines = out.splitlines()
    (waiting,) = (line for line in lines if "waiting" in line)
    clock, *parts = waiting.split(" | ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", clock)
    assert (parts[0], parts[-1]) == ("6/12 trials", "waiting for 6 trials of other processes")
    assert lines[-1] == "12 of 12 trials done, 0 failed"
