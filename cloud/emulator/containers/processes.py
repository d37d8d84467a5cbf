"""Processes that never outlive their parent."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def end_with_parent(command: Sequence[str], signal: str = "KILL") -> list[str]:
    """Return a command that gets a signal when the thread that starts it ends, even by SIGKILL.

    Without util-linux it is returned unchanged, and only an orderly exit ends the process.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal, "--", *command] if setpriv else list(command)
