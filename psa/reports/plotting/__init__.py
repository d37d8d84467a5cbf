"""Loading of matplotlib with its own defaults, whatever the user's environment and files set."""

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
    """Import matplotlib with its own settings, unless it is already imported.

    The import reads MPLBACKEND and a matplotlibrc (of the current folder, of MATPLOTLIBRC or of the user's
    home). An invalid one makes it fail or warn, and none of them is meant for psa's figures.
    """
    spec = importlib.util.find_spec("matplotlib")
    if "matplotlib" in sys.modules or spec is None or spec.origin is None:
        return
    # hides the warning that the settings folder is not writable: it costs a second, and reports are the same
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    shipped = Path(spec.origin).absolute().parent / "mpl-data"
    # a file in the current folder comes before MATPLOTLIBRC; a folder that is gone cannot be returned to
    here = os.path.exists("matplotlibrc")  # noqa: PTH110  # Path.exists raises where it may not look
    elsewhere = contextlib.chdir(shipped.parent) if here else contextlib.nullcontext()
    with _environment(MPLBACKEND="agg", MATPLOTLIBRC=str(shipped / "matplotlibrc")), elsewhere:
        importlib.import_module("matplotlib")


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set environment variables within a context."""
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
