"""Upload the inputs of jobs to the bucket: code, data sets, and managed jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cloud.aws.bucket import Bucket
from cloud.sagemaker.container.code import ARCHIVE_NAME, CodeArchive
from cloud.sagemaker.jobs.managed_job import ManagedJob, upload_inputs
from cloud.sagemaker.request import DATA
from psa.data.files import data_files
from psa.storage.store import Store


def upload_sweep_inputs(
    managed_jobs: Sequence[ManagedJob], bucket: Bucket, store: Store, code: CodeArchive, data_dir: Path
) -> Iterator[str]:
    """Upload the inputs of managed jobs. Yield after each file, so that the caller may stop in between.
    Existing managed jobs are uploaded again, since local states may have been repaired or trained further.

    Raises UserError.
    """
    if managed_jobs:
        yield _new(bucket, f"{code.folder}/{ARCHIVE_NAME}", code.content)
    specs = [trial.data for managed in managed_jobs for trial in managed.trials]
    for file, content in data_files(specs, data_dir).items():
        yield _new(bucket, f"{DATA}/{file}", content)
    for managed in managed_jobs:
        yield from upload_inputs(managed, bucket, store)


def _new(bucket: Bucket, name: str, content: bytes) -> str:
    bucket.write_new(name, content)
    return name
