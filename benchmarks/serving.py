"""The process of one side of `make bench`: it answers one task per line of standard input, in JSON.

An answer is one line as well: the values that the side measured, or `error` with the reason.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Task = dict[str, Any]
Handler = Callable[[Task], dict[str, Any]]


def data_dir() -> Path:
    """Return the folder of the data set, the first argument of the process."""
    return Path(sys.argv[1])


def pin() -> None:
    """Bind the process to the core that its second argument names, so that libraries start one thread."""
    if len(sys.argv) > 2 and hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[int(sys.argv[2]) % len(allowed)]})


def say(answer: dict[str, Any]) -> None:
    """Write one answer."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(handlers: dict[str, Handler], hello: dict[str, Any]) -> None:
    """Answer tasks until standard input ends. hello: what the process reports once it is ready."""
    say(hello)
    for line in sys.stdin:
        task = json.loads(line)
        try:
            say(handlers[task["task"]](task))
        except Exception as error:  # noqa: BLE001 - whatever a library raises is this side's note
            say({"error": f"{type(error).__name__}: {str(error).strip().splitlines()[:1]}"[:200]})


def seconds_per_step(work: Callable[[], object], seconds: float) -> float:
    """Return the mean duration of `work` within a slice of `seconds`; the first call is warm-up."""
    work()
    begun, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - begun < seconds:
        work()
        count += 1
    return (time.perf_counter() - begun) / count


def stacks(widths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield (width, number of layers) of each run of equal widths."""
    start = 0
    for at in range(1, len(widths) + 1):
        if at == len(widths) or widths[at] != widths[start]:
            yield widths[start], at - start
            start = at
