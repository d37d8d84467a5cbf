"""The output of jobs, stored in moto's CloudWatch, and in their folders for a later rehearsal."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, Final

from cloud.emulator.jobs import ACCOUNT
from cloud.emulator.s3_server import REGION

_GROUP: Final = "/aws/sagemaker/TrainingJobs"
_FILE: Final = "log.jsonl"


class LogStore:
    """The log group of training jobs in moto's CloudWatch."""

    def __init__(self) -> None:
        from moto.logs.models import logs_backends

        self._backend: Any = logs_backends[ACCOUNT][REGION]
        self._lock = threading.Lock()
        if _GROUP not in self._backend.groups:
            self._backend.create_log_group(_GROUP, {})

    def stream(self, job: str, folder: Path) -> Stream:
        """Return a new stream of a job."""
        return Stream(self, f"{job}/algo-1-{time.time_ns() // 1_000_000_000}", folder / _FILE)

    def recall(self, folder: Path) -> None:
        """Load the output of a job of an earlier rehearsal."""
        known = set(self._backend.groups[_GROUP].streams)  # or of another rehearsal in this process
        if (folder / _FILE).exists():
            for line in (folder / _FILE).read_text().splitlines():
                name, event = json.loads(line)
                if name not in known:
                    self.put(name, event)

    def put(self, stream: str, event: dict[str, Any]) -> None:
        """Append an event to a stream, which is created if necessary."""
        with self._lock:
            if stream not in self._backend.groups[_GROUP].streams:
                self._backend.create_log_stream(_GROUP, stream)
            self._backend.put_log_events(_GROUP, stream, [event])


class Stream:
    """The output of one attempt of a job."""

    def __init__(self, book: LogStore, name: str, file: Path) -> None:
        self._book, self._name = book, name
        self._file = file.open("a")

    def __call__(self, line: str) -> None:
        """Append a line."""
        # CloudWatch refuses an empty message
        event = {"timestamp": time.time_ns() // 1_000_000, "message": line or " "}
        self._file.write(f"{json.dumps([self._name, event])}\n")
        self._book.put(self._name, event)

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
