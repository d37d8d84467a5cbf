"""Processes that never outlive the one that started them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence


def ends_with_us(command: Sequence[str], signal: str = "KILL") -> list[str]:
    """The command, made to get a signal when the thread that starts it ends, be it by SIGKILL.

    Where util-linux is missing it is left as it is: then only an orderly end takes it along.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", signal, "--", *command] if setpriv else list(command)
