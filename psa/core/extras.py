"""Optional parts: installation hints for extras, and the import of psa's package `cloud`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Final

import psa
from psa import __version__
from psa.core.errors import UserError

DISTRIBUTION: Final = "persistent-stochastic-ablation"  # "psa" is another project on the package index
WHEEL: Final = f"{DISTRIBUTION.replace('-', '_')}-{__version__}-py3-none-any.whl"


def how_to_install(extra: str) -> str:
    """Return a sentence with the command that adds an extra to the psa that is running.

    Example:
        >>> how_to_install("ray")  # in a checkout that make has set up
        'Install it with: make install EXTRAS=ray'

    """
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / "pyproject.toml").is_file() or not (checkout / "Makefile").is_file():
        command = f'pip install "./{WHEEL}[{extra}]" (make wheel builds that file in a checkout)'
    elif Path(sys.prefix).resolve() == checkout / ".venv":
        command = f"make {_from_here(checkout)}install EXTRAS={extra}"
    else:  # an environment of the user's own
        command = (
            f"{shlex.quote(sys.executable)} -m pip install --editable {shlex.quote(f'{checkout}[{extra}]')}"
        )
    return f"Install it with: {command}"


def _from_here(checkout: Path) -> str:
    """Return the option that sends make to the checkout, "" if that is the working directory."""
    with contextlib.suppress(OSError):
        if Path.cwd().samefile(checkout):
            return ""
    return f"-C {shlex.quote(str(checkout))} "


def import_cloud(module: str) -> ModuleType:
    """Import a module of psa's package `cloud`. Raise UserError if Python would import another `cloud`."""
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
