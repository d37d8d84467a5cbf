"""The registry of active sweeps on a folder of states: a lock file for each, and its progress beside it.

A sweep is active exactly as long as its lock is held; the kernel releases it with the process. A process id
would be less reliable: the system reuses ids, and a container has its own.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psa.core.errors import UserError
from psa.core.file_locks import is_locked, locked
from psa.core.files import leftovers, unique_name, write_atomically
from psa.specs.base import canonical_json
from psa.storage.helper_files import SWEEP_PROGRESS, SweepStatus, read_helper

logger = logging.getLogger(__name__)

REGISTRY_FOLDER: Final = ".sweeps"
STALE_SECONDS: Final = 5.0  # for another process that checks whether the new lock is stale

Describe = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ActiveSweep:
    """An active sweep: its process, and its last progress (None if there is none or it cannot be read)."""

    pid: str
    progress: SweepStatus | None

    def __str__(self) -> str:
        """Return a readable line."""
        last = self.progress
        if last is None:
            return f"sweep {self.pid}: at work"
        accuracy, trial = last["best"]
        best = f", best so far {accuracy:.2f} % {trial}" if trial else ""
        return (
            f"sweep {self.pid} on {last['host']} ({last['grid']}): {last['done']:,} of {last['total']:,} "
            f"trials done, {last['left']}; running {'; '.join(last['running']) or 'nothing yet'}{best}"
        )


@contextlib.contextmanager
def register_sweep(models: Path) -> Iterator[Describe]:
    """Register a sweep as active, and yield a function that writes its progress.

    Registration is optional: if it cannot be written, one warning is logged and the sweep goes on.
    """
    path = models / REGISTRY_FOLDER / f"{unique_name()}.json"
    sign = _StatusFile(path)
    with contextlib.ExitStack() as ending:
        with sign.courteous():
            ending.enter_context(locked(_lock_of(path), STALE_SECONDS))
            _clear(path)
        ending.callback(_remove, path)  # before the lock is given back
        yield sign.write_status


class _StatusFile:
    """The status file of a sweep."""

    def __init__(self, path: Path) -> None:
        self.path, self._warned = path, False

    def write_status(self, facts: dict[str, Any]) -> None:
        """Write the progress of the sweep."""
        with self.courteous():
            facts = {"host": socket.gethostname(), **facts}
            write_atomically(self.path, canonical_json(facts).encode())

    @contextlib.contextmanager
    def courteous(self) -> Iterator[None]:
        """Turn errors into one warning: the status is optional, so they must not stop the sweep."""
        try:
            yield
        except (UserError, OSError) as error:
            if not self._warned:
                what = error.message if isinstance(error, UserError) else str(error)
                logger.warning("%s; the sweep goes on, but `psa status` may not show it", what)
            self._warned = True


def active_sweeps(models: Path) -> list[ActiveSweep]:
    """Return the active sweeps on a folder."""
    return [
        ActiveSweep(lock.name.partition("-")[0], _progress(lock.with_suffix(".json")))
        for lock in sorted((models / REGISTRY_FOLDER).glob("*.lock"))
        if _is_held(lock)
    ]


def _progress(path: Path) -> SweepStatus | None:
    return read_helper(path, SWEEP_PROGRESS, "the progress of that sweep is not shown")


def _is_held(path: Path) -> bool:
    try:
        return is_locked(path)
    except UserError:  # assumed active if the lock cannot be queried
        return True


def _clear(own: Path) -> None:
    """Remove the files of killed sweeps."""
    for path in set(own.parent.glob("*.lock")) - {_lock_of(own)}:
        # removed while it is held: a process about to lock it sees that it has gone, and makes a new one
        with contextlib.suppress(UserError, OSError), locked(path):
            _remove(path.with_suffix(".json"))


def _remove(path: Path) -> None:
    """Remove a sweep's files, half-written ones included."""
    for each in (path, *leftovers(path.parent, f"{path.name}."), _lock_of(path)):
        with contextlib.suppress(OSError):
            each.unlink()


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")
