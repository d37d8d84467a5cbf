"""A stop asked for at any moment of a sweep: one line, the signal's exit code, and nothing is left running.

Real processes and real signals throughout.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS, children, psa, sweep, until

from psa.core.stop import STOPPING, StopRequest, held_back
from psa.execution.worker.pool import DEATHS_ALLOWED
from psa.experiments.grid import load_grid
from psa.storage import locks
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps

STOPPED = "Stopped; workers have saved what they had. Run the same command again to resume."
ENDLESS = "meta_loops=1000000"
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def doing(folder: Path) -> str:
    """What the sweeps at work in a folder say."""
    return "\n".join(map(str, active_sweeps(folder / "models")))


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str, str, float]:
    """Send a signal; exit code, last line, errors, and the seconds it took."""
    workers = children(process.pid) if Path("/proc").is_dir() else []
    begun = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    seconds = time.monotonic() - begun
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    return process.returncode, (out.splitlines() or [""])[-1], err, seconds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    # Ctrl-C is tested every time with every backend
    [pytest.param(*SIGNALS[0], marks=pytest.mark.crash), SIGNALS[1]],
)
def test_a_sweep_that_trains_saves_and_answers_with_the_signal(
    number: signal.Signals, code: int, tmp_path: Path, data_dir: Path, started: list[subprocess.Popen[str]]
) -> None:
    """130 for SIGINT, 143 for SIGTERM, what was trained is stored, and nobody says any more it is at work."""
    process = sweep(tmp_path, data_dir, ENDLESS, "arch=1*4", "--pack-size", "12", "--workers", "1")
    started.append(process)
    until(lambda: re.search(r"1\*4 .*seeds 0-1 loop [1-9]", doing(tmp_path)), process)
    assert stopped(process, number)[:3] == (code, STOPPED, "")
    store = Store(tmp_path / "models", tmp_path / "results")
    for trial in load_grid(Path("reproduction/smoke.toml").absolute(), ["arch=1*4"]).trials:
        state = store.state_file(trial).load()
        assert state is not None
        assert state.loops > 0
    assert list((tmp_path / "models" / ".sweeps").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("after", "number", "code"),
    [
        pytest.param(0.0, *SIGNALS[0], id="torch is imported"),
        pytest.param(6.0, *SIGNALS[1], id="a step is measured"),
        pytest.param(0.0, *SIGNALS[1], id="torch is imported, SIGTERM", marks=pytest.mark.crash),
        pytest.param(6.0, *SIGNALS[0], id="a step is measured, SIGINT", marks=pytest.mark.crash),
    ],
)
def test_a_sweep_that_measures_stops_at_once(
    after: float,
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    data_dir: Path,
    started: list[subprocess.Popen[str]],
) -> None:
    """A network whose measuring takes minutes is let go: there is nothing to save. The same line and code."""
    process = sweep(tmp_path, data_dir, "arch=200*256", "--workers", "1")
    started.append(process)
    until(lambda: "measuring 1 network" in doing(tmp_path), process)
    time.sleep(after)
    answer, line, err, seconds = stopped(process, number)
    assert (answer, line, err) == (code, STOPPED, "")
    assert seconds < 60  # to measure takes minutes


def test_a_sweep_that_waits_for_others_stops_at_once(
    tmp_path: Path, data_dir: Path, started: list[subprocess.Popen[str]]
) -> None:
    """In the middle of a wait, too: here one that would end after an hour."""
    long = "from psa.experiments import sweep; sweep.FIRST_WAIT_SECONDS = 3600.0"
    trials = load_grid(Path("reproduction/smoke.toml").absolute(), ["arch=1*4"]).trials
    with locks.lock_trials(Store(tmp_path / "models", tmp_path / "results"), trials) as got:
        assert len(got) == 12
        process = sweep(tmp_path, data_dir, "arch=1*4", "--pack-size", "12", before=long)
        started.append(process)
        until(lambda: "waiting for 12 trials" in doing(tmp_path), process)
        answer, line, err, _ = stopped(process, signal.SIGTERM)
    assert (answer, line, err) == (143, STOPPED, "")


def test_help_names_the_exit_codes(tmp_path: Path) -> None:
    """What a script may go by is said."""
    out, _ = psa(tmp_path, "sweep", "--help").communicate(timeout=PATIENCE_SECONDS)
    said = " ".join(out.split())
    assert "0: complete, even if trials diverged; 1: trials failed;" in said
    assert "130: stopped by Ctrl-C; 143: stopped by SIGTERM" in said


@pytest.mark.parametrize("number", sorted(STOPPING))
def test_a_signal_ends_a_wait(number: signal.Signals) -> None:
    """The sleeper wakes at once, and sleeps no more."""
    with StopRequest() as stop:
        threading.Timer(0.2, os.kill, [os.getpid(), number]).start()
        begun = time.monotonic()
        stop.wait(600)
        stop.wait(600)
        assert time.monotonic() - begun < 300
    assert stop()
    assert stop.exit_code == 128 + number


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(number, marks=pytest.mark.crash) for number in sorted(STOPPING - {signal.SIGTERM})),
    ],
)
def test_a_signal_to_every_process_at_once(
    number: signal.Signals, tmp_path: Path, data_dir: Path, started: list[subprocess.Popen[str]]
) -> None:
    """As `scancel` or a control group sends it: the same line and code, nothing beside it, nothing left
    running, and what was trained is stored.
    """
    process = sweep(tmp_path, data_dir, ENDLESS, "arch=1*4", "--pack-size", "12", "--workers", "1")
    started.append(process)
    until(lambda: re.search(r"1\*4 .*seeds 0-1 loop [1-9]", doing(tmp_path)), process)
    workers = children(process.pid)
    for pid in (*workers, process.pid):
        os.kill(pid, number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, (out.splitlines() or [""])[-1], err) == (128 + number, STOPPED, "")
    assert "worker" not in out.replace(STOPPED, "").replace("| starting workers", "")
    assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]
    store = Store(tmp_path / "models", tmp_path / "results")
    for trial in load_grid(Path("reproduction/smoke.toml").absolute(), ["arch=1*4"]).trials:
        state = store.state_file(trial).load()
        assert state is not None
        assert state.loops > 0


@pytest.mark.crash  # four workers import torch
def test_a_signal_to_the_workers_alone_is_not_a_death(
    tmp_path: Path, data_dir: Path, started: list[subprocess.Popen[str]]
) -> None:
    """However often: they save and leave, also while they still import torch, and the pack goes on."""
    process = sweep(tmp_path, data_dir, "meta_loops=3", "arch=1*4", "--pack-size", "12", "--workers", "1")
    started.append(process)
    told: set[int] = set()
    while len(told) < DEATHS_ALLOWED + 1:
        until(lambda: set(children(process.pid)) - told or process.poll() is not None)
        for pid in set(children(process.pid)) - told:
            told.add(pid)
            os.kill(pid, signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert "12 of 12 trials done, 0 failed" in out
    assert "a worker was stopped by a signal and has saved; retrying its pack" in out


def test_nohup_is_respected() -> None:
    """A signal that is ignored when psa starts stays so."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_that_starts_holds_signals_back_until_it_can_save() -> None:
    """In place of an end or a traceback in the middle of an import."""
    code = (
        "import sys; print('importing', flush=True); sys.stdin.readline()\n"
        "from psa.core.stop import StopRequest\n"
        "with StopRequest() as stop: sys.exit(75 if stop() else 1)"
    )
    with held_back():
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate("go on\n")
    assert process.returncode == 75


def test_blocks_of_one_request_may_be_nested() -> None:
    """As those of a worker and of its pack are: the handler of before comes back at the end."""
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        with stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
