"""The present step of a command that takes seconds: a spinner on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from psa.cli.console import stderr_console
from psa.core.errors import printable
from psa.core.formatting import format_duration

PLAIN_SECONDS: Final = 30.0  # between two lines without a terminal; a command that is faster prints none

ShowStep = Callable[[str], object]


@contextlib.contextmanager
def activity(out: Console, text: str) -> Iterator[ShowStep]:
    """Show what a command does while the block lasts.

    Args:
        out: The console of the command's output. Where it is a terminal, steps are shown there, so that lines
            printed meanwhile do not mix with them; otherwise on standard error.
        text: The first step.

    Yields:
        A function that shows another step.

    """
    shown = out if out.is_terminal and not out.quiet else stderr_console()
    if not shown.is_terminal:
        with _plain_lines(text) as show:
            yield show
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    own = shown is out  # otherwise a pipe reads standard output, and must receive it
    with Progress(
        *columns, console=shown, transient=True, redirect_stdout=own, redirect_stderr=own
    ) as progress:
        task = progress.add_task(text, total=None)
        yield lambda step: progress.update(task, description=step)


@contextlib.contextmanager
def _plain_lines(text: str) -> Iterator[ShowStep]:
    """Print the present step and its time to standard error every PLAIN_SECONDS."""
    started, ended = time.monotonic(), threading.Event()
    step = deque([text], maxlen=1)

    def report() -> None:
        while not ended.wait(PLAIN_SECONDS):
            elapsed = format_duration(time.monotonic() - started)
            with contextlib.suppress(OSError, ValueError):  # nobody reads them any more
                sys.stderr.write(f"{time.strftime('%H:%M:%S')} | {printable(step[-1])} | {elapsed}\n")
                sys.stderr.flush()

    thread = threading.Thread(target=report, name="psa-activity", daemon=True)
    thread.start()
    try:
        yield step.append
    finally:
        ended.set()
        thread.join()
