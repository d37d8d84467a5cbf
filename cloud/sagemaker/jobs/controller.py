"""The controller of a sweep's managed jobs: each runs one job at a time until all of its trials are
downloaded.

One list request per tick; only jobs that have ended are described. A job that was interrupted, stopped or
lost continues in a next attempt from its checkpoints; one without capacity tries the next instance type.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from cloud.aws.cloudwatch import LOG_GROUP
from cloud.aws.errors import Unreachable
from cloud.aws.training_jobs import (
    SPOT_WAIT_SECONDS,
    TrainingJobStatus,
    lacked_capacity,
    seconds_without_instance,
)
from cloud.retry import WAIT_TICK_SECONDS, OutageTimer
from cloud.sagemaker.container.entry import FAILURES_FILE, PROGRESS_FILE
from cloud.sagemaker.jobs.job_state import JobBackend, JobState
from cloud.sagemaker.jobs.managed_job import ManagedJob, last_attempts
from cloud.sagemaker.jobs.progress import parse_failures, parse_progress
from cloud.sagemaker.jobs.submission import Submission
from psa.core.errors import one_line
from psa.execution.eta import loops_left
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack

logger = logging.getLogger(__name__)

JOB_ATTEMPTS: Final = 3  # attempts in a row without progress, after which a managed job counts as failed
MIN_POLL_SECONDS: Final = 1.0  # between two requests just after an event
MAX_POLL_SECONDS: Final = 10.0
WAIT_CHECK_SECONDS: Final = 600.0  # between two descriptions of a job that waits for spot capacity
_NO_SPOT: Final = f"no spot capacity within {SPOT_WAIT_SECONDS // 3600} hours"
_OF_CONTAINER: Final = "AlgorithmError"  # prefix of the failure reason of a job whose container has run
_LONGEST_REASON, _HEAD = 600, 60  # characters shown of a failure reason, and of its beginning


class JobController:
    """A controller that runs managed jobs to their end.

    horizons: the horizon of each requested trial, by id; last: the names of managed jobs that get no further
    job, since not all of their trials are requested; choices: the number of instance types to try.
    """

    def __init__(
        self,
        backend: JobBackend,
        managed_jobs: Sequence[ManagedJob],
        horizons: Mapping[str, int],
        *,
        choices: int = 1,
        at_once: int | None = None,
        last: Collection[str] = (),
    ) -> None:
        self.backend, self.horizons, self.choices = backend, horizons, choices
        self.states = [JobState(managed, last=managed.name in last) for managed in managed_jobs]
        self.failed: set[str] = set()  # ids of trials
        self._counted: set[str] = set()  # ids of trials counted as done
        self.submission = Submission(backend, self.states, at_once)

    def events(self, detach: bool = False) -> Iterator[WorkerEvent]:
        """Yield events and ticks until the last managed job ends, or with `detach` is submitted."""
        tick = WorkerEvent("tick", self.states[0].pack)
        yield from self._begin(self.backend.list_jobs())
        wait, seen, outage = MIN_POLL_SECONDS, time.monotonic(), OutageTimer("jobs")
        while True:
            yield from self.submission.events()
            if (detach and self.submission.throttled() is None) or all(state.over for state in self.states):
                return
            while time.monotonic() - seen < wait:
                yield tick
                time.sleep(WAIT_TICK_SECONDS)
            seen, happened, trouble = time.monotonic(), False, self.submission.throttled()
            try:
                for event in self._poll(self.backend.list_jobs()):
                    happened = True
                    yield event
            except Unreachable as error:
                trouble = error
            if trouble is None:
                outage.record_success()
            else:
                outage.record_failure(trouble)
            slower = MAX_POLL_SECONDS if trouble else min(MAX_POLL_SECONDS, wait * 1.5)
            wait = MIN_POLL_SECONDS if happened else slower

    def _begin(self, jobs: dict[str, TrainingJobStatus]) -> Iterator[WorkerEvent]:
        """Take over jobs that earlier controllers submitted. Failed ones are tried again."""
        attempts = last_attempts(jobs)
        for state in self.states:
            state.attempt = attempts.get(state.managed_job.name, 0)
            state.running = state.attempt > 0 and not jobs[state.job_name].ended
        for state in self.states:
            if state.attempt and not state.running:
                refused = self.backend.download(state.managed_job, state.job_name)
                if state.last or not self._pending(state) - refused.keys():
                    yield from self._over(state, refused)
            state.over = state.over or (state.last and not state.running)
            state.left = self._left(state.managed_job)
            yield WorkerEvent("tick", state.pack)

    def _left(self, managed: ManagedJob) -> int:
        return sum(loops_left(self.backend.store, pack) for pack in managed.packs.values())

    def _pending(self, state: JobState) -> set[str]:
        return {trial.id for trial in state.managed_job.pending(self.backend.store)}

    def _poll(self, jobs: dict[str, TrainingJobStatus]) -> Iterator[WorkerEvent]:
        """Yield the events that follow from a new list of the jobs."""
        for state in self.states:
            status = jobs.get(state.job_name)
            if not state.running or status is None:
                continue
            if status.ended:
                yield from self._ended(state, status)
            elif status.secondary == "Training":
                yield from self._progress(state)
            elif status.waits:
                self._check_wait(state, status)

    def _check_wait(self, state: JobState, status: TrainingJobStatus) -> None:
        """Stop a spot job that has waited for capacity for too long, so that the next type is tried."""
        is_early = time.time() - status.created < SPOT_WAIT_SECONDS
        if state.gave_up or is_early or time.monotonic() - state.described < WAIT_CHECK_SECONDS:
            return
        state.described = time.monotonic()
        description = self.backend.describe_job(state.job_name)
        if seconds_without_instance(description, time.time()) >= SPOT_WAIT_SECONDS:
            state.gave_up = self.backend.stop_job(state.job_name)

    def _progress(self, state: JobState) -> Iterator[WorkerEvent]:
        """Yield the progress of a running job's packs, read from the file beside its states."""
        if not state.begun:
            state.begun = True
            for pack in state.managed_job.packs.values():
                yield WorkerEvent("begun", pack, {"left": loops_left(self.backend.store, pack)})
        for name, last in parse_progress(self.backend.read_file(state.managed_job, PROGRESS_FILE)).items():
            before = state.loops.get(name, 0)
            if name in state.managed_job.packs and last["loop"] > before:
                state.loops[name] = last["loop"]
                news = {**last, "trained": last["trained"] * (last["loop"] - before)}
                yield WorkerEvent("loop", state.managed_job.packs[name], news)

    def _ended(self, state: JobState, status: TrainingJobStatus) -> Iterator[WorkerEvent]:
        """Download the results of a job that has ended; what is missing is submitted again."""
        managed, job = state.managed_job, state.job_name
        refused = self.backend.download(managed, job)
        reported = parse_failures(self.backend.read_file(managed, FAILURES_FILE), job)
        is_complete = status.status == "Completed" and not reported
        description = {} if is_complete else self.backend.describe_job(job)
        log = log_stream_of(job, description)
        failures = {trial: f"{error} ({log})" for trial, error in reported.items()} | refused
        pending = self._pending(state)
        # last: if AWS becomes unreachable above, all of it is repeated at the next request
        state.running, self.submission.stall = False, None
        if state.last or not pending - failures.keys():
            yield from self._over(state, failures)
            return
        reason = _NO_SPOT if state.gave_up else _reason(job, description, status)
        self._count_attempt(state, state.gave_up or lacked_capacity(description))
        state.gave_up, state.described = False, -math.inf
        if state.tries >= JOB_ATTEMPTS:
            yield from self._over(state, dict.fromkeys(pending, f"{job}: {reason}") | failures)
            return
        yield WorkerEvent("died", state.pack, {"error": f"{job}: {reason}"})

    def _count_attempt(self, state: JobState, lacked_capacity: bool) -> None:
        """Count an attempt without progress; one without capacity is followed by the next instance type."""
        left = self._left(state.managed_job)
        state.tries = 0 if left < state.left else state.tries + 1
        state.left = left
        if lacked_capacity:
            state.choice += 1
            # one round of the types and one more on demand are free; then they count as attempts
            state.tries = 0 if state.choice < 2 * self.choices else state.tries

    def _over(self, state: JobState, failures: Mapping[str, str]) -> Iterator[WorkerEvent]:
        """Finish a managed job. Pending trials that have not failed are left to the caller."""
        pending = self._pending(state)
        state.over = True
        if not pending:  # before the event, whose receiver may delete weights that must be downloaded first
            self._delete_files(state.managed_job)
        found = {trial: failures[trial] for trial in pending & failures.keys()}
        self.failed |= found.keys()
        for pack in state.managed_job.packs.values():
            failed = {trial.id: found[trial.id] for trial in pack.trials if trial.id in found}
            yield WorkerEvent("done", pack, {"trained": self._done(pack), "failed": failed, "elsewhere": 0})

    def _delete_files(self, managed: ManagedJob) -> None:
        """Delete a managed job's files from the bucket. If AWS is unreachable, a later fetch does so."""
        try:
            self.backend.delete_files(managed)
        except Unreachable as trouble:
            logger.warning("%s; the next `psa fetch` removes it", trouble.message)

    def _done(self, pack: Pack) -> int:
        """Return the number of requested trials newly finished; each counts once over all jobs."""
        new = [trial for trial in pack.trials if trial.id in self.horizons.keys() - self._counted]
        done = [each for each in new if self.backend.store.progress([each], self.horizons[each.id]).done]
        self._counted |= {trial.id for trial in done}
        return len(done)


def _reason(job: str, description: Mapping[str, Any], status: TrainingJobStatus) -> str:
    """Return the reason why a job ended. description: its description, or empty if it was not requested."""
    if status.status == "Completed":
        return "completed, but not all of its trials have arrived"
    text = one_line(str(description.get("FailureReason", "")))
    if len(text) > _LONGEST_REASON:  # an exception names itself in its last line
        text = f"{text[:_HEAD]} ... {text[_HEAD - _LONGEST_REASON :]}"
    is_of_container = text.startswith(_OF_CONTAINER)
    return (
        (f"{text} ({log_stream_of(job, description)})" if is_of_container else text)
        or status.secondary
        or status.status
    )


def log_stream_of(job: str, description: Mapping[str, Any]) -> str:
    """Return the place in CloudWatch of the output of a job's container. A queue of AWS Batch gives the
    training job another name, with which its ARN ends.
    """
    name = str(description.get("TrainingJobArn", "")).rpartition("/")[2] or job
    return f"log stream {name}/algo-1-* in {LOG_GROUP}"
