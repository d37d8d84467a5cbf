"""Find files that take the place of installed libraries: a `numpy.py` in the folder a command is typed in."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from pathlib import Path

from psa.core.errors import UserError


def shadowed_library() -> UserError | None:
    """Return the error for a module that was imported in place of an installed library; None where none was.

    Python searches the folders on PYTHONPATH before that of installed libraries. An empty entry there stands
    for the current folder.
    """
    folders = [Path(entry or ".").resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name in importlib.metadata.packages_distributions():
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is None:
            continue
        path = Path(origin).resolve()
        place = path.parent.parent if path.name == "__init__.py" else path.parent
        if place in folders and "site-packages" not in path.parts:
            return UserError(
                f"{name} must be the installed library, got {path}",
                "Rename that file, or take its folder off PYTHONPATH (an empty entry is the current folder)",
            )
    return None
