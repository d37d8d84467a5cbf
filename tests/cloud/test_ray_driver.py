"""The process that drives Ray Tune, when it dies: one line with the cause, exit code 1, a log of its own."""

from __future__ import annotations

import functools
import gc
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from clusters import broken_ray
from helpers import SMALL
from processes import GRID, PATIENCE_SECONDS, end, psa, sweep

from cloud import retry
from cloud.aws.errors import Unreachable
from cloud.object_store import ObjectStore
from cloud.ray import driver_log, driver_process
from cloud.ray.backend import RayBackend
from cloud.ray.driver_log import DriverLog
from cloud.ray.driver_process import Driver
from psa.core import file_locks as locks
from psa.core.errors import RunFailure, UserError
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.packing import groups_of
from psa.experiments.grid import load_grid
from psa.experiments.search import load_search
from psa.specs.trial import Pack
from psa.storage.store import Store

# Stands for Ray in an installation that is broken, and for a process that the kernel or Ray itself ends.
DEATHS = {
    "an import fails": (
        "raise ImportError('libray.so: undefined symbol')",
        "ended with code 1: ImportError: libray.so: undefined symbol",
    ),
    "it is killed": (
        "import os; os.kill(os.getpid(), 9)",
        "ended with code -9 (killed, most often for lack of memory)",
    ),
    "Ray's memory guard": (
        "import os; os.write(2, b'Task was killed due to the node running low on memory.\\nSee x\\n')\n"
        "os.abort()",
        "ended with code -6: Ray's memory guard ended it: Task was killed due to the node running low",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
def test_a_sweep_whose_driver_dies_has_failed(death: str, tmp_path: Path, data_dir: Path) -> None:
    """Nothing that the user wrote is wrong: the exit code is that of a sweep with failed trials."""
    line, cause = DEATHS[death]
    path = broken_ray(tmp_path, line)
    process = sweep(tmp_path, data_dir, "--backend", "ray", PYTHONPATH=path)
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err.count("\n")) == (1, 1), err
    assert f"error: the process that drives Ray Tune {cause}" in err
    log = re.search(r"Output of Ray: (.*)$", err)
    assert log is not None
    assert (tmp_path / log[1]).is_file()


def test_a_search_whose_driver_dies_has_failed(tmp_path: Path, data_dir: Path) -> None:
    """As a sweep."""
    (tmp_path / "search.toml").write_text(SMALL)
    path = broken_ray(tmp_path, DEATHS["it is killed"][0])
    options = ["--data-dir", str(data_dir.absolute()), "--device", "cpu"]
    process = psa(tmp_path, "search", "search.toml", *options, PYTHONPATH=path)
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err.count("\n")) == (1, 1), err
    assert "ended with code -9" in err


def test_a_mistake_keeps_its_exit_code(tmp_path: Path, data_dir: Path) -> None:
    """GRID with an option that cannot be: what the user wrote is at fault."""
    process = psa(tmp_path, "sweep", str(GRID), "--backend", "ray", "--gpus-per-pack", "1.5")
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err.count("\n")) == (2, 1), err


def test_each_driver_has_a_log_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps on one folder of states: the message of each names its own log and its own cause."""
    line = "import os; raise ImportError('fault ' + os.environ['WHO'])"
    monkeypatch.setenv("PYTHONPATH", broken_ray(tmp_path, line))
    drivers = []
    for who in ("one", "two"):
        monkeypatch.setenv("WHO", who)
        drivers.append(Driver(tmp_path))
    for who, driver in zip(("one", "two"), drivers, strict=True):
        with pytest.raises(RunFailure, match=f"ImportError: fault {who}") as caught:
            list(driver.events({}))
        assert str(driver.log.path) in caught.value.hint
        assert f"fault {who}" in driver.log.text()
    assert drivers[0].log.path != drivers[1].log.path


def test_a_driver_that_ends_well_leaves_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else."""
    monkeypatch.setenv("PYTHONPATH", broken_ray(tmp_path, "import os; os._exit(0)"))
    assert not [said for said in Driver(tmp_path).events({}) if said is not None]
    assert list((tmp_path / driver_log.FOLDER).iterdir()) == []


def test_old_logs_are_removed_and_those_in_use_are_not(tmp_path: Path) -> None:
    """However many drivers fail while another one is at work; what a killed sweep has left goes as well."""
    at_work = DriverLog(tmp_path)
    (tmp_path / driver_log.FOLDER / "of-a-killed-sweep.log").touch()
    for number in range(driver_log.KEPT + 3):
        log = DriverLog(tmp_path)
        log.path.write_text(f"fault {number}")
        os.utime(log.path, (number, number))  # the clock of a file system may be coarse
        log.close(keep=True)
    last = DriverLog(tmp_path)
    left = set((tmp_path / driver_log.FOLDER).iterdir())
    assert at_work.path in left
    assert len(left - {at_work.path, last.path}) == driver_log.KEPT
    assert log.path in left
    for each in (at_work, last):
        each.close(keep=False)
        assert not each.path.exists()


