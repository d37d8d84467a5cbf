"""Names of training jobs: those of sweeps and those of the original study."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from psa.core.errors import UserError
from psa.specs.arch import Arch
from psa.specs.training import MODES

JOB_NAME_PREFIX: Final = "psa-"  # of every job
_NAME: Final = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_ANCESTOR: Final = re.compile(
    rf"psa-(?P<depth>[0-9]{{1,9}})x(?P<width>[0-9]{{1,9}})-(?P<mode>{'|'.join(MODES)})-(?P<stamp>[0-9][0-9-]*)"
)


@dataclass(frozen=True)
class LegacyJobName:
    """The parsed name of a job of the original study. stamp: its creation time; later ones sort later."""

    name: str
    arch: str
    mode: str
    stamp: tuple[int, ...]


def parse_legacy_name(name: str) -> LegacyJobName | None:
    """Parse a name such as `psa-18x18-none-2025-08-04-19-17-02-730`. Return None for any other name."""
    match = _ANCESTOR.fullmatch(name)
    if match is None:
        return None
    try:
        arch = Arch.coerce(f"{match['depth']}*{match['width']}").label
    except UserError:
        return None
    stamp = tuple(int(part[:30]) for part in match["stamp"].split("-") if part)
    return LegacyJobName(name, arch, match["mode"], stamp)


def is_sweep_job(name: str) -> bool:
    """Return whether a name is that of a sweep's job, whose results are records."""
    return parse_job_name(name) is not None


def latest_legacy_jobs(names: Iterable[str]) -> dict[tuple[str, str], list[LegacyJobName]]:
    """Group jobs of the original study by (arch, mode), the latest first."""
    found: dict[tuple[str, str], list[LegacyJobName]] = {}
    for name in sorted(set(names)):
        job = parse_legacy_name(name)
        if job is not None:
            found.setdefault((job.arch, job.mode), []).append(job)
    return {cell: sorted(jobs, key=lambda job: job.stamp, reverse=True) for cell, jobs in found.items()}


def is_valid_job_name(name: str) -> bool:
    """Return whether SageMaker accepts a job name. Such a name is also safe as a folder name."""
    return _NAME.fullmatch(name) is not None


_SWEEP_JOB: Final = r"psa-([0-9a-f]{8})-([0-9a-f]{12})-([0-9]{2,4})"
# AWS Batch names a training job AWSBatch<name><32 hexadecimal digits> (AWS Batch User Guide, "Service job
# state change events"). A name has at most 63 characters, which leaves 23 for the name of the service job.
QUEUE_PREFIX: Final = "AWSBatch"
_JOB: Final = re.compile(rf"{_SWEEP_JOB}(?:-[0-9a-z]+)?|{QUEUE_PREFIX}{_SWEEP_JOB}[0-9a-f]{{32}}")
_STEM: Final = 23


class SweepJobName(NamedTuple):
    """The parsed name of a sweep's job: the id of its workspace, its managed job, and the attempt."""

    workspace: str
    managed_job: str
    attempt: int

    @property
    def name(self) -> str:
        """The name that psa gave the job, without what a queue adds to it."""
        return f"{JOB_NAME_PREFIX}{self.workspace}-{self.managed_job}-{self.attempt:02d}"


def parse_job_name(name: str) -> SweepJobName | None:
    """Parse the name of a sweep's job, or of a training job that a queue started for it and whose name is
    complete. Return None for any other name.
    """
    found = _JOB.fullmatch(name)
    if found is None:
        return None
    workspace, managed_job, attempt = (part for part in found.groups() if part is not None)
    return SweepJobName(workspace, managed_job, int(attempt))


def started_by_queue(name: str) -> bool:
    """Return whether AWS Batch has named a training job."""
    return name.startswith(QUEUE_PREFIX)


def name_stem(name: str) -> str:
    """Return the part of a job's name that is the same for the training jobs that a queue starts for it."""
    return name.removeprefix(QUEUE_PREFIX)[:_STEM]


def is_psa_job(name: str) -> bool:
    """Return whether a name is that of a job of psa or of the original study."""
    return name.removeprefix(QUEUE_PREFIX).startswith(JOB_NAME_PREFIX) and is_valid_job_name(name)


def job_name_in_key(key: str) -> str:
    """Return the job that owns a file (`<job>/...` or `lines/<line>/output/<job>/...`), or ""."""
    parts = key.split("/")
    if parts[0] == "lines":
        parts = parts[3:] if len(parts) > 4 and parts[2] == "output" else []
    name = parts[0] if len(parts) > 1 else ""
    return name if is_psa_job(name) else ""
