"""The run of one training job: download of its data, its container, upload of its checkpoints, its end."""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from cloud.emulator import s3_sync
from cloud.emulator.containers.container import HOST, NO_NETWORK, SYSTEM_PATH, Container
from cloud.emulator.faults import Faults
from cloud.emulator.jobs import EmulatedJob
from cloud.emulator.log_store import LogStore
from cloud.emulator.s3_server import REGION
from cloud.emulator.services.policies import ROLE_CALLS, AccessDenied, ApiCall, Authorizer
from psa.core.errors import UserError
from psa.core.files import ensure_dir, write_atomically

_LOG = logging.getLogger(__name__)
_TICK: Final = 0.05
_CLOSING_GRACE: Final = 5.0  # the end of a rehearsal does not wait two minutes
_ML: Final = "/opt/ml"
SPOT_SHARE: Final = 0.3  # billed fraction of the training time of a spot job
NO_CAPACITY: Final = (
    "CapacityError: Unable to provision requested ML compute capacity. "
    "Please retry using a different ML instance type."
)

# Why training ended: by itself, by request, at its time limit, at its wait limit, or by an interruption.
Why = Literal["exit", "stop", "runtime", "wait", "interrupted"]


@dataclass(frozen=True)
class Site:
    """The shared context of jobs. storage: S3 as the role of a job uses it; python: of the containers;
    closing: set when the rehearsal ends; authorizer: checks what the role may do.
    """

    storage: Any
    flags: Sequence[str]
    python: Path
    book: LogStore
    faults: Faults
    closing: threading.Event
    authorizer: Authorizer = field(default_factory=Authorizer)


class _Stopped(Exception):
    """Raised when a job is stopped before its container runs."""


