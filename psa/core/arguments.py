"""Checks of arguments given from Python: what a caller mixes up is a UserError, not an error of a library."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from psa.core.errors import UserError
from psa.core.formatting import quote


def as_path(value: object, name: str) -> Path:
    """Return an argument as a path. Raises UserError for anything but a string or a path."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(found, str):
        return Path(found)
    raise UserError(f"{name} must be a string or a path, got {quote(value)}")


def as_list(value: object, name: str) -> list[Any]:
    """Return an argument as a list. Raises UserError for a string, and for what has no items."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    raise UserError(f"{name} must be a list, got {quote(value)}", f"Write {name}=[...]")


def as_names(value: object, name: str) -> list[str]:
    """Return an argument as a list of strings. Raises UserError for anything else."""
    found = as_list(value, name)
    if (wrong := next((each for each in found if not isinstance(each, str)), None)) is not None:
        raise UserError(f"{name} must be strings, got {quote(wrong)}")
    return found
