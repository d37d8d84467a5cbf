"""Start a worker process: psa.execution.worker.run, or one line where torch cannot be loaded.

A worker has a session of its own. Where Linux groups processes by session, `nice` counts only within a group:
the group gets the worker's own niceness, so that `nice psa sweep` gives way to other work.

Torch maps some gigabytes. Where memory is short its import fails, before a line of psa.execution.worker.run
is reached.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from psa.core.errors import EXIT_USER_ERROR, UserError, lacks_memory, memory_error, one_line
from psa.execution.worker.protocol import EventWriter

_GROUP: Final = Path("/proc/self/autogroup")  # of Linux, where it groups by session


def main() -> int:
    """Run the worker with the arguments of this process. Return its exit code."""
    _give_way()
    try:
        from psa.execution.worker.__main__ import main as work
    except (ImportError, OSError, MemoryError) as error:
        return _refuse(error)
    return work()


def _give_way() -> None:
    """Give the group of this session the niceness of this process, where there are such groups."""
    if os.nice(0) > 0:
        with contextlib.suppress(OSError):
            _GROUP.write_text(str(os.nice(0)))


def _refuse(error: Exception) -> int:
    """Report to the parent, or on standard error, why no worker can start here. Return the exit code."""
    if lacks_memory(error):
        refusal = memory_error(error)
    else:
        refusal = UserError(f"torch cannot be loaded: {type(error).__name__}: {one_line(str(error))[:300]}")
    if "--serve" in sys.argv:
        EventWriter().emit("unusable", what=refusal.message, way_out=refusal.hint)
    else:
        sys.stderr.write(f"error: {refusal}\n")
    return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
