"""The driver process of Ray Tune (cloud.ray.driver) as the sweep sees it: send a task, read events, stop."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cloud.cache import private_temp_folder
from cloud.ray.driver_log import DriverLog
from psa.core.errors import RunFailure, UserError, one_line
from psa.core.stop import held_back
from psa.execution.worker.pool import STOP_SECONDS, how_ended, wait_or_kill
from psa.execution.worker.protocol import EXIT_INTERRUPTED, parse_event
from psa.specs.base import canonical_json

# AWS clients resolve a relative path against the working directory of their process.
_FILES_OF_AWS: Final = (
    "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CA_BUNDLE",
)  # fmt: skip
_LONGEST_SOCKET_PATH: Final = {"linux": 107, "darwin": 103}  # bytes
# bytes of "/ray/session_2026-11-28_19-33-29_307970_4194304/sockets/plasma_store", and a few
_OF_SESSION: Final = 72
_SHORT: Final = "/tmp"  # noqa: S108 - where Ray makes a folder of its own, as it does without TMPDIR
_GUARD: Final = re.compile(
    r"running low on memory|due to the node|OutOfMemory|killed .* worker.*policy", re.IGNORECASE
)


def _started(log: Path) -> subprocess.Popen[bytes]:
    """Start a process that imports its modules and waits for a task; it ends with its standard input.

    Ray's output other than events (such as tracebacks of killed processes) goes to a log.
    """
    with log.open("ab") as errors, held_back():
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "cloud.ray.driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,  # a Ctrl-C in the terminal reaches only the parent
            # Ray puts the driver's folder first on the import path of every worker: a numpy.py in the folder
            # where the command is typed would otherwise be imported in place of NumPy.
            cwd=private_temp_folder("psa-empty"),
            env=_environment(),
        )


def _environment() -> dict[str, str]:
    """Return the environment of Ray's processes, which do not import from their own folder."""
    places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    absolute = [str(Path(place).absolute()) for place in places if place]  # an empty one is the folder itself
    path = {"PYTHONPATH": os.pathsep.join(absolute)} if absolute else {}
    for name in _FILES_OF_AWS:
        if os.environ.get(name):
            # Path.expanduser raises if a user has no home folder
            path[name] = str(Path(os.path.expanduser(os.environ[name])).absolute())  # noqa: PTH111
    path |= _folder_of_sockets()
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**inherited, **path, "PYTHONSAFEPATH": "1"}


def _folder_of_sockets() -> dict[str, str]:
    """Return the variables that set the folder of Ray's sockets: the user's choice, or a short one if the
    path of the temporary folder is too long.
    """
    chosen = os.environ.get("RAY_TMPDIR")
    if chosen:
        return {"RAY_TMPDIR": str(Path(chosen).absolute())}
    is_short = len(os.fsencode(tempfile.gettempdir())) <= _longest_folder()
    return {} if is_short or not os.access(_SHORT, os.W_OK) else {"RAY_TMPDIR": _SHORT}


def check_socket_folder() -> None:
    """Raise UserError if the path of the user's folder for Ray is too long for sockets in it."""
    chosen = Path(os.environ.get("RAY_TMPDIR") or os.sep).absolute()
    length, longest = len(os.fsencode(chosen)), _longest_folder()
    if length > longest:
        raise UserError(
            f"RAY_TMPDIR must be at most {longest} bytes long, got {length} ({chosen})",
            "Set it to a folder with a shorter path, or unset it",
        )


def _longest_folder() -> int:
    """Return the maximum length in bytes of the folder in which Ray creates its sockets."""
    return _LONGEST_SOCKET_PATH.get(sys.platform, min(_LONGEST_SOCKET_PATH.values())) - _OF_SESSION


def find_cause(text: str) -> str:
    """Return the line of Ray's output that names a cause, or "" if none does.

    The memory guard's line is followed by pages of advice; in a traceback the last line is the cause.
    """
    lines = [one_line(line) for line in text.splitlines() if line.strip()]
    guard = [line for line in lines if _GUARD.search(line)]
    return (f"Ray's memory guard ended it: {guard[-1]}" if guard else lines[-1] if lines else "")[:300]


class Driver:
    """The process that drives Tune (cloud.ray.driver) for one experiment; it is started at once. Without a
    task it ends with the last reference to it, or with this process.

    models: the folder of states, which also holds the log.
    """

    def __init__(self, models: Path) -> None:
        self.taken = False  # other sweeps are training some of its trials
        self.interrupted = False  # by a signal of its own; everything is stored
        self.log = DriverLog(models)
        self.process = _started(self.log.path)
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("a process was started without its pipes")
        self.input, self.output = self.process.stdin, self.process.stdout
        self._unused = weakref.finalize(self, _discard, self.process, self.log)

    def events(self, task: Mapping[str, Any]) -> Generator[dict[str, Any] | None, None, None]:
        """Send a task and yield the driver's events as they come, and None at least once a second. Closing
        the generator stops Tune.

        Raises UserError if Tune cannot start, and RunFailure if it is killed or fails.
        """
        failed = False
        self._unused.detach()
        try:
            self._give(task)
            for event in self._read_events():
                if event is not None and event["event"] == "unusable":
                    raise UserError(event["what"], event["way_out"])
                self.taken = self.taken or (event is not None and event["event"] == "taken")
                yield event
            code = self.process.wait()
            self.interrupted = code == EXIT_INTERRUPTED
            failed = code != 0 and not self.interrupted
            if failed:
                raise self._failure(code)
        finally:
            self._end(keep_log=failed)

    def _give(self, task: Mapping[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died; its exit code is reported below
            self.input.write(canonical_json(task).encode() + b"\n")
            self.input.flush()

    def _failure(self, code: int) -> RunFailure:
        cause = find_cause(self.log.text())
        return RunFailure(
            f"the process that drives Ray Tune {how_ended(code)}{cause and ': '}{cause}",
            f"Run the same command again to resume. Output of Ray: {self.log.path}",
        )

    def _read_events(self) -> Iterator[dict[str, Any] | None]:
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
                    yield from filter(None, map(parse_event, lines))

    def _end(self, *, keep_log: bool) -> None:
        with contextlib.suppress(OSError):
            self.input.close()
        wait_or_kill(self.process, STOP_SECONDS)
        self.output.close()
        self.log.close(keep=keep_log)


def _discard(process: subprocess.Popen[bytes], log: DriverLog) -> None:
    """Kill a driver that has no task, and remove its log."""
    with process:
        process.kill()
    log.close(keep=False)
