"""A pool of worker processes on a queue of packs: one worker per core, or per share of a GPU.

A worker that died is replaced, and its pack is retried from what it had saved. concurrent.futures and loky
give up a pool with one broken process; here workers also have an environment each (their GPU), report events
while they train, and end with the parent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psa
from psa.core.errors import UserError
from psa.core.stop import held_back
from psa.execution.devices import DeviceSlot
from psa.execution.machine import Machine
from psa.execution.worker.protocol import EXIT_INTERRUPTED, WorkerEvent, parse_event
from psa.specs.trial import Pack

logger = logging.getLogger(__name__)

DEATHS_ALLOWED: Final = 3  # of workers over one pack, before it counts as failed
STOP_SECONDS: Final = 30.0
RESTART_SECONDS: Final = 2.0  # a signal to every process of a job reaches the parent by then, too
TICK_SECONDS: Final = 0.2  # a stop is noticed no later

# Imports psa from the file it is given, so that a worker runs the code of its parent however that was found:
# installed, by PYTHONPATH, or from the current folder. sys.path stays as it is.
_ENTRY: Final = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("psa", sys.argv.pop(1))
sys.modules["psa"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["psa"])
from psa.execution.worker.start import main
sys.exit(main())
"""


@dataclass
class Task:
    """A pack, the line that is sent to its worker, and the number of workers that died while training it."""

    pack: Pack
    line: str
    deaths: int = 0


class _Worker:
    """A worker process and its current task."""

    def __init__(self, machine: Machine, place: DeviceSlot) -> None:
        # -P: a file called queue.py or torch.py in the user's folder is not imported in place of the real one
        command = [sys.executable, "-P", "-c", _ENTRY, str(Path(str(psa.__file__)).absolute())]
        command += ["--serve", "--data-dir", str(machine.data_dir), "--threads", str(machine.threads)]
        if machine.device is not None:
            command += ["--device", machine.device]
        threads = {"OMP_NUM_THREADS": str(machine.threads), "MKL_NUM_THREADS": str(machine.threads)}
        # A session of its own: Ctrl-C in the terminal reaches the parent alone, which then ends its input.
        with held_back():
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
                env={**os.environ, **threads, **dict(place.environment if place else ())},
            )
        self.place = place
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        self.input, self.output = self.process.stdin, self.process.stdout
        os.set_blocking(self.input.fileno(), False)
        self.task: Task | None = None
        self.rest = self.unsent = b""

    def give(self, task: Task) -> None:
        """Give the worker a task, and send as much of it as its pipe takes."""
        self.task, self.unsent = task, task.line.encode() + b"\n"
        self.send()

    def send(self) -> None:
        """Send as much of the task as the pipe takes now. A worker reads only once it has imported torch."""
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                try:
                    sent = os.write(self.input.fileno(), self.unsent)
                except BrokenPipeError:  # it has died, which reading its output will show
                    sent = len(self.unsent)
                self.unsent = self.unsent[sent:]

    def read(self) -> list[dict[str, Any]] | None:
        """Return the events that have arrived; None if the process has ended."""
        chunk = os.read(self.output.fileno(), 1 << 16)
        if not chunk:
            return None
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        return [event for line in lines if (event := parse_event(line)) is not None]

    def dismiss(self) -> None:
        """Close the worker's input: it saves its task, exits, and its output ends."""
        with contextlib.suppress(OSError):
            self.input.close()

    def end(self, patience: float = STOP_SECONDS) -> None:
        """Dismiss the worker and wait; kill it if it has not exited after `patience` seconds."""
        self.dismiss()
        wait_or_kill(self.process, patience)
        self.output.close()


