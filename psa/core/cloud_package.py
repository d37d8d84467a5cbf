"""Import psa's own package `cloud`, and no other one of that name earlier on Python's path."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import psa
from psa.core.errors import UserError


def import_cloud(module: str) -> ModuleType:
    """Import a module of psa's package `cloud`. Raise UserError where Python finds another `cloud`."""
    spec = importlib.util.find_spec("cloud")
    places = [] if spec is None else spec.submodule_search_locations or [spec.origin or ""]
    own = Path(psa.__file__).resolve().parents[1] / "cloud"
    if not any(Path(place).resolve() == own for place in places):
        there = next(iter(places), "nothing")
        raise UserError(
            f"cloud must be psa's own package, in {own.parent}; Python imports {there} under that name",
            "Take that folder off PYTHONPATH; local sweeps and reports work all the same",
        )
    return importlib.import_module(module)
