"""Upload the inputs of jobs to the bucket: code, data sets, and lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cloud.aws.bucket import Bucket
from cloud.sagemaker.container.code import NAME, Code
from cloud.sagemaker.jobs.managed_job import ManagedJob, upload_inputs
from cloud.sagemaker.request import DATA
from psa.data import download
from psa.data.datasets import DATASETS
from psa.storage.store import Store


def uploaded(
    lines: Sequence[ManagedJob], bucket: Bucket, store: Store, code: Code, data_dir: Path
) -> Iterator[str]:
    """Upload the inputs of lines. Yield after each file, so that the caller may stop in between. Existing
    lines are uploaded again, since local states may have been repaired or trained further.

    Raises UserError.
    """
    if lines:
        yield _new(bucket, f"{code.folder}/{NAME}", code.content)
    for name in sorted({trial.data.name for line in lines for trial in line.trials}):
        for file, content in download.download_dataset(DATASETS[name], data_dir).items():
            yield _new(bucket, f"{DATA}/{name}/{file}", content)
    for line in lines:
        yield from upload_inputs(line, bucket, store)


def _new(bucket: Bucket, name: str, content: bytes) -> str:
    bucket.write_new(name, content)
    return name
