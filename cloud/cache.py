"""Folders of the user's cache for what can be made again at any time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_folder(name: str) -> Path:
    """Return the path of a subfolder of psa's cache. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not Path(base).is_absolute():  # by the XDG specification, a relative path is to be ignored
        try:
            base = str(Path.home() / ".cache")
        except RuntimeError:  # a user without a home
            base = str(Path(tempfile.gettempdir()) / f"cache-{os.getuid()}")
    return Path(base) / "psa" / name
