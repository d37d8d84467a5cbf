"""The JSON documents of the commands for SageMaker jobs; see docs/json.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from psa.cli.output.document import Document
from psa.cli.output.schema import CountField, DurationField, ShareField

DollarsField = Annotated[float, Field(ge=0)]
HoursField = Annotated[float, Field(ge=0)]


class PriceSource(Document):
    """The table of prices that was used."""

    dated: Annotated[str, Field(description="Its date, as YYYY-MM-DD.")]
    region: Annotated[str, Field(description="The region of its prices.")]


class CostEntry(Document):
    """The cost of several jobs."""

    jobs: Annotated[CountField, Field(description="Number of jobs.")]
    billable_hours: Annotated[HoursField, Field(description="Billed instance hours.")]
    dollars: Annotated[DollarsField, Field(description="Cost in USD.")]
    longest_job_hours: Annotated[HoursField, Field(description="Billed hours of the longest job.")]


class GroupCost(CostEntry):
    """The cost of the jobs of one status, architecture or mode."""

    name: Annotated[
        str | list[str], Field(description="The status, architecture or mode; of two keys a list of both.")
    ]


class JobCost(Document):
    """The cost of one job."""

    job: Annotated[str, Field(description="Name of the job.")]
    status: Annotated[str, Field(description="Its status, as SageMaker writes it.")]
    instances: Annotated[
        list[tuple[str, CountField]], Field(description="Type and number of its instances, as pairs.")
    ]
    spot: Annotated[bool, Field(description="True if it ran on spot instances.")]
    billable_seconds: Annotated[DurationField, Field(description="Billed time per instance.")]
    dollars: Annotated[DollarsField, Field(description="Cost in USD.")]


class CostDocument(Document):
    """The output of `sagemaker-cost-estimator --json`, equal to its report file but for `report`."""

    prices: Annotated[PriceSource, Field(description="The table of prices.")]
    total: Annotated[CostEntry, Field(description="All jobs with a price.")]
    longest_job: Annotated[str | None, Field(description="Name of the job billed for the longest time.")]
    spot_saved: Annotated[
        ShareField | None,
        Field(description="Share of the spot jobs' time that was not billed; null without any."),
    ]
    by_status: Annotated[list[GroupCost], Field(description="Cost by status, the most expensive first.")]
    by_arch: Annotated[list[GroupCost], Field(description="Cost by architecture.")]
    by_mode: Annotated[list[GroupCost], Field(description="Cost by mode.")]
    by_arch_and_mode: Annotated[list[GroupCost], Field(description="Cost by architecture and mode.")]
    not_ended: Annotated[list[str], Field(description="Jobs that are still running; billed so far.")]
    without_price: Annotated[
        dict[str, list[str]], Field(description="Jobs left out, by instance type without a price.")
    ]
    of_other_regions: Annotated[list[str], Field(description="Jobs of another region than the prices.")]
    details: Annotated[list[JobCost], Field(description="Cost of each job.")]
    unknown: Annotated[list[str], Field(description="Named jobs that SageMaker does not know.")]
    report: Annotated[str, Field(description="Path of the report file.")]


class KindSize(Document):
    """The size of one kind of file."""

    files: Annotated[CountField, Field(description="Number of files.")]
    bytes: Annotated[CountField, Field(description="Their size.")]


class JobStorage(KindSize):
    """The storage of one job."""

    job: Annotated[str, Field(description="Name of the job, or of a managed job.")]
    kinds: Annotated[dict[str, CountField], Field(description="Bytes by kind of file, where there are any.")]


class StorageDocument(Document):
    """The output of `sagemaker-estimate-storage --json`, equal to its report file but for `report`."""

    uri: Annotated[str, Field(description="The folder in S3.")]
    prices: Annotated[PriceSource, Field(description="The table of prices.")]
    jobs: Annotated[CountField, Field(description="Number of jobs with files.")]
    files: Annotated[CountField, Field(description="Number of files.")]
    bytes: Annotated[CountField, Field(description="Their size.")]
    dollars_a_month: Annotated[DollarsField, Field(description="Cost in USD per month.")]
    kinds: Annotated[dict[str, KindSize], Field(description="Files by kind.")]
    storage_classes: Annotated[dict[str, CountField], Field(description="Bytes by storage class of S3.")]
    job_details: Annotated[list[JobStorage], Field(description="Files by job, the largest first.")]
    report: Annotated[str | None, Field(description="Path of the report file, with --output-file.")]


class LogDownloadDocument(Document):
    """The output of `sagemaker-get-training-logs --json`."""

    folder: Annotated[str, Field(description="Folder of the logs.")]
    jobs_file: Annotated[str | None, Field(description="List of jobs written with --reconstruct-jobs.")]
    jobs: Annotated[CountField, Field(description="Number of jobs.")]
    downloaded: Annotated[CountField, Field(description="Jobs whose logs were downloaded.")]
    skipped: Annotated[CountField, Field(description="Jobs whose logs were here already.")]
    bytes: Annotated[CountField, Field(description="Size of the downloaded logs.")]
    downloaded_jobs: Annotated[list[str], Field(description="Names of the downloaded ones.")]
    skipped_jobs: Annotated[list[str], Field(description="Names of the skipped ones.")]
    without_log: Annotated[list[str], Field(description="Jobs without a log.")]


class LogTablesDocument(Document):
    """The output of `sagemaker-logs-parser --json`."""

    jobs: Annotated[CountField, Field(description="Number of jobs with logs.")]
    trials: Annotated[CountField, Field(description="Trials in the logs.")]
    complete: Annotated[
        CountField, Field(description="Trials that are complete; only these are in the tables.")
    ]
    tables: Annotated[list[str], Field(description="Paths of the tables.")]
    remarks: Annotated[list[str], Field(description="Remarks on logs that were left out.")]


class JobResultsDocument(Document):
    """The output of `sagemaker-results-parser --json`."""

    cells: Annotated[CountField, Field(description="Pairs of architecture and mode with results.")]
    trials: Annotated[CountField, Field(description="Trials with a result.")]
    without_results: Annotated[
        dict[str, CountField], Field(description="Pairs without results, by the token that gives the reason.")
    ]
    sweep_jobs: Annotated[CountField, Field(description="Jobs of psa's own sweeps, which are left out.")]
    tables: Annotated[list[str], Field(description="Paths of the summary and the table of trials.")]
    remarks: Annotated[list[str], Field(description="Remarks on artifacts that were left out.")]


class AccountCheckResult(Document):
    """The result of one check of an account."""

    name: Annotated[str, Field(description="Subject of the check, such as bucket.")]
    status: Annotated[str, Field(description="ok, failed, or skipped where an earlier check failed.")]
    text: Annotated[str, Field(description="The state that was found.")]
    remedy: Annotated[str, Field(description="What to do about it; empty where the check is ok.")]


class AccountCheckDocument(Document):
    """The output of `psa check aws --json`."""

    ok: Annotated[bool, Field(description="True if nothing failed.")]
    checks: Annotated[list[AccountCheckResult], Field(description="All checks, in order.")]
