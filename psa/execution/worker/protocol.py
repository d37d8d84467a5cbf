"""The protocol between a worker and its parent: events as lines of JSON, and exit codes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Final

from psa.specs.base import canonical_json
from psa.specs.trial import Pack


def failures_of(event: WorkerEvent) -> dict[str, str]:
    """Why trials have failed, by id: all of a pack, or some of one that is otherwise done."""
    if event.kind == "failed":
        return {trial.id: event.facts["error"] for trial in event.pack.trials}
    return dict(event.facts.get("failed", {}))


logger = logging.getLogger(__name__)

EXIT_INTERRUPTED: Final = 75  # EX_TEMPFAIL: nothing is lost, run it again
EVENT_KINDS: Final = frozenset(
    {
        "ready",
        "unusable",
        "begun",
        "loop",
        "done",
        "failed",
        "calibrated",
        "died",
        "taken",
        "stopped",
        "unrestorable",
    }
)


@dataclass(frozen=True)
class WorkerEvent:
    """Something a worker said or did. kind: ready, begun, loop, done, failed, calibrated, died, tick; or
    said, a line of a backend's own.
    """

    kind: str
    pack: Pack
    facts: dict[str, Any] = field(default_factory=dict)


def parse_event(line: bytes) -> dict[str, Any] | None:
    """What a worker says on a line; None where that is no event: a library may print what it likes."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        said = None
    if isinstance(said, dict) and str(said.get("event")) in EVENT_KINDS:
        return said
    if line.strip():
        logger.warning("a worker printed %r", line[:200].decode(errors="replace"))
    return None


class EventWriter:
    """Standard output, kept for events: what else is printed, by Python or by C, goes to standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        # whatever was printed before this, its line ends here
        self._out.write("\n")

    def close(self) -> None:
        """Close it, whether or not anybody still reads it."""
        with contextlib.suppress(OSError):
            self._out.close()

    def emit(self, event: str, **facts: Any) -> None:
        """Tell the parent."""
        try:
            self._out.write(canonical_json({"event": event, **facts}) + "\n")
            self._out.flush()
        except BrokenPipeError:
            # The parent has gone; standard input says so too, and the pack in hand is saved there.
            self._out = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - lives on
