"""Watching array tasks to their end: events from their files, deaths from the queue, retries."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.aws.errors import Unreachable
from cloud.retry import OutageTimer
from cloud.slurm.array_job import ArrayJob
from cloud.slurm.client import SlurmClient, TaskStatus, describe_end
from cloud.slurm.event_log import EventLogReader
from psa.core.errors import UserError
from psa.execution.worker.pool import DEATHS_ALLOWED
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage import locks
from psa.storage.store import Store

EVENT_POLL_SECONDS: Final = 0.25
READS_PER_SECOND: Final = 400.0  # of event files, at most: each is an exchange with a file server
# Between two calls of squeue: a twentieth of the time watched so far, within these limits.
FIRST_QUEUE_SECONDS: Final = 1.0
LAST_QUEUE_SECONDS: Final = 15.0
# What tasks report beside the facts of the contract (psa.execution.backend.Backend.launch).
_OWN_FACTS: Final = defaultdict(
    frozenset[str],
    begun=frozenset({"node", "task"}),
    loop=frozenset({"held"}),
    died=frozenset({"trained"}),
)
_RUNS: Final = frozenset({"RUNNING", "COMPLETING"})
_LOCKS_HINT: Final = (
    "Mount it so that file locks hold between nodes (NFS version 4; Lustre with -o flock, not localflock), "
    "or choose --model-dir on a file system that does"
)


class LeaseView:
    """The comparison of the leases of a task as its node and as this host sees them.

    If leases that the node held are free here, file locks do not hold between hosts. The proof needs no
    clock: an event that was written after the leases were seen as free, and with them held, in one attempt.
    """

    def __init__(self) -> None:
        self._seen_free = False
        self._reads_since = 0

    def restart(self, store: Store, pack: Pack) -> None:
        """Look at the leases after the `begun` of an attempt, which holds them to its end."""
        self._seen_free = bool(locks.unlocked_trials(store, pack.trials))
        self._reads_since = 0

    def count_read(self) -> None:
        """Record that the events of the task are about to be read."""
        self._reads_since += 1

    def contradicts(self, event: Mapping[str, Any]) -> bool:
        """Return whether a `loop` event proves that leases do not hold between the hosts."""
        # the events of the first read may have been written before this host looked
        return self._seen_free and self._reads_since > 1 and event.get("held") is True


@dataclass
class WatchedTask:
    """An array task under watch, and the pack object of its job. array_id: Slurm's id of the array."""

    pack: Pack
    array: ArrayJob
    index: int
    array_id: str
    deaths: int = 0
    over: bool = False
    begun: bool = False
    state: str = ""
    missing: int = 0  # calls of squeue in a row that did not list it
    lease_view: LeaseView = field(default_factory=LeaseView)
    _log: EventLogReader | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The name of the job and the index."""
        return self.array.name, self.index

    @property
    def task_id(self) -> str:
        """The id of the task in Slurm's commands."""
        return f"{self.array_id}_{self.index}"

    @property
    def trains(self) -> bool:
        """True from the start of an attempt until it reports its end or a stop."""
        return self.begun and not self.over

    def read(self) -> list[dict[str, Any]]:
        """Return new events; at first those of the present attempt."""
        if self._log is None:
            self._log = EventLogReader(self.array.events_path(self.index))
            return self._log.read_last_attempt()
        return self._log.read()

    def move_to(self, other: WatchedTask) -> None:
        """Watch the task that trains the pack from now on."""
        self.array, self.index, self.array_id = other.array, other.index, other.array_id
        self.begun, self.state, self.missing, self._log = False, "", 0, None


