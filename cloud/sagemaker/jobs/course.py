"""The course of a line, one job at a time until its trials are at home, and the desk its jobs go through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from cloud.aws.training_jobs import Answer, Status
from cloud.sagemaker.jobs.managed_job import Line
from psa.specs.trial import Pack
from psa.storage.store import Store


class Desk(Protocol):
    """What the watch asks of the backend."""

    store: Store

    def submit(self, course: Course) -> Answer:
        """Submit the present job of a course."""

    def listed(self) -> dict[str, Status]:
        """The jobs of this home, by name."""

    def described(self, name: str) -> dict[str, Any]:
        """All that is known of a job."""

    def told(self, line: Line, name: str) -> bytes | None:
        """A file that the running job keeps beside its states."""

    def home(self, line: Line, job: str) -> dict[str, str]:
        """Bring home what a job has left; why it cannot be, for some trials by id."""

    def dropped(self, line: Line) -> None:
        """All of a line is at home: what it held elsewhere is not needed any more."""


@dataclass
class Course:
    """How far a line is. attempt: of its present or last job, 0 before the first; last: no job follows it;
    choice: which instance type; tries: attempts in a row without progress; left: trial-loops that were left
    when the job began.
    """

    line: Line
    attempt: int = 0
    running: bool = False
    over: bool = False
    last: bool = False
    choice: int = 0
    tries: int = 0
    left: int = 0
    begun: bool = False
    loops: dict[str, int] = field(default_factory=dict)

    @property
    def job(self) -> str:
        """The name of its present job."""
        return self.line.job(self.attempt)

    @property
    def pack(self) -> Pack:
        """One of its packs, for events that are of none."""
        return next(iter(self.line.packs.values()))