def test_a_new_log_outlives_the_tidying_of_another_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other sweep sees an empty log that nobody has locked yet."""
    opened, others = locks._opened, [driver_log._remove_old]

    def interrupted(path: Path) -> int:
        descriptor = opened(path)
        while others:
            others.pop()(path.parent)
        return descriptor

    monkeypatch.setattr(locks, "_opened", interrupted)
    log = DriverLog(tmp_path)
    assert not others
    assert locks.is_locked(log.path)
    log.close(keep=False)


@pytest.mark.parametrize("command", ["sweep --dry-run", "fetch"])
def test_a_driver_without_a_task_leaves_no_log(command: str, tmp_path: Path, data_dir: Path) -> None:
    """It is started early, for importing Ray takes seconds, and then not needed."""
    words = {"sweep": ["--data-dir", str(data_dir.absolute()), "--device", "cpu"]}
    name, *options = command.split()
    process = psa(tmp_path, name, str(GRID), "--backend", "ray", *options, *words.get(name, []))
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err) == (0 if name == "sweep" else 1, "")
    assert list((tmp_path / "models" / driver_log.FOLDER).iterdir()) == []


def test_a_driver_that_nobody_refers_to_is_ended(tmp_path: Path) -> None:
    """As after an error between its start and its task."""
    driver = Driver(tmp_path)
    process = driver.process
    del driver
    gc.collect()
    assert process.returncode is not None
    assert list((tmp_path / driver_log.FOLDER).iterdir()) == []


@pytest.mark.parametrize("length", [20, 36, 40, 70, 200])
def test_sockets_of_ray_fit_their_folder(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux allows paths of 107 bytes; what a batch system gives as TMPDIR may be longer by itself."""
    folder = "/" + "x" * (length - 1)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    used = driver_process._folder_of_sockets().get("RAY_TMPDIR", folder)
    session = "/ray/session_2026-11-28_19-33-29_307970_4194304/sockets/plasma_store"
    assert len(used + session) <= 107
    assert (used == folder) == (length <= 35)


@pytest.mark.parametrize(("system", "longest"), [("linux", 35), ("darwin", 31)])
def test_a_folder_that_the_user_chose_for_ray_is_never_replaced(
    system: str, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used, or refused in one line."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * (longest - 1))
    driver_process.check_socket_folder()
    assert driver_process._environment()["RAY_TMPDIR"] == os.environ["RAY_TMPDIR"]
    monkeypatch.setenv("RAY_TMPDIR", "/" + "x" * longest)
    with pytest.raises(
        UserError, match=f"RAY_TMPDIR must be at most {longest} bytes long, got {longest + 1}"
    ):
        driver_process.check_socket_folder()
    assert driver_process._environment()["RAY_TMPDIR"] == os.environ["RAY_TMPDIR"]


def test_a_sweep_with_a_long_folder_for_ray_is_refused(tmp_path: Path, data_dir: Path) -> None:
    """Before Ray starts; on a cluster elsewhere no socket is made here."""
    process = sweep(tmp_path, data_dir, "--backend", "ray", RAY_TMPDIR="/tmp/" + "x" * 90)  # noqa: S108
    try:
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err.count("\n")) == (2, 1), err
    assert "RAY_TMPDIR must be at most 35 bytes long, got 95" in err


def test_the_environment_of_ray_for_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path below the home is left as it was written."""
    monkeypatch.setenv("AWS_CONFIG_FILE", "~nobody-of-this-name/config")
    monkeypatch.setenv("AWS_CA_BUNDLE", "ca.pem")
    environment = driver_process._environment()
    assert environment["AWS_CONFIG_FILE"] == str(Path.cwd() / "~nobody-of-this-name/config")
    assert environment["AWS_CA_BUNDLE"] == str(Path.cwd() / "ca.pem")


# A storage that is out of reach for a moment, wherever it is asked.


class Faults:
    """Makes calls fail now and then."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}

    def around(self, name: str, call: Callable[..., Any], every: int = 2) -> Callable[..., Any]:
        """Return the call, which fails at its first time, and at every so many."""

        @functools.wraps(call)
        def failing(*args: Any, **options: Any) -> Any:
            self.calls[name] = self.calls.get(name, 0) + 1
            if self.calls[name] % every == 1:
                raise Unreachable(f"{name} is out of reach")
            return call(*args, **options)

        return failing


