"""AWS Batch's job queues for SageMaker training: service jobs that start when the quota has room for them.

The emulator has two queues: one by rank and order, one that divides its capacity among share identifiers.
A service job that fails is tried again, as often as its retry strategy says.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from cloud.aws.job_names import QUEUE_PREFIX
from cloud.emulator.jobs import ACCOUNT, EmulatedJob
from cloud.emulator.s3_server import REGION
from cloud.emulator.services.api import ApiError, check_api_request

QUEUE: Final = "psa-rehearsal"
FAIR_QUEUE: Final = "psa-rehearsal-shares"  # with a fair-share policy
_ARN: Final = f"arn:aws:batch:{REGION}:{ACCOUNT}"
_TICK: Final = 0.1
_PAGE: Final = 100
_LONGEST_NAME: Final = 63 - 32  # of a training job, without the digits that AWS appends
_RUNNING: Final = ("STARTING", "RUNNING")
_FULL: Final = "ResourceLimitExceeded"
_OPERATIONS: Final = {
    f"/v1/{name.lower()}": name
    for name in ("SubmitServiceJob", "ListServiceJobs", "DescribeServiceJob", "TerminateServiceJob")
}


class TrainingPlane(Protocol):
    """The part of the control plane that the queue needs."""

    def job(self, name: str) -> EmulatedJob | None:
        """Return a training job, or None if it does not exist."""

    def create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Create a training job. Raises ApiError."""


@dataclass
class ServiceJob:
    """A job of the queue. training_jobs: those started for it, the last one last."""

    name: str
    payload: dict[str, Any]
    attempts: int
    queue: str = QUEUE
    priority: int = 0
    share: str = ""
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    status: str = "RUNNABLE"
    reason: str = ""
    terminated: bool = False
    training_jobs: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """True if it will not be tried again."""
        return self.status in ("SUCCEEDED", "FAILED")

    def summary(self) -> dict[str, Any]:
        """Return the entry of ListServiceJobs."""
        latest = {}
        if self.training_jobs:
            latest = {"latestAttempt": _resource(self.training_jobs[-1])}
        return latest | {
            "jobArn": f"{_ARN}:service-job/{self.id}",
            "jobId": self.id,
            "jobName": self.name,
            "createdAt": self.created,
            "serviceJobType": "SAGEMAKER_TRAINING",
            "status": self.status,
            **({"statusReason": self.reason} if self.reason else {}),
        }


