"""The watch over a sweep's lines: each has one job at a time, and a next one until its trials are at home.

One list request a tick; only what has ended is described. A job that was interrupted, stopped or lost goes on
in a next attempt from its checkpoints; one that found no capacity tries the next instance type.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cloud.aws_errors import Unreachable
from cloud.bootstrap import FAILURES, PROGRESS
from cloud.line import Line, last_attempts
from cloud.logs import GROUP
from cloud.told import failures_in, progress_in
from cloud.training_jobs import Answer, Status, lacked_capacity
from psa.errors import UserError, one_line
from psa.estimate import loops_left
from psa.events import Event
from psa.store import Store
from psa.trial import Pack
from psa.words import counted

logger = logging.getLogger(__name__)

TRIES: Final = 3  # attempts that end without any progress, before a line counts as failed
SOON, LATE = 1.0, 10.0  # seconds between two looks: just after something happened, and when nothing does
NAP: Final = 0.25
_OF_CONTAINER: Final = "AlgorithmError"  # begins the reason of a job whose container has run
_LONGEST_REASON, _HEAD = 600, 60  # characters shown of the reason for a failed job, and of its beginning
PATIENCE_SECONDS: Final = 1800.0  # for which AWS may be out of reach: a laptop sleeps, a network fails
AGAIN_SECONDS: Final = 180.0  # after which a full quota is tried again: jobs of others may have ended


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


class Watch:
    """Some lines on their way to the end.

    wanted: the horizon of each trial that is asked for, by id; last: the names of lines of which only the
    present job is watched, since not all that they hold is asked for; choices: how many instance types there
    are to be tried.
    """

    def __init__(
        self,
        desk: Desk,
        lines: Sequence[Line],
        wanted: Mapping[str, int],
        *,
        choices: int = 1,
        at_once: int | None = None,
        last: Collection[str] = (),
    ) -> None:
        self.desk, self.wanted, self.choices, self.at_once = desk, wanted, choices, at_once
        self.courses = [Course(line, last=line.name in last) for line in lines]
        self.failed: set[str] = set()  # ids of trials
        self._counted: set[str] = set()  # as done
        self.stall: Answer | None = None  # why the last submission came to nothing
        self._asked = 0.0  # when that was
        self._said_full = False

    def events(self, detach: bool = False) -> Iterator[Event]:
        """What happens, a tick several times a second; ends with the last line, or, where it is to be left
        alone, as soon as nothing more can be submitted.
        """
        tick = Event("tick", self.courses[0].pack)
        yield from self._begin(self.desk.listed())
        wait, seen, lost = SOON, time.monotonic(), None
        while True:
            yield from self._submit()
            is_asked_again = self.stall is not None and self.stall.kind == "later"
            if (detach and not is_asked_again) or all(course.over for course in self.courses):
                return
            while time.monotonic() - seen < wait:
                yield tick
                time.sleep(NAP)
            seen, happened, trouble = time.monotonic(), False, self._postponed()
            try:
                for event in self._looked(self.desk.listed()):
                    happened = True
                    yield event
            except Unreachable as error:
                trouble = error
            lost = None if trouble is None else _patient(lost, trouble)
            wait = SOON if happened else LATE if trouble else min(LATE, wait * 1.5)

    def _postponed(self) -> Unreachable | None:
        """Return why AWS takes no submission at present, if it asks for patience."""
        if self.stall is None or self.stall.kind != "later":
            return None
        return Unreachable(self.stall.said)

    def _begin(self, jobs: dict[str, Status]) -> Iterator[Event]:
        """Take up what earlier watches have begun. What has failed there is tried again."""
        attempts = last_attempts(jobs)
        for course in self.courses:
            course.attempt = attempts.get(course.line.name, 0)
            course.running = course.attempt > 0 and not jobs[course.job].over
        for course in self.courses:
            if course.attempt and not course.running:
                refused = self.desk.home(course.line, course.job)
                if course.last or not self._pending(course) - refused.keys():
                    yield from self._over(course, refused)
            course.over = course.over or (course.last and not course.running)
            course.left = self._left(course.line)
            yield Event("tick", course.pack)

    def _left(self, line: Line) -> int:
        return sum(loops_left(self.desk.store, pack) for pack in line.packs.values())

    def _pending(self, course: Course) -> set[str]:
        return {trial.id for trial in course.line.pending(self.desk.store)}

    def _submit(self) -> Iterator[Event]:
        """Submit what is waiting, as far as the quota, the budget and the user allow."""
        for course in self.courses:
            busy = sum(each.running for each in self.courses)
            if self._is_stalled() or (self.at_once is not None and busy >= self.at_once):
                return
            if course.running or course.over:
                continue
            course.attempt += 1
            try:
                answer = self.desk.submit(course)
            except Unreachable as trouble:  # while its inputs were laid into the bucket
                answer = Answer("later", trouble.what)
            course.running, course.begun = answer.begun, False
            if not answer.begun:
                course.attempt -= 1
                self.stall, self._asked = answer, time.monotonic()
                yield from self._stalled(answer, busy)
                return
            self.stall = None
            yield Event("tick", course.pack)

    def _is_stalled(self) -> bool:
        """Whether it is too early to ask again. What AWS wants to be asked later is, at the next look."""
        if self.stall is None or self.stall.kind == "later":
            return False
        return time.monotonic() - self._asked < AGAIN_SECONDS

    def _stalled(self, answer: Answer, busy: int) -> Iterator[Event]:
        """Say once that the quota is full. Raises UserError where it is none at all, and nothing is lost."""
        if answer.kind != "full":
            return
        if answer.hopeless and not busy:
            raise UserError(
                answer.said, "Request an increase of this quota, or set INSTANCE_TYPE to one that has some"
            )
        if not self._said_full:
            self._said_full = True
            rest = sum(not course.running and not course.over for course in self.courses)
            said = f"{counted(rest, 'job')} to be submitted when the quota allows it: {answer.said}"
            yield Event("said", self.courses[0].pack, {"said": said})

    def _looked(self, jobs: dict[str, Status]) -> Iterator[Event]:
        """What a list of the jobs says that was not known before."""
        for course in self.courses:
            status = jobs.get(course.job)
            if not course.running or status is None:
                continue
            if status.over:
                yield from self._ended(course, status)
            elif status.secondary == "Training":
                yield from self._progress(course)

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
        refused = self.desk.home(line, job)
        told = failures_in(self.desk.told(line, FAILURES), job)
        failures = {trial: f"{error} ({log_of(job)})" for trial, error in told.items()} | refused
        pending = self._pending(course)
        said = {} if status.status == "Completed" else self.desk.described(job)
        # only now: should AWS be lost sight of before, the same is done again at the next look
        course.running, self.stall = False, None
        if course.last or not pending - failures.keys():
            yield from self._over(course, failures)
            return
        reason = _reason(job, said, status)
        self._judge(course, lacked_capacity(said))
        if course.tries >= TRIES:
            yield from self._over(course, dict.fromkeys(pending, f"{job}: {reason}") | failures)
            return
        yield Event("died", course.pack, {"error": f"{job}: {reason}"})

    def _judge(self, course: Course, lacked_capacity: bool) -> None:
        """Count an attempt that came to nothing; one without capacity is followed by the next type."""
        left = self._left(course.line)
        course.tries = 0 if left < course.left else course.tries + 1
        course.left = left
        if lacked_capacity:
            course.choice += 1
            # one round of the types, and one more on demand, cost no try; then they count like any other
            course.tries = 0 if course.choice < 2 * self.choices else course.tries

    def _over(self, course: Course, failures: Mapping[str, str]) -> Iterator[Event]:
        """Nothing more is done for a line. What is pending and has not failed is left to whoever asks."""
        pending = self._pending(course)
        course.over = True
        if not pending:  # before anybody hears of it, who might drop weights that have to be here first
            self._drop(course.line)
        found = {trial: failures[trial] for trial in pending & failures.keys()}
        self.failed |= found.keys()
        for pack in course.line.packs.values():
            failed = {trial.id: found[trial.id] for trial in pack.trials if trial.id in found}
            yield Event("done", pack, {"trained": self._done(pack), "failed": failed, "elsewhere": 0})

    def _drop(self, line: Line) -> None:
        """Remove what a line holds elsewhere; the next sweep or fetch does so where AWS cannot be reached."""
        try:
            self.desk.dropped(line)
        except Unreachable as trouble:
            logger.warning("%s; it stays there until the next `psa fetch`", trouble.what)

    def _done(self, pack: Pack) -> int:
        """How many trials that were asked for are done now; each counts once, whichever line had it."""
        new = [trial for trial in pack.trials if trial.id in self.wanted.keys() - self._counted]
        done = [each for each in new if self.desk.store.survey([each], self.wanted[each.id]).done]
        self._counted |= {trial.id for trial in done}
        return len(done)


def _reason(job: str, said: Mapping[str, Any], status: Status) -> str:
    """Why a job has ended. said: its description, if that was asked for."""
    if status.status == "Completed":
        return "completed, but not all of its trials have arrived"
    text = one_line(str(said.get("FailureReason", "")))
    if len(text) > _LONGEST_REASON:  # an exception names itself in its last line
        text = f"{text[:_HEAD]} ... {text[_HEAD - _LONGEST_REASON :]}"
    is_of_container = text.startswith(_OF_CONTAINER)
    return (f"{text} ({log_of(job)})" if is_of_container else text) or status.secondary or status.status


def log_of(job: str) -> str:
    """Return where CloudWatch keeps what the container of a job has printed."""
    return f"log stream {job}/algo-1-* in {GROUP}"


def _patient(since: float | None, trouble: Unreachable) -> float:
    """When AWS was lost sight of: the jobs do not notice. Raises the trouble when it lasts too long."""
    now = time.monotonic()
    if since is None:
        logger.warning("%s; the jobs go on, and it is tried again", trouble.what)
        return now
    if now - since > PATIENCE_SECONDS:
        raise trouble
    return since
