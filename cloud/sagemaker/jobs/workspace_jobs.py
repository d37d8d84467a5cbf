"""The jobs of a workspace, wherever they were submitted: to the region, or to a queue of AWS Batch.

A sweep may be repeated with another queue, or without one. Its jobs are therefore searched in the region and
in every queue that this workspace has used, so that no job is submitted twice.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from cloud.aws.account import Account
from cloud.aws.job_names import JOB_NAME_PREFIX, name_stem, parse_job_name, started_by_queue
from cloud.aws.job_queue import ATTEMPTS, JobQueue, join_attempts
from cloud.aws.settings.job_settings import JobSettings
from cloud.aws.training_jobs import SubmitResult, TrainingJobStatus
from cloud.workspace import add_job_queue, job_queues, workspace_id
from psa.core.errors import UserError

logger = logging.getLogger(__name__)


class WorkspaceJobs:
    """The jobs of a workspace by the names that psa gave them, with the operations of `TrainingJobs`.

    settings: the queue of new jobs, and their place in it; models: the folder that stores the queues;
    has_limit: whether the cost is limited, so that a queue makes one attempt: each could use the full time of
    a job.
    """

    def __init__(
        self, account: Account, settings: JobSettings, models: Path, *, has_limit: bool = False
    ) -> None:
        self.account, self.settings, self.models = account, settings, models
        self.attempts = 1 if has_limit else ATTEMPTS
        self._queue_of: dict[str, JobQueue] = {}  # the queue that holds a job, by the job's name
        self._started: dict[str, list[str]] = {}  # training jobs that no known queue holds, by the job's name

    @cached_property
    def queue(self) -> JobQueue | None:
        """The queue of new jobs, or None if they are submitted to the region."""
        if not self.settings.job_queue:
            return None
        return self.account.queue(
            self.settings.job_queue,
            priority=self.settings.job_priority,
            share=self.settings.job_share,
            attempts=self.attempts,
        )

    @cached_property
    def queues(self) -> list[JobQueue]:
        """All queues that may hold jobs: that of new jobs first."""
        others = [name for name in job_queues(self.models) if name != self.settings.job_queue]
        return [*([self.queue] if self.queue else []), *map(self.account.queue, others)]

    def submit(self, request: Mapping[str, Any]) -> SubmitResult:
        """Submit a job unless it exists anywhere. Raises UserError."""
        if self.queues and request["TrainingJobName"] in self.list_jobs(request["TrainingJobName"]):
            return SubmitResult("exists")
        if self.queue is None:
            return self.account.jobs.submit(request)
        add_job_queue(self.models, self.queue.queue)
        return self.queue.submit(request)

    def list_jobs(self, beginning: str = "") -> dict[str, TrainingJobStatus]:
        """Return the jobs whose names begin so, by default all of the workspace. Raises UserError, also if a
        training job is running that a queue started and that cannot be attributed to a job.
        """
        beginning = beginning or f"{JOB_NAME_PREFIX}{workspace_id(self.models)}-"
        training = self.account.jobs.list_jobs(beginning)
        jobs = self._queued(beginning)
        stems, started = set(map(name_stem, jobs)), dict[str, list[str]]()
        for name, status in training.items():
            parts = parse_job_name(name)
            if parts is None:
                if started_by_queue(name) and not status.ended and name_stem(name) not in stems:
                    raise _of_unknown_queue(name)
            elif parts.name == name or parts.name not in self._queue_of:
                started.setdefault(parts.name, []).append(name)
        for name, names in started.items():
            status = next((training[each] for each in names if not training[each].ended), training[names[0]])
            if name not in jobs or (jobs[name].ended and not status.ended):
                jobs[name] = status
                self._queue_of.pop(name, None)
        self._started |= started
        return jobs

    def live_managed_jobs(self) -> set[str]:
        """Return the names of the managed jobs that have a running job. Raises UserError."""
        jobs = self.list_jobs().items()
        live = (parse_job_name(name) for name, status in jobs if not status.ended)
        return {parts.managed_job for parts in live if parts}

    def _queued(self, beginning: str) -> dict[str, TrainingJobStatus]:
        jobs: dict[str, TrainingJobStatus] = {}
        for queue in list(self.queues):
            try:
                found = queue.list_jobs(beginning)
            except UserError as error:
                if queue is self.queue or "does not exist" not in error.message:
                    raise
                logger.warning("%s; left out, since AWS deletes a queue only without jobs", error.message)
                self.queues.remove(queue)
                continue
            for name, status in found.items():
                if name not in jobs or jobs[name].ended:
                    jobs[name], self._queue_of[name] = status, queue
        return jobs

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description of a job, with the billed seconds of all of its training jobs. Raises
        UserError.
        """
        if name in self._queue_of:
            return self._queue_of[name].describe(name)
        attempts = [self.account.jobs.describe(each) for each in self._started.get(name, [name])]
        return join_attempts(attempts) | {"TrainingJobName": name}

    def stop(self, name: str) -> bool:
        """Ask a job to save and stop. Return False if it has already ended. Raises UserError."""
        if name in self._queue_of:
            return self._queue_of[name].stop(name)
        asked = [self.account.jobs.stop(each) for each in self._started.get(name, [name])]
        return any(asked)


def _of_unknown_queue(name: str) -> UserError:
    return UserError(
        f"training job {name} of this folder was started by a queue of AWS Batch that is not known here",
        "Set SAGEMAKER_JOB_QUEUE to the name of that queue, or stop the job",
    )
