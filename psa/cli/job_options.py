"""Options of SageMaker training jobs that companies require; each has a name in .env as well."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from psa.cli.options import SAGEMAKER, BackendArguments, CountOption, OptionalWhole, flag, option


@dataclass(frozen=True, kw_only=True)
class ManagedBackendArguments(BackendArguments):
    """Options that select and configure a backend, with those of managed training jobs."""

    job_queue: Annotated[
        str | None,
        option(
            SAGEMAKER,
            "Queue of AWS Batch that starts the jobs. [sagemaker] [default: SAGEMAKER_JOB_QUEUE]",
        ),
    ] = None
    job_priority: Annotated[
        OptionalWhole,
        option(
            SAGEMAKER,
            "Rank of the jobs in the queue, 0 to 9,999; the highest starts first. [sagemaker]"
            " [default: SAGEMAKER_JOB_PRIORITY, or the queue's]",
        ),
    ] = None
    job_share: Annotated[
        str | None,
        option(
            SAGEMAKER,
            "Share identifier of the jobs, for a queue with a fair-share policy. [sagemaker]"
            " [default: SAGEMAKER_JOB_SHARE]",
        ),
    ] = None
    subnets: Annotated[
        str | None,
        option(
            SAGEMAKER, "Subnets of the VPC, separated by commas. [sagemaker] [default: SAGEMAKER_SUBNETS]"
        ),
    ] = None
    security_groups: Annotated[
        str | None,
        option(
            SAGEMAKER,
            "Security groups of the VPC, separated by commas. [sagemaker] "
            "[default: SAGEMAKER_SECURITY_GROUPS]",
        ),
    ] = None
    volume_kms_key: Annotated[
        str | None,
        option(
            SAGEMAKER,
            "KMS key of the jobs' volumes. [sagemaker] [default: SAGEMAKER_VOLUME_KMS_KEY, or AWS's]",
        ),
    ] = None
    output_kms_key: Annotated[
        str | None,
        option(
            SAGEMAKER,
            "KMS key of the jobs' output. [sagemaker] [default: SAGEMAKER_OUTPUT_KMS_KEY, or AWS's]",
        ),
    ] = None
    network_isolation: Annotated[
        bool, flag(SAGEMAKER, "Run containers without a network, which training does not need. [sagemaker]")
    ] = False
    tags: Annotated[
        tuple[str, ...] | None,
        option(
            SAGEMAKER,
            "Tags of the jobs, KEY=VALUE, in addition to SAGEMAKER_TAGS. May be repeated. [sagemaker]",
            negative="",
        ),
    ] = None
    volume_gb: Annotated[
        CountOption,
        option(
            SAGEMAKER, "Size of the jobs' volumes, in GB. [sagemaker] [default: SAGEMAKER_VOLUME_GB, or 30]"
        ),
    ] = None
    max_retries: Annotated[
        CountOption,
        option(SAGEMAKER, "Retries of a job after an internal error of SageMaker, 1 to 30. [sagemaker]"),
    ] = None
    keep_alive: Annotated[
        CountOption,
        option(SAGEMAKER, "Seconds for which an instance is kept (and billed) for the next job. [sagemaker]"),
    ] = None
