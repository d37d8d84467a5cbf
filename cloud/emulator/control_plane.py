"""The control plane: four SageMaker operations on the job table, with requests validated as by AWS."""

from __future__ import annotations

import base64
import binascii
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from cloud.emulator import s3_sync
from cloud.emulator.job_runner import JobRunner, Site
from cloud.emulator.jobs import ACCOUNT, EmulatedJob, JobTable
from cloud.emulator.s3_server import REGION
from cloud.emulator.services.api import ApiError, check_api_request
from cloud.emulator.services.policies import ApiCall

ROLE: Final = "psa-rehearsal"
ROLE_ARN: Final = f"arn:aws:iam::{ACCOUNT}:role/{ROLE}"
_Answer = dict[str, Any]


class Throttle:
    """A rate limit in requests per second, with bursts of up to one second's worth."""

    def __init__(self, rate: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._left, self._at = max(1.0, rate or 0.0), clock()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Return whether another request is allowed now, and count it."""
        if self._rate is None:
            return True
        with self._lock:
            now = self._clock()
            self._left = min(max(1.0, self._rate), self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1:
                return False
            self._left -= 1
            return True


class ControlPlane:
    """SageMaker's API for training jobs. role_exists: returns whether a role of that name exists."""

    def __init__(self, table: JobTable, site: Site, role_exists: Callable[[str], bool]) -> None:
        self._table, self._site, self._role_exists = table, site, role_exists
        self._throttle = Throttle(site.faults.throttle)
        self._runners: list[JobRunner] = []
        self._creating = threading.Lock()  # so that one of two jobs with the same name is refused
        self._operations: dict[str, Callable[[Mapping[str, Any]], _Answer]] = {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": lambda request: self._found(request).described(),
            "ListTrainingJobs": lambda request: list_page([job.summary() for job in self._table], request),
            "StopTrainingJob": self._stop,
        }

    def answer(self, operation: str, request: Mapping[str, Any]) -> _Answer:
        """Execute an operation. Raises ApiError."""
        if not self._throttle.allows():
            raise ApiError("ThrottlingException", "Rate exceeded")
        carry_out = self._operations.get(operation)
        if carry_out is None:
            known = ", ".join(self._operations)
            raise ApiError("UnknownOperationException", f"A rehearsal knows no {operation}; it knows {known}")
        check_api_request("sagemaker", operation, request)
        self._authorize(operation, request)
        return carry_out(request)

    def _authorize(self, operation: str, request: Mapping[str, Any]) -> None:
        """Raise AccessDenied unless the caller may do this."""
        name = request.get("TrainingJobName")
        resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}" if name else "*"
        self._site.authorizer.check(ApiCall("caller", f"sagemaker:{operation}", resource))
        if operation != "CreateTrainingJob":
            return
        if request.get("Tags"):
            self._site.authorizer.check(ApiCall("caller", "sagemaker:AddTags", resource))
        self.check_role_passed(request)

    def check_role_passed(self, request: Mapping[str, Any]) -> None:
        """Raise AccessDenied unless the caller may pass the role of a job to SageMaker."""
        passed_to = {"iam:PassedToService": "sagemaker.amazonaws.com"}
        self._site.authorizer.check(ApiCall("caller", "iam:PassRole", request["RoleArn"]), passed_to)

    @property
    def live(self) -> list[str]:
        """The names of the jobs that have not ended."""
        return [job.name for job in self._table if job.live]

    def close(self) -> None:
        """Stop all jobs and wait for their end."""
        with self._creating:
            self._site.closing.set()
        for job in self._table:
            job.ask_to_stop()
        for runner in self._runners:
            runner.join()

    def job(self, name: str) -> EmulatedJob | None:
        """Return a job, or None if it does not exist."""
        return self._table.get(name)

    def create(self, request: Mapping[str, Any]) -> _Answer:
        """Create a job for a service of AWS, which needs no permission of the caller. Raises ApiError."""
        return self._create(request)

    def _create(self, request: Mapping[str, Any]) -> _Answer:
        name = request["TrainingJobName"]
        with self._creating:
            if self._site.closing.is_set():
                raise ApiError("ValidationException", "The rehearsal is over")
            if self._table.get(name):
                raise ApiError(
                    "ResourceInUse",
                    "Training job names must be unique within an AWS account and region, and a training job "
                    f"with this name already exists ({self._arn(name)})",
                )
            for fault in self._unmet(request):
                raise ApiError("ValidationException", fault)
            job = self._table.add(request, self._site.faults.quota)
            if job is None:
                raise ApiError("ResourceLimitExceeded", self._over_quota(request))
            runner = JobRunner(job, self._site)
            self._runners.append(runner)
            runner.start()
        return {"TrainingJobArn": self._arn(name)}

    def _arn(self, name: str) -> str:
        job = self._table.get(name)
        return str(job["TrainingJobArn"]) if job else name

    def _stop(self, request: Mapping[str, Any]) -> _Answer:
        job = self._found(request)
        if not job.live:
            raise ApiError(
                "ValidationException",
                f"The request was rejected because the training job is in status {job['TrainingJobStatus']}.",
            )
        job.ask_to_stop()
        return {}

    def _found(self, request: Mapping[str, Any]) -> EmulatedJob:
        job = self._table.get(request["TrainingJobName"])
        if job is None:
            raise ApiError("ValidationException", "Requested resource not found.")
        return job

    def _over_quota(self, request: Mapping[str, Any]) -> str:
        kind, quota = request["ResourceConfig"]["InstanceType"], self._site.faults.quota
        usage = "spot training job" if request.get("EnableManagedSpotTraining") else "training job"
        return (
            f"The account-level service limit '{kind} for {usage} usage' is {quota} Instances, with current "
            f"utilization of {quota} Instances and a request delta of 1 Instances. Please use AWS Service "
            "Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact "
            "AWS support to request an increase for this quota."
        )

    def _unmet(self, request: Mapping[str, Any]) -> Iterator[str]:
        """Yield errors that AWS finds beyond the request itself, and features that a rehearsal lacks."""
        yield from self._role(request["RoleArn"])
        yield from _not_rehearsed(request)
        uris = {"OutputDataConfig": request["OutputDataConfig"]["S3OutputPath"]}
        if "CheckpointConfig" in request:
            uris["CheckpointConfig"] = request["CheckpointConfig"]["S3Uri"]
        for where, uri in uris.items():
            if not s3_sync.has_bucket(self._site.storage, uri):
                yield f"The S3 bucket of {where} does not exist: {uri}"
        for channel in request.get("InputDataConfig", []):
            uri = channel["DataSource"]["S3DataSource"]["S3Uri"]
            if not (
                s3_sync.has_bucket(self._site.storage, uri) and s3_sync.has_objects(self._site.storage, uri)
            ):
                yield (
                    f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure '
                    "that the bucket exists in the selected region, that objects exist under that S3 prefix, "
                    f'and that the role "{request["RoleArn"]}" has "s3:ListBucket" permissions on it.'
                )

    def _role(self, arn: str) -> Iterator[str]:
        account, name = arn.split(":")[4], arn.rpartition("/")[2]
        if account != ACCOUNT or not self._role_exists(name):
            yield (
                f"Could not assume role {arn}. Please ensure that the role exists and allows principal "
                "'sagemaker.amazonaws.com' to assume the role."
            )


