"""A worker process that trains one pack after another: tasks as JSON lines in, events as JSON lines out.

Importing torch and reading the data then cost time once per process, not once per pack. When its standard
input ends (the parent has gone, for whatever reason), the process saves and exits.
"""

from __future__ import annotations

import json
import logging
import queue
import statistics
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from psa.core.errors import EXIT_USER_ERROR, Interrupted, UserError
from psa.core.stop import StopRequest
from psa.engine.loop import LoopReport
from psa.execution.machine import Machine
from psa.execution.worker.benchmark import measure_step_times
from psa.execution.worker.halving import describe_failure, train_by_halves
from psa.execution.worker.protocol import EXIT_INTERRUPTED, EventWriter, received_pack
from psa.execution.worker.run import RunHooks
from psa.specs.trial import Pack
from psa.storage.store import Store
from psa.storage.trial_state import TrialState

logger = logging.getLogger(__name__)

Say = Callable[..., None]


class ParentWatch(StopRequest):
    """A stop request that also comes true when standard input ends; a signal ends the waiting for tasks."""

    def __init__(self, tasks: queue.SimpleQueue[str | None]) -> None:
        super().__init__()
        self.orphaned = threading.Event()
        self.tasks = tasks

    def __call__(self) -> bool:
        """Return True if a stop was requested or the parent has gone."""
        return self.orphaned.is_set() or super().__call__()

    def _asked(self, number: int, frame: object) -> None:
        super()._asked(number, frame)
        self.tasks.put(None)


def serve(machine: Machine) -> int:
    """Work until standard input ends. Return 0 if idle then, 75 if a pack was interrupted (and saved) or a
    signal has requested a stop: a batch system sends it to every process of a job.
    """
    tasks = queue.SimpleQueue[str | None]()
    with ParentWatch(tasks) as stop:
        code = _served(machine, tasks, stop)
        return code if stop.signal is None else EXIT_INTERRUPTED


def _served(machine: Machine, tasks: queue.SimpleQueue[str | None], stop: ParentWatch) -> int:
    events = EventWriter()
    try:
        return _worked(machine, tasks, stop, events.emit)
    finally:
        events.close()


def _worked(
    machine: Machine, tasks: queue.SimpleQueue[str | None], stop: ParentWatch, say: Callable[..., None]
) -> int:
    def listen() -> None:
        for line in sys.stdin:
            if line.endswith("\n"):  # else the parent has stopped before it had sent all of a task
                tasks.put(line)
        stop.orphaned.set()
        tasks.put(None)

    threading.Thread(target=listen, daemon=True).start()
    try:
        device = machine.prepare()
    except UserError as error:
        say("unusable", what=error.message, way_out=error.hint)
        return EXIT_USER_ERROR
    say("ready", device=str(device))
    while (line := tasks.get()) is not None and stop.signal is None:
        task = json.loads(line)
        try:
            pack = received_pack(task["pack"], "a pack")
            if task["task"] == "calibrate":
                say("calibrated", steps=measure_step_times(pack.trials, device))
            else:
                _train(pack, Store(Path(task["models"]), Path(task["results"])), machine, stop, say)
        except Interrupted:
            return EXIT_INTERRUPTED
        except Exception as error:  # noqa: BLE001 - a failing pack must not end the others
            say("failed", error=describe_failure(error))
        if stop():
            return 0
    return 0


def _train(pack: Pack, store: Store, machine: Machine, stop: StopRequest, say: Say) -> None:
    """Train a pack, by halves if training fails, and report its events."""
    hooks = RunHooks(
        on_start=lambda states: say("begun", left=loops_to_train(states, pack.horizon)),
        on_loop=lambda reports: say("loop", **loop_facts(reports)),
        stop=stop,
    )
    outcome = train_by_halves(pack, store, machine, hooks)
    say("done", trained=outcome.trained, elsewhere=outcome.elsewhere, failed=outcome.failed)


def loops_to_train(states: Sequence[TrialState], horizon: int) -> int:
    """Return the trial-loops still to be trained for the trials of a worker."""
    return sum(0 if state.finished(horizon) else horizon - state.loops for state in states)


def loop_facts(reports: Sequence[LoopReport]) -> dict[str, Any]:
    """Return the facts of a `loop` event: the progress of the pack and its best trial so far."""
    best = max(reports, key=lambda report: report.score)
    return {
        "loop": min(report.state.loops for report in reports),
        "trained": len(reports),
        "best": best.score,
        "mean": statistics.fmean(max(0.0, report.score) for report in reports),
        "trial": best.state.trial.id,
    }
