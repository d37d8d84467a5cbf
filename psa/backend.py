"""Where packs run: the protocol of a backend (plan, launch, fetch), and this machine's.

`Local` keeps one worker process per core, hands each the longest pack that is left, and starts a new one
where one has died; the pack it held is given out again and goes on from what it had saved.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from psa.cost import CostModel
from psa.machine import Machine
from psa.store import Store
from psa.trial import Pack, canonical_json

DEATHS_ALLOWED: Final = 3  # of workers over one pack, before it counts as failed
STOP_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Job:
    """What one process is asked to do, and how long that should take."""

    pack: Pack
    seconds: float


@dataclass(frozen=True)
class Event:
    """Something a worker said. kind: loop, done, failed or died."""

    kind: str
    pack: Pack
    facts: dict[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Three verbs, lists in and lists out."""

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """What would be launched. Pure."""

    def launch(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run the jobs; what happens, as it happens."""

    def fetch(self) -> None:
        """Bring states and records home."""


class Local:
    """This machine: `workers` processes of one thread each."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, workers: int) -> None:
        self.store, self.machine, self.costs, self.workers = store, machine, costs, workers

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """One job per pack, the longest first."""
        jobs = [Job(pack, pack.horizon * self.costs.loop_seconds(pack.trials)) for pack in packs]
        return sorted(jobs, key=lambda job: -job.seconds)

    def launch(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run the jobs to their end; a tick (kind "tick") comes at least once a second."""
        tasks = [_Task(job.pack, self._task("train", job.pack)) for job in jobs]
        yield from _Crew(self.machine, min(self.workers, len(tasks))).work(tasks)

    def calibrate(self, groups: Sequence[Pack], progress: Callable[[int], None]) -> None:
        """Measure step times of packs like these; a group that fails is left to the estimate."""
        from psa.cost import Kind

        tasks = [_Task(pack, self._task("calibrate", pack)) for pack in groups]
        left = len(tasks)
        for event in _Crew(self.machine, min(self.workers, left)).work(tasks):
            if event.kind == "calibrated":
                steps = {int(size): seconds for size, seconds in event.facts["steps"].items()}
                self.costs.learn(Kind.of(event.pack.trials[0]), steps)
            if event.kind in ("calibrated", "failed"):
                left -= 1
                progress(left)

    def fetch(self) -> None:
        """Nothing: everything is here already."""

    def _task(self, task: str, pack: Pack) -> str:
        return canonical_json(
            {
                "task": task,
                "models": str(self.store.models),
                "results": str(self.store.results),
                "pack": pack.model_dump(mode="json"),
            }
        )


@dataclass
class _Task:
    pack: Pack
    line: str
    deaths: int = 0


class _Worker:
    """One process, and the task it has in hand."""

    def __init__(self, machine: Machine) -> None:
        # -P: a file called queue.py or torch.py in the user's folder is not imported in place of the real one
        command = [sys.executable, "-P", "-m", "psa.worker", "--serve", "--data-dir", str(machine.data_dir)]
        command += ["--threads", str(machine.threads)]
        if machine.device is not None:
            command += ["--device", machine.device]
        threads = {"OMP_NUM_THREADS": str(machine.threads), "MKL_NUM_THREADS": str(machine.threads)}
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends its input.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, **threads},
        )
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        self.input, self.output = self.process.stdin, self.process.stdout
        self.task: _Task | None = None
        self.rest = b""

    def give(self, task: _Task) -> None:
        """Hand it a task."""
        self.task = task
        with contextlib.suppress(BrokenPipeError):  # it has died; reading its output will say so
            self.input.write(task.line.encode() + b"\n")
            self.input.flush()

    def read(self) -> list[dict[str, Any]] | None:
        """The events that have come in; None when the process has ended."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def dismiss(self) -> None:
        """End its input: it saves what it has in hand, leaves, and its output ends."""
        with contextlib.suppress(OSError):
            self.input.close()

    def end(self) -> None:
        """Dismiss it and wait; it is killed if it does not leave."""
        self.dismiss()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()


class _Crew:
    """Some workers on a queue of tasks."""

    def __init__(self, machine: Machine, size: int) -> None:
        self.machine, self.size = machine, size

    def work(self, tasks: Sequence[_Task]) -> Iterator[Event]:
        """Events until all tasks are done or failed. Closing the iterator stops the workers, who save."""
        waiting = deque(tasks)
        with selectors.DefaultSelector() as ready, contextlib.ExitStack() as ends:
            for _ in range(self.size):
                self._start(waiting, ready, ends)
            while ready.get_map():
                for key, _ in ready.select(timeout=1.0):
                    worker: _Worker = key.data
                    events = worker.read()
                    if events is None:
                        yield from self._ended(worker, waiting, ready, ends)
                        continue
                    for event in events:
                        yield from self._heard(worker, event, waiting)
                        if worker.task is None:
                            self._idle(worker, waiting)
                yield Event("tick", tasks[0].pack)

    def _start(
        self, waiting: deque[_Task], ready: selectors.BaseSelector, ends: contextlib.ExitStack
    ) -> None:
        worker = _Worker(self.machine)
        ends.callback(worker.end)
        ready.register(worker.output, selectors.EVENT_READ, worker)
        if waiting:
            worker.give(waiting.popleft())

    def _heard(self, worker: _Worker, event: dict[str, Any], waiting: deque[_Task]) -> Iterator[Event]:
        kind = event.pop("event")
        if kind == "ready" or worker.task is None:
            return
        task = worker.task
        if kind != "loop":
            worker.task = None
        yield Event(kind, task.pack, event)

    def _idle(self, worker: _Worker, waiting: deque[_Task]) -> None:
        if waiting:
            worker.give(waiting.popleft())
        else:
            worker.dismiss()

    def _ended(
        self,
        worker: _Worker,
        waiting: deque[_Task],
        ready: selectors.BaseSelector,
        ends: contextlib.ExitStack,
    ) -> Iterator[Event]:
        ready.unregister(worker.output)
        worker.end()
        task = worker.task
        if task is None:
            return
        task.deaths += 1
        reason = f"a worker ended with code {worker.process.returncode}"
        if task.deaths < DEATHS_ALLOWED:
            waiting.appendleft(task)
            yield Event("died", task.pack, {"error": reason})
        else:
            yield Event("failed", task.pack, {"error": f"{reason}, {task.deaths} times over this pack"})
        if waiting:
            self._start(waiting, ready, ends)
