"""Client of AWS Batch's queues of training jobs, with the operations of `TrainingJobs`.

A queue starts a job when there is room for it, and tries it again when it fails, without anyone watching. The
service job has the name of the training job; AWS appends a suffix to the name of the training job itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.aws.bucket import ProgressCallback
from cloud.aws.errors import (
    CHECK_SETTINGS,
    Unreachable,
    aws_error,
    aws_errors,
    aws_exceptions,
    require_member,
)
from cloud.aws.training_jobs import SubmitResult, TrainingJobs, TrainingJobStatus, UnknownJob

ATTEMPTS_LEFT: Final = "AttemptsLeft"  # in a description: training jobs that run or may still be started
_TYPE: Final = "SAGEMAKER_TRAINING"
ATTEMPTS: Final = 3  # by the queue; each continues from the checkpoints of the one before
_MAX_TOKEN: Final = 64
_BILLED, _RETAINED = "BillableTimeInSeconds", "ResourceRetainedBillableTimeInSeconds"
# status of a service job -> status of a training job
_STATUSES: Final = {
    "SUBMITTED": TrainingJobStatus("InProgress", "Pending"),
    "PENDING": TrainingJobStatus("InProgress", "Pending"),
    "RUNNABLE": TrainingJobStatus("InProgress", "Pending"),
    "SCHEDULED": TrainingJobStatus("InProgress", "Starting"),
    "STARTING": TrainingJobStatus("InProgress", "Starting"),
    "RUNNING": TrainingJobStatus("InProgress", "Training"),
    "SUCCEEDED": TrainingJobStatus("Completed", "Completed"),
    "FAILED": TrainingJobStatus("Failed", "Failed"),
}


class JobQueue:
    """The training jobs of a queue. client: boto3's, of batch; queue: its name or ARN; training: of the same
    account, which describes jobs that have started; priority: rank of new jobs, None for the queue's default;
    share: their share identifier, which a queue with a fair-share policy requires and another one refuses;
    attempts: how many training jobs it starts at most for each, one after another.
    """

    def __init__(
        self,
        client: Any,
        queue: str,
        training: TrainingJobs,
        *,
        priority: int | None = None,
        share: str = "",
        attempts: int = ATTEMPTS,
    ) -> None:
        self.client, self.queue, self.training, self.attempts = client, queue, training, attempts
        self._place = {
            **({} if priority is None else {"schedulingPriority": priority}),
            **({"shareIdentifier": share} if share else {}),
        }

    def submit(self, request: Mapping[str, Any]) -> SubmitResult:
        """Put a job into the queue. Raises UserError if AWS refuses the request."""
        name = str(request["TrainingJobName"])
        if name in self._service_jobs(name):
            return SubmitResult("exists")
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        try:
            self.client.submit_service_job(
                jobName=name,
                jobQueue=self.queue,
                serviceJobType=_TYPE,
                serviceRequestPayload=json.dumps(request),
                retryStrategy={"attempts": self.attempts},
                clientToken=name[:_MAX_TOKEN],
                **self._place,
                **({"tags": tags} if tags else {}),
            )
        except aws_exceptions() as error:
            refused = aws_error(error, f"job {name} is refused by the queue {self.queue}")
            if isinstance(refused, Unreachable):
                return SubmitResult("throttled", refused.message, refused.hint)
            raise refused from None
        return SubmitResult("submitted")

    def list_jobs(
        self, beginning: str, progress: ProgressCallback | None = None
    ) -> dict[str, TrainingJobStatus]:
        """Return the jobs of the queue whose names begin with `beginning`. Raises UserError."""
        found = self._service_jobs(beginning)
        if progress is not None:
            progress(f"{len(found):,} jobs listed")
        return {name: _STATUSES[str(job.get("status", "SUBMITTED"))] for name, job in found.items()}

    def describe(self, name: str) -> dict[str, Any]:
        """Return the description of a job: of its last training job, if one has started. Raises UserError."""
        job = self._found(name)
        with aws_errors(f"job {name} cannot be described"):
            answer = self.client.describe_service_job(jobId=job["jobId"])
        request: dict[str, Any] = json.loads(answer.get("serviceRequestPayload") or "{}")
        status = _STATUSES[answer["status"]]
        names = _training_jobs(answer)
        started = join_attempts([self.training.describe(each) for each in names])
        reason = answer.get("statusReason", "")
        return (
            request
            | ({"FailureReason": reason} if reason else {})
            | started
            | {
                "TrainingJobName": name,
                ATTEMPTS_LEFT: _attempts(answer) - max(0, len(names) - 1),
                "TrainingJobStatus": status.status,
                "SecondaryStatus": started.get("SecondaryStatus", status.secondary),
            }
        )

    def stop(self, name: str) -> bool:
        """Ask a job to save and stop, or take it out of the queue. Return False if it has already ended."""
        job = self._found(name)
        if _STATUSES[str(job.get("status"))].ended:
            return False
        with aws_errors(f"job {name} cannot be stopped"):
            self.client.terminate_service_job(jobId=job["jobId"], reason="stopped by psa")
        return True

    def _found(self, name: str) -> Mapping[str, Any]:
        job = self._service_jobs(name).get(name)
        if job is None:
            raise UnknownJob(f"job {name} does not exist in the queue {self.queue}", CHECK_SETTINGS)
        return job

    def _service_jobs(self, beginning: str) -> dict[str, Mapping[str, Any]]:
        """Return the service jobs whose names begin with a text; of equal names the latest."""
        found: dict[str, Mapping[str, Any]] = {}
        filters = [{"name": "JOB_NAME", "values": [f"{beginning}*"]}]
        pages = self.client.get_paginator("list_service_jobs").paginate(jobQueue=self.queue, filters=filters)
        with aws_errors(f"the queue {self.queue} cannot be listed"):
            for page in pages:
                for job in require_member(page, "jobSummaryList"):
                    before = found.get(job["jobName"])
                    if before is None or before.get("createdAt", 0) <= job.get("createdAt", 0):
                        found[job["jobName"]] = job
        return found


def _training_jobs(answer: Mapping[str, Any]) -> list[str]:
    """Return the names of the training jobs of a service job, the last one last."""
    last = answer.get("latestAttempt")
    attempts = [*answer.get("attempts", []), *([last] if last else [])]
    arns = [attempt.get("serviceResourceId", {}).get("value", "") for attempt in attempts]
    return list(dict.fromkeys(arn.rpartition("/")[2] for arn in arns if arn))


def _attempts(answer: Mapping[str, Any]) -> int:
    """Return how many training jobs the queue starts at most for a service job."""
    return int(answer.get("retryStrategy", {}).get("attempts", 1))


def join_attempts(descriptions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the description of the last of a job's training jobs, with the billed seconds of all of them and
    of the warm pools after earlier ones. Return an empty one for none.
    """
    if len(descriptions) < 2:
        return dict(descriptions[0]) if descriptions else {}
    *earlier, last = descriptions
    pools = sum(each.get("WarmPoolStatus", {}).get(_RETAINED, 0) for each in earlier)
    return {**last, _BILLED: pools + sum(each.get(_BILLED, 0) for each in descriptions)}
