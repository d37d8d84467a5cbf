"""The submission of jobs: as many at once as the quota, the budget and the user allow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from cloud.aws.errors import Unreachable
from cloud.aws.training_jobs import SubmitResult
from cloud.sagemaker.jobs.course import JobBackend, JobState
from psa.core.errors import UserError
from psa.core.formatting import pluralize
from psa.execution.worker.protocol import WorkerEvent

QUOTA_RETRY_SECONDS: Final = 180.0  # after which a full quota is tried again, since other jobs may have ended


class Submission:
    """The submission of lines without a job. at_once: the maximum number of running jobs.

    stall: the result of the last failed submission; the controller clears it when a job ends.
    """

    def __init__(self, desk: JobBackend, courses: Sequence[JobState], at_once: int | None) -> None:
        self.desk, self.courses, self.at_once = desk, courses, at_once
        self.stall: SubmitResult | None = None
        self._asked = 0.0  # time of that submission
        self._said_full = False

    def events(self) -> Iterator[WorkerEvent]:
        """Submit waiting lines, as far as the quota, the budget and the user allow."""
        for course in self.courses:
            busy = sum(each.running for each in self.courses)
            if self._is_waiting() or (self.at_once is not None and busy >= self.at_once):
                return
            if course.running or course.over:
                continue
            course.attempt += 1
            try:
                answer = self.desk.submit(course)
            except Unreachable as trouble:  # while its inputs were uploaded
                answer = SubmitResult("later", trouble.message, trouble.hint)
            course.running, course.begun = answer.started, False
            if not answer.started:
                course.attempt -= 1
                self.stall, self._asked = answer, time.monotonic()
                yield from self._stalled(answer, busy)
                return
            self.stall = None
            yield WorkerEvent("tick", course.pack)

    def _is_waiting(self) -> bool:
        """Return whether it is too early to retry. A throttled request is retried at the next tick."""
        if self.stall is None or self.stall.kind == "later":
            return False
        return time.monotonic() - self._asked < QUOTA_RETRY_SECONDS

    def _stalled(self, answer: SubmitResult, busy: int) -> Iterator[WorkerEvent]:
        """Report a full quota once. Raises UserError if the quota is zero and no job is running."""
        if answer.kind != "full":
            return
        if answer.zero_quota and not busy:
            raise UserError(
                answer.said, "Request an increase of this quota, or set INSTANCE_TYPE to one that has some"
            )
        if not self._said_full:
            self._said_full = True
            rest = sum(not course.running and not course.over for course in self.courses)
            said = f"{pluralize(rest, 'job')} to be submitted when the quota allows it: {answer.said}"
            yield WorkerEvent("said", self.courses[0].pack, {"said": said})

    def postponed(self) -> Unreachable | None:
        """Return the error if AWS throttles submissions at present, else None."""
        if self.stall is None or self.stall.kind != "later":
            return None
        return Unreachable(self.stall.said, self.stall.hint)