def wait_or_kill(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a process that was asked to exit; kill it after `patience` seconds."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def how_ended(code: int) -> str:
    """Describe the end of a process by its exit code, which is -N after signal N."""
    cause = " (killed, most often for lack of memory)" if code == -signal.SIGKILL else ""
    return f"ended with code {code}{cause}"


class WorkerPool:
    """A pool of workers on a queue of tasks, one worker per slot. `patience`: seconds to save and exit."""

    def __init__(
        self, machine: Machine, places: Sequence[DeviceSlot], patience: float = STOP_SECONDS
    ) -> None:
        self.machine, self.places, self.patience = machine, places, patience
        self.waiting: deque[Task] = deque()
        self.workers: list[_Worker] = []
        self.stopped: list[tuple[float, DeviceSlot, Task]] = []  # by a signal: time of replacement
        self.ready = selectors.DefaultSelector()

    def run(self, tasks: Sequence[Task]) -> Generator[WorkerEvent, None, None]:
        """Yield events until all tasks are done or failed. Closing the generator stops the workers."""
        self.waiting.extend(tasks)
        with self.ready, self._ending():
            for place in self.places:
                self._start(place)
            while self.workers or self.stopped:
                yield from self._replaced()
                for key, events in self.ready.select(timeout=TICK_SECONDS):
                    if events & selectors.EVENT_WRITE:
                        self._send(key.data)
                    else:
                        yield from self._read(key.data)
                yield WorkerEvent("tick", tasks[0].pack)

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """Ask all workers to exit at the end of the block, and then wait for them: they save in parallel."""
        try:
            yield
        finally:
            until = time.monotonic() + self.patience
            for worker in self.workers:
                worker.dismiss()
            for worker in self.workers:
                worker.end(max(0.0, until - time.monotonic()))

    def _start(self, place: DeviceSlot) -> None:
        worker = _Worker(self.machine, place)
        self.workers.append(worker)
        self.ready.register(worker.output, selectors.EVENT_READ, worker)
        if self.waiting:
            self._give(worker)

    def _give(self, worker: _Worker) -> None:
        worker.give(self.waiting.popleft())
        if worker.unsent:
            self.ready.register(worker.input, selectors.EVENT_WRITE, worker)

    def _send(self, worker: _Worker) -> None:
        if worker.unsent:
            worker.send()
            if not worker.unsent:
                self.ready.unregister(worker.input)

    def _replaced(self) -> Iterator[WorkerEvent]:
        """Start workers in place of those that a signal has stopped, unless this sweep is stopped as well."""
        due = [entry for entry in self.stopped if entry[0] <= time.monotonic()]
        self.stopped = [entry for entry in self.stopped if entry not in due]
        for _, place, task in due:
            self.waiting.appendleft(task)
            yield WorkerEvent("died", task.pack, {"error": "a worker was stopped by a signal and has saved"})
            self._start(place)

    def _read(self, worker: _Worker) -> Iterator[WorkerEvent]:
        events = worker.read()
        if events is None:
            yield from self._ended(worker)
            return
        for event in events:
            yield from self._heard(worker, event)
            if worker.task is None:
                self._idle(worker)

    def _heard(self, worker: _Worker, event: dict[str, Any]) -> Iterator[WorkerEvent]:
        kind = event.pop("event")
        if kind == "unusable":  # no worker will be usable: an error of the user, not a failure of the pack
            raise UserError(event["what"], event["way_out"])
        if kind == "ready" or worker.task is None:
            return
        task = worker.task
        if kind not in ("begun", "loop"):
            worker.task = None
        yield WorkerEvent(kind, task.pack, event)

    def _idle(self, worker: _Worker) -> None:
        if self.waiting:
            self._give(worker)
        else:
            worker.dismiss()

    def _ended(self, worker: _Worker) -> Iterator[WorkerEvent]:
        self.ready.unregister(worker.output)
        if worker.unsent:
            self.ready.unregister(worker.input)
            worker.unsent = b""
        self.workers.remove(worker)
        worker.end()
        task = worker.task
        if task is None:
            return
        if worker.process.returncode == EXIT_INTERRUPTED:  # it saved and exited on request: no death
            self.stopped.append((time.monotonic() + RESTART_SECONDS, worker.place, task))
            return
        task.deaths += 1
        reason = f"a worker {how_ended(worker.process.returncode)}"
        if task.deaths < DEATHS_ALLOWED:
            self.waiting.appendleft(task)
            yield WorkerEvent("died", task.pack, {"error": reason})
        else:
            yield WorkerEvent("failed", task.pack, {"error": f"{reason}, {task.deaths} times over this pack"})
        if self.waiting:
            self._start(worker.place)
