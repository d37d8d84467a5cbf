"""The sides that `make bench` compares: their processes, the sizes they try, and the load of other work."""

from __future__ import annotations

import json
import math
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of

HERE = Path(__file__).parent
CORES = os.cpu_count() or 1
MODES = 6
PARAMETERS = 150_000_000  # most of all processes of a side together: four float32 each take 2.4 GB
STARTING = 180  # seconds that a process may take to load torch or JAX and the data


class SideError(Exception):
    """A side cannot measure; the message stands in its cell."""


class Watch:
    """The load of other processes from now on. They slow down synchronized threads far more than single ones,
    so a comparison under load would flatter psa.
    """

    def __init__(self, own: list[int]) -> None:
        self.own, self.begun = own, time.monotonic()
        self.before = self._busy() - self._own()

    def others(self) -> float:
        """Return their share of all cores; 0 if the system does not report it."""
        ticks = os.sysconf("SC_CLK_TCK") * CORES * (time.monotonic() - self.begun)
        return (self._busy() - self._own() - self.before) / ticks

    @staticmethod
    def _busy() -> int:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return 0
        idle = int(fields[3]) + int(fields[4])
        return sum(map(int, fields[:8])) - idle

    def _own(self) -> int:
        try:
            stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.own]
        except OSError:
            return 0
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)


