"""Helper files (step times, progress) may hold anything: commands go on, with one line on standard error."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import GRID

from cloud.sagemaker.jobs.progress import parse_failures, parse_progress
from psa.cli import app
from psa.execution.cost_model import CostModel, WorkloadKey
from psa.experiments.grid import load_grid
from psa.experiments.tracking.tensorboard import TensorBoard
from psa.storage.sweep_registry import active_sweeps, register_sweep

KINDS = [WorkloadKey.of(trial).key for trial in load_grid(GRID, []).trials]


def times(sizes: Any) -> bytes:
    """A table with the same step times of both networks of the grid."""
    return json.dumps(dict.fromkeys(KINDS, sizes)).encode()


# Damage that every format must survive.
GENERAL = {
    "empty": b"",
    "truncated": times({"1": 1e-3, "6": 2e-3})[:-9],
    "text": b"no JSON at all",
    "list": b"[1, 2]",
    "null": b"null",
    "number": b"17",
    "zeros": bytes(4096),
    "deep lists": b'{"a":' + b"[" * 100_000,
    "deep tables": b'{"a":' * 100_000,
    "long number": b'{"a":{"1":' + b"9" * 10_000 + b"}}",
    "utf-16": times({"1": 1e-3}).decode().encode("utf-16"),
    "not utf-8": b'{"\xff": 1}',
    "too long": b" " * 20_000_000,
}
STEP_TIMES = {
    "NaN": times({"1": math.nan}),
    "infinite": times({"1": math.inf, "6": math.inf}),
    "beyond a float": times({"1": 1}).replace(b": 1}", b": 1e999}"),
    "huge": times({"1": 1e308, "6": 1e308}),
    "denormal": times({"1": 1e-320}),
    "negative": times({"1": -1.0, "6": 2e-3}),
    "zero": times({"1": 0.0}),
    "size 0": times({"0": 1e-3}),
    "negative size": times({"-6": 1e-3}),
    "huge size": times({"9" * 400: 1e-3}),
    "size of a fraction": times({"1.5": 1e-3}),
    "size in words": times({"six": 1e-3}),
    "no sizes": times({}),
    "text for seconds": times({"1": "soon"}),
    "truth for seconds": times({"1": True}),
    "null for seconds": times({"1": None}),
    "list for sizes": times([1e-3]),
    "number for sizes": times(1e-3),
}
SWEEP = {"host": "h", "grid": "g", "done": 1, "total": 2, "left": "1 s", "best": [1.0, "x"], "running": []}
PROGRESS = {
    "nested too deep": json.dumps(SWEEP).encode().replace(b'"h"', b"[" * 100_000),
    **{
        f"{key} = {value!r}"[:40]: json.dumps(SWEEP | {key: value}).encode()
        for key, value in (
            ("done", math.nan), ("done", -1), ("done", "3"), ("total", 10**400), ("best", [math.nan, "x"]),
            ("best", [1.0]), ("best", "xy"), ("host", None), ("running", "abc"), ("left", "x" * 100_000),
        )
    },
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGEMAKER_MODEL_DIR", raising=False)
    return tmp_path


def lay(path: Path, content: bytes) -> None:
    """Write a file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def in_place_of(path: Path) -> Iterator[str]:
    """Put what is not a file at a path, one thing after another; their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir()
    yield "folder"
    path.rmdir()
    path.symlink_to("/dev/zero")
    yield "device"
    path.unlink()
    os.mkfifo(path)
    yield "pipe"
    path.unlink()


COMMANDS = {
    "plan": ("plan", str(GRID)),
    "plan by packs": ("plan", str(GRID), "--pack-size", "2", "--workers", "3"),
    "dry run": ("sweep", str(GRID), "--dry-run"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_step_times_that_cannot_be_used_are_estimated(
    command: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends with 0, warns once, and names the file; nothing in it reaches a plan."""
    app.run(app.PSA, ["plan", str(GRID)])
    estimated = capfd.readouterr().out
    path = CostModel.of_machine(Path("models")).path
    for what, content in (GENERAL | STEP_TIMES).items():
        lay(path, content)
        assert app.run(app.PSA, COMMANDS[command]) == 0, what
        out, err = capfd.readouterr()
        assert err.count("\n") == 1, (what, err)
        assert err.startswith(f"WARNING: {path} cannot be used ("), (what, err)
        assert err.endswith("; step times are measured again\n")
        assert len(err) < 500
        if command == "plan":
            assert out == estimated, what


