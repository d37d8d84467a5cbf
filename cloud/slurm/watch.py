"""Watching array tasks to their end: events from their files, deaths from the queue, retries."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from typing import Final

from cloud.aws.errors import Unreachable
from cloud.retry import MAX_OUTAGE_SECONDS, OutageTimer
from cloud.slurm.client import SlurmClient, TaskStatus, describe_end
from cloud.slurm.watched_task import PENDING, WatchedTask, shown_facts
from psa.core.errors import UserError
from psa.core.formatting import pluralize
from psa.execution.worker.pool import DEATHS_ALLOWED
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store

EVENT_POLL_SECONDS: Final = 0.25
# Event files read between two pauses: at most 400 a second, since each is an exchange with a file server.
READS_PER_POLL: Final = 100
# Between two calls of squeue: a twentieth of the time watched so far, within these limits.
FIRST_QUEUE_SECONDS: Final = 1.0
LAST_QUEUE_SECONDS: Final = 15.0
RESUBMIT_SECONDS: Final = 60.0  # between two submissions of tasks that Slurm has refused
UNUSABLE_ALLOWED: Final = 3  # tasks that cannot train while none has trained, before the sweep gives up
_RUNS: Final = frozenset({"RUNNING", "COMPLETING"})

# Submits packs whose tasks have ended, on any nodes but these, and returns the new tasks.
Resubmit = Callable[[Sequence[Pack], Collection[str]], Sequence[WatchedTask]]


class ArrayWatch:
    """The watch over the tasks of a sweep."""

    def __init__(
        self,
        client: SlurmClient,
        store: Store,
        prefix: str,
        tasks: Sequence[WatchedTask],
        resubmit: Resubmit,
    ) -> None:
        self.client, self.store, self.prefix, self.tasks = client, store, prefix, list(tasks)
        self.resubmit = resubmit
        self.outage = OutageTimer("array tasks")
        self.running = 0
        self._turns = deque(self.tasks)  # in the order in which their events are read
        self._held: set[str] = set()
        self._unusable: set[WatchedTask] = set()
        self._unusable_nodes: set[str] = set()
        self._any_trained = False
        self._to_submit: list[WatchedTask] = []  # ended without a result, and to be submitted again
        self._submit_after = 0.0
        self._refused_since: float | None = None

    def events(self) -> Generator[WorkerEvent, None, None]:
        """Yield the events of all packs to their end, a tick several times a second. Raises UserError."""
        begun = asked = time.monotonic()
        tick = WorkerEvent("tick", self.tasks[0].pack)
        while not all(task.over for task in self.tasks):
            for task in self._next_to_read():
                yield from self._read(task)
            now = time.monotonic()
            pause = min(LAST_QUEUE_SECONDS, max(FIRST_QUEUE_SECONDS, (now - begun) / 20))
            if now - asked > pause:
                asked = now
                yield from self._look_at_queue()
            yield tick
            time.sleep(EVENT_POLL_SECONDS)

    def _next_to_read(self) -> Iterator[WatchedTask]:
        """Yield the tasks whose events are read next: not too many, each in its turn, no pending ones."""
        count = 0
        for _ in range(len(self._turns)):
            task = self._turns[0]
            self._turns.rotate(-1)
            if task.may_have_events:
                yield task
                count += 1
                if count == READS_PER_POLL:
                    return

    def _read(self, task: WatchedTask) -> Iterator[WorkerEvent]:
        task.lease_view.count_read()
        for event in task.read():
            kind = event.pop("event")
            if kind == "unusable":  # its end follows in the queue
                self._record_unusable(task, UserError(event["what"], event["way_out"]), event.get("node", ""))
                continue
            if kind == "begun":
                if task.begun:
                    yield WorkerEvent("died", task.pack, {"error": _requeued(task)})
                task.begin(self.store, event["left"])
            if kind == "loop":
                task.check_leases(self.store, event)
            if kind == "stopped":
                task.begun = False
                kind = "died"
            task.over = kind in ("done", "failed")
            self._any_trained = self._any_trained or kind in ("loop", "done")
            yield WorkerEvent(kind, task.pack, shown_facts(kind, event))
            if task.over:
                return

    def _record_unusable(self, task: WatchedTask, error: UserError, node: str) -> None:
        """Record a task that could not train on its node. Raise its error if no task could on any node."""
        task.begun, task.unusable = False, str(error)
        self._unusable.add(task)
        self._unusable_nodes |= {node} - {""}
        some_train = self._any_trained or any(each.trains for each in self.tasks)
        if len(self._unusable) >= UNUSABLE_ALLOWED and not some_train:
            raise error

    def _look_at_queue(self) -> Iterator[WorkerEvent]:
        try:
            queue = self.client.list_tasks(self.prefix)
        except Unreachable as trouble:
            self.outage.record_failure(trouble)
            return
        self.outage.record_success()
        gone = []
        for task in self.queued():
            status = queue.get(task.key)
            if status is not None:
                yield from self._update(task, status)
                continue
            task.missing += 1
            if task.missing > 1:  # its last events are on the shared folder by now
                gone.append(task)
        for task in gone:
            yield from self._read(task)
            if not task.over:
                yield from self._ended(task)
        if self._to_submit and time.monotonic() >= self._submit_after:
            yield from self._submit_again()
        running = sum(status.state in _RUNS for status in queue.values())
        if running and running != self.running:
            yield WorkerEvent("ready", self.tasks[0].pack, {"workers": running})
        self.running = running

    def queued(self) -> list[WatchedTask]:
        """Return the tasks that are in the queue, or were at the last look."""
        waiting = set(self._to_submit)
        return [task for task in self.tasks if not task.over and task not in waiting]

    def _update(self, task: WatchedTask, status: TaskStatus) -> Iterator[WorkerEvent]:
        task.missing = 0
        was_running, task.state = task.state in _RUNS, status.state
        if was_running and task.state == PENDING:
            yield from self._read(task)  # it may have reported its end or its stop
            if task.trains:
                task.begun = False
                yield WorkerEvent("died", task.pack, {"error": _requeued(task)})
        reason = status.reason.strip("()")
        if "held" in reason.lower() and reason != "None" and status.task_id not in self._held:
            self._held.add(status.task_id)
            message = f"job {status.task_id} is held by Slurm ({reason}): release it with `scontrol release`"
            yield WorkerEvent("message", task.pack, {"message": message})

    def _ended(self, task: WatchedTask) -> Iterator[WorkerEvent]:
        """Report a task that has left the queue without its last event, and note it for a retry."""
        pending = self.store.progress(task.pack.trials, task.pack.horizon).pending
        if not pending:  # another sweep has removed its files
            task.over = True
            done = {"trained": len(task.pack.trials), "elsewhere": 0, "failed": {}}
            yield WorkerEvent("done", task.pack, done)
            return
        facts = self.client.describe(task.task_id)
        state = facts.get("JobState", "")
        detail = task.unusable or task.array.last_output(task.index)
        error = f"job {task.task_id} {describe_end(facts)}" + (f": {detail}" if detail else "")
        if not state.startswith("PREEMPTED"):
            task.deaths += 1
        if state.startswith("CANCELLED") or task.deaths >= DEATHS_ALLOWED:
            task.over = True
            yield WorkerEvent("failed", task.pack, {"error": error})
            return
        self._to_submit.append(task)
        yield WorkerEvent("died", task.pack, {"error": error})

    def _submit_again(self) -> Iterator[WorkerEvent]:
        tasks = self._to_submit
        try:
            new = self.resubmit([task.pack for task in tasks], sorted(self._unusable_nodes))
        except UserError as error:  # also Locked, and Unreachable although squeue has just answered
            yield from self._refused(error)
            return
        self._to_submit, self._refused_since = [], None
        for task, other in zip(tasks, new, strict=True):
            task.move_to(other)
        yield WorkerEvent("tick", tasks[0].pack)

    def _refused(self, error: UserError) -> Iterator[WorkerEvent]:
        """Try again later: limits of submissions and drained partitions pass. The other tasks continue.

        The packs fail once nothing else is left to watch and submissions were refused for half an hour.
        """
        now, tasks = time.monotonic(), self._to_submit
        self._submit_after = now + RESUBMIT_SECONDS
        self._unusable_nodes.clear()  # the rest of the nodes may be what is refused
        if self._refused_since is None:
            self._refused_since = now
            count = pluralize(len(tasks), "task")
            message = f"{error.message}; {count} to be submitted again later, the other tasks continue"
            yield WorkerEvent("message", tasks[0].pack, {"message": message})
        if self.queued() or now - self._refused_since < MAX_OUTAGE_SECONDS:
            return
        self._to_submit = []
        for task in tasks:
            task.over = True
            yield WorkerEvent("failed", task.pack, {"error": f"not submitted again: {error}"})


def _requeued(task: WatchedTask) -> str:
    return f"Slurm has put job {task.task_id} back into the queue (its node failed, or it was preempted)"
