"""Data of one's own in every command: planned, swept, killed and resumed, reported, and used from Python."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from own_data import GRAPES, made, wine_frame, write_wine
from processes import PATIENCE_SECONDS, sweep, train_in_process, tree, until

from psa import Experiment
from psa.cli import app
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.data.splits import load_scaling, load_splits
from psa.engine.model_export import exported_model
from psa.execution.cost_model import WorkloadKey
from psa.experiment.results import Results
from psa.experiments.grid import load_grid
from psa.experiments.search import load_search
from psa.specs.data import DataContent
from psa.specs.trial import Trial

GRID = """
study = "ablation"
name = "wine"
meta_loops = 3
seeds = "0..1"
[base]
dataset = "file:wine.csv?label=grape"
family = "simplemlp"
lr = 1e-2
batch_size = 16
[axes]
arch = ["1*8", "2*5"]
mode = ["none", "hidden"]
"""


def psa(*words: str) -> int:
    """Run a command of psa in this process. Return its exit code."""
    return app.run(app.app_of(words[0]), list(words[1:]))


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grid beside its data, in another folder than the current one."""
    there = tmp_path / "study"
    there.mkdir()
    write_wine(there)
    (there / "wine.toml").write_text(GRID)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return there / "wine.toml"


def test_a_path_in_a_grid_is_relative_to_the_grid(grid: Path) -> None:
    """One on the command line to the current folder; either way the trials are the same."""
    trials = load_grid(grid).trials
    relative = os.path.relpath(grid.parent, Path.cwd())
    override = f"dataset=file:{relative}/wine.parquet?label=grape"
    assert [trial.id for trial in load_grid(grid, [override]).trials] == [trial.id for trial in trials]
    assert trials[0].data.class_names == tuple(sorted(GRAPES))
    assert trials[0].shape.linears[0].inputs == len(wine_frame().columns) - 1
    with pytest.raises(UserError, match=r"wine.toml: dataset .*nowhere.csv does not exist"):
        load_grid(grid, ["dataset=file:nowhere.csv"])
    with pytest.raises(UserError, match=r"dataset: unknown name 'cifar'. Did you mean cifar10\?"):
        load_grid(grid, ["dataset=cifar"])


def test_two_data_sets_may_be_an_axis(grid: Path) -> None:
    """Each with sizes of its own."""
    found = load_grid(grid, ["dataset=wine,iris", "arch=1*4", "mode=none", "seeds=0"]).trials
    assert [(trial.data.name, trial.data.val_size, trial.data.test_size) for trial in found] == [
        ("wine", 24, 36), ("iris", 20, 30),
    ]  # fmt: skip


