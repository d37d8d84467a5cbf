"""Find files that take the place of installed libraries: a `numpy.py` in the folder a command is typed in."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from psa.core.errors import UserError


def shadowed_library() -> UserError | None:
    """Return the error for a module that was imported in place of an installed library; None where none was.

    Python searches the folders on PYTHONPATH before that of installed libraries. An empty entry there stands
    for the current folder.
    """
    with contextlib.suppress(OSError):  # the current folder may be gone
        entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        folders = [Path(entry or ".").resolve() for entry in entries]
        for name, distributions in importlib.metadata.packages_distributions().items():
            origin = getattr(sys.modules.get(name), "__file__", None)
            if origin is not None and _folder_of(Path(origin).resolve()) in folders:
                error = _error(name, Path(origin).resolve(), distributions)
                if error is not None:
                    return error
    return None


def _folder_of(path: Path) -> Path:
    """Return the folder on Python's path that a module or package was found in."""
    return path.parent.parent if path.name == "__init__.py" else path.parent


def _error(name: str, path: Path, distributions: Sequence[str]) -> UserError | None:
    """Return the error for a module in a folder of PYTHONPATH, None where it is installed there."""
    for each in distributions:
        if Path(str(importlib.metadata.distribution(each).locate_file(""))).resolve() == _folder_of(path):
            return None
    return UserError(
        f"{name} must be the installed library, got {path}",
        "Rename that file, or take its folder off PYTHONPATH (an empty entry is the current folder)",
    )
