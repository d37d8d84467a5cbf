"""SageMaker's training jobs, in the four verbs that a sweep needs: submit, list, describe, stop."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cloud.aws.errors import (
    Unreachable,
    aws_error,
    aws_errors,
    aws_exceptions,
    error_code,
    required,
    retry_malformed,
)
from cloud.aws.job_description import ENDED

_FULL: Final = frozenset({"ResourceLimitExceeded"})
_THERE: Final = frozenset({"ResourceInUse"})
_NO_CAPACITY: Final = "CapacityError"
_WAITED_TOO_LONG: Final = "MaxWaitTimeExceeded"
_PAGE: Final = 100
_NO_QUOTA: Final = re.compile(r"\bis 0 Instances\b")


@dataclass(frozen=True)
class SubmitResult:
    """What became of a submission. there: it had been submitted before; full: the account's quota is; later:
    AWS asks for patience; unpaid: the jobs at work may take all that is left of the budget. said: by AWS;
    hint: the hint that goes with it.
    """

    kind: Literal["submitted", "there", "full", "later", "unpaid"]
    said: str = ""
    hint: str = ""

    @property
    def started(self) -> bool:
        """Whether there is a job now."""
        return self.kind in ("submitted", "there")

    @property
    def zero_quota(self) -> bool:
        """Whether the quota is full because it is none at all: no job of anybody's will free it."""
        return self.kind == "full" and _NO_QUOTA.search(self.said) is not None


@dataclass(frozen=True)
class TrainingJobStatus:
    """What the list says of a job."""

    status: str
    secondary: str

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.status in ENDED


class TrainingJobs:
    """The jobs of an account and region. `client`: boto3's, of sagemaker."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def submit(self, request: Mapping[str, Any]) -> SubmitResult:
        """Create a job. Raises UserError for a request that AWS refuses."""
        try:
            self.client.create_training_job(**request)
        except aws_exceptions() as error:
            code = error_code(error)
            refused = aws_error(error, f"job {request['TrainingJobName']} is refused")
            if code in _THERE:
                return SubmitResult("there")
            if code in _FULL:
                return SubmitResult("full", refused.message)
            if isinstance(refused, Unreachable):  # if it did arrive, it is there at the next try
                return SubmitResult("later", refused.message, refused.hint)
            raise refused from None
        return SubmitResult("submitted")

    def listed(self, beginning: str) -> dict[str, TrainingJobStatus]:
        """The jobs whose names contain this, by name. Raises UserError."""
        with aws_errors("the training jobs cannot be listed"):
            return retry_malformed(lambda: self._listed(beginning))

    def _listed(self, beginning: str) -> dict[str, TrainingJobStatus]:
        pages = self.client.get_paginator("list_training_jobs").paginate(
            NameContains=beginning, PaginationConfig={"PageSize": _PAGE}
        )
        return {
            item["TrainingJobName"]: TrainingJobStatus(
                item["TrainingJobStatus"], item.get("SecondaryStatus", "")
            )
            for page in pages
            for item in required(page, "TrainingJobSummaries")
        }

    def described(self, name: str) -> dict[str, Any]:
        """All that is known of a job. Raises UserError."""
        with aws_errors(f"job {name} cannot be described"):
            return retry_malformed(lambda: self._described(name))

    def _described(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.describe_training_job(TrainingJobName=name)
        required(found, "TrainingJobStatus")
        return found

    def stop(self, name: str) -> bool:
        """Ask a job to save and end; return False where it has ended by itself. Raises UserError."""
        try:
            self.client.stop_training_job(TrainingJobName=name)
        except aws_exceptions() as error:
            if error_code(error) == "ValidationException":
                return False
            raise aws_error(error, f"job {name} runs on") from error
        return True


def lacked_capacity(said: Mapping[str, Any]) -> bool:
    """Whether a job never began for want of an instance: refused at once, or waited for in vain."""
    has_waited = said.get("SecondaryStatus") == _WAITED_TOO_LONG and not said.get("TrainingStartTime")
    return has_waited or str(said.get("FailureReason", "")).startswith(_NO_CAPACITY)
