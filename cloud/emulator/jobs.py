"""Training jobs as SageMaker describes them, and the table of all jobs in a folder."""

from __future__ import annotations

import copy
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cloud.aws.request_validation import output_members
from cloud.emulator.s3_server import REGION
from psa.core.files import ensure_dir, write_atomically

_LOG = logging.getLogger(__name__)
ACCOUNT: Final = "123456789012"
_SUMMARY: Final = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)
LIVE: Final = ("InProgress", "Stopping")
_LONGEST_REASON: Final = 1024
_LEFT: Final = "InternalServerError: the rehearsal ended while the job was running"


class EmulatedJob:
    """One job. `description` is the response of DescribeTrainingJob, with times in seconds since 1970.

    The job is stored at every change, so that a later rehearsal in the same folder knows it.
    """

    def __init__(self, folder: Path, description: dict[str, Any], interruptions: int = 0) -> None:
        self.folder = folder
        self._description = description
        self.interruptions = interruptions
        self._lock = threading.RLock()
        self.stop = threading.Event()  # set when a stop has been requested

    @classmethod
    def created(cls, folder: Path, request: Mapping[str, Any]) -> EmulatedJob:
        """Create a job in its state right after CreateTrainingJob."""
        name, now = request["TrainingJobName"], time.time()
        known = output_members("DescribeTrainingJob")
        description = {key: copy.deepcopy(value) for key, value in request.items() if key in known}
        description |= {
            "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/{name}",
            "CreationTime": now,
            "LastModifiedTime": now,
            "SecondaryStatusTransitions": [],
        }
        job = cls(folder, description)
        ensure_dir(folder)
        job.enter("Starting", "Starting the training job")
        return job

    @classmethod
    def stored(cls, folder: Path) -> EmulatedJob:
        """Load a job of an earlier rehearsal; one that did not end is marked as failed."""
        job = cls(folder, json.loads((folder / "job.json").read_text()))
        if job.live:
            job.end("Failed", _LEFT)
        return job

    def described(self) -> dict[str, Any]:
        """Return the response of DescribeTrainingJob."""
        with self._lock:
            return copy.deepcopy(self._description)

    def summary(self) -> dict[str, Any]:
        """Return the entry of ListTrainingJobs."""
        with self._lock:
            return {name: self._description[name] for name in _SUMMARY if name in self._description}

    def __getitem__(self, name: str) -> Any:
        """Return a member of the description."""
        return self._description[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a member of the description, or the default if it is missing."""
        return self._description.get(name, default)

    @property
    def name(self) -> str:
        """The unique name of the job."""
        return str(self._description["TrainingJobName"])

    @property
    def live(self) -> bool:
        """True until the job has ended."""
        return self._description["TrainingJobStatus"] in LIVE

    @property
    def spot(self) -> bool:
        """True for a spot job, whose capacity may be reclaimed."""
        return bool(self._description.get("EnableManagedSpotTraining"))

    def enter(self, secondary: str, message: str, status: str | None = None, **changes: Any) -> None:
        """Enter a secondary status; the primary one is unchanged unless it is given."""
        with self._lock:
            now = time.time()
            transitions = self._description["SecondaryStatusTransitions"]
            if transitions:
                transitions[-1].setdefault("EndTime", now)
            transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
            self._description["TrainingJobStatus"] = status or self._description.get(
                "TrainingJobStatus", "InProgress"
            )
            self._description["SecondaryStatus"] = secondary
            self._description["LastModifiedTime"] = now
            self._description |= changes
            self._store()

    def ask_to_stop(self) -> None:
        """Handle StopTrainingJob; a repeated call does nothing."""
        with self._lock:
            if self._description["TrainingJobStatus"] == "InProgress":
                self.enter("Stopping", "Stopping the training job", "Stopping")
                self.stop.set()

    def end(self, status: str, message: str, secondary: str | None = None, **changes: Any) -> None:
        """Enter the last status. message: the FailureReason of a failed job."""
        with self._lock:
            if status == "Failed":
                changes["FailureReason"] = message[:_LONGEST_REASON]
            now = time.time()
            started = self._description.get("TrainingStartTime")
            changes.setdefault("TrainingEndTime", now)
            if started is not None:
                changes.setdefault("TrainingTimeInSeconds", max(1, round(now - started)))
                changes.setdefault("BillableTimeInSeconds", changes["TrainingTimeInSeconds"])
            self.enter(secondary or status, message[:_LONGEST_REASON], status, **changes)
            last = self._description["SecondaryStatusTransitions"][-1]
            last["EndTime"] = last["StartTime"]
            self._store()

    def _store(self) -> None:
        write_atomically(self.folder / "job.json", json.dumps(self._description).encode())


class JobTable:
    """All jobs of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        ensure_dir(folder)
        found = (EmulatedJob.stored(each.parent) for each in sorted(folder.glob("*/job.json")))
        self._jobs = {job.name: job for job in found}

    def __iter__(self) -> Iterator[EmulatedJob]:
        with self._lock:
            return iter(list(self._jobs.values()))

    def get(self, name: str) -> EmulatedJob | None:
        """Return a job, or None if it does not exist."""
        return self._jobs.get(name)

    def add(self, request: Mapping[str, Any], quota: int | None) -> EmulatedJob | None:
        """Add a job, or return None if the quota is used up. Concurrent calls cannot exceed the quota."""
        with self._lock:
            if quota is not None and self._alike(request) >= quota:
                return None
            name = request["TrainingJobName"]
            job = self._jobs[name] = EmulatedJob.created(self._folder / name, request)
            return job

    def _alike(self, request: Mapping[str, Any]) -> int:
        """Return the number of live jobs that share a request's quota."""
        kind = request["ResourceConfig"]["InstanceType"]
        spot = bool(request.get("EnableManagedSpotTraining"))
        alike = (job["ResourceConfig"]["InstanceType"] == kind and job.spot == spot for job in self._live())
        return sum(alike)

    def _live(self) -> Iterator[EmulatedJob]:
        return (job for job in self._jobs.values() if job.live)
