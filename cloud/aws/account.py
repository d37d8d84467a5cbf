"""The AWS account of the settings: its clients, its training jobs, and psa's part of its bucket."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cloud.aws import settings
from cloud.aws.bucket import Bucket, ProgressCallback
from cloud.aws.job_names import JOB_NAME_PREFIX, is_psa_job, job_name_in_key, name_stem
from cloud.aws.job_queue import JobQueue
from cloud.aws.training_jobs import TrainingJobs


@dataclass(frozen=True)
class Account:
    """A region of an account and psa's part of a bucket. client: returns the boto3 client of a service."""

    region: str
    bucket_name: str
    prefix: str
    client: Callable[[str], Any]

    @cached_property
    def bucket(self) -> Bucket:
        """The part of the bucket that holds all files."""
        return Bucket(self.client("s3"), self.bucket_name, self.prefix)

    @cached_property
    def jobs(self) -> TrainingJobs:
        """The training jobs of the region."""
        return TrainingJobs(self.client("sagemaker"))

    def queue(self, name: str, **place: Any) -> JobQueue:
        """Return a queue of AWS Batch. place: priority, share and attempts of new jobs."""
        return JobQueue(self.client("batch"), name, self.jobs, **place)

    def job_names(self, progress: ProgressCallback) -> list[str]:
        """Return the names of all jobs of psa or of the original study. Raises UserError."""
        return list(filter(is_psa_job, self.jobs.list_jobs(JOB_NAME_PREFIX, progress)))

    def stored_job_names(self, progress: ProgressCallback) -> list[str]:
        """Return the names of all jobs with a folder in the bucket, sorted. Raises UserError."""
        return sorted(
            {job_name_in_key(found.name) for found in self.bucket.objects(progress=progress)} - {""}
        )

    def known_job_names(self, progress: ProgressCallback) -> list[str]:
        """Return the names of all jobs that the bucket knows, sorted. A managed job whose results have been
        downloaded has no folder of a job any more; SageMaker still lists its jobs. Raises UserError.
        """
        keys = [found.name for found in self.bucket.objects(progress=progress)]
        managed = {key.split("/")[1] for key in keys if key.startswith("lines/")}
        listed = self.job_names(progress) if managed else []
        stems = {name_stem(f"{JOB_NAME_PREFIX}{folder}") for folder in managed}
        known = {name for name in listed if name_stem(name) in stems}
        return sorted((known | {job_name_in_key(key) for key in keys}) - {""})


def open_account(region: str | None = None) -> Account:
    """Return the account of .env and the environment. Raises UserError if boto3 or a setting is missing."""
    found = settings.read_settings(submits=False)
    if region is not None:
        found = dataclasses.replace(found, region=region)
    return Account(found.region, found.bucket, found.prefix, found.client)
