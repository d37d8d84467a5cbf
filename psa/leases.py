"""Who trains which trial: a lock file per trial, held by the process that trains it.

The kernel gives the lock back the moment its holder ends, however it ends, so a lease expires with its
process and needs no clock; and a paused process still holds it, so that no two can ever commit one trial.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

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
            folder = store.state_file(trial).path.parent
            make_folder(folder)
            lock = FileLock(folder / ".lease", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                continue
            except OSError as error:
                raise refusal(error, f"cannot lock {folder}") from error
            locks.append(lock)
            got.append(trial)
        yield got
    finally:
        for lock in locks:
            lock.release()
