"""The log of a Ray driver process, one file each: several sweeps may share a folder of states.

It is removed when the driver succeeds and kept when it fails, since the error message refers to it.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

from psa.core.errors import UserError
from psa.core.file_locks import locked
from psa.core.files import unique_name

FOLDER: Final = ".ray-logs"  # in the folder of states
KEPT: Final = 5  # number of logs of failed drivers
_LOCK_SECONDS: Final = 5.0  # another sweep may be removing the log while it is still empty and unlocked


class DriverLog:
    """The log of one driver. While its lock is held, no other sweep removes it."""

    def __init__(self, models: Path) -> None:
        self.path = models / FOLDER / f"{unique_name()}.log"
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(self.path, patience=_LOCK_SECONDS))
        _remove_old(self.path.parent)

    def text(self) -> str:
        """Return its content, or "" if it no longer exists."""
        with contextlib.suppress(OSError):
            return self.path.read_text(errors="replace")
        return ""

    def close(self, *, keep: bool) -> None:
        """Release the log, and remove it unless `keep` is set."""
        if not keep:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self._lock.close()


def _remove_old(folder: Path) -> None:
    """Remove logs without a driver: empty ones, and all but the newest of the others."""
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
