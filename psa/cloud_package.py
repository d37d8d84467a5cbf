"""Import psa's own package `cloud`, and no other of that name that stands before it on Python's path."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import psa
from psa.errors import UserError


def import_cloud(module: str) -> ModuleType:
    """Import a module of psa's package `cloud`. Raise UserError where Python finds another `cloud`."""
    spec = importlib.util.find_spec("cloud")
    found = (
        []
        if spec is None
        else [Path(place) for place in spec.submodule_search_locations or [spec.origin or ""]]
    )
    own = Path(psa.__file__).resolve().parents[1] / "cloud"
    if not any(place.resolve() == own for place in found):
        there = str(found[0]) if found else "nothing"
        raise UserError(
            f"this command needs the package cloud of psa in {own.parent}, Python finds {there} under that name",
            "Take that folder off PYTHONPATH, or start psa elsewhere; commands without the cloud need it not",
        )
    return importlib.import_module(module)
