"""The process that drives Ray Tune (cloud.ray_driver), seen from the sweep: a task in, events out, a stop."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cloud.cache import own_folder
from psa.crew import STOP_SECONDS, wait_or_kill
from psa.errors import UserError, one_line
from psa.events import EXIT_INTERRUPTED, event_of
from psa.signals import held_back
from psa.specs import canonical_json


def started(log: Path) -> subprocess.Popen[bytes]:
    """One that imports what it needs and waits for its task; it ends with its standard input.

    What Ray has to say beyond the events (tracebacks of processes that were killed) goes to a log.
    """
    with log.open("ab") as errors, held_back():
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cloud.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # Ctrl-C in the terminal reaches the parent alone
            # Ray puts the driver's folder first on the path of every worker: a numpy.py in the folder where
            # the command is typed would be imported there in place of NumPy
            cwd=own_folder("psa-empty"),
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    """Return the environment of Ray's processes: none of them imports from the folder it runs in."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [str(Path(place).absolute()) for place in places if place]  # an empty one is the folder itself
    path = {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **path, "PYTHONSAFEPATH": "1"}


def cause_in(text: str) -> str:
    """Return the line of Ray's words that names a cause, "" where there is none.

    That of the memory guard is followed by pages of advice; of a traceback the last line is the cause.
    """
    lines = [one_line(line) for line in text.splitlines() if line.strip()]
    guard = [line for line in lines if _GUARD.search(line)]
    return (f"Ray's memory guard ended it: {guard[-1]}" if guard else lines[-1] if lines else "")[:300]


_GUARD: Final = re.compile(
    r"running low on memory|due to the node|OutOfMemory|killed .* worker.*policy", re.IGNORECASE
)


class Driver:
    """The process that drives Tune (cloud.ray_driver) for one experiment."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, task: Mapping[str, Any]) -> None:
        self.log = log
        self.taken = False  # others have some of it in hand
        self.interrupted = False  # by a signal of its own; all is stored
        self.process = process
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        self.input, self.output = self.process.stdin, self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has died; its exit code will say so
            self.input.write(canonical_json(task).encode() + b"\n")
            self.input.flush()

    def events(self) -> Generator[dict[str, Any] | None, None, None]:
        """What it says, as it comes; None at least once a second. Closing it stops Tune.

        Raises UserError where Tune cannot begin, or is killed.
        """
        try:
            for said in self._said():
                if said is not None and said["event"] == "unusable":
                    raise UserError(said["what"], said["way_out"])
                self.taken = self.taken or (said is not None and said["event"] == "taken")
                yield said
            code = self.process.wait()
            self.interrupted = code == EXIT_INTERRUPTED
            if code != 0 and not self.interrupted:
                cause = cause_in(self._log_text())
                raise UserError(
                    f"the process that drives Ray Tune ended with code {code}{cause and ': '}{cause}",
                    f"Run the same command again: it goes on from what is stored. What Ray said: {self.log}",
                )
        finally:
            self._end()

    def _log_text(self) -> str:
        """Return the log, "" where it has gone: the exit code alone is then told."""
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")
        return ""

    def _said(self) -> Iterator[dict[str, Any] | None]:
        rest = b""
        with selectors.DefaultSelector() as ready:
            ready.register(self.output, selectors.EVENT_READ)
            while True:
                yield None
                if ready.select(timeout=1.0):
                    chunk = os.read(self.output.fileno(), 1 << 16)
                    if not chunk:
                        return
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from filter(None, map(event_of, lines))

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self.input.close()
        wait_or_kill(self.process, STOP_SECONDS)
        self.output.close()
