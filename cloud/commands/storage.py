"""`sagemaker-estimate-storage`: the size of the bucket's content, and its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from cloud.aws import account as accounts
from cloud.aws.job_description import written
from cloud.aws.pricing import PriceTable, price_table
from cloud.commands.common import JobsFile, PriceFile, Region, named_jobs, remark, say, working
from cloud.commands.storage_report import Usage, usage_of
from psa.cli.console import console
from psa.core.files import write_atomically
from psa.core.formatting import format_bytes, pluralize


def estimate_storage(
    *,
    detailed: Annotated[bool, Parameter(help="Also a table of every job.", negative="")] = False,
    jobs_file: JobsFile = None,
    output_file: Annotated[
        Path | None,
        Parameter(help="The report, as JSON, such as aws/sagemaker/storage_report.json. [default: none]"),
    ] = None,
    prices: PriceFile = None,
    region: Region = None,
) -> int:
    """Say how many bytes the jobs hold in S3, of which kind, and what they cost a month.

    Old versions of files, which a bucket with versioning keeps, are not seen. Sweeps of psa are counted by
    line: all attempts of a line share its checkpoints.

    Example: sagemaker-estimate-storage --detailed
    """
    out, table = console(), price_table(prices)
    only = named_jobs(jobs_file)[0] or None
    bucket = accounts.open_account(region).bucket
    with working(out, f"Listing {bucket.uri}") as progress:
        usage = usage_of(bucket.objects(progress=progress), only)
    out.print(_kinds(usage, table))
    if detailed:
        out.print(_jobs(usage, table))
    missing = [name for name in only or [] if name not in usage.by_job()]
    remark(out, len(missing), "job", f"without any file below {bucket.uri}", missing)
    others = [kind for kind in usage.classes if kind != "STANDARD"]
    remark(out, len(others), "storage class", "counted at the price of S3 Standard", others)
    say(
        out,
        f"{bucket.uri}: {pluralize(usage.count, 'file')}, {format_bytes(usage.size)}: "
        f"${table.monthly(usage.size):,.2f} a month ({table.said})",
    )
    if output_file is not None:
        write_atomically(output_file, written(usage.json(bucket.uri, table)))
        say(out, f"Report {output_file}")
    return 0


def _kinds(usage: Usage, prices: PriceTable) -> Table:
    return _table("kind", usage.by_kind(), prices)


def _jobs(usage: Usage, prices: PriceTable) -> Table:
    return _table("job", usage.by_job(), prices)


def _table(head: str, sizes: dict[str, tuple[int, int]], prices: PriceTable) -> Table:
    table = Table(title=f"Storage by {head}", title_justify="left")
    table.add_column(head)
    for each in ("files", "size", "dollars a month"):
        table.add_column(each, justify="right")
    for name, (files, count) in sizes.items():
        table.add_row(name, f"{files:,}", format_bytes(count), f"{prices.monthly(count):,.4f}")
    return table