def _not_rehearsed(request: Mapping[str, Any]) -> Iterator[str]:
    """Yield features in a request that AWS supports and a rehearsal does not, rather than ignore them."""
    if not request["AlgorithmSpecification"].get("ContainerEntrypoint"):
        yield "A rehearsal has no images: say what to run with AlgorithmSpecification.ContainerEntrypoint"
    if request["ResourceConfig"].get("InstanceCount") != 1:
        yield "A rehearsal runs each job on one instance: ResourceConfig.InstanceCount has to be 1"
    for channel in request.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource", {})
        mode = channel.get("InputMode", request["AlgorithmSpecification"]["TrainingInputMode"])
        if source.get("S3DataType") != "S3Prefix" or mode == "Pipe":
            yield f"A rehearsal brings channels from an S3Prefix, as files: {channel['ChannelName']}"
    local = request.get("CheckpointConfig", {}).get("LocalPath", "/opt/ml/checkpoints")
    if not re.fullmatch(r"/opt/ml/(?!.*\.\.).+", local):
        yield f"A rehearsal knows no CheckpointConfig.LocalPath but below /opt/ml: {local}"
    for uri in _uris(request):
        if not uri.startswith("s3://"):
            yield f"A rehearsal knows no place but s3://BUCKET/KEY: {uri}"


def _uris(request: Mapping[str, Any]) -> Iterator[str]:
    yield request["OutputDataConfig"]["S3OutputPath"]
    if "CheckpointConfig" in request:
        yield request["CheckpointConfig"]["S3Uri"]
    for channel in request.get("InputDataConfig", []):
        yield channel["DataSource"].get("S3DataSource", {}).get("S3Uri", "")


_PAGE: Final = 10
_KEYS: Final = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}
_Test = Callable[[dict[str, Any], Any], bool]
_FILTERS: Final[dict[str, _Test]] = {
    "NameContains": lambda job, value: value in job["TrainingJobName"],
    "StatusEquals": lambda job, value: bool(job["TrainingJobStatus"] == value),
    "CreationTimeAfter": lambda job, value: bool(job["CreationTime"] > value),
    "CreationTimeBefore": lambda job, value: bool(job["CreationTime"] < value),
    "LastModifiedTimeAfter": lambda job, value: bool(job["LastModifiedTime"] > value),
    "LastModifiedTimeBefore": lambda job, value: bool(job["LastModifiedTime"] < value),
    "WarmPoolStatusEquals": lambda job, value: False,  # a rehearsal has no warm pools
    "TrainingPlanArnEquals": lambda job, value: False,  # nor training plans
}


def list_page(jobs: Iterable[dict[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """Return a page of the jobs' summaries that pass all filters.

    A page begins after the last job of the previous one, wherever that is now. Raises ApiError.
    """
    key = _KEYS[request.get("SortBy", "CreationTime")]
    descending = request.get("SortOrder", "Ascending") == "Descending"

    def place(job: dict[str, Any]) -> tuple[Any, str]:
        return job[key], job["TrainingJobName"]

    wanted = [name for name in _FILTERS if name in request]
    found = [job for job in jobs if all(_FILTERS[name](job, request[name]) for name in wanted)]
    found.sort(key=place, reverse=descending)
    if "NextToken" in request:
        last = _read(request["NextToken"])
        found = [job for job in found if (place(job) < last if descending else place(job) > last)]
    size = request.get("MaxResults", _PAGE)
    answer: dict[str, Any] = {"TrainingJobSummaries": found[:size]}
    if len(found) > size:
        answer["NextToken"] = _token(place(found[size - 1]))
    return answer


def _token(place: tuple[Any, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _read(token: str) -> tuple[Any, str]:
    try:
        key, name = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError):
        raise ApiError("ValidationException", "The NextToken is not one of this service") from None
    return key, name
