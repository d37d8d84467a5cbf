"""Leases of trials: the process that trains a trial locks the byte of it in one file of the models folder.

The kernel releases the lock the moment its holder ends, however it ends, so a lease expires with its process
and needs no clock; and a paused process still holds it, so that no two can ever commit one trial. One file
for all trials, because a process may hold more trials than the system lets it open files.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from psa.core.file_locks import LARGEST_OFFSET, any_locked, is_locked, locked_bytes, unlocked_bytes
from psa.specs.trial import Trial
from psa.storage.store import Store

TRIAL_LOCK: Final = ".trials.lock"


@contextlib.contextmanager
def lock_trials(store: Store, trials: Sequence[Trial]) -> Iterator[list[Trial]]:
    """Lease those of `trials` that are free, until the block ends, and yield them.

    Two trials that share a byte, which hardly ever happens, are leased together.

    Raises:
        UserError: The models folder cannot be written to, or its file system has no locks.

    """
    places = _places(store, trials)
    with locked_bytes(store.models / TRIAL_LOCK, places.values()) as taken:
        leased = [trial for trial in trials if places.get(trial.id) in taken]
        for trial in leased:
            store.clear_leftovers(trial)
        yield leased


def unlocked_trials(store: Store, trials: Sequence[Trial]) -> list[Trial]:
    """Return those of `trials` that are not leased now. The call leases none of them. Raises UserError."""
    places = _places(store, trials)
    unlocked = unlocked_bytes(store.models / TRIAL_LOCK, places.values())
    return [trial for trial in trials if places.get(trial.id) in unlocked]


def any_leased(models: Path) -> bool:
    """Return whether any process trains a trial of a models folder, in a sweep or not. Raises UserError."""
    return any_locked(models / TRIAL_LOCK)


def check_lockable(store: Store) -> None:
    """Raise UserError where the models folder cannot hold leases."""
    path = store.models / TRIAL_LOCK
    with locked_bytes(path, [LARGEST_OFFSET]):
        unlocked_bytes(path, [LARGEST_OFFSET - 1])


def _places(store: Store, trials: Sequence[Trial]) -> dict[str, int]:
    """Return the byte of each trial by its id, without those that an older psa holds."""
    return {trial.id: _place(store, trial) for trial in trials if not _is_held_by_file(store, trial)}


def _place(store: Store, trial: Trial) -> int:
    name = store.state_file(trial).path.relative_to(store.models).as_posix()
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % (LARGEST_OFFSET - 1)


def _is_held_by_file(store: Store, trial: Trial) -> bool:
    """Return whether a sweep of an older psa, which locked a file per trial, holds the trial."""
    lease = store.state_file(trial).path.parent / ".lease"
    return lease.exists() and is_locked(lease)
