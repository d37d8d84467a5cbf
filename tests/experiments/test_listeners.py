"""Trackers are told what stands in the records: once, all of it, and only if asked for."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from made_up import some_record, some_state
from paths import ROOT
from processes import psa

from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.experiments.tracking.base import curves
from psa.experiments.tracking.trackers import TrackerGroup, TrackerOptions, trackers_for
from psa.specs.trial import Trial
from psa.storage.store import Store

TRIAL = some_state().trial
GRID = ("arch=1*4", "mode=none,hidden", "seeds=0", "val_size=58000")
TRACKERS = ("mlflow", "tensorboard", "trackio", "wandb")
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


def test_a_dry_run_tells_no_tracker(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes neither a folder nor a database, and starts no run."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    asked = ("--tensorboard", "runs", "--mlflow", f"sqlite:///{tmp_path}/runs.db", "--dry-run")
    assert run(PSA, words(data_dir, "meta_loops=2", *asked)) == 0
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("runs")]


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
    found = client.search_runs([client.get_experiment_by_name("smoke").experiment_id])
    runs = [each for each in found if "psa.id" in each.data.tags]
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
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_packs_in_training_are_shown(told: Path) -> None:
    """TensorBoard and MLflow have a run of them, with best and mean accuracy per loop."""
    seen = board(told / "runs", "live")
    names = seen.Tags()["scalars"]
    (pack,) = {name.rsplit("/", 2)[0] for name in names}
    assert re.match(r"simplemlp 1x4 (2 modes )?seed 0 ", pack)
    assert sorted(names) == [f"{pack}/validation/{kind}" for kind in ("best", "mean")]
    best, mean = (seen.Scalars(name) for name in sorted(names))
    assert all(0 < low.value <= high.value <= 100 for low, high in zip(mean, best, strict=True))
    client = pytest.importorskip("mlflow").MlflowClient(f"sqlite:///{told}/runs.db")
    runs = client.search_runs(
        [client.get_experiment_by_name("smoke").experiment_id], "tags.`psa.live` = 'true'"
    )
    assert len(runs) == 2  # the sweep in the middle had nothing to train
    assert all(set(each.data.metrics) == set(names) for each in runs)
    assert {each.info.status for each in runs} == {"FINISHED"}


def blocks(path: Path) -> Iterator[bytes]:
    """The records of an offline run: a header of 7 bytes, then LevelDB's log format, blocks of 32 KiB."""
    data, at, record = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (rest := 32768 - at % 32768) < 7:
            at += rest
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def offline(folder: Path) -> dict[str, dict[str, Any]]:
    """The offline runs of Weights & Biases in a folder: settings, points by step, and summary, by name."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        points: list[dict[str, Any]] = []
        summary: dict[str, Any] = {}
        name = ""
        for content in blocks(path):
            record = Record()
            record.ParseFromString(content)
            name = record.run.display_name or name
            point = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
            points += [point] if point else []
            summary |= {
                "/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update
            }
        found[name] = {"points": points, "summary": summary}
    return found


@pytest.mark.slow
def test_weights_and_biases_has_a_run_of_each_trial(
    tmp_path: Path, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline: the curves of the record, its results, a run of the packs in training; each trial once."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert sweep("meta_loops=2", "--wandb", "studies") == (0, "")
    runs, records = offline(tmp_path), stored(tmp_path)
    live = runs.pop("smoke live")
    assert set(runs) == set(records)
    assert any(key.endswith("/validation/mean") for point in live["points"] for key in point)
    for name, record in records.items():
        counts = [
            point["validation/accuracy"] / 100 * record["samples"]["validation"]
            for point in runs[name]["points"]
        ]
        assert counts == pytest.approx(record["history"]["correct"])
        assert runs[name]["summary"]["test_accuracy"] == pytest.approx(percent_of_test(record))
    assert sweep("meta_loops=2", "--wandb", "studies") == (0, "")
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == len(records) + 2  # one more of the second sweep


@pytest.mark.slow
def test_trackio_has_a_run_of_each_trial(tmp_path: Path, data_dir: Path) -> None:
    """The curves of the record, its results, and a run of the packs in training."""
    pytest.importorskip("trackio")
    folder = {"TRACKIO_DIR": str(tmp_path / "runs")}
    process = psa(tmp_path, *words(data_dir, "meta_loops=2", "--trackio", "studies"), **folder)
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert "rackio" not in out
    script = (
        "import json\nfrom trackio.sqlite_storage import SQLiteStorage as S\n"
        "print(json.dumps({run: S.get_logs('studies', run) for run in S.get_runs('studies')}, default=str))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **folder},
        capture_output=True,
        text=True,
        check=True,
    )
    runs, records = json.loads(done.stdout.splitlines()[-1]), stored(tmp_path)
    assert set(runs) == {*records, "smoke live"}
    for name, record in records.items():
        points = [point for point in runs[name] if "validation/accuracy" in point]
        counts = [point["validation/accuracy"] / 100 * record["samples"]["validation"] for point in points]
        assert counts == pytest.approx(record["history"]["correct"])
        assert runs[name][-1]["final/test_accuracy"] == pytest.approx(percent_of_test(record))


@pytest.mark.slow
def test_the_end_is_notified(tmp_path: Path, sweep: Sweep) -> None:
    """The command gets the name, the exit code and the last lines; when it fails, that is a warning."""
    script = tmp_path / "tell.sh"
    script.write_text(
        '#!/bin/sh\necho "$PSA_SWEEP $PSA_EXIT_CODE $PSA_SUMMARY" > told\ncat > summary\nexit $1\n'
    )
    script.chmod(0o755)
    code, said = sweep("meta_loops=1", "--notify", f"{script} 3")
    assert code == 0
    assert said == ("WARNING: the command of --notify failed (exit code 3: ); the sweep is not affected\n")
    assert (tmp_path / "told").read_text() == "smoke 0 2 of 2 trials done, 0 failed\n"
    assert (tmp_path / "summary").read_text() == "2 of 2 trials done, 0 failed\n"


@pytest.mark.parametrize("command", ["", "nowhere/script.sh x", "'open"])
def test_a_command_that_cannot_be_run_is_refused(command: str, sweep: Sweep, tmp_path: Path) -> None:
    """Before anything is trained."""
    code, said = sweep("meta_loops=1", "--notify", command)
    assert code == 2
    assert said.startswith("error: --notify must ")
    assert not stored(tmp_path)


@pytest.mark.slow
def test_nobody_is_told_unasked(tmp_path: Path, sweep: Sweep) -> None:
    """No folder, no import, and no look at the records of what is done."""
    for name in [name for name in sys.modules if name.partition(".")[0] in TRACKERS]:
        sys.modules.pop(name)
    assert sweep("meta_loops=1") == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {"models", "results"}
    assert not set(TRACKERS) & set(sys.modules)
    assert trackers_for("smoke", TrackerOptions(), Store(tmp_path / "models", tmp_path / "results")) == []


class Failing:
    """A tracker that fails at its second trial, as a server does that goes away."""

    name = "Failing"

    def __init__(self) -> None:
        self.told: list[str] = []

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        self.told.append(pack)

    def logged_loops(self, trial: Trial) -> int:
        return -1

    def log_trial(self, trial: Trial, record: dict[str, Any]) -> None:
        if self.told:
            raise ConnectionError("the server\nhttp://me:secret@host has gone")
        self.told.append(trial.id)

    def close(self) -> None:
        raise ConnectionError("and stays away")


def test_one_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line says so; the others are told on."""
    store = Store(tmp_path / "models", tmp_path / "results")
    trials = [TRIAL.model_copy(update={"seed": seed}) for seed in range(3)]
    for trial in trials:
        store.write(trial, some_record(3, trial), {})
    failing, folder = Failing(), tmp_path / "runs"
    pytest.importorskip("tensorboard")
    trackers = TrackerGroup([failing, *trackers_for("x", TrackerOptions(tensorboard=folder), store)], store)
    with caplog.at_level(logging.WARNING):
        trackers.log_finished(trials, 3)
    assert failing.told == [trials[0].id]
    (line,) = [each.getMessage() for each in caplog.records]
    assert line.startswith(
        "Failing is disabled for the rest of this sweep (ConnectionError: the server http://host has gone)"
    )
    assert all((folder / trial.id / "psa.json").is_file() for trial in trials)


@pytest.mark.parametrize(("module", "option"), [(name, name) for name in TRACKERS])
def test_an_extra_that_is_not_there_is_named(
    module: str, option: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is missing and how it is installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    for name in (f"psa.experiments.tracking.{option}", "torch.utils.tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    asked: dict[str, Any] = {option: tmp_path / "x"}
    store = Store(tmp_path / "models", tmp_path / "results")
    hint = (
        "Install it into the environment of psa with pip" if option == "trackio" else how_to_install(option)
    )
    with pytest.raises(UserError, match=rf"--{option} needs .*{re.escape(hint)}"):
        trackers_for("x", TrackerOptions(**asked), store)


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
