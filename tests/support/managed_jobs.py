"""Made-up jobs of a sweep on SageMaker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="the extra aws is not installed")

from buckets import bucket
from helpers import trial

from cloud.aws.bucket import Bucket
from cloud.aws.training_jobs import SubmitResult, TrainingJobStatus
from cloud.sagemaker.jobs.job_state import JobState
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.specs.trial import Pack
from psa.storage.store import Store

HOME, LOOPS = "0123abcd", 2
A, B, C = (trial("1*4", seed=seed, batch_size=500) for seed in range(3))


def line(*trials: Any, horizon: int = LOOPS) -> ManagedJob:
    """A line of one pack: of A and B where no trials are given."""
    return ManagedJob(HOME, {"p0000": Pack(trials=trials or (A, B), horizon=horizon)})


def store(folder: Path) -> Store:
    """The trees of a folder."""
    return Store(folder / "models", folder / "results")


def left(files: dict[str, bytes], where: ManagedJob) -> Bucket:
    """A bucket in which a line has left these checkpoints."""
    found = bucket()
    for name, content in files.items():
        found.write(f"{where.folder}/checkpoints/{name}", content)
    return found


def state(each: Any) -> str:
    """The name of a trial's state."""
    return f"models/{each.id}/lkg.safetensors"


class FakeJobBackend:
    """A backend that answers as AWS.

    answers: to submissions, "submitted" when they are used up; ends: of each job, status and description;
    refused: what `download` returns.
    """

    def __init__(self, folder: Path, answers: list[SubmitResult] = [], **ends: Any) -> None:  # noqa: B006
        self.store = Store(folder / "models", folder / "results")
        self.answers, self.ends = list(answers), ends
        self.jobs: dict[str, TrainingJobStatus] = {}
        self.asked: list[tuple[str, int]] = []
        self.refused: dict[str, str] = {}
        self.files: dict[str, bytes] = {}
        self.homes: list[str] = []
        self.stopped: list[str] = []
        self.dropped_lines: list[ManagedJob] = []
        self.trouble: list[Exception] = []

    def submit(self, job_state: JobState) -> SubmitResult:
        self.asked.append((job_state.job_name, job_state.choice))
        answer = self.answers.pop(0) if self.answers else SubmitResult("submitted")
        if answer.started:
            status = TrainingJobStatus(self.ends.get("status", "Failed"), self.ends.get("secondary", ""))
            self.jobs[job_state.job_name] = status
        return answer

    def list_jobs(self) -> dict[str, TrainingJobStatus]:
        return dict(self.jobs)

    def describe_job(self, name: str) -> dict[str, Any]:
        return dict(self.ends.get("said", {}))

    def stop_job(self, name: str) -> bool:
        self.stopped.append(name)
        self.jobs[name] = TrainingJobStatus("Stopped", "Stopped")
        return True

    def read_file(self, _line: ManagedJob, name: str) -> bytes | None:
        return self.files.get(name)

    def download(self, _line: ManagedJob, job: str) -> dict[str, str]:
        if self.trouble:
            raise self.trouble.pop()
        self.homes.append(job)
        return self.refused

    def delete_files(self, line: ManagedJob) -> None:
        self.dropped_lines.append(line)
