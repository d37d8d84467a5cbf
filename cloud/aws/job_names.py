"""Names of training jobs: those of sweeps, and those of the original study."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from psa.core.errors import UserError
from psa.specs.arch import Arch
from psa.specs.training import MODES

JOB_NAME_STARTS: Final = "psa-"  # every name
_NAME: Final = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_ANCESTOR: Final = re.compile(
    rf"psa-(?P<depth>[0-9]{{1,9}})x(?P<width>[0-9]{{1,9}})-(?P<mode>{'|'.join(MODES)})-(?P<stamp>[0-9][0-9-]*)"
)


@dataclass(frozen=True)
class LegacyJobName:
    """What the name of a job of the original study says. stamp: when it was made, later ones sort later."""

    name: str
    arch: str
    mode: str
    stamp: tuple[int, ...]


def parse_legacy_name(name: str) -> LegacyJobName | None:
    """`psa-18x18-none-2025-08-04-19-17-02-730`; None for any other name."""
    match = _ANCESTOR.fullmatch(name)
    if match is None:
        return None
    try:
        arch = Arch.coerce(f"{match['depth']}*{match['width']}").label
    except UserError:
        return None
    stamp = tuple(int(part[:30]) for part in match["stamp"].split("-") if part)
    return LegacyJobName(name, arch, match["mode"], stamp)


def is_ours(name: str) -> bool:
    """Whether it is a job of a sweep of psa, whose results are records."""
    return job_parts(name) is not None


def latest(names: Iterable[str]) -> dict[tuple[str, str], list[LegacyJobName]]:
    """The ancestors' jobs by arch and mode, the latest first."""
    found: dict[tuple[str, str], list[LegacyJobName]] = {}
    for name in sorted(set(names)):
        job = parse_legacy_name(name)
        if job is not None:
            found.setdefault((job.arch, job.mode), []).append(job)
    return {cell: sorted(jobs, key=lambda job: job.stamp, reverse=True) for cell, jobs in found.items()}


def is_name(name: str) -> bool:
    """Whether SageMaker would take it as the name of a job; such a name is safe as that of a folder, too."""
    return _NAME.fullmatch(name) is not None


_JOB: Final = re.compile(r"psa-(?P<home>[0-9a-f]{8})-(?P<line>[0-9a-f]{12})-(?P<attempt>[0-9]{2,4})")


def job_parts(name: str) -> tuple[str, str, int] | None:
    """Home, line and attempt of a job's name; None for a job that is none of ours."""
    found = _JOB.fullmatch(name)
    return None if found is None else (found["home"], found["line"], int(found["attempt"]))