class Idle(Driver):
    """A driver that has nothing to say, and no process."""

    def __init__(self, _models: Path) -> None:
        self.taken = self.interrupted = False

    def events(self, _task: Mapping[str, Any]) -> Generator[dict[str, Any] | None, None, None]:
        """Yield nothing."""
        yield from ()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    """Faults of the storage, between which nobody waits."""
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.0)
    return Faults()


@pytest.fixture
def ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RayBackend:
    """The backend, whose drivers do nothing."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    monkeypatch.setattr("cloud.ray.backend.Driver", Idle)
    return RayBackend(
        Store(tmp_path / "models", tmp_path / "results"),
        Machine(),
        CostModel(tmp_path / "steps.json"),
        BackendOptions(),
    )


def test_a_search_waits_for_its_storage(
    ray: RayBackend, faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its begin, and when what is stored of it is removed."""
    (tmp_path / "search.toml").write_text(SMALL)
    for name in ("tree", "remove"):
        monkeypatch.setattr(ObjectStore, name, faults.around(name, getattr(ObjectStore, name)))
    assert not [said for said in ray.search(load_search(tmp_path / "search.toml")) if said is not None]
    assert faults.calls == {"tree": 2, "remove": 4}


def test_a_sweep_waits_for_its_storage(
    ray: RayBackend, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the moment on at which its packs are to be laid out."""
    jobs = [Job(Pack(trials=tuple(groups_of(load_grid(GRID).trials)[0]), horizon=1), 1.0)]
    monkeypatch.setattr(ObjectStore, "folders", faults.around("folders", ObjectStore.folders))
    assert {event.kind for event in ray.launch(jobs)} <= {"tick"}
    assert faults.calls["folders"] == 6  # looked for, laid out, and brought home


def test_a_damaged_record_of_another_sweep_stops_no_sweep(
    ray: RayBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named once, and its trial is left out."""
    first, second = (
        [Pack(trials=tuple(group), horizon=1)] for group in groups_of(load_grid(GRID).trials)[:2]
    )
    ray._prepared(first)
    path = ray.store.record_path(first[0].trials[0])
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    ray.fetch()
    assert ray._interrupted(second) is None
    assert ray._prepared(second).packs["p0000"] == second[0]
    assert caplog.text.count("left out") == 1
    assert str(path) in caplog.text


def test_the_driver_waits_for_its_storage(
    faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening an address of S3 asks for the region of its bucket."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    from cloud.ray import driver as ray_driver

    pack = Pack(trials=tuple(groups_of(load_grid(GRID).trials)[0]), horizon=1)
    ObjectStore.at(str(tmp_path / "x/inputs")).write("p0.json", pack.model_dump_json().encode())
    begun: list[ObjectStore] = []

    class Restorer:
        """Stands for Tune, which is asked to restore an experiment."""

        @staticmethod
        def restore(where: str, *_args: Any, **_options: Any) -> Any:
            begun.append(where)
            raise ValueError("nothing is stored")

    for name in ("connect", "count_parallel_packs", "load_data_files"):
        monkeypatch.setattr(ray_driver, name, lambda *_: 1)
    monkeypatch.setattr(ray_driver.tune, "Tuner", Restorer)
    monkeypatch.setattr(ray_driver.callbacks, "emit", lambda _facts: None)
    monkeypatch.setattr(ray_driver.ObjectStore, "at", faults.around("at", ObjectStore.at, every=3))
    task = {
        "address": "local", "storage": str(tmp_path), "experiment": "x", "restore": True, "workers": 1,
        "gpus": 0, "device": "cpu", "data_dir": str(tmp_path), "models": str(tmp_path / "models"),
        "results": str(tmp_path / "results"), "packs": ["p0"],
    }  # fmt: skip
    ray_driver.run_task(task)
    assert begun == [str(tmp_path / "x")]


@pytest.mark.slow
@pytest.mark.crash  # a whole Ray; the length is tested every time
def test_a_sweep_with_a_long_temporary_folder(
    tmp_path: Path, data_dir: Path, started: list[subprocess.Popen[str]]
) -> None:
    """It trains, on a Ray of its own."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    words = ["arch=1*4", "meta_loops=1", "--pack-size", "12", "--backend", "ray", "--workers", "1"]
    process = sweep(tmp_path, data_dir, *words, TMPDIR=str(folder))
    started.append(process)
    out, err = process.communicate(timeout=2 * PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, ""), out