class ArrayWatch:
    """The watch over the tasks of a sweep. resubmit: submits packs again, and returns their new tasks."""

    def __init__(
        self,
        client: SlurmClient,
        store: Store,
        prefix: str,
        tasks: Sequence[WatchedTask],
        resubmit: Callable[[Sequence[Pack]], Sequence[WatchedTask]],
    ) -> None:
        self.client, self.store, self.prefix, self.tasks = client, store, prefix, list(tasks)
        self.resubmit = resubmit
        self.outage = OutageTimer("array tasks")
        self.running = 0
        self._held: set[str] = set()

    def events(self) -> Generator[WorkerEvent, None, None]:
        """Yield the events of all packs to their end, a tick several times a second. Raises UserError."""
        begun = asked = time.monotonic()
        tick = WorkerEvent("tick", self.tasks[0].pack)
        while open_tasks := [task for task in self.tasks if not task.over]:
            for task in open_tasks:
                yield from self._read(task)
            now = time.monotonic()
            pause = min(LAST_QUEUE_SECONDS, max(FIRST_QUEUE_SECONDS, (now - begun) / 20))
            if now - asked > pause:
                asked = now
                yield from self._look_at_queue([task for task in open_tasks if not task.over])
            yield tick
            time.sleep(max(EVENT_POLL_SECONDS, min(1.0, self.running / READS_PER_SECOND)))

    def _read(self, task: WatchedTask) -> Iterator[WorkerEvent]:
        task.lease_view.count_read()
        for event in task.read():
            kind = event.pop("event")
            if kind == "unusable":
                raise UserError(event["what"], event["way_out"])
            if kind == "begun":
                if task.begun:
                    yield WorkerEvent("died", task.pack, {"error": _requeued(task)})
                task.begun = True
                task.lease_view.restart(self.store, task.pack)
            if kind == "loop" and task.lease_view.contradicts(event):
                raise UserError(
                    f"file locks in {self.store.models} must hold between nodes, but trials that a node "
                    f"trains (job {task.task_id}) are free on this host",
                    _LOCKS_HINT,
                )
            if kind == "stopped":
                task.begun = False
                kind = "died"
            task.over = kind in ("done", "failed")
            facts = {name: value for name, value in event.items() if name not in _OWN_FACTS[kind]}
            yield WorkerEvent(kind, task.pack, facts)
            if task.over:
                return

    def _look_at_queue(self, tasks: Sequence[WatchedTask]) -> Iterator[WorkerEvent]:
        try:
            queue = self.client.list_tasks(self.prefix)
        except Unreachable as trouble:
            self.outage.record_failure(trouble)
            return
        self.outage.record_success()
        gone = []
        for task in tasks:
            status = queue.get(task.key)
            if status is not None:
                yield from self._update(task, status)
                continue
            task.missing += 1
            if task.missing > 1:  # its last events are on the shared folder by now
                gone.append(task)
        retried = []
        for task in gone:
            yield from self._read(task)
            if not task.over:
                retried += yield from self._ended(task)
        if retried:
            yield from self._retry(retried)
        running = sum(status.state in _RUNS for status in queue.values())
        if running and running != self.running:
            yield WorkerEvent("ready", self.tasks[0].pack, {"workers": running})
        self.running = running

    def _update(self, task: WatchedTask, status: TaskStatus) -> Iterator[WorkerEvent]:
        task.missing = 0
        was_running, task.state = task.state in _RUNS, status.state
        if was_running and task.state == "PENDING":
            yield from self._read(task)  # it may have reported its end or its stop
            if task.trains:
                task.begun = False
                yield WorkerEvent("died", task.pack, {"error": _requeued(task)})
        reason = status.reason.strip("()")
        if "held" in reason.lower() and reason != "None" and status.task_id not in self._held:
            self._held.add(status.task_id)
            message = f"job {status.task_id} is held by Slurm ({reason}): release it with `scontrol release`"
            yield WorkerEvent("message", task.pack, {"message": message})

    def _ended(self, task: WatchedTask) -> Generator[WorkerEvent, None, list[WatchedTask]]:
        """Report a task that has left the queue without its last event. Return it if it is to be retried."""
        pending = self.store.progress(task.pack.trials, task.pack.horizon).pending
        if not pending:  # another sweep has removed its files
            task.over = True
            done = {"trained": len(task.pack.trials), "elsewhere": 0, "failed": {}}
            yield WorkerEvent("done", task.pack, done)
            return []
        facts = self.client.describe(task.task_id)
        state = facts.get("JobState", "")
        output = task.array.last_output(task.index)
        error = f"job {task.task_id} {describe_end(facts)}" + (f": {output}" if output else "")
        if not state.startswith("PREEMPTED"):
            task.deaths += 1
        if state.startswith("CANCELLED") or task.deaths >= DEATHS_ALLOWED:
            task.over = True
            yield WorkerEvent("failed", task.pack, {"error": error})
            return []
        yield WorkerEvent("died", task.pack, {"error": error})
        return [task]

    def _retry(self, tasks: Sequence[WatchedTask]) -> Iterator[WorkerEvent]:
        try:
            new = self.resubmit([task.pack for task in tasks])
        except Unreachable as trouble:  # they are missing from the queue at the next call, too
            self.outage.record_failure(trouble)
            return
        for task, other in zip(tasks, new, strict=True):
            task.move_to(other)
        yield WorkerEvent("tick", tasks[0].pack)


def _requeued(task: WatchedTask) -> str:
    return f"Slurm has put job {task.task_id} back into the queue (its node failed, or it was preempted)"