class JobRunner(threading.Thread):
    """A thread that runs a job from Starting to its end."""

    def __init__(self, job: EmulatedJob, site: Site) -> None:
        super().__init__(name=f"job {job.name}", daemon=True)
        self._job, self._site = job, site
        self._ml = job.folder / "ml"
        self._trained = 0.0  # seconds, over all attempts
        self._began = time.monotonic()

    def run(self) -> None:
        """Run the job. An unexpected error fails the job, not the rehearsal."""
        try:
            self._authorize_role()
            self._all()
        except AccessDenied as denied:
            self._job.end("Failed", f"ClientError: {denied.message}")
        except _Stopped:
            self._job.end("Stopped", "Training job stopped")
        except UserError as error:  # its S3 has ended, for example by a signal to every process
            _LOG.error("%s: %s", self._job.name, error.message)
            self._job.end("Failed", f"InternalServerError: {error.message}")
        except Exception as error:  # noqa: BLE001 -- clients that wait for the job must see its end
            _LOG.exception("%s", self._job.name)
            self._job.end("Failed", f"InternalServerError: {error}")
        finally:
            shutil.rmtree(self._ml, ignore_errors=True)

    def _authorize_role(self) -> None:
        """Raise AccessDenied unless the role allows what SageMaker does beside reading and writing files."""
        for call in ROLE_CALLS:
            self._site.authorizer.check(call)
        where = self._job.get("CheckpointConfig")
        if where:  # a checkpoint that a container deletes is deleted in S3, too
            key = where["S3Uri"].removeprefix("s3://").rstrip("/")
            self._site.authorizer.check(ApiCall("role", "s3:DeleteObject", f"arn:aws:s3:::{key}/file"))

    def _all(self) -> None:
        job = self._job
        if job["ResourceConfig"]["InstanceType"] in self._site.faults.no_capacity:
            job.end("Failed", NO_CAPACITY)
            return
        why, code = self._attempt()
        while why == "interrupted":
            job.interruptions += 1
            job.enter("Interrupted", "The training job was interrupted: its capacity was taken back")
            self._pause()
            job.enter("Starting", "Preparing the instances for training")
            why, code = self._attempt()
        self._conclude(why, code)

    def _pause(self) -> None:
        """Wait after an interruption: capacity is not back at once, and a watcher must be able to see it."""
        self._job.stop.wait(0.2)
        self._still_wanted()

    def _still_wanted(self) -> None:
        if self._job.stop.is_set():
            raise _Stopped

    def _attempt(self) -> tuple[Why, int]:
        """Download the data and train. Return the reason of the end and the exit code."""
        self._still_wanted()
        started = self._job.get("TrainingStartTime") or time.time()
        self._job.enter("Downloading", "Downloading input data", TrainingStartTime=started)
        self._prepare()
        self._still_wanted()
        self._job.enter(
            "Training", "Training image download completed. Training in progress.", **self._checkpointed()
        )
        began = time.monotonic()
        try:
            return self._train()
        finally:
            self._trained += time.monotonic() - began

    def _checkpointed(self) -> dict[str, Any]:
        where = self._job.get("CheckpointConfig")
        return {"CheckpointConfig": {"LocalPath": f"{_ML}/checkpoints", **where}} if where else {}

    def _prepare(self) -> None:
        """Create a new /opt/ml, as on a new machine."""
        job, storage = self._job, self._site.storage
        shutil.rmtree(self._ml, ignore_errors=True)
        for name in ("model", "output/data", "input/data", "input/config", "checkpoints", "code"):
            ensure_dir(self._ml / name)
        channels = job.get("InputDataConfig", [])
        for channel in channels:
            source = channel["DataSource"]["S3DataSource"]["S3Uri"]
            s3_sync.download_prefix(storage, source, self._ml / "input/data" / channel["ChannelName"])
        if job.get("CheckpointConfig"):
            # as a folder: beside the checkpoints of job-1 lie those of job-10
            where = job["CheckpointConfig"]["S3Uri"].rstrip("/")
            s3_sync.download_prefix(storage, f"{where}/", self._checkpoints())
        for name, content in _configuration(job, channels).items():
            write_atomically(self._ml / "input/config" / f"{name}.json", json.dumps(content).encode())

    def _checkpoints(self) -> Path:
        inside: str = self._checkpointed()["CheckpointConfig"]["LocalPath"]
        return self._ml / inside.removeprefix(_ML).lstrip("/")

    def _train(self) -> tuple[Why, int]:
        job, site = self._job, self._site
        with site.book.stream(job.name, job.folder) as say:
            algorithm = job["AlgorithmSpecification"]
            command = [*algorithm["ContainerEntrypoint"], *algorithm.get("ContainerArguments", [])]
            isolated = site.faults.no_network or job.get("EnableNetworkIsolation")
            flags = [*site.flags, *([NO_NETWORK] if isolated else [])]
            mirror: AbstractContextManager[object] = nullcontext()
            if where := job.get("CheckpointConfig"):  # it must look before the container writes
                mirror = s3_sync.S3Mirror(site.storage, self._checkpoints(), where["S3Uri"])
            container = Container(job.folder, command, self._environment(), say, flags)
            try:
                with mirror:
                    return self._watch(container)
            finally:
                container.kill()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self._site.python.parent}:{SYSTEM_PATH}",
            "AWS_REGION": REGION,
            "TRAINING_JOB_NAME": self._job.name,
            "TRAINING_JOB_ARN": self._job["TrainingJobArn"],
            **self._job.get("Environment", {}),
        }

    def _watch(self, container: Container) -> tuple[Why, int]:
        """Wait until the container ends or must end. Return the reason and the exit code."""
        began = time.monotonic()
        while True:
            code = container.wait(_TICK)
            if code is not None:
                if container.trouble:
                    raise RuntimeError(f"the container could not be set up: {container.trouble}")
                return ("stop" if self._job.stop.is_set() else "exit"), code
            why = self._reason(time.monotonic() - began)
            if why is not None:
                return why, self._ended(container)

    def _ended(self, container: Container) -> int:
        """Stop the container, with SIGKILL after the grace period. Return its exit code."""
        container.terminate()
        began = time.monotonic()
        while (code := container.wait(_TICK)) is None:
            grace = self._site.faults.grace
            if self._site.closing.is_set():
                grace = min(grace, _CLOSING_GRACE)
            if time.monotonic() - began > grace:
                return container.kill()
        return code

    def _reason(self, seconds: float) -> Why | None:
        """Return the reason to end the container after `seconds` of this attempt, or None."""
        job, faults, stopping = self._job, self._site.faults, self._job["StoppingCondition"]
        if job.stop.is_set():
            return "stop"
        if job.spot and time.monotonic() - self._began > stopping["MaxWaitTimeInSeconds"]:
            return "wait"
        if self._trained + seconds > stopping.get("MaxRuntimeInSeconds", 86_400):
            return "runtime"
        if faults.interrupts(job.spot, job.interruptions) and seconds > (faults.interrupt_every or 0):
            return "interrupted"
        return None

    def _conclude(self, why: Why, code: int) -> None:
        job = self._job
        failed = why == "exit" and code != 0
        job.enter("Uploading", "Uploading generated training model")
        changes = self._uploaded(failed) | self._seconds()
        match why:
            case "exit" if failed:
                job.end("Failed", _failure(self._ml, code), **changes)
            case "exit":
                job.end("Completed", "Training job completed", **changes)
            case "stop":
                job.end("Stopped", "Training job stopped", **changes)
            case "wait":
                job.end("Stopped", "MaxWaitTime exceeded", "MaxWaitTimeExceeded", **changes)
            case _:
                job.end("Stopped", "MaxRuntime exceeded", "MaxRuntimeExceeded", **changes)

    def _uploaded(self, failed: bool) -> dict[str, Any]:
        """Upload the outputs of the job; a failed job uploads no model."""
        output = self._job["OutputDataConfig"]
        base = f"{output['S3OutputPath'].rstrip('/')}/{self._job.name}/output"
        storage, scratch = self._site.storage, self._job.folder / "archive"
        if any((self._ml / "output/data").iterdir()):
            s3_sync.upload_archive(storage, self._ml / "output/data", f"{base}/output.tar.gz", scratch)
        if failed:
            return {}
        if output.get("CompressionType") == "NONE":
            s3_sync.upload_tree(storage, self._ml / "model", f"{base}/model/")
            return {"ModelArtifacts": {"S3ModelArtifacts": f"{base}/model/"}}
        s3_sync.upload_archive(storage, self._ml / "model", f"{base}/model.tar.gz", scratch)
        return {"ModelArtifacts": {"S3ModelArtifacts": f"{base}/model.tar.gz"}}

    def _seconds(self) -> dict[str, Any]:
        """Return the training time and the billed time, which on AWS, too, includes the spot discount."""
        used = max(1, math.ceil(self._trained))
        billed = max(1, math.ceil(SPOT_SHARE * used)) if self._job.spot else used
        return {"TrainingTimeInSeconds": used, "BillableTimeInSeconds": billed}


def _failure(ml: Path, code: int) -> str:
    """Return the FailureReason: the content of /opt/ml/output/failure, and the exit code."""
    file = ml / "output/failure"
    text = file.read_text(errors="replace").strip() if file.is_file() else ""
    end = f", exit code: {code}"
    return f"AlgorithmError: {text[: 1024 - len('AlgorithmError: ') - len(end)]}{end}"


def _configuration(job: EmulatedJob, channels: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the files of /opt/ml/input/config, by name."""
    kind = job["ResourceConfig"]["InstanceType"]
    group = {"instance_group_name": "homogeneousCluster", "instance_type": kind, "hosts": [HOST]}
    return {
        "hyperparameters": job.get("HyperParameters", {}),
        "inputdataconfig": {
            channel["ChannelName"]: {
                "TrainingInputMode": channel.get("InputMode", "File"),
                "S3DistributionType": "FullyReplicated",
                "RecordWrapperType": channel.get("RecordWrapperType", "None"),
            }
            for channel in channels
        },
        "resourceconfig": {
            "current_host": HOST,
            "current_instance_type": kind,
            "current_group_name": "homogeneousCluster",
            "hosts": [HOST],
            "instance_groups": [group],
            "network_interface_name": "lo",
        },
    }
