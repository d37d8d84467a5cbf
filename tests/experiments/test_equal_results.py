"""A trial with the training of a finished one gets its result: the record that training would write."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import trial
from paths import ROOT

from psa.cli.app import PSA, run
from psa.experiments.grid import load_grid
from psa.specs.training import Ablation
from psa.specs.trial import Leg
from psa.storage.records.equal_training import equal_training_key, record_of_equal
from psa.storage.store import Store

GRID = ROOT / "reproduction/smoke.toml"
WEAK = ("lr=1e-4", "meta_loops=2", "seeds=0,1")  # 1e-4 x 1e-4 < 2**-25: no weight changes by the decay
BOTH = "arch=1*4 mode=none,decay"


def sweep(folder: Path, data_dir: Path, *words: str) -> int:
    """Train a part of the grid into a folder; return the exit code."""
    places = ("--model-dir", f"{folder}/models", "--results-dir", f"{folder}/results")
    return run(
        PSA, ["sweep", str(GRID), *WEAK, *words, *places, "--data-dir", str(data_dir), "--workers", "1"]
    )


def records_of(folder: Path) -> dict[str, bytes]:
    """The bytes of the records of a folder by name."""
    paths = sorted((folder / "results").rglob("s0?-??????.json"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def store_of(folder: Path) -> Store:
    """The trees of a folder."""
    return Store(folder / "models", folder / "results")


def test_copied_records_have_the_bytes_of_trained_ones(
    tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Mode none first and both later gives the files of both at once, and trains nothing the second time."""
    trained, copied = tmp_path / "trained", tmp_path / "copied"
    assert sweep(trained, data_dir, "--only", BOTH) == 0
    assert sweep(copied, data_dir, "--only", "arch=1*4 mode=none", "--keep-weights", "none") == 0
    capfd.readouterr()
    assert sweep(copied, data_dir, "--only", BOTH, "--keep-weights", "none") == 0
    assert "2 results copied from trials with equal training" in capfd.readouterr().out
    assert len(records_of(trained)) == 4
    assert records_of(copied) == records_of(trained)
    none, decay = load_grid(GRID, list(WEAK), f"{BOTH} seed=0").trials
    machine = store_of(copied).sidecar(decay.id)
    assert machine is not None
    assert machine["copied_from"] == none.id
    assert not [name for name in machine if name.startswith(("pack_", "train_samples"))]
    assert (
        run(PSA, ["verify", "--results-dir", f"{copied}/results", "--data-dir", str(data_dir), "--replay=2"])
        == 0
    )


def test_weights_that_are_kept_are_trained(tmp_path: Path, data_dir: Path) -> None:
    """A copied record would have no checkpoint; without `--keep-weights none` each trial gets its own."""
    for mode in ("none", "none,decay"):
        assert sweep(tmp_path, data_dir, "--only", f"arch=1*4 mode={mode} seed=0") == 0
    _, decay = load_grid(GRID, list(WEAK), f"{BOTH} seed=0").trials
    assert store_of(tmp_path).state_file(decay).path.exists()
    assert "copied_from" not in (store_of(tmp_path).sidecar(decay.id) or {})


def test_only_a_decay_too_weak_to_change_a_weight_equals_none() -> None:
    """Another seed, rate or network, a stronger decay, or another mode is trained."""

    def training(*settings: str, mode: str = "decay", seed: int = 0) -> str | None:
        part = f"arch=1*4 mode={mode} seed={seed}"
        named = dict(each.split("=", 1) for each in (*WEAK, *settings))
        (found,) = load_grid(GRID, [f"{key}={value}" for key, value in named.items()], part).trials
        return equal_training_key(found)

    assert training(mode="none") == training() is not None
    others = [training(seed=1)] + [
        training(each) for each in ("weight_decay=1e-2", "lr=2e-4", "val_size=9000")
    ]
    assert len({training(), *others}) == 5
    assert training("patience=3") not in [None, training()]
    switched = Ablation(mode="none", switch=("2:full",))
    assert equal_training_key(trial("1*4").model_copy(update={"intervention": switched})) is None
    assert training(mode="hidden") is None
    plain = trial("1*4")
    earlier = Leg(until=1, model=plain.model, method=plain.method, intervention=plain.intervention)
    assert equal_training_key(plain) is not None
    assert equal_training_key(plain.model_copy(update={"legs": (earlier,)})) is None


def test_a_record_with_files_serves_its_own_trial_only() -> None:
    """The files are beside the checkpoint of that trial."""
    record = {"history": {"loop": [1], "mode": ["none"]}, "files": {}}
    assert record_of_equal(record, trial("1*4", "decay", 1)) is None
