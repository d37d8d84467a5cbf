"""Results of the original study's jobs in S3, which are not records, as its summary and trial table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from cloud.aws.artifact import Limits, read_artifact
from cloud.aws.job_names import LegacyJobName, latest_legacy_jobs
from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.specs.training import MODES

if TYPE_CHECKING:
    import pandas as pd

ARTIFACT: Final = "output/model.tar.gz"
MAX_ARTIFACT_SIZE: Final = 256 * 2**20  # in bytes, packed; the study's have a few hundred
COMPREHENSIVE: Final = "comprehensive_results.json"
_PLAIN: Final = "results.txt"
# Why a cell is empty: the study's own tokens and two more, for an artifact that is refused or damaged, and
# for invalid results.
NO_JOB: Final = "NO_JOB_FOUND"
INCOMPLETE: Final = "FAILED_OR_INCOMPLETE"
EMPTY: Final = "EMPTY_RESULTS"
_NOT_FOUND: Final = "RESULTS_NOT_FOUND"
REFUSED: Final = "ARTIFACT_REFUSED"
DAMAGED: Final = "RESULTS_DAMAGED"
_NUMBER: Final = re.compile(r"[0-9]{1,3}(\.[0-9]+)?")
_MOST_RESULTS: Final = 10 * 2**20  # size limit of a result file, which takes ten times as much in memory
_LIMITS: Final = Limits()
ReadObject = Callable[[LegacyJobName], bytes | None]


class NoResults(Exception):
    """A cell without results. token: the reason as one word of the summary; why: the message."""

    def __init__(self, token: str, why: str = "") -> None:
        self.token, self.why = token, why
        super().__init__(token)


@dataclass
class LegacyResults:
    """Bounties in percent by (arch, mode), tokens of empty cells, and remarks, one line each. archs: the
    architectures in the order of the list.
    """

    archs: tuple[str, ...] = ()
    bounties: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def collect_results(
    names: Sequence[str], archs: Sequence[str], read: ReadObject, progress: Callable[[str], None]
) -> LegacyResults:
    """Return the results of the latest job of each mode of these architectures, or of all that have jobs if
    `archs` is empty. read: returns the artifact of a job, or None if it does not exist.
    """
    jobs = latest_legacy_jobs(names)
    listed = tuple(archs) or tuple(dict.fromkeys(arch for arch, _ in jobs))
    results = LegacyResults(listed)
    for arch in listed:
        progress(arch)
        for mode in MODES:
            _take(results, arch, mode, jobs.get((arch, mode), []), read)
    left = sorted({arch for arch, _ in jobs} - set(listed))
    if left:
        results.remarks.append(f"jobs of architectures that are not listed are left out: {', '.join(left)}")
    return results


def _take(
    results: LegacyResults, arch: str, mode: str, jobs: Sequence[LegacyJobName], read: ReadObject
) -> None:
    if not jobs:
        results.tokens[arch, mode] = NO_JOB
        return
    try:
        results.bounties[arch, mode] = read_bounties(jobs[0], read)
    except NoResults as nothing:
        results.tokens[arch, mode] = nothing.token
        why = f" ({nothing.why})" if nothing.why else ""
        older = f"; an earlier job is there, {jobs[1].name}" if len(jobs) > 1 else ""
        results.remarks.append(f"{jobs[0].name}: {nothing.token}{why}{older}")


def read_bounties(job: LegacyJobName, read: ReadObject) -> list[float]:
    """Return the bounties in a job's artifact, in percent. Raises NoResults."""
    data = read(job)
    if data is None:
        raise NoResults(INCOMPLETE)
    try:
        files = read_artifact(data, _LIMITS, name=f"{job.name}/{ARTIFACT}", wanted=(COMPREHENSIVE, _PLAIN))
    except UserError as error:
        raise NoResults(REFUSED, error.message) from None
    if any(len(content) > _MOST_RESULTS for content in files.values()):
        raise NoResults(DAMAGED, "its results are too long to be results")
    by_name = {place.rpartition("/")[2]: content for place, content in files.items()}
    if COMPREHENSIVE in by_name:
        found = _comprehensive(by_name[COMPREHENSIVE])
    elif _PLAIN in by_name:
        found = _plain(by_name[_PLAIN])
    else:
        raise NoResults(_NOT_FOUND)
    if not found:
        raise NoResults(EMPTY)
    return found


def _comprehensive(content: bytes) -> list[float]:
    """Parse a JSON list with a `bounty` in each item. Raises NoResults."""
    try:
        items = json.loads(content) if content.strip() else []
    except (ValueError, RecursionError):
        raise NoResults(DAMAGED, f"{COMPREHENSIVE} must be JSON") from None
    if not isinstance(items, list):
        raise NoResults(DAMAGED, f"{COMPREHENSIVE} must be a list")
    return [_percent(item.get("bounty") if isinstance(item, Mapping) else None) for item in items]


def _plain(content: bytes) -> list[float]:
    """Parse one bounty per line."""
    lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
    return [_percent(float(line) if _NUMBER.fullmatch(line) else None) for line in lines if line]


def _percent(value: Any) -> float:
    sound = isinstance(value, int | float) and not isinstance(value, bool)
    if not sound or not 0 <= value <= 100:  # NaN fails the comparison, too
        raise NoResults(DAMAGED, f"a result must be a percentage, got {quote(value)}")
    return float(value)


def frame_of_results(results: LegacyResults, family: str) -> pd.DataFrame:
    """Return the trials as the frame of reports, numbered from 1, in the order in which the architectures are
    listed; an empty cell has one missing value.
    """
    from psa.analysis.frame_schema import build_frame
    from psa.analysis.published import published_row

    cells: dict[tuple[str, str], Sequence[float | None]] = {cell: [None] for cell in results.tokens}
    cells |= results.bounties
    frame = build_frame(
        [
            published_row(family, arch, mode, number, bounty)
            for (arch, mode), bounties in cells.items()
            for number, bounty in enumerate(bounties, 1)
        ]
    )
    position = {arch: at for at, arch in enumerate(results.archs)}
    return frame.sort_values("arch", key=lambda archs: archs.astype(str).map(position), kind="stable")
