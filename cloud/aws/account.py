"""The AWS account that the commands query: its clients, and its errors as one line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cloud.aws import settings
from cloud.aws.bucket import object_bytes
from cloud.aws.errors import aws_errors, error_code, required, retry_malformed
from cloud.aws.job_description import TrainingJob, job_of
from cloud.aws.job_names import JOB_NAME_STARTS, is_name

ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class Account:
    """A region of an account and psa's part of a bucket. client: returns the boto3 client of a service."""

    region: str
    bucket: str
    prefix: str
    client: Callable[[str], Any]

    @property
    def uri(self) -> str:
        """The URI of psa's part of the bucket."""
        return f"s3://{self.bucket}/{self.prefix}"


def account(region: str | None = None) -> Account:
    """Return the account of .env and the environment. Raises UserError if boto3 or a setting is missing."""
    found = settings.read_settings(submits=False)
    if region is not None:
        found = dataclasses.replace(found, region=region)
    return Account(found.region, found.bucket, found.prefix, found.client)


def job_names(client: Any, tell: ProgressCallback) -> list[str]:
    """Return the names of all jobs that psa or the original study made, the latest first. Raises
    UserError.
    """
    with aws_errors("the training jobs cannot be listed"):
        names = retry_malformed(lambda: _listed(client, tell))
    return [name for name in names if name.startswith(JOB_NAME_STARTS) and is_name(name)]


def _listed(client: Any, tell: ProgressCallback) -> list[str]:
    names: list[str] = []
    for page in client.get_paginator("list_training_jobs").paginate(NameContains=JOB_NAME_STARTS):
        names += [each["TrainingJobName"] for each in required(page, "TrainingJobSummaries")]
        tell(f"{len(names):,} jobs listed")
    return names


def described(client: Any, names: list[str], tell: ProgressCallback) -> tuple[list[TrainingJob], list[str]]:
    """Return the descriptions of these jobs, and the names unknown to the account. Raises UserError."""
    from botocore.exceptions import ClientError

    found: list[TrainingJob] = []
    unknown: list[str] = []
    for at, name in enumerate(names, 1):
        tell(f"{at:,} of {len(names):,} jobs: {name}")
        with aws_errors(f"job {name} cannot be described"):
            try:
                found.append(job_of(client.describe_training_job(TrainingJobName=name), "SageMaker"))
            except ClientError as error:
                # SageMaker has no error code of its own for an unknown job
                if error_code(error) != "ValidationException" or "not found" not in str(error).lower():
                    raise
                unknown.append(name)
    return found, unknown


def stored_objects(
    account: Account, folder: str = "", tell: ProgressCallback | None = None
) -> Iterator[tuple[str, int, str]]:
    """Yield the name (relative to the prefix), size in bytes and storage class of every file below a folder
    of the prefix. Raises UserError.
    """
    start, count = f"{account.prefix}/", 0
    with aws_errors(f"{account.uri} cannot be listed"):
        pages = (
            account.client("s3")
            .get_paginator("list_objects_v2")
            .paginate(Bucket=account.bucket, Prefix=f"{start}{folder}")
        )
        for page in pages:
            required(page, "IsTruncated")
            for item in page.get("Contents", []):
                yield item["Key"][len(start) :], int(item["Size"]), item.get("StorageClass", "STANDARD")
            count += len(page.get("Contents", []))
            if tell is not None:
                tell(f"{count:,} files listed")


def stored_names(account: Account, tell: ProgressCallback) -> list[str]:
    """Return the names of all jobs with a folder in the bucket, sorted. Raises UserError."""
    found: dict[str, None] = {}
    for key, _, _ in stored_objects(account, tell=tell):
        name = job_in(key)
        if name:
            found[name] = None
    return sorted(found)


def job_in(key: str) -> str:
    """Return the job that owns a file (`<job>/...` or `lines/<line>/output/<job>/...`), or ""."""
    parts = key.split("/")
    if parts[0] == "lines":
        parts = parts[3:] if len(parts) > 4 and parts[2] == "output" else []
    name = parts[0] if len(parts) > 1 else ""
    return name if name.startswith(JOB_NAME_STARTS) and is_name(name) else ""


def fetched(account: Account, key: str, most: int) -> bytes | None:
    """Return a file below the prefix, or None if it does not exist. Raises UserError, also if it has more
    than `most` bytes.
    """
    return object_bytes(account.client("s3"), account.bucket, f"{account.prefix}/{key}", most)
