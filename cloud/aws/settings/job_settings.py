"""Requirements of companies on training jobs: network, keys, isolation, tags, volume, retries, warm pools.

Each setting is read from .env or the environment, and has an option of the same meaning. AWS's own service
model checks the values as part of the request.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psa.core.errors import UserError

TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
VOLUME_GB: Final = 30
MAX_PRIORITY: Final = 9999  # of AWS Batch
_PLACE: Final = "Correct --job-priority or SAGEMAKER_JOB_PRIORITY; the highest starts first"
# name in .env -> field
JOB_SETTINGS: Final = {
    "SAGEMAKER_SUBNETS": "subnets",
    "SAGEMAKER_SECURITY_GROUPS": "security_groups",
    "SAGEMAKER_VOLUME_KMS_KEY": "volume_kms_key",
    "SAGEMAKER_OUTPUT_KMS_KEY": "output_kms_key",
    "SAGEMAKER_NETWORK_ISOLATION": "network_isolation",
    "SAGEMAKER_TAGS": "tags",
    "SAGEMAKER_VOLUME_GB": "volume_gb",
    "SAGEMAKER_MAX_RETRIES": "max_retries",
    "SAGEMAKER_KEEP_ALIVE": "keep_alive",
    "SAGEMAKER_JOB_QUEUE": "job_queue",
    "SAGEMAKER_JOB_PRIORITY": "job_priority",
    "SAGEMAKER_JOB_SHARE": "job_share",
}
_WHOLE: Final = ("volume_gb", "max_retries", "keep_alive", "job_priority")
_LISTS: Final = ("subnets", "security_groups")


@dataclass(frozen=True)
class JobSettings:
    """Further members of a request. subnets, security_groups: of the VPC that containers are connected to;
    volume_kms_key, output_kms_key: keys that encrypt the instance's volume and the output, "" for AWS's own;
    network_isolation: no network in the container; tags: of each job, beside psa's own; volume_gb: size of
    the volume; max_retries: by AWS itself, after an error of its own; keep_alive: billed seconds of a warm
    pool after a job, 0 for none; job_queue: a queue of AWS Batch that starts the jobs, "" for none;
    job_priority: their rank in it, None for its default; job_share: their share identifier, "" for none.
    """

    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    volume_kms_key: str = ""
    output_kms_key: str = ""
    network_isolation: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    volume_gb: int = VOLUME_GB
    max_retries: int = 0
    keep_alive: int = 0
    job_queue: str = ""
    job_priority: int | None = None
    job_share: str = ""

    def overridden(self, options: Mapping[str, Any]) -> JobSettings:
        """Return the settings with those options of a command that are given. Raises UserError."""
        given = {name: options[name] for name in _FIELDS if not _is_unset(options.get(name))}
        for name in _LISTS:
            if name in given:
                given[name] = _items(given[name])
        if "tags" in given:
            given["tags"] = (*self.tags, *_tags(given["tags"], "--tags"))
        changed = dataclasses.replace(self, **given)
        if bool(changed.subnets) != bool(changed.security_groups):
            raise UserError(_both(changed.subnets), "Give --subnets and --security-groups, or neither")
        return changed

    def add_to(self, request: dict[str, Any]) -> None:
        """Add the settings to a CreateTrainingJob request, in place."""
        resources: dict[str, Any] = request["ResourceConfig"]
        resources["VolumeSizeInGB"] = self.volume_gb
        if self.volume_kms_key:
            resources["VolumeKmsKeyId"] = self.volume_kms_key
        if self.keep_alive:
            resources["KeepAlivePeriodInSeconds"] = self.keep_alive
        if self.output_kms_key:
            request["OutputDataConfig"]["KmsKeyId"] = self.output_kms_key
        if self.subnets:
            request["VpcConfig"] = {
                "SecurityGroupIds": list(self.security_groups),
                "Subnets": list(self.subnets),
            }
        if self.network_isolation:
            request["EnableNetworkIsolation"] = True
        if self.max_retries:
            request["RetryStrategy"] = {"MaximumRetryAttempts": self.max_retries}
        request["Tags"] += [{"Key": key, "Value": value} for key, value in self.tags]


_FIELDS: Final = tuple(field.name for field in dataclasses.fields(JobSettings))


def parse_job_settings(found: Mapping[str, str]) -> JobSettings:
    """Return the settings among those of .env and the environment, which `job_setting_faults` has checked."""
    given = {field: found[name] for name, field in JOB_SETTINGS.items() if found.get(name)}
    values: dict[str, Any] = dict(given)
    for field, text in given.items():
        if field in _LISTS:
            values[field] = _items(text)
        elif field in _WHOLE:
            values[field] = int(text)
        elif field == "network_isolation":
            values[field] = TRUTHS[text.lower()]
        elif field == "tags":
            values[field] = _tags(_items(text), "SAGEMAKER_TAGS")
    return JobSettings(**values)


def job_setting_faults(found: Mapping[str, str]) -> list[str]:
    """Return the errors of these settings, one text each."""
    faults = []
    for name, field in JOB_SETTINGS.items():
        text = found.get(name, "")
        if text and field in _WHOLE and not (text.isascii() and text.isdecimal() and len(text) < 10):
            faults.append(f"{name} must be a whole number, got {text!r}")
        if text and field == "network_isolation" and text.lower() not in TRUTHS:
            faults.append(f"{name} must be true or false, got {text!r}")
    subnets, groups = (found.get(name, "") for name in ("SAGEMAKER_SUBNETS", "SAGEMAKER_SECURITY_GROUPS"))
    return [*faults, *([_both(subnets)] if bool(subnets) != bool(groups) else [])]


def check_place_in_queue(settings: JobSettings) -> None:
    """Check the settings of new jobs. Raise UserError for a rank out of range, or a place without a queue."""
    rank = settings.job_priority
    if rank is not None and not 0 <= rank <= MAX_PRIORITY:
        raise UserError(f"the job priority must be 0 to {MAX_PRIORITY:,}, got {rank:,}", _PLACE)
    if not settings.job_queue and (rank is not None or settings.job_share):
        raise UserError(
            "a job priority or share needs a job queue, got none", "Set --job-queue or SAGEMAKER_JOB_QUEUE"
        )


def _both(subnets: Sequence[str]) -> str:
    given = "subnets" if subnets else "security groups"
    return f"subnets and security groups of a VPC must be given together, got {given} alone"


def _is_unset(value: Any) -> bool:
    return value is None or value is False  # 0 is a rank


def _items(text: str | Sequence[str]) -> tuple[str, ...]:
    parts = text.split(",") if isinstance(text, str) else text
    return tuple(part.strip() for part in parts if part.strip())


def _tags(items: Sequence[str], where: str) -> tuple[tuple[str, str], ...]:
    found = []
    for item in items:
        key, equals, value = item.partition("=")
        if not key or not equals:
            raise UserError(f"{where} must hold KEY=VALUE, got {item!r}", "Write it like team=vision")
        found.append((key, value))
    return tuple(found)
