"""The id that distinguishes a folder of states from others in the same storage, and the queues of its jobs.

Both move with the folder.
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import Final

from psa.core.errors import UserError
from psa.core.file_locks import locked
from psa.core.files import write_atomically
from psa.core.stored_files import read_stored
from psa.storage.layout import QUEUES_FILE, WORKSPACE_FILE

_PATIENCE_SECONDS: Final = 60.0  # for another process that creates the id
NO_ID: Final = "00000000"  # a folder without an id
_NAME: Final = re.compile(rb"[0-9a-f]{8}")
_LONGEST_QUEUE: Final = 1_000


def workspace_id(models: Path) -> str:
    """Return the id of a folder of states, 8 hexadecimal digits; create it if necessary. Raises UserError."""
    if (name := read_workspace_id(models)) != NO_ID:
        return name
    with locked(models / ".home.lock", _PATIENCE_SECONDS):  # of two sweeps that start at once, one creates it
        if (name := read_workspace_id(models)) == NO_ID:
            while name == NO_ID:
                name = secrets.token_hex(4)
            write_atomically(models / WORKSPACE_FILE, name.encode())
        return name


def read_workspace_id(models: Path) -> str:
    """Return the id of a folder of states, or NO_ID if it has none; nothing is written. Raises UserError."""
    path = models / WORKSPACE_FILE
    content = read_stored(path)
    if content is None:
        return NO_ID
    if _NAME.fullmatch(content.strip()) is None:
        raise UserError(
            f"{path} must hold 8 hexadecimal digits, the id of this folder in the names of its jobs",
            "Restore the id (the names are psa-ID-...), or remove the file: earlier jobs are then not found",
        )
    return content.strip().decode()


def job_queues(models: Path) -> list[str]:
    """Return the queues into which sweeps of a folder of states have put jobs, by name or ARN."""
    content = read_stored(models / QUEUES_FILE) or b""
    lines = content.decode(errors="replace").splitlines()
    return [line for line in lines if line.isprintable() and 0 < len(line) < _LONGEST_QUEUE]


def add_job_queue(models: Path, queue: str) -> None:
    """Store a queue, before a job is put into it. Raises UserError."""
    with locked(models / ".home.lock", _PATIENCE_SECONDS):
        known = job_queues(models)
        if queue not in known:
            write_atomically(models / QUEUES_FILE, "".join(f"{name}\n" for name in (*known, queue)).encode())
