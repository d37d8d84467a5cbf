"""Options of managed training jobs: what a company may require of their network, keys and storage."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final


@dataclass(frozen=True, kw_only=True)
class TrainingJobOptions:
    """Options of a training job. A field that is None takes the value of .env or of the environment.

    subnets, security_groups: of a VPC, separated by commas; volume_kms_key, output_kms_key: keys that encrypt
    the volume of the instance and the output; network_isolation: no network in the container; tags: texts
    KEY=VALUE; volume_gb: size of the volume; max_retries: after errors of the service; keep_alive: seconds of
    a warm pool; job_queue: a queue that starts the jobs; job_priority, job_share: their rank and
    their share identifier in it.
    """

    subnets: str | None = None
    security_groups: str | None = None
    volume_kms_key: str | None = None
    output_kms_key: str | None = None
    network_isolation: bool = False
    tags: tuple[str, ...] | None = None
    volume_gb: int | None = None
    max_retries: int | None = None
    keep_alive: int | None = None
    job_queue: str | None = None
    job_priority: int | None = None
    job_share: str | None = None


JOB_OPTIONS: Final = frozenset(field.name for field in fields(TrainingJobOptions))
