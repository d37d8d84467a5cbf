"""A Slurm whose queue a test holds, and watches over its tasks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from cloud.aws.errors import Unreachable
from cloud.slurm.array_job import ArrayJobFolder
from cloud.slurm.client import TaskStatus
from cloud.slurm.submission import ArraySubmission
from cloud.slurm.watch import ArrayWatch
from cloud.slurm.watched_task import WatchedTask
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store

PREFIX = "psa-01234567-"


class FakeClient:
    """A Slurm whose queue a test holds. state: of newly submitted tasks."""

    def __init__(self) -> None:
        self.queue: dict[tuple[str, int], TaskStatus] = {}
        self.submitted: list[str] = []
        self.excluded: list[str] = []
        self.cancelled: list[tuple[str, int]] = []
        self.ends = {"JobState": "FAILED", "NodeList": "n1", "ExitCode": "1:0"}
        self.state = "RUNNING"
        self.size = 1000
        self.lose_answer = False
        self.refusals: list[UserError | None] = []  # of the next submissions, None for an accepted one
        self.listing_error: UserError | None = None

    def max_array_size(self) -> int:
        """The most tasks of an array."""
        return self.size

    def list_tasks(self, prefix: str) -> dict[tuple[str, int], TaskStatus]:
        """The queue."""
        if self.listing_error is not None:
            raise self.listing_error
        return {key: status for key, status in self.queue.items() if key[0].startswith(prefix)}

    def submit(self, arguments: Sequence[str], script: Path) -> str:
        """Queue all tasks of an array."""
        refusal = self.refusals.pop(0) if self.refusals else None
        if refusal is not None:
            raise refusal
        name, last = script.parent.name, int(next(a for a in arguments if a.startswith("--array"))[10:])
        self.submitted.append(name)
        self.excluded += [each for each in arguments if each.startswith("--exclude")]
        array_id = str(len(self.submitted))
        for index in range(last + 1):
            self.queue[name, index] = TaskStatus(name, array_id, index, self.state, "", os.getuid(), "")
        if self.lose_answer:
            self.lose_answer = False
            raise Unreachable("sbatch failed: Socket timed out")
        return array_id

    def describe(self, task_id: str) -> dict[str, str]:
        """Return the same end for every task."""
        return self.ends

    def cancel(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Remove tasks from the queue."""
        for array_id, index in tasks:
            self.cancelled.append((array_id, index))
            self.queue = {
                key: status
                for key, status in self.queue.items()
                if (status.array_id, status.index) != (array_id, index)
            }


def submission(client: Any, store: Store) -> ArraySubmission:
    """A new submission to such a Slurm."""
    return ArraySubmission(ArrayJobFolder(store), client, PREFIX, Machine(device="cpu"), BackendOptions())


def watched(client: Any, store: Store, packs: list[Pack]) -> tuple[ArrayWatch, list[WatchedTask]]:
    """A watch over newly submitted packs."""
    tasks = submission(client, store).submit(packs, {}) or []

    def again(those: Sequence[Pack], excluded: Collection[str]) -> Sequence[WatchedTask]:
        return submission(client, store).submit_again(those, excluded)

    return ArrayWatch(client, store, PREFIX, tasks, again), tasks


def stopped_by(number: signal.Signals) -> Callable[..., Any]:
    """Return a stand-in for the local backend of a task, which a signal stops before a loop is finished."""

    class StoppedBackend:
        def __init__(self, *_: object) -> None:
            pass

        def launch(self, jobs: Sequence[Any]) -> Iterator[WorkerEvent]:
            """Send the signal to this process."""
            os.kill(os.getpid(), number)
            while True:
                yield WorkerEvent("tick", jobs[0].pack)

    return StoppedBackend
