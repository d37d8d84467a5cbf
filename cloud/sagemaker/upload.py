"""Upload the inputs of jobs to the bucket: code, data sets, and managed jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from cloud.aws.bucket import Bucket
from cloud.sagemaker.container.code import ARCHIVE_NAME, CodeArchive
from cloud.sagemaker.jobs.managed_job import ManagedJob, upload_inputs
from cloud.sagemaker.request import DATA
from psa.data.files import data_files
from psa.storage.store import Store


def upload_sweep_inputs(
    managed_jobs: Sequence[ManagedJob],
    live: Collection[str],
    bucket: Bucket,
    store: Store,
    code: CodeArchive,
    data_dir: Path,
) -> Iterator[str]:
    """Upload the inputs of managed jobs that the bucket lacks. Yield after each file, so that the caller may
    stop in between. Existing managed jobs are uploaded again, since local states may have been repaired or
    trained further, but not those with a running job, which has read its inputs. live: the names of these.

    Raises UserError.
    """
    specs = [trial.data for managed in managed_jobs for trial in managed.trials]
    files = {f"{DATA}/{file}": content for file, content in data_files(specs, data_dir).items()}
    if managed_jobs:
        files = {f"{code.folder}/{ARCHIVE_NAME}": code.content, **files}
    there = {found.name for folder in (code.folder, DATA) for found in bucket.objects(f"{folder}/")}
    for name, content in files.items():
        if name not in there:
            bucket.write_new(name, content)
        yield name
    for managed in managed_jobs:
        if managed.name not in live:
            yield from upload_inputs(managed, bucket, store)
