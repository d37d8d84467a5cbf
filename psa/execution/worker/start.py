"""Start a worker process: psa.execution.worker.run, or one line where torch cannot be loaded.

Torch maps some gigabytes. Where memory is short its import fails, before a line of psa.execution.worker.run
is reached.
"""

from __future__ import annotations

import sys

from psa.core.errors import UserError, lacks_memory, memory_error, one_line
from psa.execution.worker.protocol import EXIT_USER_ERROR, Events


def main() -> int:
    """Run the worker with the arguments of this process. Return its exit code."""
    try:
        from psa.execution.worker.__main__ import main as work
    except (ImportError, OSError, MemoryError) as error:
        return _refuse(error)
    return work()


def _refuse(error: Exception) -> int:
    """Tell the parent, or whoever reads standard error, why no worker can start here."""
    if lacks_memory(error):
        refusal = memory_error(error)
    else:
        refusal = UserError(f"torch cannot be loaded: {type(error).__name__}: {one_line(str(error))[:300]}")
    if "--serve" in sys.argv:
        Events().say("unusable", what=refusal.what, way_out=refusal.way_out)
    else:
        sys.stderr.write(f"error: {refusal}\n")
    return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
