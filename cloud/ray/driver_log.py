"""The log of a Ray driver process, a file of its own: several sweeps may use one folder of states at a time.

It is removed when the driver ends well, and kept when it fails, for the user is referred to it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from psa.core.errors import UserError
from psa.core.file_locks import locked
from psa.core.files import unique_name

FOLDER: Final = ".ray-logs"  # in the folder of states
KEPT: Final = 5  # logs of drivers that have failed
_LOCK_SECONDS: Final = 5.0  # another sweep may be removing the log, which is empty and not locked yet


class DriverLog:
    """The log of one driver. While its lock is held, no other sweep removes it."""

    def __init__(self, models: Path) -> None:
        self.path = models / FOLDER / f"{unique_name()}.log"
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(self.path, patience=_LOCK_SECONDS))
        _remove_old(self.path.parent)

    def text(self) -> str:
        """Return its content, "" where it has gone."""
        with contextlib.suppress(OSError):
            return self.path.read_text(errors="replace")
        return ""

    def close(self, *, keep: bool) -> None:
        """Release the log, and remove it unless it is to be kept."""
        if not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._lock.close()


def _remove_old(folder: Path) -> None:
    """Remove logs without a driver: those that are empty, and all but the newest of the others."""
    kept = 0
    for path in sorted(folder.glob("*.log"), key=_modified, reverse=True):
        with contextlib.suppress(UserError, OSError), locked(path):
            kept += path.stat().st_size > 0
            if not path.stat().st_size or kept > KEPT:
                path.unlink()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another sweep has removed it
        return 0.0
