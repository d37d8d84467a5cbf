"""Client of SageMaker's training jobs with the four operations of a sweep: submit, list, describe, stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from cloud.aws.bucket import ProgressCallback
from cloud.aws.errors import (
    CHECK_SETTINGS,
    Unreachable,
    aws_error,
    aws_errors,
    aws_exceptions,
    error_code,
    require_member,
    retry_malformed,
)
from cloud.aws.job_description import ENDED_STATUSES
from psa.core.errors import UserError

_FULL: Final = frozenset({"ResourceLimitExceeded"})
_THERE: Final = frozenset({"ResourceInUse"})
_NO_CAPACITY: Final = "CapacityError"
_WAITED_TOO_LONG: Final = "MaxWaitTimeExceeded"
SPOT_WAIT_SECONDS: Final = 6 * 3600  # for capacity; the controller stops a job that has waited for longer
_WAITING: Final = ("Starting", "Pending", "Interrupted")
_PAGE: Final = 100
_NO_QUOTA: Final = re.compile(r"\bis 0 Instances\b")


@dataclass(frozen=True)
class SubmitResult:
    """The result of a submission. kind: "exists" if the job was submitted before, "quota" if the account's
    quota is used up, "throttled" if AWS throttles, "budget" if running jobs may use up the budget; message:
    AWS's message; hint: the hint shown with it.
    """

    kind: Literal["submitted", "exists", "quota", "throttled", "budget"]
    message: str = ""
    hint: str = ""

    @property
    def started(self) -> bool:
        """True if the job exists now."""
        return self.kind in ("submitted", "exists")

    @property
    def zero_quota(self) -> bool:
        """True if the quota itself is zero, so that no ending job will free it."""
        return self.kind == "quota" and _NO_QUOTA.search(self.message) is not None


@dataclass(frozen=True)
class TrainingJobStatus:
    """The status of a job in a response of ListTrainingJobs. created: in seconds since 1970, 0 if unknown."""

    status: str
    secondary: str
    created: float = 0.0

    @property
    def ended(self) -> bool:
        """True if the job has ended, successfully or not."""
        return self.status in ENDED_STATUSES

    @property
    def waits(self) -> bool:
        """True if the job has no instance yet, or has lost it."""
        return self.secondary in _WAITING


class UnknownJob(UserError):
    """A job that the account does not have in its region."""


class TrainingJobs:
    """The training jobs of an account and region. client: boto3's, of sagemaker."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def submit(self, request: Mapping[str, Any]) -> SubmitResult:
        """Create a job. Raises UserError if AWS refuses the request."""
        try:
            self.client.create_training_job(**request)
        except aws_exceptions() as error:
            code = error_code(error)
            refused = aws_error(error, f"job {request['TrainingJobName']} is refused")
            if code in _THERE:
                return SubmitResult("exists")
            if code in _FULL:
                return SubmitResult("quota", refused.message)
            if isinstance(refused, Unreachable):  # if the request did arrive, the next attempt finds the job
                return SubmitResult("throttled", refused.message, refused.hint)
            raise refused from None
        return SubmitResult("submitted")

    def list_jobs(
        self, beginning: str, progress: ProgressCallback | None = None
    ) -> dict[str, TrainingJobStatus]:
        """Return the jobs whose names contain `beginning`. progress: called per page. Raises UserError."""

        def pages() -> dict[str, TrainingJobStatus]:
            jobs: dict[str, TrainingJobStatus] = {}
            paginator = self.client.get_paginator("list_training_jobs")
            for page in paginator.paginate(NameContains=beginning, PaginationConfig={"PageSize": _PAGE}):
                for item in require_member(page, "TrainingJobSummaries"):
                    jobs[item["TrainingJobName"]] = TrainingJobStatus(
                        item["TrainingJobStatus"],
                        item.get("SecondaryStatus", ""),
                        _seconds(item.get("CreationTime")),
                    )
                if progress is not None:
                    progress(f"{len(jobs):,} jobs listed")
            return jobs

        with aws_errors("the training jobs cannot be listed"):
            return retry_malformed(pages)

    def describe(self, name: str) -> dict[str, Any]:
        """Return the full description of a job. Raises UserError, and UnknownJob if it does not exist."""

        def described() -> dict[str, Any]:
            description: dict[str, Any] = self.client.describe_training_job(TrainingJobName=name)
            require_member(description, "TrainingJobStatus")
            return description

        with aws_errors(f"job {name} cannot be described"):
            try:
                return retry_malformed(described)
            except aws_exceptions() as error:
                # SageMaker has no error code of its own for an unknown job
                if error_code(error) == "ValidationException" and "not found" in str(error).lower():
                    raise UnknownJob(f"job {name} does not exist in this region", CHECK_SETTINGS) from None
                raise

    def stop(self, name: str) -> bool:
        """Ask a job to save and stop. Return False if it has already ended. Raises UserError."""
        try:
            self.client.stop_training_job(TrainingJobName=name)
        except aws_exceptions() as error:
            if error_code(error) == "ValidationException":
                return False
            raise aws_error(error, f"job {name} cannot be stopped") from error
        return True


def lacked_capacity(description: Mapping[str, Any]) -> bool:
    """Return whether a job never started for lack of capacity: refused at once, or after waiting."""
    has_waited = description.get("SecondaryStatus") == _WAITED_TOO_LONG and not description.get(
        "TrainingStartTime"
    )
    return has_waited or str(description.get("FailureReason", "")).startswith(_NO_CAPACITY)


def seconds_without_instance(description: Mapping[str, Any], now: float) -> float:
    """Return for how long a spot job has waited for an instance by now, 0 for any other job.

    AWS's MaxWaitTimeInSeconds cannot limit this time: it includes the training time.
    """
    if not description.get("EnableManagedSpotTraining") or description.get("SecondaryStatus") not in _WAITING:
        return 0.0
    transitions = description.get("SecondaryStatusTransitions") or [{}]
    since = transitions[-1].get("StartTime") or description.get("CreationTime")
    return now - _seconds(since) if since else 0.0


def _seconds(time: Any) -> float:
    """Return a time of a response in seconds since 1970, 0 for anything else."""
    return time.timestamp() if isinstance(time, datetime) else 0.0
