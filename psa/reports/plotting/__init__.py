"""Load matplotlib as it comes, whatever the user's environment and files say of it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path


def load_matplotlib() -> None:
    """Import matplotlib with its own settings, where nobody has imported it yet.

    While it is imported it reads MPLBACKEND and a matplotlibrc (of the current folder, of MATPLOTLIBRC or of
    the user's home). An invalid one ends the import or warns; none of them is for psa's figures.
    """
    spec = importlib.util.find_spec("matplotlib")
    if "matplotlib" in sys.modules or spec is None or spec.origin is None:
        return
    # that its folder of settings cannot be written to costs a second, and no reader of a report needs to know
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    shipped = Path(spec.origin).absolute().parent / "mpl-data"
    # a file in the current folder comes before MATPLOTLIBRC; a folder that is gone cannot be returned to
    here = os.path.exists("matplotlibrc")  # noqa: PTH110  # Path.exists raises where it may not look
    elsewhere = contextlib.chdir(shipped.parent) if here else contextlib.nullcontext()
    with _environment(MPLBACKEND="agg", MATPLOTLIBRC=str(shipped / "matplotlibrc")), elsewhere:
        importlib.import_module("matplotlib")


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
