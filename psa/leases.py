"""Who trains which trial: a lock file per trial, held by the process that trains it.

The kernel gives the lock back the moment its holder ends, however it ends, so a lease expires with its
process and needs no clock; and a paused process still holds it, so that no two can ever commit one trial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from psa.files import make_folder, refusal
from psa.store import Store
from psa.trial import Trial


@contextlib.contextmanager
def held(store: Store, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Lease as many of `trials` as nobody else holds; those that were got. Raises UserError."""
    locks, got = [], []
    try:
        for trial in trials:
            lease = _lease(store, trial)
            make_folder(lease.parent)
            lock = _taken(lease)
            if lock is not None:
                locks.append(lock)
                got.append(trial)
        yield got
    finally:
        for lock in locks:
            lock.release()


def free(store: Store, trials: Sequence[Trial]) -> list[Trial]:
    """Those of `trials` that nobody holds at this moment; none is leased by asking. Raises UserError."""
    return [trial for trial in trials if _is_free(_lease(store, trial))]


def _is_free(lease: Path) -> bool:
    if not lease.exists():
        return True
    lock = _taken(lease)
    if lock is not None:
        lock.release()
    return lock is not None


def _lease(store: Store, trial: Trial) -> Path:
    return store.state_file(trial).path.parent / ".lease"


def _taken(lease: Path) -> FileLock | None:
    """The lock, now held by this process; None where another holds it. Raises UserError."""
    lock = FileLock(lease, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise refusal(error, f"cannot lock {lease.parent}") from error
    return lock
