"""Training jobs as described by SageMaker, and the files that list them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.aws.job_names import is_valid_job_name, parse_job_name, parse_legacy_name
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.formatting import quote
from psa.core.text_file import decode_text

JOBS_FILE: Final = Path("requested-jobs.txt")
MAX_JOBS: Final = 100_000
ENDED_STATUSES: Final = ("Completed", "Failed", "Stopped")
_HINT: Final = (
    "Write one job name per line, or a JSON list of responses of `aws sagemaker describe-training-job`; the "
    "original study's sagemaker_cost_report.json is read as well"
)


@dataclass(frozen=True)
class TrainingJob:
    """A training job. billable_seconds: per instance, after the spot discount, 0 before the end;
    retained_seconds: of a warm pool afterwards; training_seconds: run time; instances: type and count.
    """

    name: str
    status: str
    instances: tuple[tuple[str, int], ...]
    spot: bool
    billable_seconds: float = 0.0
    retained_seconds: float = 0.0
    training_seconds: float = 0.0
    ended: bool = True
    region: str = ""

    @property
    def arch(self) -> str:
        """The architecture of a job of the original study; a sweep's job has several."""
        return self._cell[0]

    @property
    def mode(self) -> str:
        """The mode of a job of the original study; a sweep's job has several."""
        return self._cell[1]

    @property
    def _cell(self) -> tuple[str, str]:
        legacy, parts = parse_legacy_name(self.name), parse_job_name(self.name)
        if legacy is not None:
            return legacy.arch, legacy.mode
        return (f"sweep {parts.workspace}" if parts else "other jobs",) * 2

    @property
    def count(self) -> int:
        """The number of its instances."""
        return sum(count for _, count in self.instances)

    @property
    def instance_seconds(self) -> float:
        """The billed seconds, summed over its instances."""
        return (self.billable_seconds + self.retained_seconds) * self.count


def parse_description(answer: Mapping[str, Any], where: str) -> TrainingJob:
    """Parse a response of DescribeTrainingJob. Raises UserError that names the invalid part."""
    if not isinstance(answer, Mapping):
        raise UserError(f"{where} must describe a training job, got {quote(answer)}", _HINT)
    name = _text(answer, "TrainingJobName", where)
    where = f"{where}: {name}"
    pool = answer.get("WarmPoolStatus") or {}
    return TrainingJob(
        name=name,
        status=_text(answer, "TrainingJobStatus", where),
        instances=_instances(answer.get("ResourceConfig"), where),
        spot=answer.get("EnableManagedSpotTraining") is True,
        billable_seconds=_seconds(answer, "BillableTimeInSeconds", where),
        retained_seconds=_seconds(pool, "ResourceRetainedBillableTimeInSeconds", where),
        training_seconds=_seconds(answer, "TrainingTimeInSeconds", where),
        ended=answer["TrainingJobStatus"] in ENDED_STATUSES,
        region=_region(answer.get("TrainingJobArn")),
    )


def _text(answer: Mapping[str, Any], key: str, where: str) -> str:
    value = answer.get(key)
    if not isinstance(value, str) or not value.isprintable() or not 0 < len(value) < 200:
        raise UserError(f"{where}: {key} must be a name, got {quote(value)}", _HINT)
    return value


def _seconds(answer: Any, key: str, where: str) -> float:
    value = answer.get(key, 0) if isinstance(answer, Mapping) else None
    value = 0 if value is None and isinstance(answer, Mapping) else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e10:
        raise UserError(f"{where}: {key} must be a number of seconds, got {quote(value)}", _HINT)
    return float(value)


def _instances(config: Any, where: str) -> tuple[tuple[str, int], ...]:
    """Return the (type, count) pairs of a ResourceConfig, one per instance group. Raises UserError."""
    config = config if isinstance(config, Mapping) else {}
    groups = config.get("InstanceGroups") or [config]
    found = []
    for group in groups if isinstance(groups, list) else [{}]:
        kind, count = (
            group.get(key) if isinstance(group, Mapping) else None
            for key in ("InstanceType", "InstanceCount")
        )
        if not isinstance(kind, str) or type(count) is not int or count < 0:
            raise UserError(f"{where}: ResourceConfig does not say which instances it had", _HINT)
        found.append((kind, count))
    return tuple(found)


def _region(arn: Any) -> str:
    parts = arn.split(":") if isinstance(arn, str) else []
    return parts[3] if len(parts) > 3 else ""


def read_jobs(path: Path) -> tuple[list[str], list[TrainingJob]]:
    """Read a list of jobs: names, or JSON descriptions, without duplicates. Raises UserError."""
    content = read_bytes(path)
    if content is None:
        raise UserError(f"the list of jobs {path} does not exist", _HINT)
    text = decode_text(content, str(path)).strip()
    if not text.startswith(("[", "{")):
        return parse_job_names(text, str(path)), []
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} must be JSON: {str(error)[:120]}", _HINT) from None
    if isinstance(body, Mapping):
        body = _described(body)
    if not isinstance(body, list) or len(body) > MAX_JOBS:
        raise UserError(f"{path} must hold a list of at most {MAX_JOBS:,} jobs", _HINT)
    jobs = {each.name: each for each in (parse_description(answer, str(path)) for answer in body)}
    if not jobs:
        raise UserError(f"{path} must list a job, got none", _HINT)
    return list(jobs), list(jobs.values())


def _described(body: Mapping[str, Any]) -> Any:
    """Return the descriptions in a JSON object: one job, a list, or the cost report of the original study."""
    about, jobs = body.get("metadata"), body.get("jobs")
    if not isinstance(about, Mapping) or not isinstance(jobs, list):
        return body.get("TrainingJobs", [body])
    instances = {"InstanceType": about.get("instance_type"), "InstanceCount": 1}
    return [
        {
            "TrainingJobName": job.get("name"),
            "TrainingJobStatus": job.get("status"),
            "BillableTimeInSeconds": job.get("billable_seconds"),
            "ResourceConfig": instances,
            "TrainingJobArn": f"arn:aws:sagemaker:{about.get('region')}",
        }
        if isinstance(job, Mapping)
        else job
        for job in jobs
    ]


def parse_job_names(text: str, where: str) -> list[str]:
    """Parse names, one per line, without duplicates; `#` starts a comment. Raises UserError with the line."""
    names: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.split("#")[0].strip()
        if not name:
            continue
        if not is_valid_job_name(name):
            raise UserError(f"{where}, line {number}: must be the name of a job, got {quote(name)}", _HINT)
        names[name] = None
    if not names or len(names) > MAX_JOBS:
        raise UserError(f"{where} must list 1 to {MAX_JOBS:,} jobs, got {len(names):,}", _HINT)
    return list(names)


def encode_report(body: Any) -> bytes:
    """Encode a report as indented JSON."""
    return (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()
