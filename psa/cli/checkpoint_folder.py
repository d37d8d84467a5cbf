"""The folder of checkpoints: its files by checkpoint, and its lock for one command at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from psa.core.file_locks import locked
from psa.core.files import unreadable
from psa.storage import locks
from psa.storage.layout import QUEUES_FILE, WORKSPACE_FILE

FOLDER_LOCK: Final = ".train.lock"
# locks, the names under which the cloud knows the folder, and its description that comes with a clone
_KEPT: Final = frozenset({FOLDER_LOCK, locks.TRIAL_LOCK, WORKSPACE_FILE, QUEUES_FILE, "README.md"})
# x.safetensors, the generations and arrays beside it, and partly written files that a killed process left
_GENERATION: Final = re.compile(
    r"(?P<stem>.+?)(\.previous|\.damaged(-[0-9]+)?|\.[a-z][a-z0-9_]*-[0-9]+\.arrays)?\.safetensors"
)
_LEFT_OVER: Final = re.compile(r"\.(?P<name>.+\.safetensors)\.[0-9]+(-[0-9a-f]+)?\.tmp")


def lock_folder(folder: Path) -> AbstractContextManager[None]:
    """Lock the folder for this process. Raises UserError if another process holds it."""
    return locked(
        folder / FOLDER_LOCK,
        what=f"another `train` or `clean` is at work in {folder}",
        hint="Wait for it, or use another --model-dir",
    )


def all_files(folder: Path) -> list[Path]:
    """Return every file and link below the folder, in a fixed order. Links are not followed.

    Left out are its locks, its README.md, and the names under which the cloud knows it.
    """
    return _sorted(folder.rglob("*")) if folder.is_dir() else []


def checkpoint_files(folder: Path) -> list[Path]:
    """Return every file and link in the folder itself, in a fixed order. Raises UserError.

    Left out are its locks, its README.md, and the names under which the cloud knows it.
    """
    try:
        return _sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise unreadable(error, f"the folder {folder}") from error


def _sorted(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if path.name not in _KEPT and (path.is_symlink() or path.is_file()))


def checkpoint_of(path: Path) -> Path:
    """Return the checkpoint that a file belongs to: `x.safetensors` for itself and its generations."""
    left_over = _LEFT_OVER.fullmatch(path.name)
    name = left_over["name"] if left_over else path.name
    generation = _GENERATION.fullmatch(name)
    return path.with_name(f"{generation['stem']}.safetensors" if generation else name)
