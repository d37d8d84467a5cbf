"""The complete request for a training job; a pure function, so that a dry run can show it."""

from __future__ import annotations

from typing import Any, Final

from cloud.aws.bucket import Bucket
from cloud.aws.request_validation import request_errors
from cloud.aws.settings import RUN_SECONDS_LIMIT, Settings
from cloud.aws.training_jobs import SPOT_WAIT_SECONDS
from cloud.sagemaker.container.code import COMMAND, CodeArchive
from cloud.sagemaker.container.images import image_table
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.core.errors import UserError

DATA: Final = "data"
_ACCOUNT: Final = "763104351884"
_SUFFIXES: Final = {"cn": "amazonaws.com.cn", "eusc": "amazonaws.eu"}


def container_image(settings: Settings, gpu: bool) -> str:
    """Return the container image: that of the settings, or AWS's own with PyTorch in that region."""
    if settings.image:
        return settings.image
    known = image_table()
    account = known["accounts"].get(settings.region, _ACCOUNT)
    suffix = _SUFFIXES.get(settings.region.partition("-")[0], "amazonaws.com")
    tag = known["tags"]["gpu" if gpu else "cpu"]
    return f"{account}.dkr.ecr.{settings.region}.{suffix}/pytorch:{tag}"


def build_request(
    settings: Settings,
    managed: ManagedJob,
    attempt: int,
    bucket: Bucket,
    code: CodeArchive,
    *,
    instance: str,
    gpu: bool,
    seconds: int,
    device: str | None = None,
) -> dict[str, Any]:
    """Return the CreateTrainingJob request. seconds: the maximum run time; the next job continues."""
    stopping = {"MaxRuntimeInSeconds": seconds}
    if settings.spot:
        stopping["MaxWaitTimeInSeconds"] = min(seconds + SPOT_WAIT_SECONDS, RUN_SECONDS_LIMIT)
    channels = {"code": code.folder, "line": f"{managed.folder}/inputs", DATA: DATA}
    request: dict[str, Any] = {
        "TrainingJobName": managed.job_name(attempt),
        "RoleArn": settings.role,
        "AlgorithmSpecification": {
            "TrainingImage": container_image(settings, gpu),
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c"],
            "ContainerArguments": [COMMAND],
        },
        "InputDataConfig": [_channel(name, bucket.under(folder)) for name, folder in channels.items()],
        "OutputDataConfig": {"S3OutputPath": bucket.under(f"{managed.folder}/output")},
        "CheckpointConfig": {"S3Uri": bucket.under(f"{managed.folder}/checkpoints")},
        "ResourceConfig": {"InstanceType": instance, "InstanceCount": 1},
        "StoppingCondition": stopping,
        "EnableManagedSpotTraining": settings.spot,
        # a queue of AWS Batch changes the name that SageMaker gives to the container
        "HyperParameters": {
            "device": device or ("cuda" if gpu else "cpu"),
            "job": managed.job_name(attempt),
        },
        # on by default; it filled 14 GB of the study's bucket
        "ProfilerConfig": {"DisableProfiler": True},
        "Tags": [{"Key": "psa", "Value": managed.workspace}],
    }
    settings.jobs.add_to(request)
    return request


def _channel(name: str, uri: str) -> dict[str, Any]:
    return {
        "ChannelName": name,
        "DataSource": {
            "S3DataSource": {
                "S3DataType": "S3Prefix",
                "S3Uri": f"{uri}/",
                "S3DataDistributionType": "FullyReplicated",
            }
        },
    }


def check_request(request: dict[str, Any]) -> None:
    """Raise UserError if AWS's own model rejects the request; needs no network."""
    found = request_errors("CreateTrainingJob", request)
    if found:
        raise UserError(f"job {request.get('TrainingJobName')}: {'; '.join(found)}", "See .env.example")