def test_a_grid_is_planned_swept_and_reported_with_the_users_names(
    grid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the commands; a second sweep has nothing to do, even if the file has gone by then."""
    assert psa("plan", str(grid)) == 0
    assert psa("sweep", str(grid), "--workers", "1") == 0
    records = list(Path("results/wine").rglob("s0?-??????.json"))
    assert len(records) == 8
    record = json.loads(read_bytes(records[0]) or b"")
    assert record["spec"]["data"]["content"]["classes"] == sorted(GRAPES)
    assert record["samples"]["train"] + record["samples"]["validation"] + record["samples"]["test"] == 178
    assert psa("report", "wine") == 0
    page = Path("results/reports/wine_simplemlp.html").read_text()
    assert "published results" not in page
    rows = pd.read_parquet("results/reports/wine_simplemlp/rows.parquet")
    assert json.loads(rows["class_names"].iloc[0]) == sorted(GRAPES)
    assert psa("verify") == 0
    assert psa("data", "--dataset", f"file:{grid.parent}/wine.csv?label=grape") == 0
    said = capsys.readouterr().out
    assert "grignolino" in said
    assert "Training split" in said


def test_a_single_run_names_its_checkpoint_by_its_data(grid: Path) -> None:
    """And continues when it is run again."""
    options = ["--dataset", f"file:{grid.parent}/wine.csv?label=grape&name=grapes", "--arch", "[1*4]"]
    for _ in range(2):
        assert psa("train", *options, "--batch-size", "16", "--meta-loops", "2") == 0
    assert Path("models/grapes_lkg.safetensors").exists()
    (record,) = Path("results/train").rglob("s00-??????.json")
    assert json.loads(read_bytes(record) or b"")["loops"] == 4
    for further in (
        ["--dataset", "wine", "--arch", "[1*4]", "--meta-loops", "1", "--model-dir", "m"],
        ["--study", "memory", "--dataset", "iris", "--arch", "1*8", "--epochs", "1"],
    ):
        assert psa("train", *further) == 0


def test_a_search_holds_the_content_and_no_path(grid: Path) -> None:
    """Nodes of a cluster do not have the file."""
    path = grid.parent / "search.toml"
    path.write_text(
        'study = "ablation"\nname = "s"\n[base]\ndataset = "file:wine.csv?label=grape"\narch = "1*4"\n'
        "[space]\nlr = { low = 1e-4, high = 1e-2 }\n"
    )
    search = load_search(path)
    assert "wine.csv" not in search.model_dump_json()
    data = search.first.trials[0].data
    assert data == load_grid(grid).trials[0].data
    path.write_text(path.read_text() + 'dataset = ["file:wine.csv?label=grape", "wine"]\n')
    with pytest.raises(UserError, match=r"space\.dataset must hold names"):
        load_search(path)


def check_loaded_network(results: Results, samples: Any, data_dir: Path) -> None:
    """The best trial's network has the recorded accuracy on the test split, as a module and as an exported
    program, and new samples are scaled as the splits were.
    """
    row = results.best().iloc[0]
    network, trial = results.load(row), results.experiment.grid.trials[int(row["seed"])]
    test = load_splits(trial.data, data_dir).test
    right = (network(test.images).argmax(1) == test.labels).double().mean()
    assert 100 * float(right) == pytest.approx(row["test"])
    scale = load_scaling(trial.data, data_dir)
    assert torch.equal(scale(samples[test.index]), test.images)
    _, program = exported_model(trial, "torchscript", model_dir=results.store.models)
    with pytest.warns(FutureWarning), torch.no_grad():
        assert torch.allclose(
            torch.jit.load(io.BytesIO(program))(test.images), network(test.images), atol=1e-5
        )
    with pytest.raises(UserError, match=r"samples must have the shape \[N, .*got \[2, 5\]"):
        scale(np.zeros((2, 5)))


def test_experiments_take_arrays_and_frames(tmp_path: Path) -> None:
    """From Python: any shape, texts as labels, and given splits."""
    frame, folders = wine_frame(), {"model_dir": tmp_path / "m", "results_dir": tmp_path / "r"}
    settings = {"arch": "1*8", "batch_size": 16, "lr": 1e-2}
    mine = Experiment("activations", data=(frame, "grape"), name="mine", base=settings, epochs=2, seeds=2)
    results = mine.run(1, quiet=True, data_dir=tmp_path / "d", **folders)  # type: ignore[arg-type]
    assert (results.frame["status"] == "done").all()
    check_loaded_network(results, frame.drop(columns="grape").to_numpy(), tmp_path / "d")
    images, labels = made(60, (6, 6, 3), 4, "u1")
    network = {"family": "cnn", "arch": "1*3, 1*8", "batch_size": 16}
    other = Experiment("activations", data=(images, labels), name="images", base=network, epochs=1)
    assert other.grid.trials[0].data.shape == (6, 6, 3)
    results = other.run(1, quiet=True, data_dir=tmp_path / "d", **folders)  # type: ignore[arg-type]
    assert (results.frame["status"] == "done").all()
    check_loaded_network(results, images, tmp_path / "d")
    with pytest.raises(UserError, match="data and base"):
        Experiment(data=(images, labels), base={"dataset": "wine", "arch": "1*4"})
    with pytest.raises(UserError, match=r"data must be \(X, y\) or \(X, y, split\), got ndarray"):
        Experiment(data=images, base={"arch": "1*4"})


def test_networks_that_do_not_fit_the_data_are_refused(grid: Path) -> None:
    """By planning."""
    for override, said in {
        "dataset=digits val_size=2000": "train_size and val_size must be at most 1,438 together",
        "dataset=digits test_size=1796": "test_size must be at most 1,795, got 1,796",
        "dataset=wine digits=0,1": "digits must be left out with dataset wine, which is not of ten digits",
    }.items():
        with pytest.raises(UserError, match=said):
            load_grid(grid, override.split())
    for network, said in {
        "dataset=wine": "family cnn must have square images as samples, got samples of 13",
        "dataset=digits": "arch must have at most 3 convolutions with images of 8 pixels a side",
    }.items():
        with pytest.raises(UserError, match=said):
            load_grid({"study": "activations", "base": {"family": "cnn", "arch": "4*3, 1*8"}}, [network])


def test_specs_name_one_data_set() -> None:
    """A content has no name of the catalogue, and a trial no sizes that its data do not have."""
    content = DataContent(name="mine", sha256="0" * 64, shape=(3,), classes=("a", "b"), train=50)
    trial = Trial.model_validate({"data": {"name": "mine", "content": content}})
    assert (trial.data.test_size, trial.data.val_size, trial.data.pool) == (10, 7, 40)
    assert Trial.model_validate(trial.model_dump(mode="json")) == trial
    assert Trial.model_validate(trial.model_dump(mode="json")).digest == trial.digest
    for wrong in ({"name": "other", "content": content}, {"name": "nowhere"}):
        with pytest.raises(ValueError, match="name"):
            Trial.model_validate({"data": wrong})


@pytest.mark.slow
def test_a_killed_sweep_on_own_data_ends_as_an_undisturbed_one(
    grid: Path, tmp_path: Path, started: list[subprocess.Popen[str]]
) -> None:
    """Killed twice, with its file gone from its place after the first time; to the bit."""
    folder, data, loops = tmp_path / "killed", tmp_path / "data", 400
    folder.mkdir()
    words = (f"meta_loops={loops}", "--workers", "1")
    for _ in range(2):
        process = sweep(folder, data, *words, grid=grid)
        started.append(process)
        until(lambda: any((folder / "models").rglob("lkg.safetensors")), process)
        process.kill()
        process.wait()
    moved = grid.parent / "moved.csv"
    (grid.parent / "wine.csv").rename(moved)
    words += (f"dataset=file:{moved}?label=grape",)
    last = sweep(folder, data, *words, grid=grid)
    started.append(last)
    assert last.wait(PATIENCE_SECONDS) == 0
    train_in_process(tmp_path / "whole", data, loops, grid, [f"dataset=file:{moved}?label=grape"])
    assert tree(folder) == tree(tmp_path / "whole")


def test_measured_step_times_are_of_one_shape_of_samples() -> None:
    """Networks on 13 features take other times than on 784; the keys of MNIST stay as they were."""
    base = {"arch": "1*8", "family": "simplemlp"}
    wine, digits, mnist = (
        WorkloadKey.of(load_grid({"base": base | {"dataset": name}}).trials[0]).key
        for name in ("wine", "digits", "mnist")
    )
    assert mnist.endswith(" 256 10")
    assert digits == f"{mnist} 8x8"
    assert wine.endswith(" 256 3 13")
