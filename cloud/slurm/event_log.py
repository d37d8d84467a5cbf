"""The events of an array task as a file of JSON lines on the shared folder: the task appends, sweeps read.

Each event is written by an open, one write and a close, and each read opens the file anew: NFS promises that
who opens a file sees all that was written before the writer's close, and no more than that.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from psa.core.files import file_error
from psa.execution.worker.protocol import parse_event
from psa.specs.base import canonical_json

_LONGEST_READ: Final = 1 << 24  # bytes at once


class EventLogWriter:
    """The log of one attempt of a task. Raises UserError if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._begin = "\n"  # ends the line that a killed attempt may have left unfinished

    def append(self, event: str, **facts: Any) -> None:
        """Append an event."""
        line = f"{self._begin}{canonical_json({'event': event, **facts})}\n".encode()
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise file_error(error, f"cannot write {self.path}") from error
        self._begin = ""


class EventLogReader:
    """A reader of the events of a task, from all of its attempts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the events that have been written since the last call."""
        return list(self.events())

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield the events that have been written since the last call: a long task has written very many."""
        while content := self._block():
            self._offset += len(content)
            *lines, self._rest = (self._rest + content).split(b"\n")
            yield from (event for line in lines if (event := parse_event(line)) is not None)

    def read_last_attempt(self) -> list[dict[str, Any]]:
        """Return the events since the last `begun`, all of them without one.

        Loops that follow each other are merged into one event, with the sum of what they have trained.
        """
        events: list[dict[str, Any]] = []
        for event in self.events():
            if event["event"] == "begun":
                events = []
            if event["event"] == "loop" and events and events[-1]["event"] == "loop":
                event["trained"] += events.pop()["trained"]
            events.append(event)
        return events

    def _block(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                return file.read(_LONGEST_READ)
        except OSError:  # not begun yet, or removed
            return b""
