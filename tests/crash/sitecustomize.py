"""Loaded by every process of a crash test: dies by SIGKILL inside the n-th file operation of psa.core.files.

PSA_KILL_AT holds that number. Counted are write, fsync, link and replace; a write dies half written.
"""

import itertools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_OWN = str(Path("psa", "core", "files.py"))
_numbers = itertools.count(1)
_at = int(os.environ.get("PSA_KILL_AT", "0"))


def _dying(real: Callable[..., Any], name: str) -> Callable[..., Any]:
    def operation(*arguments: Any, **options: Any) -> Any:
        if sys._getframe(1).f_code.co_filename.endswith(_OWN) and next(_numbers) == _at:
            if name == "write":
                real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    return operation


if _at > 0:
    for _name in ("write", "fsync", "link", "replace"):
        setattr(os, _name, _dying(getattr(os, _name), _name))
