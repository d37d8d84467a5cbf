"""Jobs of a remote backend outlive the sweep that watches them, unless the user stops it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from processes import GRID

from psa.cli.console import console
from psa.cli.output.sweep_view import ConsoleProgress
from psa.core.errors import UserError
from psa.core.stop import STOPPING, StopRequest
from psa.execution.backend import Backend, Job, plan_jobs
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.experiments.grid import load_grid
from psa.experiments.sweep import Sweep, SweepOptions
from psa.specs.trial import Pack
from psa.storage.store import Store

FAILED = {"error": "no reason"}


class LocalJobs:
    """A backend whose jobs run until its generator is closed. act: called before every event."""

    def __init__(self, costs: CostModel, act: Callable[[], WorkerEvent | None]) -> None:
        self.costs, self.act = costs, act
        self.fate = "over"
        self.leaves = False

    @property
    def stopped(self) -> str:
        """The fate of the jobs."""
        return f"the jobs are {self.fate}."

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one job per pack."""
        return plan_jobs(packs, self.costs)

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Watch the jobs for ever."""
        try:
            yield WorkerEvent("tick", jobs[0].pack)
            while True:
                yield self.act() or WorkerEvent("failed", jobs[0].pack, FAILED)
        except GeneratorExit:
            self.fate = "left running" if self.leaves else "cancelled"
            raise

    def fetch(self) -> None:
        """Do nothing."""


class RemoteJobs(LocalJobs):
    """One whose jobs can be left running."""

    def leave_running(self) -> None:
        """Leave the jobs running."""
        self.leaves = True


def swept(
    kind: type[LocalJobs], act: Callable[[], WorkerEvent | None], folder: Path, data_dir: Path
) -> tuple[Any, Callable[[], int]]:
    """A backend, and the function that runs a sweep on it."""
    store = Store(folder / "models", folder / "results")
    costs = CostModel(folder / "costs.json")
    backend = kind(costs, act)
    grid = load_grid(GRID, ["arch=1*4", "seeds=0"])
    options = SweepOptions(pack_size=12, fail_fast=True)
    sweep = Sweep(grid, store, Machine(data_dir, "cpu"), options, costs, cast(Backend, backend))
    return backend, lambda: sweep.run(ConsoleProgress(console()), StopRequest())


@pytest.mark.parametrize("number", sorted(STOPPING))
@pytest.mark.parametrize("kind", [LocalJobs, RemoteJobs])
def test_only_ctrl_c_cancels_remote_jobs(
    kind: type[LocalJobs],
    number: signal.Signals,
    tmp_path: Path,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A closed connection sends SIGHUP, a reboot SIGTERM. The exit code is the signal's."""

    def act() -> WorkerEvent:
        os.kill(os.getpid(), number)
        return WorkerEvent("tick", pack)

    pack = Pack(trials=load_grid(GRID, ["arch=1*4", "seeds=0"]).trials[:1], horizon=1)
    backend, run = swept(kind, act, tmp_path, data_dir)
    assert run() == 128 + number
    is_left = kind is RemoteJobs and number != signal.SIGINT
    assert backend.fate == ("left running" if is_left else "cancelled")
    assert f"Stopped; the jobs are {backend.fate}. Run the same command again to resume." in (
        " ".join(capsys.readouterr().out.split())
    )


@pytest.mark.parametrize(("kind", "fate"), [(LocalJobs, "cancelled"), (RemoteJobs, "left running")])
def test_an_error_of_the_sweep_leaves_remote_jobs_running(
    kind: type[LocalJobs],
    fate: str,
    tmp_path: Path,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A failure that cannot be noted on a full disk says nothing about the jobs."""

    def refuse(*_: Any) -> None:
        raise UserError("no space left on device", "Delete something")

    monkeypatch.setattr(Store, "write_failure", refuse)
    backend, run = swept(kind, lambda: None, tmp_path, data_dir)
    with pytest.raises(UserError, match="no space left"):
        run()
    assert backend.fate == fate
    assert ("An error ends this sweep; the jobs are left running." in capsys.readouterr().out) == (
        kind is RemoteJobs
    )


def test_fail_fast_is_a_stop_of_the_user(tmp_path: Path, data_dir: Path) -> None:
    """Further jobs would cost what the user did not want to spend."""
    backend, run = swept(RemoteJobs, lambda: None, tmp_path, data_dir)
    assert run() == 1
    assert backend.fate == "cancelled"
