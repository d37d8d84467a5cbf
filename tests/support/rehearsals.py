"""Rehearsals of SageMaker, and what their clients see."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from processes import until

from cloud.emulator import Emulator, Faults, rehearsal
from cloud.emulator.s3_server import loopback_client

ROLE = "arn:aws:iam::123456789012:role/psa-rehearsal"
GROUP = "/aws/sagemaker/TrainingJobs"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312"
# A process that says when a signal will be heard: PID 1 ignores what it has no handler for.
PATIENT = (
    "trap 'echo saved > /opt/ml/checkpoints/last; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
)


class Aws:
    """A stage as its clients see it."""

    def __init__(self, stage: Emulator) -> None:
        self.stage, self.bucket = stage, stage.s3.bucket
        self.jobs = loopback_client("sagemaker", stage.endpoint)
        self.logs = loopback_client("logs", stage.endpoint)
        self.s3 = loopback_client("s3", stage.s3.endpoint)

    def close(self) -> None:
        for each in (self.jobs, self.logs, self.s3):
            each.close()

    def request(self, name: str, script: str, **changes: Any) -> dict[str, Any]:
        request: dict[str, Any] = {
            "TrainingJobName": name,
            "RoleArn": ROLE,
            "AlgorithmSpecification": {
                "TrainingImage": IMAGE,
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/bash", "-c"],
                "ContainerArguments": ['eval "$*"', "script", *textwrap.wrap(script, 250)],
            },
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.bucket}/out"},
            "CheckpointConfig": {"S3Uri": f"s3://{self.bucket}/checkpoints/{name}"},
            "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }
        return request | changes

    def spot(self, name: str, script: str, **changes: Any) -> dict[str, Any]:
        stopping = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60} | changes
        return self.request(name, script, EnableManagedSpotTraining=True, StoppingCondition=stopping)

    def create(self, *words: Any, **changes: Any) -> None:
        self.jobs.create_training_job(**self.request(*words, **changes))

    def describe(self, name: str) -> dict[str, Any]:
        return dict(self.jobs.describe_training_job(TrainingJobName=name))

    def ended(self, name: str) -> dict[str, Any]:
        """Its description, once it has ended."""
        until(lambda: self.describe(name)["TrainingJobStatus"] not in ("InProgress", "Stopping"))
        return self.describe(name)

    def run(self, *words: Any, **changes: Any) -> dict[str, Any]:
        self.create(*words, **changes)
        return self.ended(words[0])

    def printed(self, name: str) -> list[str]:
        """What a job has printed, as a watcher of AWS would read it."""
        streams = self.logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/algo-1-")
        names = [each["logStreamName"] for each in streams["logStreams"]]
        events = [
            event
            for stream in names
            for event in self.logs.get_log_events(
                logGroupName=GROUP, logStreamName=stream, startFromHead=True
            )["events"]
        ]
        return [event["message"] for event in events]

    def ready(self, name: str) -> None:
        """Wait until a job has said so."""
        until(lambda: "ready" in self.printed(name))

    def put(self, key: str, body: bytes) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)

    def get(self, key: str) -> bytes:
        with contextlib.closing(self.s3.get_object(Bucket=self.bucket, Key=key)["Body"]) as body:
            return bytes(body.read())

    def keys(self, prefix: str) -> list[str]:
        found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"].removeprefix(prefix) for each in found.get("Contents", [])]


@contextlib.contextmanager
def staged(folder: Path, **faults: Any) -> Iterator[Aws]:
    """A rehearsal and its clients."""
    with rehearsal(folder, Faults(**faults)) as stage, contextlib.closing(Aws(stage)) as aws:
        yield aws
