"""Folders of the user: a cache of files that can be recreated at any time, and settings of their own."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from psa.core.errors import UserError
from psa.core.files import ensure_dir


def cache_folder(name: str) -> Path:
    """Return the path of a subfolder of psa's cache. It may not exist yet. Raises UserError."""
    return _xdg_folder("XDG_CACHE_HOME", ".cache") / name


def config_folder(name: str) -> Path:
    """Return the path of a subfolder of the user's settings of psa. It may not exist. Raises UserError."""
    return _xdg_folder("XDG_CONFIG_HOME", ".config") / name


def _xdg_folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    if not Path(base).is_absolute():  # the XDG specification requires a relative path to be ignored
        try:
            base = str(Path.home() / default)
        except RuntimeError:  # a user without a home folder
            base = str(private_temp_folder(f"psa-{default.removeprefix('.')}"))
    return Path(base) / "psa"


def private_temp_folder(name: str) -> Path:
    """Return a private folder of this user below the temporary folder, whose name others can guess.

    Raises UserError if it belongs to another user.
    """
    folder = Path(tempfile.gettempdir()).absolute() / f"{name}-{os.getuid()}"
    ensure_dir(folder, mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid():
        raise UserError(
            f"{folder} must be a folder of this user, got another user's, or a link",
            "Remove it, or set TMPDIR to another folder",
        )
    return folder
