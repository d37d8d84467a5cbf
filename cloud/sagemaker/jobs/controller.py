"""The controller of a sweep's lines: each runs one job at a time until all of its trials are downloaded.

One list request per tick; only jobs that have ended are described. A job that was interrupted, stopped or
lost continues in a next attempt from its checkpoints; one without capacity tries the next instance type.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from cloud.aws.cloudwatch import LOG_GROUP
from cloud.aws.errors import Unreachable
from cloud.aws.training_jobs import TrainingJobStatus, lacked_capacity
from cloud.patience import NAP, Patience
from cloud.sagemaker.container.entry import FAILURES, PROGRESS
from cloud.sagemaker.jobs.course import JobBackend, JobState
from cloud.sagemaker.jobs.managed_job import ManagedJob, last_attempts
from cloud.sagemaker.jobs.progress import parse_failures, parse_progress
from cloud.sagemaker.jobs.submission import Submission
from psa.core.errors import one_line
from psa.execution.eta import loops_left
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack

logger = logging.getLogger(__name__)

JOB_ATTEMPTS: Final = 3  # attempts in a row without progress, after which a line counts as failed
SOON, LATE = 1.0, 10.0  # seconds between two requests: just after an event, and otherwise
_OF_CONTAINER: Final = "AlgorithmError"  # prefix of the failure reason of a job whose container has run
_LONGEST_REASON, _HEAD = 600, 60  # characters shown of a failure reason, and of its beginning


class JobController:
    """A controller that runs lines to their end.

    wanted: the horizon of each requested trial, by id; last: the names of lines that get no further job,
    since not all of their trials are requested; choices: the number of instance types to try.
    """

    def __init__(
        self,
        desk: JobBackend,
        lines: Sequence[ManagedJob],
        wanted: Mapping[str, int],
        *,
        choices: int = 1,
        at_once: int | None = None,
        last: Collection[str] = (),
    ) -> None:
        self.desk, self.wanted, self.choices = desk, wanted, choices
        self.courses = [JobState(line, last=line.name in last) for line in lines]
        self.failed: set[str] = set()  # ids of trials
        self._counted: set[str] = set()  # ids of trials counted as done
        self.submission = Submission(desk, self.courses, at_once)

    def events(self, detach: bool = False) -> Iterator[WorkerEvent]:
        """Yield events, and a tick several times a second, until the last line ends; with `detach`, until
        nothing more can be submitted.
        """
        tick = WorkerEvent("tick", self.courses[0].pack)
        yield from self._begin(self.desk.listed())
        wait, seen, patience = SOON, time.monotonic(), Patience("jobs")
        while True:
            yield from self.submission.events()
            if (detach and self.submission.postponed() is None) or all(
                course.over for course in self.courses
            ):
                return
            while time.monotonic() - seen < wait:
                yield tick
                time.sleep(NAP)
            seen, happened, trouble = time.monotonic(), False, self.submission.postponed()
            try:
                for event in self._looked(self.desk.listed()):
                    happened = True
                    yield event
            except Unreachable as error:
                trouble = error
            if trouble is None:
                patience.regained()
            else:
                patience.lost(trouble)
            wait = SOON if happened else LATE if trouble else min(LATE, wait * 1.5)

    def _begin(self, jobs: dict[str, TrainingJobStatus]) -> Iterator[WorkerEvent]:
        """Take over jobs that earlier controllers submitted. Failed ones are tried again."""
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
            yield WorkerEvent("tick", course.pack)

    def _left(self, line: ManagedJob) -> int:
        return sum(loops_left(self.desk.store, pack) for pack in line.packs.values())

    def _pending(self, course: JobState) -> set[str]:
        return {trial.id for trial in course.line.pending(self.desk.store)}

    def _looked(self, jobs: dict[str, TrainingJobStatus]) -> Iterator[WorkerEvent]:
        """Yield the events that follow from a new list of the jobs."""
        for course in self.courses:
            status = jobs.get(course.job)
            if not course.running or status is None:
                continue
            if status.over:
                yield from self._ended(course, status)
            elif status.secondary == "Training":
                yield from self._progress(course)

    def _progress(self, course: JobState) -> Iterator[WorkerEvent]:
        """Yield the progress of a running job's packs, read from the file beside its states."""
        if not course.begun:
            course.begun = True
            for pack in course.line.packs.values():
                yield WorkerEvent("begun", pack, {"left": loops_left(self.desk.store, pack)})
        for name, last in parse_progress(self.desk.told(course.line, PROGRESS)).items():
            before = course.loops.get(name, 0)
            if name in course.line.packs and last["loop"] > before:
                course.loops[name] = last["loop"]
                news = {**last, "trained": last["trained"] * (last["loop"] - before)}
                yield WorkerEvent("loop", course.line.packs[name], news)

    def _ended(self, course: JobState, status: TrainingJobStatus) -> Iterator[WorkerEvent]:
        """Download the results of a job that has ended; what is missing is submitted again."""
        line, job = course.line, course.job
        refused = self.desk.home(line, job)
        told = parse_failures(self.desk.told(line, FAILURES), job)
        failures = {trial: f"{error} ({log_of(job)})" for trial, error in told.items()} | refused
        pending = self._pending(course)
        said = {} if status.status == "Completed" else self.desk.described(job)
        # last: if AWS becomes unreachable above, all of it is repeated at the next request
        course.running, self.submission.stall = False, None
        if course.last or not pending - failures.keys():
            yield from self._over(course, failures)
            return
        reason = _reason(job, said, status)
        self._judge(course, lacked_capacity(said))
        if course.tries >= JOB_ATTEMPTS:
            yield from self._over(course, dict.fromkeys(pending, f"{job}: {reason}") | failures)
            return
        yield WorkerEvent("died", course.pack, {"error": f"{job}: {reason}"})

    def _judge(self, course: JobState, lacked_capacity: bool) -> None:
        """Count an attempt without progress; one without capacity is followed by the next instance type."""
        left = self._left(course.line)
        course.tries = 0 if left < course.left else course.tries + 1
        course.left = left
        if lacked_capacity:
            course.choice += 1
            # one round of the types and one more on demand are free; then they count as attempts
            course.tries = 0 if course.choice < 2 * self.choices else course.tries

    def _over(self, course: JobState, failures: Mapping[str, str]) -> Iterator[WorkerEvent]:
        """Finish a line. Pending trials that have not failed are left to the caller."""
        pending = self._pending(course)
        course.over = True
        if not pending:  # before the event, whose receiver may delete weights that must be downloaded first
            self._drop(course.line)
        found = {trial: failures[trial] for trial in pending & failures.keys()}
        self.failed |= found.keys()
        for pack in course.line.packs.values():
            failed = {trial.id: found[trial.id] for trial in pack.trials if trial.id in found}
            yield WorkerEvent("done", pack, {"trained": self._done(pack), "failed": failed, "elsewhere": 0})

    def _drop(self, line: ManagedJob) -> None:
        """Delete a line's files from the bucket. If AWS is unreachable, the next sweep or fetch does so."""
        try:
            self.desk.dropped(line)
        except Unreachable as trouble:
            logger.warning("%s; it stays there until the next `psa fetch`", trouble.message)

    def _done(self, pack: Pack) -> int:
        """Return the number of requested trials that are newly finished; each counts once over all lines."""
        new = [trial for trial in pack.trials if trial.id in self.wanted.keys() - self._counted]
        done = [each for each in new if self.desk.store.progress([each], self.wanted[each.id]).done]
        self._counted |= {trial.id for trial in done}
        return len(done)


def _reason(job: str, said: Mapping[str, Any], status: TrainingJobStatus) -> str:
    """Return the reason why a job ended. said: its description, or empty if it was not requested."""
    if status.status == "Completed":
        return "completed, but not all of its trials have arrived"
    text = one_line(str(said.get("FailureReason", "")))
    if len(text) > _LONGEST_REASON:  # an exception names itself in its last line
        text = f"{text[:_HEAD]} ... {text[_HEAD - _LONGEST_REASON :]}"
    is_of_container = text.startswith(_OF_CONTAINER)
    return (f"{text} ({log_of(job)})" if is_of_container else text) or status.secondary or status.status


def log_of(job: str) -> str:
    """Return the place in CloudWatch of the output of a job's container."""
    return f"log stream {job}/algo-1-* in {LOG_GROUP}"
