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

from psa.core.errors import EXIT_USER_ERROR, Interrupted, UserError, cut, named_error
from psa.core.stop import StopRequest
from psa.engine.loop import LoopReport
from psa.execution.machine import Machine
from psa.execution.worker.benchmark import measure_step_times
from psa.execution.worker.protocol import EXIT_INTERRUPTED, EventWriter, received_pack
from psa.execution.worker.run import RunHooks, run_unlocked
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
            say("failed", error=_failure(error))
        if stop():
            return 0
    return 0


def _train(pack: Pack, store: Store, machine: Machine, stop: StopRequest, say: Say) -> None:
    """Train a pack. If training fails, train its halves, until the trials that fail are alone: the code of a
    plugin may fail for one of them, and a smaller pack may fit into memory.
    """
    errors: dict[str, str] = {}
    trained = elsewhere = 0
    begun: list[bool] = []

    def start(states: Sequence[TrialState]) -> None:
        if not begun:
            say("begun", left=loops_to_train(states, pack.horizon))
        begun.append(True)

    hooks = RunHooks(
        on_start=start,
        on_loop=lambda reports: say("loop", **loop_facts(reports)),
        on_failure=lambda trial, error: errors.__setitem__(trial.id, str(error)),
        stop=stop,
    )
    waiting = [pack]
    while waiting:
        part = waiting.pop(0)
        try:
            records, held = run_unlocked(part, store, machine, hooks)
        except Interrupted:
            raise
        except Exception as error:
            if not begun or len(pack.trials) == 1:  # no trial of the pack can be trained
                raise
            if len(part.trials) == 1:
                errors[part.trials[0].id] = _failure(error)
            waiting = [*_halves(part), *waiting]
        else:
            trained, elsewhere = trained + len(records), elsewhere + held
    say("done", trained=trained, elsewhere=elsewhere, failed=errors)


def _halves(pack: Pack) -> list[Pack]:
    """Return the two halves of a pack, none of a single trial."""
    middle = len(pack.trials) // 2
    parts = (pack.trials[:middle], pack.trials[middle:]) if middle else ()
    return [pack.model_copy(update={"trials": part}) for part in parts]


def _failure(error: Exception) -> str:
    """Return why a trial failed. The traceback of an error that is not the user's goes to the terminal."""
    if isinstance(error, UserError):
        return str(error)
    logger.error("a pack failed", exc_info=error)
    return cut(named_error(error), 500)


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