def test_what_is_no_file_in_the_place_of_step_times_holds_nobody_up(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A folder, a device that never ends, a pipe that nobody writes to."""
    path = CostModel.of_machine(Path("models")).path
    for what in in_place_of(path):
        assert app.run(app.PSA, ["plan", str(GRID)]) == 0
        assert capfd.readouterr().err.count("must be a regular file, got a") == 1, what


@pytest.mark.slow
def test_a_sweep_measures_step_times_again(
    folder: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is complete, and the table is sound afterwards."""
    path = CostModel.of_machine(Path("models"), "cpu").path
    lay(path, times({"0": -1.0, "1": math.nan}))
    few = ["meta_loops=1", "arch=1*4", "mode=none", "seeds=0"]
    words = ["sweep", str(GRID), *few, "--data-dir", str(data_dir), "--device", "cpu"]
    assert app.run(app.PSA, words) == 0
    out, err = capfd.readouterr()
    assert out.endswith("1 of 1 trials done, 0 failed\n")
    assert err.count("\n") == 1
    assert all(0 < seconds < 10 for sizes in CostModel(path).steps.values() for seconds in sizes.values())
    assert list(CostModel(path).steps) == [KINDS[0]]
    assert capfd.readouterr().err == ""


def test_step_times_that_cannot_be_stored_are_used_all_the_same(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning, whatever is measured."""
    monkeypatch.setattr(logging.getLogger("psa"), "handlers", [])  # those of an earlier command
    (folder / "costs.json").mkdir()
    with caplog.at_level(logging.WARNING):
        costs = CostModel(folder / "costs.json")
        caplog.clear()
        kinds = sorted({WorkloadKey.of(trial) for trial in load_grid(GRID, []).trials}, key=str)
        for kind in kinds:
            costs.update(kind, {1: 1e-3})
    assert all(costs.measured(kind) for kind in kinds)
    assert len(caplog.messages) == 1


def test_sound_step_times_are_used(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Those of every pack size; whole seconds are numbers, too."""
    lay(CostModel.of_machine(Path("models")).path, times({"1": 1, "6": 2.5}))
    assert app.run(app.PSA, ["plan", str(GRID)]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert "not measured" not in out


def test_progress_of_a_sweep_that_cannot_be_used_is_not_shown(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The sweep itself is, whatever its file holds."""
    with register_sweep(Path("models")) as tell:
        tell({key: value for key, value in SWEEP.items() if key != "host"})
        (path,) = Path("models/.sweeps").glob("*.json")
        for what, content in (GENERAL | PROGRESS).items():
            path.write_bytes(content)
            assert app.run(app.PSA, ["status", str(GRID)]) == 3, what
            out, err = capfd.readouterr()
            assert f"sweep {os.getpid()}: at work\n" in out, what
            assert err.count("\n") == 1, (what, err)
            assert f"{path} cannot be used" in err
        path.unlink()
        for what in in_place_of(path):
            assert [str(one) for one in active_sweeps(Path("models"))] == [f"sweep {os.getpid()}: at work"], (
                what
            )


@pytest.mark.parametrize(
    "content", [*GENERAL.values(), b'{"loops":1e999}', b'{"loops":NaN}', b'{"loops":-1}']
)
def test_a_listener_that_cannot_read_its_progress_begins_anew(content: bytes, folder: Path) -> None:
    """As where there is none."""
    trial = load_grid(GRID, []).trials[0]
    lay(folder / trial.id / "psa.json", content)
    assert TensorBoard(folder).logged_loops(trial) == -1


LOOP = {"loop": 1, "trained": 2, "best": 0.5, "trial": "x"}
READERS: dict[str, Callable[[bytes], object]] = {
    "progress": parse_progress,
    "failures": lambda content: parse_failures(content, "job"),
}


@pytest.mark.parametrize("reader", READERS)
def test_what_a_job_tells_may_be_damaged(reader: str) -> None:
    """Nothing is known then."""
    for what, content in GENERAL.items():
        assert READERS[reader](content) == {}, what


@pytest.mark.parametrize(
    "damage", [{"loop": -3}, {"loop": 10**30}, {"best": math.nan}, {"best": math.inf}, {"trained": -1}]
)
def test_numbers_that_a_job_cannot_mean_are_not_shown(damage: dict[str, Any]) -> None:
    """A loop or an accuracy out of its range."""
    assert parse_progress(json.dumps({"p": LOOP}).encode()) == {"p": LOOP}
    assert parse_progress(json.dumps({"p": LOOP | damage}).encode()) == {}
