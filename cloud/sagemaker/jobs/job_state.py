"""The state of a managed job, which runs one training job at a time, and the interface to run them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloud.aws.training_jobs import SubmitResult, TrainingJobStatus
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.specs.trial import Pack
from psa.storage.store import Store


class JobBackend(Protocol):
    """The part of the backend that the controller needs."""

    store: Store

    def submit(self, state: JobState) -> SubmitResult:
        """Submit the present job of a managed job."""

    def list_jobs(self) -> dict[str, TrainingJobStatus]:
        """Return the jobs of this workspace, by name."""

    def describe_job(self, name: str) -> dict[str, Any]:
        """Return the description of a job."""

    def stop_job(self, name: str) -> bool:
        """Ask a job to stop. Return False if it has already ended."""

    def read_file(self, managed: ManagedJob, name: str) -> bytes | None:
        """Return a file that the running job keeps beside its states."""

    def download(self, managed: ManagedJob, job: str) -> dict[str, str]:
        """Download the results of a job. Return the reasons for the trials that cannot be, by id."""

    def delete_files(self, managed: ManagedJob) -> None:
        """Delete a managed job's files elsewhere, since all of its results are here."""


@dataclass
class JobState:
    """The state of a managed job. attempt: of its present or last job, 0 before the first; last: no job
    follows it; choice: index of the instance type; tries: attempts in a row without progress; left:
    trial-loops that were left when the job began; gave_up: its job is stopped for lack of spot capacity;
    described: time of the last look at how long its job has waited.
    """

    managed_job: ManagedJob
    attempt: int = 0
    running: bool = False
    over: bool = False
    last: bool = False
    choice: int = 0
    tries: int = 0
    left: int = 0
    begun: bool = False
    gave_up: bool = False
    described: float = -math.inf
    loops: dict[str, int] = field(default_factory=dict)

    @property
    def job_name(self) -> str:
        """The name of its present job."""
        return self.managed_job.job_name(self.attempt)

    @property
    def pack(self) -> Pack:
        """One of its packs, for events that belong to none."""
        return next(iter(self.managed_job.packs.values()))