class BatchQueue:
    """The queue. A thread starts its jobs until `close`."""

    def __init__(self, plane: TrainingPlane) -> None:
        self._plane = plane
        self._jobs: dict[str, ServiceJob] = {}
        self._tokens: dict[str, str] = {}
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._operations: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "SubmitServiceJob": self._submit,
            "ListServiceJobs": self._list,
            "DescribeServiceJob": self._describe,
            "TerminateServiceJob": self._terminate,
        }
        self._thread = threading.Thread(target=self._schedule, daemon=True)
        self._thread.start()

    @staticmethod
    def operation(path: str) -> str:
        """Return the operation of a path, or "" if it is none of the queue."""
        return _OPERATIONS.get(path.lower(), "")

    def answer(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Execute an operation. Raises ApiError."""
        check_api_request("batch", operation, request)
        with self._lock:
            return self._operations[operation](request)

    @property
    def live(self) -> list[str]:
        """The names of the jobs that have not started, or will be tried again."""
        with self._lock:
            return [job.name for job in self._jobs.values() if not job.ended]

    def close(self) -> None:
        """Start no more jobs."""
        self._over.set()
        self._thread.join()

    def _submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        queue = self._check_queue(request["jobQueue"])
        share = request.get("shareIdentifier", "")
        if bool(share) != (queue == FAIR_QUEUE):
            needed = "must be" if queue == FAIR_QUEUE else "cannot be"
            raise ApiError("ClientException", f"shareIdentifier {needed} specified for job queue {queue}")
        token = request.get("clientToken", secrets.token_hex(8))
        if token not in self._tokens:
            payload = json.loads(request["serviceRequestPayload"])
            check_api_request("sagemaker", "CreateTrainingJob", payload)
            attempts = request.get("retryStrategy", {}).get("attempts", 1)
            priority = request.get("schedulingPriority", 0)
            job = ServiceJob(request["jobName"], payload, attempts, queue, priority, share)
            self._jobs[job.id] = job
            self._tokens[token] = job.id
        job = self._jobs[self._tokens[token]]
        return {"jobArn": job.summary()["jobArn"], "jobName": job.name, "jobId": job.id}

    @staticmethod
    def _check_queue(queue: str) -> str:
        """Return the name of a queue, given by name or ARN. Raises ApiError."""
        name = queue.rpartition("/")[2]
        if name not in (QUEUE, FAIR_QUEUE):
            raise ApiError("ClientException", f"JobQueue {queue} does not exist")
        return name

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        queue = self._check_queue(request.get("jobQueue", QUEUE))
        of_queue = (job for job in self._jobs.values() if job.queue == queue)
        found = sorted(of_queue, key=lambda job: -job.created)
        filters = request.get("filters", [])
        if filters:
            wanted = filters[0]["values"][0].lower()
            found = [job for job in found if _matches(job.name.lower(), wanted)]
        else:
            found = [job for job in found if job.status == request.get("jobStatus", "RUNNING")]
        start = int(request.get("nextToken", "0"))
        answer: dict[str, Any] = {"jobSummaryList": [job.summary() for job in found[start : start + _PAGE]]}
        return answer if start + _PAGE >= len(found) else answer | {"nextToken": str(start + _PAGE)}

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        job = self._found(request)
        queue = {"jobQueue": f"{_ARN}:job-queue/{job.queue}", "startedAt": job.created}
        more = {
            "attempts": [_resource(name) for name in job.training_jobs],
            "retryStrategy": {"attempts": job.attempts},
            "serviceRequestPayload": json.dumps(job.payload),
        }
        return job.summary() | queue | more

    def _terminate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        job = self._found(request)
        job.terminated, job.reason = True, request["reason"]
        training = self._training(job)
        if training is not None and training.live:
            training.ask_to_stop()
        elif not job.ended:
            job.status = "FAILED"
        return {}

    def _found(self, request: Mapping[str, Any]) -> ServiceJob:
        job = self._jobs.get(request["jobId"])
        if job is None:
            raise ApiError("ClientException", f"Service job {request['jobId']} does not exist")
        return job

    def _training(self, job: ServiceJob) -> EmulatedJob | None:
        return self._plane.job(job.training_jobs[-1]) if job.training_jobs else None

    def _schedule(self) -> None:
        while not self._over.wait(_TICK):
            with self._lock:
                for job in self._jobs.values():
                    if not job.ended and job.status != "RUNNABLE":
                        self._follow(job)
                for job in self._in_order():
                    self._start(job)

    def _in_order(self) -> Iterator[ServiceJob]:
        """Yield the waiting jobs: of the share with the fewest running jobs, by rank, the oldest first."""
        waiting = [job for job in self._jobs.values() if job.status == "RUNNABLE"]
        while waiting:
            running = Counter(job.share for job in self._jobs.values() if job.status in _RUNNING)
            job = min(waiting, key=lambda job: (running[job.share], -job.priority, job.created))
            waiting.remove(job)
            yield job

    def _start(self, job: ServiceJob) -> None:
        name = f"{QUEUE_PREFIX}{job.payload['TrainingJobName']}"[:_LONGEST_NAME] + secrets.token_hex(16)
        try:
            self._plane.create({**job.payload, "TrainingJobName": name})
        except ApiError as refusal:
            if refusal.code != _FULL:  # else the job waits in the queue
                job.status, job.reason = "FAILED", refusal.message
            return
        job.training_jobs.append(name)
        job.status = "STARTING"

    def _follow(self, job: ServiceJob) -> None:
        """Update a job that has started; a failed one goes back into the queue while attempts are left."""
        training = self._training(job)
        if training is None:
            return
        if training.live:
            job.status = "RUNNING" if training.get("SecondaryStatus") == "Training" else "STARTING"
        elif training["TrainingJobStatus"] == "Completed":
            job.status = "SUCCEEDED"
        elif len(job.training_jobs) < job.attempts and not job.terminated:
            job.status = "RUNNABLE"
        else:
            job.status = "FAILED"
            job.reason = job.reason or training.get("FailureReason", "")


def _resource(name: str) -> dict[str, Any]:
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}"
    return {"serviceResourceId": {"name": "TrainingJobArn", "value": arn}}


def _matches(name: str, wanted: str) -> bool:
    return name.startswith(wanted[:-1]) if wanted.endswith("*") else name == wanted
