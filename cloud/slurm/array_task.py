"""The program of an array task on its node: train the pack of this index with the local backend.

States and records are written to the shared folder under the same leases as everywhere; events go to a file
beside the job. At SIGUSR2 (the time limit is near) and SIGTERM (preemption) workers save and the task goes
back into the queue. If the task cannot train on this node, it reports `unusable` and ends: the sweep submits
its pack again, for another node. Imports no torch: the worker process does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cloud.slurm.array_job import ArrayJob, read_array_job
from cloud.slurm.client import SlurmClient
from cloud.slurm.event_log import EventLogReader, EventLogWriter
from psa.core.errors import EXIT_USER_ERROR, UserError
from psa.core.stop import StopRequest
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.local import LocalBackend
from psa.execution.worker.protocol import EXIT_INTERRUPTED, WorkerEvent, store_failures
from psa.storage import locks

logger = logging.getLogger(__name__)

LOOP_SECONDS: Final = 1.0  # between two `loop` events on the shared folder
TIME_LIMIT_SIGNAL: Final = signal.SIGUSR2  # see --signal in cloud.slurm.request
REQUEUED_BY: Final = (TIME_LIMIT_SIGNAL, signal.SIGTERM)
IDLE_RUNS_ALLOWED: Final = 2  # that reach the time limit before a meta-loop ends; the next one is the last


class TaskLog:
    """The events of this attempt, with those of single loops merged."""

    def __init__(self, array: ArrayJob, index: int, about: Mapping[str, Any]) -> None:
        self.array, self.pack, self.about = array, array.packs[index], dict(about)
        self.store = array.store
        self.log = EventLogWriter(array.events_path(index))
        self.trained = 0  # trial-loops of this attempt
        self._loop: dict[str, Any] = {}
        self._written = 0.0

    def handle_event(self, event: WorkerEvent) -> None:
        """Write an event of the local backend, and failures where `psa status` finds them."""
        if event.kind == "loop":
            self.trained += event.facts["trained"]
            merged = event.facts["trained"] + self._loop.get("trained", 0)
            self._loop = {**event.facts, "trained": merged}
        if event.kind in ("loop", "tick"):
            if time.monotonic() - self._written > LOOP_SECONDS:
                self._flush()
            return
        self._flush()
        store_failures(self.store, event)
        logger.info("%s %s", event.kind, event.facts)
        self.log.append(event.kind, **event.facts, **(self.about if event.kind == "begun" else {}))

    def close(self, error: str, signal_name: str) -> None:
        """Report that a signal ends the attempt early, with everything saved."""
        self._flush()
        self.log.append("stopped", error=error, trained=self.trained, signal=signal_name)

    def report_unusable(self, error: UserError) -> None:
        """Report that nothing can be trained on this node, as far as its file system still allows that."""
        with contextlib.suppress(UserError):
            store_failures(self.store, WorkerEvent("failed", self.pack, {"error": str(error)}))
        with contextlib.suppress(UserError):
            node = self.about.get("node", "")
            self.log.append("unusable", what=error.message, way_out=error.hint, node=node)

    def _flush(self) -> None:
        if self._loop:
            # whether this node sees the leases of its worker: the watching sweep compares its own view
            held = not locks.unlocked_trials(self.store, self.pack.trials)
            self.log.append("loop", **self._loop, held=held)
            self._loop, self._written = {}, time.monotonic()


def train_task(folder: Path, index: int, task_id: str) -> int:
    """Train the pack of a task. Return 0 when it is done, 75 when it was interrupted. Raises UserError."""
    array = read_array_job(folder)
    pack = array.packs[index]
    idle = _idle_runs(array, index)
    log = TaskLog(array, index, {"node": os.environ.get("SLURMD_NODENAME", ""), "task": task_id})
    backend = LocalBackend(
        array.store, array.machine, CostModel(folder / f"{index}.costs.json"), BackendOptions(workers=1)
    )
    ended = False
    try:
        array.load_plugins(index)
        with StopRequest() as stop:
            with contextlib.closing(backend.launch([Job(pack, 0.0)])) as events:
                for event in events:
                    log.handle_event(event)
                    ended = ended or event.kind in ("done", "failed")
                    if stop():
                        break
            return 0 if ended else _interrupted(log, stop, idle, task_id)
    except UserError as error:
        log.report_unusable(error)
        raise


def _interrupted(log: TaskLog, stop: StopRequest, idle: int, task_id: str) -> int:
    """End an attempt that a signal has stopped; put the task back into the queue unless it was cancelled."""
    name = signal.Signals(stop.signal or signal.SIGTERM).name
    if stop.signal == TIME_LIMIT_SIGNAL and not log.trained and idle >= IDLE_RUNS_ALLOWED:
        error = (
            f"stopped by {name} {idle + 1} times before a meta-loop was finished; choose a longer --time, or "
            "a smaller --pack-size"
        )
        log.handle_event(WorkerEvent("failed", log.pack, {"error": error}))
        return EXIT_INTERRUPTED
    client = SlurmClient(("scontrol",))
    # COMPLETING: Slurm has ended the job already, to requeue it by itself or since it was cancelled
    if stop.signal in REQUEUED_BY and client.describe(task_id).get("JobState") == "RUNNING":
        log.close(f"{name} of Slurm (time limit or preemption): saved and put back into the queue", name)
        try:
            client.requeue(task_id)
        except UserError as error:  # the watching sweep submits the pack again
            logger.warning("%s", error)
    else:
        log.close(f"stopped by {name} and saved", name)
    return EXIT_INTERRUPTED


def _idle_runs(array: ArrayJob, index: int) -> int:
    """Return how many attempts since the last meta-loop reached the time limit before one ended.

    Preemptions do not count, since a longer --time would not help against them.
    """
    count = 0
    for event in EventLogReader(array.events_path(index)).events():
        if event["event"] == "loop" or event.get("trained"):
            count = 0
        elif event["event"] == "stopped" and event.get("signal") == TIME_LIMIT_SIGNAL.name:
            count += 1
    return count


def main() -> int:
    """Train the pack of the task that Slurm's environment names. Return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    index = os.environ["SLURM_ARRAY_TASK_ID"]
    try:
        return train_task(Path(sys.argv[1]), int(index), f"{os.environ['SLURM_ARRAY_JOB_ID']}_{index}")
    except UserError as error:
        logger.error("%s", error)  # noqa: TRY400 - one line, in the log of the task
        return EXIT_USER_ERROR
