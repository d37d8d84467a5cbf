"""The submission of jobs: as many at once as the quota, the budget and the user allow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from cloud.aws.errors import Unreachable
from cloud.aws.training_jobs import SubmitResult
from cloud.sagemaker.jobs.job_state import JobBackend, JobState
from psa.core.errors import UserError
from psa.core.formatting import pluralize
from psa.execution.worker.protocol import WorkerEvent

QUOTA_RETRY_SECONDS: Final = 180.0  # after which a full quota is tried again, since other jobs may have ended


class Submission:
    """The submission of managed jobs without a job. at_once: the maximum number of running jobs.

    stall: the result of the last failed submission; the controller clears it when a job ends.
    """

    def __init__(self, backend: JobBackend, states: Sequence[JobState], at_once: int | None) -> None:
        self.backend, self.states, self.at_once = backend, states, at_once
        self.stall: SubmitResult | None = None
        self._asked = 0.0  # time of that submission
        self._quota_reported = False

    def events(self) -> Iterator[WorkerEvent]:
        """Submit waiting managed jobs, as far as the quota, the budget and the user allow."""
        for state in self.states:
            busy = sum(each.running for each in self.states)
            if self._is_waiting() or (self.at_once is not None and busy >= self.at_once):
                return
            if state.running or state.over:
                continue
            state.attempt += 1
            try:
                answer = self.backend.submit(state)
            except Unreachable as trouble:  # while its inputs were uploaded
                answer = SubmitResult("throttled", trouble.message, trouble.hint)
            state.running, state.begun = answer.started, False
            if not answer.started:
                state.attempt -= 1
                self.stall, self._asked = answer, time.monotonic()
                yield from self._stalled(answer, busy)
                return
            self.stall = None
            yield WorkerEvent("tick", state.pack)

    def _is_waiting(self) -> bool:
        """Return whether it is too early to retry. A throttled request is retried at the next tick."""
        if self.stall is None or self.stall.kind == "throttled":
            return False
        return time.monotonic() - self._asked < QUOTA_RETRY_SECONDS

    def _stalled(self, answer: SubmitResult, busy: int) -> Iterator[WorkerEvent]:
        """Report a full quota once. Raises UserError if the quota is zero and no job is running."""
        if answer.kind != "quota":
            return
        if answer.zero_quota and not busy:
            raise UserError(
                answer.message, "Request an increase of this quota, or set INSTANCE_TYPE to one that has some"
            )
        if not self._quota_reported:
            self._quota_reported = True
            rest = sum(not state.running and not state.over for state in self.states)
            text = f"{pluralize(rest, 'job')} to be submitted when the quota allows it: {answer.message}"
            yield WorkerEvent("message", self.states[0].pack, {"message": text})

    def throttled(self) -> Unreachable | None:
        """Return the error if AWS throttles submissions at present, else None."""
        if self.stall is None or self.stall.kind != "throttled":
            return None
        return Unreachable(self.stall.message, self.stall.hint)
