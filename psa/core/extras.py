"""Instructions for installing optional dependencies."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Final

from psa import __version__

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
