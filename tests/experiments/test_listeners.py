"""TensorBoard and MLflow are told what stands in the records: once, all of it, and only if asked for."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import some_record, some_state
from paths import ROOT

from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.experiments.tracking.base import curves
from psa.experiments.tracking.trackers import TrackerGroup, trackers_for
from psa.specs.trial import Trial
from psa.storage.store import Store

TRIAL = some_state().trial
GRID = ("arch=1*4", "mode=none,hidden", "seeds=0", "val_size=58000")
Sweep = Callable[..., tuple[int, str]]


def words(data_dir: Path, *asked: str) -> list[str]:
    """`psa sweep` of two small trials."""
    own = ["--pack-size", "2", "--device", "cpu", "--data-dir", str(data_dir)]
    return ["sweep", str(ROOT / "reproduction/smoke.toml"), *GRID, *own, *asked]


@pytest.fixture
def sweep(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Sweep:
    """`psa sweep` of two small trials: its exit code and what it said on standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*asked: str) -> tuple[int, str]:
        code = run(PSA, words(data_dir, *asked))
        return code, capfd.readouterr().err

    return call


def stored(folder: Path) -> dict[str, Any]:
    """The records, by id."""
    records = (json.loads(path.read_bytes()) for path in Store(folder, folder / "results").record_paths())
    return {record["id"]: record for record in records}


def times(folder: Path) -> dict[Path, int]:
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def percent_of_test(record: dict[str, Any]) -> float:
    """The final accuracy of a record."""
    return float(100 * record["finals"]["test"]["correct"] / record["samples"]["test"])


def board(folder: Path, run_name: str) -> Any:
    """What TensorBoard reads of a run."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reader.EventAccumulator(str(folder / run_name))
    found.Reload()
    return found


def test_what_is_shown_is_the_record() -> None:
    """Percentages of its counts; what is missing is left out."""
    record = some_record()
    record["history"]["loss"][2] = None
    shown = curves(record)
    assert shown.settings["model.arch"] == "[1*1]"
    assert shown.settings["method.policy"] == "ratchet"
    assert [loop for loop, _ in shown.points] == [1, 2, 3]
    assert shown.points[0][1]["validation/accuracy"] == pytest.approx(10.01)
    assert "validation/loss" not in shown.points[2][1]
    assert shown.points[2][1]["validation/lkg"] == shown.points[1][1]["validation/accuracy"]
    assert shown.finals["test_accuracy"] == pytest.approx(10.03)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder in which both were told of two loops, of the same again, and of a third loop."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("told")
    asked = ("--tensorboard", "runs", "--mlflow", f"sqlite:///{folder}/runs.db")
    with pytest.MonkeyPatch.context() as context, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what MLflow asks of its database
        context.chdir(folder)
        assert run(PSA, words(data_dir, "meta_loops=2", *asked)) == 0
        before = times(folder / "runs")
        assert run(PSA, words(data_dir, "meta_loops=2", *asked)) == 0
        assert times(folder / "runs") == before
        assert run(PSA, words(data_dir, "meta_loops=3", *asked)) == 0
    return folder


@pytest.mark.slow
def test_tensorboard_has_a_run_of_each_trial(told: Path) -> None:
    """Its curves are the record's, also those of a longer horizon."""
    assert len(stored(told)) == 2
    for name, record in stored(told).items():
        seen = board(told / "runs", name)
        accuracy = seen.Scalars("validation/accuracy")
        assert [point.step for point in accuracy] == [1, 2, 3]
        counts = [point.value / 100 * record["samples"]["validation"] for point in accuracy]
        assert counts == pytest.approx(record["history"]["correct"], rel=1e-6)
        (final,) = seen.Scalars("final/test_accuracy")
        assert final.value == pytest.approx(percent_of_test(record), rel=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_a_run_of_each_trial(told: Path) -> None:
    """In the experiment of the grid; told once, and of a longer horizon only what is new."""
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{told}/runs.db")
    runs = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    records = stored(told)
    assert {each.info.run_name for each in runs} == set(records)
    for each in runs:
        record = records[each.info.run_name]
        history = client.get_metric_history(each.info.run_id, "validation/accuracy")
        share = record["samples"]["validation"] / 100
        by_loop = sorted((point.step, round(point.value * share)) for point in history)
        assert by_loop == list(enumerate(record["history"]["correct"], 1))
        assert each.data.params["model.arch"] == "[1*4]"
        assert each.data.metrics["test_accuracy"] == pytest.approx(percent_of_test(record))
        assert each.info.status == "FINISHED"


@pytest.mark.slow
def test_nobody_is_told_unasked(tmp_path: Path, sweep: Sweep) -> None:
    """No folder, no import, and no look at the records of what is done."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mlflow", "tensorboard")]:
        sys.modules.pop(name)
    assert sweep("meta_loops=1") == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"models", "results"}
    assert not {"mlflow", "tensorboard"} & set(sys.modules)
    assert trackers_for("smoke", None, None) == []


class Failing:
    """A tracker that fails at its second trial, as a server does that goes away."""

    name = "Failing"

    def __init__(self) -> None:
        self.told: list[str] = []

    def logged_loops(self, trial: Trial) -> int:
        return -1

    def log_trial(self, trial: Trial, record: dict[str, Any]) -> None:
        if self.told:
            raise ConnectionError("the server\nhttp://me:secret@host has gone")
        self.told.append(trial.id)


def test_one_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so; the others are told on."""
    store = Store(tmp_path / "models", tmp_path / "results")
    trials = [TRIAL.model_copy(update={"seed": seed}) for seed in range(3)]
    for trial in trials:
        store.write(trial, some_record(3, trial), {})
    failing, folder = Failing(), tmp_path / "runs"
    pytest.importorskip("tensorboard")
    trackers = TrackerGroup([failing, *trackers_for("x", folder, None)], store)
    with caplog.at_level(logging.WARNING):
        trackers.log_finished(trials, 3)
    assert failing.told == [trials[0].id]
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith(
        "Failing is disabled for the rest of this sweep (ConnectionError: the server http://host has gone)"
    )
    assert all((folder / trial.id / "psa.json").is_file() for trial in trials)


@pytest.mark.parametrize(("module", "option"), [("mlflow", "mlflow"), ("tensorboard", "tensorboard")])
def test_an_extra_that_is_not_there_is_named(
    module: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is missing and how it is installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in (f"psa.experiments.tracking.{option}", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    asked: dict[str, Any] = {"tensorboard": None, "mlflow": None, option: tmp_path / "x"}
    with pytest.raises(UserError, match=rf"--{option} needs .*{re.escape(how_to_install(option))}"):
        trackers_for("x", **asked)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy")
def test_a_server_that_is_not_there_is_said_before_any_training(tmp_path: Path, sweep: Sweep) -> None:
    """Exit code 2, one line without the password in it, and nothing trained."""
    pytest.importorskip("mlflow")
    code, said = sweep("meta_loops=1", "--mlflow", "http://me:secret@127.0.0.1:9")
    assert code == 2
    assert said.startswith("error: --mlflow http://127.0.0.1:9")
    assert "secret" not in said
    assert not stored(tmp_path)
