"""Trials that an earlier version (commit 3cfba10) stored in tests/stored: read, reported, trained further."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from paths import ROOT

from psa.cli.app import PSA, run
from psa.experiments.grid import load_grid
from psa.storage.store import Store

STORED = ROOT / "tests/stored"
GRIDS = ("ablation", "glonet", "memory", "gradients")
HISTORY = ("loop", "mode", "correct", "loss", "kept", "layer", "unit", "train_loss")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder: a copy of what was stored."""
    shutil.copytree(STORED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_verify(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every digest is right, and every file lies where its trial belongs."""
    assert run(PSA, ["verify"]) == 0
    files = [*STORED.rglob("s??-*/*.safetensors"), *STORED.rglob("s??-*.json")]
    assert f"Files checked in models and results: {len(files)}, damaged: 0" in capsys.readouterr().out


@pytest.mark.parametrize("name", GRIDS)
def test_they_are_the_trials_of_their_grid(
    name: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their ids and digests are those that the grid makes today: nothing would be trained again."""
    grid = load_grid(Path(f"{name}.toml"))
    store = Store(Path("models"), Path("results"))
    assert list(store.progress(grid.trials, grid.meta_loops).done) == list(grid.trials)
    assert run(PSA, ["status", f"{name}.toml"]) == 0
    assert f"{len(grid.trials)} of {len(grid.trials)} trials done" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["ablation", "glonet", "memory"])
def test_they_are_reported(name: str, place: Path) -> None:
    """The report of their study is made of them."""
    assert run(PSA, ["report", name, "--grid", f"{name}.toml"]) == 0
    assert len(list(Path("results/reports").glob("*.html"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablation", "glonet", "memory"])
def test_they_are_trained_further(name: str, place: Path, data_dir: Path) -> None:
    """A longer sweep goes on from their states, and their loops stay what they were."""
    grid = load_grid(Path(f"{name}.toml"), ["meta_loops=3"])
    store = Store(Path("models"), Path("results"))
    before = [store.read(trial) for trial in load_grid(Path(f"{name}.toml")).trials]
    options = [
        "--data-dir",
        str(data_dir.absolute()),
        "--device",
        "cpu",
        "--workers",
        "1",
        "--pack-size",
        "8",
    ]
    assert run(PSA, ["sweep", f"{name}.toml", "meta_loops=3", *options]) == 0
    for trial, earlier in zip(grid.trials, before, strict=True):
        later = store.read(trial)
        assert earlier is not None
        assert later is not None
        assert (earlier["loops"], later["loops"]) == (2, 3)
        for column in HISTORY:
            assert later["history"][column][:2] == earlier["history"][column], column
        assert json.dumps(later["spec"], sort_keys=True) == json.dumps(earlier["spec"], sort_keys=True)
