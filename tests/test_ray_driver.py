"""The process that drives Ray Tune, when it dies: one line with the cause, exit code 1, a log of its own."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from processes import GRID, PATIENCE_SECONDS, end, psa, sweep
from test_search import SMALL

from cloud.ray import driver_log, driver_process
from cloud.ray.driver_log import DriverLog
from cloud.ray.driver_process import Driver
from psa.core.errors import RunFailure

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


def broken_ray(folder: Path, line: str) -> str:
    """Make a package `ray` that runs a line when it is imported. Return what PYTHONPATH must hold."""
    (folder / "broken" / "ray").mkdir(parents=True)
    (folder / "broken" / "ray" / "__init__.py").write_text(line)
    return str(folder / "broken")


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
    log = re.search(r"What Ray said: (.*)$", err)
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
        assert str(driver.log.path) in caught.value.way_out
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
        log.close(keep=True)
    last = DriverLog(tmp_path)
    left = set((tmp_path / driver_log.FOLDER).iterdir())
    assert at_work.path in left
    assert len(left - {at_work.path, last.path}) == driver_log.KEPT
    assert log.path in left
    for each in (at_work, last):
        each.close(keep=False)
        assert not each.path.exists()


@pytest.mark.parametrize("length", [20, 36, 40, 70, 200])
def test_sockets_of_ray_fit_their_folder(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux allows paths of 107 bytes; what a batch system gives as TMPDIR may be longer by itself."""
    folder = "/" + "x" * (length - 1)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", folder)
    used = driver_process._short_folder().get("RAY_TMPDIR", folder)
    session = "/ray/session_2026-11-28_19-33-29_307970_4194304/sockets/plasma_store"
    assert len(used + session) <= 107
    assert (used == folder) == (length <= 35)


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
