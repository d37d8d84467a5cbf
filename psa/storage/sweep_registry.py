"""Which sweeps are at work on a folder of states: a lock file each, and beside it how far they are.

A sweep lives exactly as long as its lock is held, which the kernel ends with the process. A process id
would tell less: another process may have it by now, and a container counts its own.
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
STALE_SECONDS: Final = 5.0  # for somebody who looks whether the new lock is a stale one

Describe = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ActiveSweep:
    """A living sweep: its process, and its last progress (None: nothing yet, or it cannot be used)."""

    pid: str
    progress: SweepStatus | None

    def __str__(self) -> str:
        """One line for people."""
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
    """Be known as a living sweep; what is yielded tells how far it is.

    That others know is a courtesy: where it cannot be written, a warning says so once and the sweep goes on.
    """
    path = models / REGISTRY_FOLDER / f"{unique_name()}.json"
    sign = _StatusFile(path)
    with contextlib.ExitStack() as ending:
        with sign.courteous():
            ending.enter_context(locked(_lock_of(path), STALE_SECONDS))
            _clear(path)
        ending.callback(_remove, path)  # before the lock is given back
        yield sign.tell


class _StatusFile:
    """What a sweep says of itself."""

    def __init__(self, path: Path) -> None:
        self.path, self._warned = path, False

    def tell(self, facts: dict[str, Any]) -> None:
        """Say how far it is."""
        with self.courteous():
            facts = {"host": socket.gethostname(), **facts}
            write_atomically(self.path, canonical_json(facts).encode())

    @contextlib.contextmanager
    def courteous(self) -> Iterator[None]:
        """Failing to be polite is no reason to stop."""
        try:
            yield
        except (UserError, OSError) as error:
            if not self._warned:
                what = error.message if isinstance(error, UserError) else str(error)
                logger.warning("%s; the sweep goes on, but `psa status` may not show it", what)
            self._warned = True


def active_sweeps(models: Path) -> list[ActiveSweep]:
    """The sweeps that are at work on a folder."""
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
    except UserError:  # what cannot be asked is taken to be alive
        return True


def _clear(own: Path) -> None:
    """Remove what killed sweeps have left behind."""
    for path in set(own.parent.glob("*.lock")) - {_lock_of(own)}:
        # removed while it is held: whoever is about to lock it sees that it has gone, and makes a new one
        with contextlib.suppress(UserError, OSError), locked(path):
            _remove(path.with_suffix(".json"))


def _remove(path: Path) -> None:
    """Remove a sweep's files, and what a kill has left half written."""
    for each in (path, *leftovers(path.parent, f"{path.name}."), _lock_of(path)):
        with contextlib.suppress(OSError):
            each.unlink()


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")
