"""`psa rehearse`: run a command against a local SageMaker emulator instead of AWS."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, Token

from cloud.emulator.containers.processes import end_with_parent
from cloud.emulator.emulator import LOCK_NAME, Emulator, rehearsal
from cloud.emulator.faults import AWS_GRACE, Faults
from psa.cli.options import CountOption
from psa.core.errors import UserError
from psa.core.file_locks import is_locked
from psa.core.formatting import join_names, pluralize

_LOG = logging.getLogger(__name__)
_TICK: Final = 0.1
_PREFIX: Final = "psa-rehearsal-"
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_LOCK_SECONDS: Final = 60.0  # time within which a new rehearsal locks its folder
_ENOUGH: Final = 2  # signals, after which the command is no longer waited for


def _seconds(_type: Any, tokens: Sequence[Token]) -> float:
    """Parse a duration such as `30`, `30s`, `2m` or `0.5h` into seconds. Raises ValueError."""
    text = tokens[0].value
    read = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", text, re.ASCII)
    if read is None:
        raise ValueError(f'must be a time such as 30s or 2m, got "{text[:40]}".')
    return float(read[1]) * _UNITS[read[2]]


def _rate(kind: Any, tokens: Sequence[Token]) -> float:
    value = _seconds(kind, tokens)
    if not tokens[0].value[-1].isdigit() or value <= 0:
        raise ValueError(f'must be a number above 0, got "{tokens[0].value[:40]}".')
    return value


Seconds = Annotated[float, Parameter(converter=_seconds)]


def rehearse(
    *command: Annotated[str, Parameter(help="Command to run, with its options.", allow_leading_hyphen=True)],
    dir: Annotated[  # noqa: A002 -- the option's name
        Path | None,
        Parameter(help="Folder of the bucket and the jobs. [default: a temporary one]"),
    ] = None,
    quota: Annotated[
        CountOption, Parameter(help="Maximum number of concurrent jobs per instance type.")
    ] = None,
    throttle: Annotated[
        float | None, Parameter(help="Maximum number of SageMaker requests per second.", converter=_rate)
    ] = None,
    capacity_error: Annotated[
        tuple[str, ...],
        Parameter(help="Simulate a lack of capacity for this instance type. May be repeated.", negative=""),
    ] = (),
    interrupt_every: Annotated[
        Seconds | None, Parameter(help="Interrupt spot jobs after this time, in seconds or as 30s, 2m.")
    ] = None,
    interruptions: Annotated[CountOption, Parameter(help="Maximum number of interruptions per job.")] = None,
    grace: Annotated[
        Seconds, Parameter(help="Time from SIGTERM to SIGKILL, in seconds or as 30s, 2m.")
    ] = AWS_GRACE,
    network: Annotated[
        bool, Parameter(help="Give containers access to the network, which training does not need.")
    ] = True,
    wait: Annotated[bool, Parameter(help="Wait for jobs that still run when the command has ended.")] = True,
) -> int:
    """Run a command against a local SageMaker emulator.

    Emulates S3, SageMaker and CloudWatch without an account, charges or Docker. Environment variables direct
    the command to the emulator; nothing reaches AWS. Jobs run as processes, each with its own
    /opt/ml. Their image is a copy of this Python environment without psa. The exit code is that of the
    command.

    Example: psa rehearse --interrupt-every 30s -- psa sweep reproduction/smoke.toml --backend sagemaker
    """
    if not command:
        raise UserError(
            "psa rehearse needs a command to run", "Write it after two hyphens: psa rehearse -- ..."
        )
    if interruptions is not None and interrupt_every is None:
        raise UserError(
            "--interruptions must go with --interrupt-every", "Add the time, e.g. --interrupt-every 30s"
        )
    faults = Faults(
        quota=quota,
        throttle=throttle,
        no_capacity=frozenset(capacity_error),
        interrupt_every=interrupt_every,
        interruptions=interruptions,
        grace=grace,
        no_network=not network,
    )
    with _Signals() as signals, _folder(dir) as folder, rehearsal(folder, faults) as emulator:
        code = _ran(command, emulator, signals)
        live = emulator.live
        if live and not _waited(emulator, live, signals, wait):
            code = 128 + signals.last
        return code


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        yield chosen
        return
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as made:
        yield Path(made)


def _remove_abandoned(folder: Path) -> None:
    """Remove the folders of killed rehearsals, whose locks the kernel has released."""
    for path in folder.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError, UserError):
            if _is_abandoned(path / LOCK_NAME):
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(lock: Path) -> bool:
    status = lock.stat()
    is_old = time.time() - status.st_mtime > _LOCK_SECONDS
    return is_old and status.st_uid == os.getuid() and not is_locked(lock)


class _Signals:
    """A queue of SIGINT and SIGTERM to wait on, so that everything that was started is ended in order."""

    def __init__(self) -> None:
        self.count, self.last = 0, 0
        self._came = queue.SimpleQueue[int]()  # a signal handler may call its put

    def __enter__(self) -> _Signals:
        self._before = {
            number: signal.signal(number, lambda got, _: self._came.put(got))
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> int | None:
        """Return the next signal, or None if none arrives within `seconds`."""
        with contextlib.suppress(queue.Empty):
            self.last = self._came.get(timeout=seconds)
            self.count += 1
            return self.last
        return None


def _ran(command: Sequence[str], emulator: Emulator, signals: _Signals) -> int:
    """Run the command and forward signals to it. Return its exit code."""
    stopped = signals.wait(0)
    if stopped is not None:  # before the command started
        return 128 + stopped
    environment = emulator.inherited(os.environ)
    # The psa commands lie beside this interpreter, whose folder may not be on PATH.
    places = [str(Path(sys.executable).parent), environment.get("PATH", os.defpath)]
    environment["PATH"] = os.pathsep.join(places)
    if shutil.which(command[0], path=environment["PATH"]) is None:
        raise UserError(
            f"the command must exist, got {command[0]!r}", "Check the spelling, and that it is on PATH"
        )
    # In our process group: the command may use the terminal, and receives a Ctrl-C there directly.
    process = subprocess.Popen(end_with_parent(command, "TERM"), env=environment)
    while process.poll() is None:
        got = signals.wait(_TICK)
        if got is not None and signals.count >= _ENOUGH:
            process.kill()
        elif got is not None and not (got == signal.SIGINT and _at_a_terminal()):
            process.send_signal(got)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _at_a_terminal() -> bool:
    """Return whether a Ctrl-C reaches our process group directly from the terminal."""
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def _waited(emulator: Emulator, live: Sequence[str], signals: _Signals, wait: bool) -> bool:
    """Wait for the jobs that a command left running. Return False if a signal ended the wait."""
    what = f"the command has ended, {pluralize(len(live), 'job')} in progress"
    if signals.count or not wait:
        _LOG.info("%s, to be stopped: %s", what, join_names(live))
        return True
    _LOG.info("%s: waiting (Ctrl-C stops them): %s", what, join_names(live))
    while emulator.live:
        if signals.wait(_TICK) is not None:
            return False
    return True
