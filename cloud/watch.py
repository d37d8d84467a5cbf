"""The watch over a sweep's lines: each has one job at a time, and a next one until its trials are at home.

One list request a tick; only what has ended is described. A job that was interrupted, stopped or lost goes on
in a next attempt from its checkpoints; one that found no capacity tries the next instance type.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # of Python below 3.12 pydantic takes this one alone

from cloud.bootstrap import FAILURES, PROGRESS
from cloud.bucket import Unreachable
from cloud.line import Line, job_parts
from cloud.training_jobs import Answer, Status
from psa.estimate import loops_left
from psa.events import Event
from psa.store import Store

logger = logging.getLogger(__name__)

TRIES: Final = 3  # attempts that end without any progress, before a line counts as failed
SOON, LATE = 1.0, 10.0  # seconds between two looks: just after something happened, and when nothing does
NAP: Final = 0.25
PATIENCE_SECONDS: Final = 1800.0  # for which AWS may be out of reach: a laptop sleeps, a network fails
_NO_CAPACITY: Final = "CapacityError"


class LastLoop(TypedDict):
    """Of a pack: its loop, the trials in it, and the best so far."""

    loop: int
    trained: int
    best: float
    trial: str


_LAST_LOOPS: Final = TypeAdapter(dict[str, LastLoop])


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

    def home(self, line: Line, job: str) -> None:
        """Bring home what a job has left."""

    def dropped(self, line: Line) -> None:
        """All of a line is at home: what it held elsewhere is not needed any more."""


@dataclass
class Course:
    """How far a line is. attempt: of its present or last job, 0 before the first; choice: which instance
    type; tries: attempts in a row without progress; left: trial-loops that were left when the job began.
    """

    line: Line
    attempt: int = 0
    running: bool = False
    over: bool = False
    choice: int = 0
    tries: int = 0
    left: int = 0
    begun: bool = False
    loops: dict[str, int] = field(default_factory=dict)

    @property
    def job(self) -> str:
        """The name of its present job."""
        return self.line.job(self.attempt)


class Watch:
    """Some lines on their way to the end. `choices`: how many instance types there are to be tried."""

    def __init__(self, desk: Desk, lines: Sequence[Line], choices: int, at_once: int | None) -> None:
        self.desk, self.choices, self.at_once = desk, choices, at_once
        self.courses = [Course(line) for line in lines]
        self.full = False  # the quota is: nothing more is submitted before something has ended

    def events(self, detach: bool = False) -> Iterator[Event]:
        """What happens, a tick several times a second; ends with the last line, or, where it is to be left
        alone, as soon as nothing more can be submitted.
        """
        first = self.courses[0].line.packs
        tick = Event("tick", next(iter(first.values())))
        yield from self._begin(self.desk.listed())
        wait, seen, lost = SOON, time.monotonic(), None
        while True:
            yield from self._submit()
            if detach or all(course.over for course in self.courses):
                return
            while time.monotonic() - seen < wait:
                yield tick
                time.sleep(NAP)
            seen = time.monotonic()
            try:
                happened = list(self._looked(self.desk.listed()))
            except Unreachable as trouble:
                lost = _patient(lost, trouble)
                wait = LATE
                continue
            lost, wait = None, SOON if happened else min(LATE, wait * 1.5)
            yield from happened

    def _begin(self, jobs: dict[str, Status]) -> Iterator[Event]:
        """Take up what earlier watches have begun. What has failed there is tried again."""
        last: dict[str, int] = {}
        for name in jobs:
            parts = job_parts(name)
            if parts is not None:
                last[parts[1]] = max(last.get(parts[1], 0), parts[2])
        for course in self.courses:
            course.attempt = last.get(course.line.name, 0)
            course.running = course.attempt > 0 and not jobs[course.job].over
            if course.attempt and not course.running:
                self.desk.home(course.line, course.job)
                if not course.line.pending(self.desk.store):
                    yield from self._over(course, set(), {})
            course.left = self._left(course.line)

    def _left(self, line: Line) -> int:
        return sum(loops_left(self.desk.store, pack) for pack in line.packs.values())

    def _submit(self) -> Iterator[Event]:
        """Submit what is waiting, as far as the quota and the user allow."""
        for course in self.courses:
            busy = sum(each.running for each in self.courses)
            if self.full or (self.at_once is not None and busy >= self.at_once):
                return
            if course.running or course.over:
                continue
            course.attempt += 1
            answer = self.desk.submit(course)
            course.running = answer in ("submitted", "there")
            course.begun = False
            if not course.running:
                course.attempt -= 1
                self.full = answer == "full"
                if answer == "later":  # asked again at the next look
                    return
            yield Event("tick", next(iter(course.line.packs.values())))

    def _looked(self, jobs: dict[str, Status]) -> Iterator[Event]:
        """What a list of the jobs says that was not known before."""
        waiting = self.full
        for course in self.courses:
            status = jobs.get(course.job)
            if not course.running or status is None:
                continue
            if status.over:
                course.running = False
                self.full = False
                yield from self._ended(course, status)
            elif status.secondary == "Training":
                yield from self._progress(course)
        if waiting and not any(course.running for course in self.courses):
            self.full = False  # others' jobs take up the quota: it is asked again at each look

    def _progress(self, course: Course) -> Iterator[Event]:
        """How far the packs of a running job are, by what it wrote beside its states."""
        if not course.begun:
            course.begun = True
            for pack in course.line.packs.values():
                yield Event("begun", pack, {"left": loops_left(self.desk.store, pack)})
        for name, last in progress_in(self.desk.told(course.line, PROGRESS)).items():
            before = course.loops.get(name, 0)
            if name in course.line.packs and last["loop"] > before:
                course.loops[name] = last["loop"]
                news = {**last, "trained": last["trained"] * (last["loop"] - before)}
                yield Event("loop", course.line.packs[name], news)

    def _ended(self, course: Course, status: Status) -> Iterator[Event]:
        """A job has ended: what it left comes home, and what is missing is given out again."""
        line, job = course.line, course.job
        self.desk.home(line, job)
        failures = {
            trial: str(error)
            for trial, error in object_of(self.desk.told(line, FAILURES)).items()
            if trial and error
        }
        pending = {trial.id for trial in line.pending(self.desk.store)}
        if not pending - failures.keys():
            yield from self._over(course, pending, failures)
            return
        reason = self._reason(job, status)
        left = self._left(line)
        course.tries = 0 if left < course.left else course.tries + 1
        course.left = left
        if reason.startswith(_NO_CAPACITY):
            course.choice += 1
            # one round of the types, and one more on demand, cost no try; then they count like any other
            course.tries = 0 if course.choice < 2 * self.choices else course.tries
        if course.tries >= TRIES:
            yield from self._over(course, pending, dict.fromkeys(pending, f"{job}: {reason}") | failures)
            return
        yield Event("died", next(iter(line.packs.values())), {"error": f"{job}: {reason}"})

    def _over(self, course: Course, pending: set[str], failures: dict[str, str]) -> Iterator[Event]:
        course.over = True
        for pack in course.line.packs.values():
            ids = [trial.id for trial in pack.trials]
            failed = {trial: failures[trial] for trial in ids if trial in pending}
            yield Event("done", pack, {"trained": len(ids) - len(failed), "failed": failed, "elsewhere": 0})
        if not pending:
            self.desk.dropped(course.line)

    def _reason(self, job: str, status: Status) -> str:
        if status.status == "Completed":
            return "completed, but not all of its trials have arrived"
        said = self.desk.described(job).get("FailureReason", "")
        return " ".join(str(said).split())[:200] or status.secondary or status.status


def _patient(since: float | None, trouble: Unreachable) -> float:
    """When AWS was lost sight of: the jobs do not notice. Raises the trouble when it lasts too long."""
    now = time.monotonic()
    if since is None:
        logger.warning("%s; the jobs go on, and it is tried again", trouble.what)
        return now
    if now - since > PATIENCE_SECONDS:
        raise trouble
    return since


def progress_in(content: bytes | None) -> dict[str, LastLoop]:
    """What the last loop of each pack said, by the pack's name; nothing where it is not of its form: a copy
    may be taken while it is written.
    """
    try:
        return _LAST_LOOPS.validate_json(content or b"{}")
    except ValidationError:
        return {}


def object_of(content: bytes | None) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read: a copy may be taken while it is written."""
    try:
        found = json.loads(content or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
