"""Logs of training jobs in CloudWatch, stored as files: one folder per job, one file per stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cloud.aws.bucket import ProgressCallback
from cloud.aws.errors import aws_errors, error_code, require_member
from cloud.aws.job_description import encode_report
from psa.core.files import read_bytes, write_atomically

LOG_GROUP: Final = "/aws/sagemaker/TrainingJobs"
SUMMARY_FILE: Final = "summary.json"
DOWNLOADS_FILE: Final = "download_summary.json"
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


def is_downloaded(folder: Path) -> bool:
    """Return whether a folder holds the complete logs of a job. Its summary, written last, lists them."""
    try:
        files = json.loads(read_bytes(folder / SUMMARY_FILE) or b"")["log_files"]
        return bool(files) and all((folder / file["name"]).stat().st_size == file["bytes"] for file in files)
    except (ValueError, LookupError, TypeError, OSError):
        return False


def download_logs(client: Any, job: str, folder: Path, progress: ProgressCallback) -> dict[str, Any] | None:
    """Store the logs of a job in a folder. Return the summary, or None without logs. Raises UserError."""
    files = []
    for stream in _streams(client, job):
        lines, first, last = [], None, None
        for event in _events(client, stream):
            lines.append(event["message"].rstrip("\n"))
            first, last = first or event["timestamp"], event["timestamp"]
            if len(lines) % 10_000 == 0:
                progress(f"{job}: {len(lines):,} lines")
        content = "".join(f"{line}\n" for line in lines).encode()
        name = f"{_UNSAFE.sub('_', stream.rpartition('/')[2]) or 'log'}.log"
        write_atomically(folder / name, content)
        files.append(
            {"name": name, "stream": stream, "lines": len(lines), "bytes": len(content),
             "first_milliseconds": first, "last_milliseconds": last}
        )  # fmt: skip
    if not files:
        return None
    summary = {
        "job_name": job,
        "log_files": files,
        "total_files": len(files),
        "total_bytes": sum(int(str(file["bytes"])) for file in files),
    }
    write_atomically(folder / SUMMARY_FILE, encode_report(summary))
    return summary


def _streams(client: Any, job: str) -> list[str]:
    """Return the log streams of a job, one per instance and restart. Raises UserError."""
    from botocore.exceptions import ClientError

    pages = client.get_paginator("describe_log_streams").paginate(
        logGroupName=LOG_GROUP, logStreamNamePrefix=f"{job}/"
    )
    with aws_errors(f"the logs of {job} cannot be listed"):
        try:
            return [
                stream["logStreamName"] for page in pages for stream in require_member(page, "logStreams")
            ]
        except ClientError as error:
            # the log group does not exist in an account that never ran a job
            if error_code(error) == "ResourceNotFoundException":
                return []
            raise


def _events(client: Any, stream: str) -> Iterator[dict[str, Any]]:
    """Yield all events of a stream in order. A page may be empty before the last; the last page returns the
    token that was sent. Raises UserError.
    """
    token: dict[str, str] = {}
    with aws_errors(f"the log {stream} cannot be read"):
        while True:
            page = client.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **token
            )
            yield from require_member(page, "events")
            if token.get("nextToken") == page["nextForwardToken"]:
                return
            token = {"nextToken": page["nextForwardToken"]}