class Processes:
    """Processes of one script. A dead one, or one past its limit, is replaced at the next task."""

    def __init__(
        self, script: str, data_dir: Path, count: int, threads: int, *, pinned: bool = False
    ) -> None:
        self.script, self.data_dir, self.count = script, data_dir, count
        self.threads, self.pinned = threads, pinned
        self.alive: list[subprocess.Popen[str]] = []
        self.hello: dict[str, Any] = {}

    @property
    def pids(self) -> list[int]:
        """The running processes."""
        return [process.pid for process in self.alive]

    def start(self) -> None:
        """Start what is not running. Raises SideError if it ends before it is ready."""
        if self.alive:
            return
        if "error" in self.hello:
            raise SideError(self.hello["error"])
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "PYTHONPATH": str(HERE.parent)}
        self.alive = [
            subprocess.Popen(
                [sys.executable, str(HERE / self.script), str(self.data_dir), *[str(number)] * self.pinned],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for number in range(self.count)
        ]
        self.hello = self._lines(self.alive, STARTING)[0]
        if "error" in self.hello:  # for every architecture, as when a library is missing
            self.close()
            raise SideError(self.hello["error"])

    def ask(self, task: dict[str, Any], limit: float, first: int | None = None) -> list[dict[str, Any]]:
        """Run a task on all of them (or the first ones) at once, so that they compete as in a sweep."""
        self.start()
        asked = self.alive[:first]
        for process in asked:
            try:
                process.stdin.write(json.dumps(task) + "\n")  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
            except OSError:
                self.close()
                raise SideError("a process has ended") from None
        answers = self._lines(asked, limit)
        for answer in answers:
            if "error" in answer:
                raise SideError(answer["error"])
        return answers

    def _lines(self, asked: list[subprocess.Popen[str]], limit: float) -> list[dict[str, Any]]:
        until = time.monotonic() + limit
        answers = []
        for process in asked:
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            line = process.stdout.readline() if ready else ""  # type: ignore[union-attr]
            if not line:
                self.close()
                raise SideError("a process has ended" if ready else f"over {limit:.0f} s")
            answers.append(json.loads(line))
        return answers

    def close(self) -> None:
        """End the processes."""
        for process in self.alive:
            process.kill()
            process.communicate()
        self.alive = []


@dataclass
class Arrangement:
    """A way to use the cores: the processes, how many of them work, their threads, the stack sizes to try."""

    label: str
    processes: Processes
    workers: int
    threads: int
    seeds: tuple[int, ...] = (1,)


@dataclass
class Side:
    """An alternative to psa. `prepare` finds its best arrangement and size for an architecture."""

    name: str
    arrangements: list[Arrangement]
    stacked: bool = True
    limit: float = 60
    compiling: float = 0.0  # seconds of the chosen size, not counted
    chosen: tuple[Arrangement, int] | None = field(default=None, init=False)

    @property
    def pids(self) -> list[int]:
        """The running processes of all arrangements."""
        return [pid for one in self.arrangements for pid in one.processes.pids]

    @property
    def note(self) -> str:
        """The chosen size and arrangement."""
        if self.chosen is None:
            return ""
        arrangement, seeds = self.chosen
        return f"{seeds} x {MODES}, {arrangement.label}" if self.stacked else arrangement.label

    def prepare(self, family: str, arch: str, seconds: float) -> None:
        """Choose the fastest arrangement and size. Raises SideError if none of them works."""
        self.chosen = None
        least, problem, left = math.inf, "", self.limit
        for chosen in self._candidates(family, arch):
            begun = time.monotonic()
            try:
                chosen[0].processes.start()
                begun = time.monotonic()  # starting is not counted, as it happens once
                epoch, compiling = self._ask("try", family, arch, seconds / 3, chosen, left)
            except SideError as error:
                problem, epoch, compiling = str(error), math.inf, 0.0
            if epoch < least:
                least, self.compiling, self.chosen = epoch, compiling, chosen
            taken = time.monotonic() - begun
            left -= taken
            # a try that is cut off costs a new start, and a larger stack takes longer than this one
            if left < taken:
                break
        if self.chosen is None:
            raise SideError(problem)

    def _candidates(self, family: str, arch: str) -> Iterator[tuple[Arrangement, int]]:
        """Yield the arrangements and numbers of seeds that fit into memory; one seed is always tried."""
        for arrangement in self.arrangements:
            for seeds in arrangement.seeds:
                stacked = parameters(family, arch) * seeds * MODES * arrangement.workers
                if seeds == 1 or stacked <= PARAMETERS:
                    yield arrangement, seeds

    def measure(self, family: str, arch: str, seconds: float) -> float:
        """Return the seconds per trial-epoch of the chosen arrangement, evaluation included."""
        if self.chosen is None:
            raise SideError("not prepared")
        return self._ask("measure", family, arch, seconds, self.chosen, self.limit)[0]

    def _ask(
        self,
        kind: str,
        family: str,
        arch: str,
        seconds: float,
        chosen: tuple[Arrangement, int],
        limit: float,
    ) -> tuple[float, float]:
        arrangement, seeds = chosen
        task = {
            "task": kind, "family": family, "arch": arch, "seconds": seconds,
            "size": [seeds, MODES], "threads": arrangement.threads,
        }  # fmt: skip
        answers = arrangement.processes.ask(task, limit, arrangement.workers)
        return rate(answers), max(answer.get("compile", 0.0) for answer in answers)

    def close(self) -> None:
        """End the processes of all arrangements."""
        for arrangement in self.arrangements:
            arrangement.processes.close()


def rate(answers: list[dict[str, Any]]) -> float:
    """Return the seconds per trial-epoch of processes that work side by side, each at its own pace."""
    return 1 / sum(1 / max(answer["epoch"], 1e-12) for answer in answers)


def parameters(family: str, arch: str) -> int:
    """Return the number of parameters of a published network."""
    return shape_of(PublishedModelSpec(family=family, arch=Arch.coerce(arch))).parameters


def alternatives(data_dir: Path, limit: float) -> list[Side]:
    """Return the alternatives, not yet started."""
    hand = Processes("handwritten.py", data_dir, 1, CORES)
    vmapped = Processes("vmapped.py", data_dir, CORES, 1)
    alone = Processes("jaxed.py", data_dir, 1, CORES)
    pinned = Processes("jaxed.py", data_dir, CORES, 1, pinned=True)
    # an ensemble on all cores differs from one per core in its threads alone; JAX takes its at the start
    return [
        Side("hand", [Arrangement("one process", hand, 1, CORES)], stacked=False, limit=limit),
        Side("vmap", [
            Arrangement("one per core", vmapped, CORES, 1, (1, 5)),
            Arrangement("one process", vmapped, 1, CORES, (1, 10)),
        ], limit=limit),
        Side("jax", [
            Arrangement("one process", alone, 1, CORES, (1, 10)),
            Arrangement("one per core", pinned, CORES, 1, (1, 5)),
        ], limit=limit),
    ]  # fmt: skip
