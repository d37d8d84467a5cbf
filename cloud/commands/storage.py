"""`sagemaker-estimate-storage`: the size of the bucket's content, and its cost."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from cloud.aws import account as accounts
from cloud.aws.job_description import encode_report
from cloud.aws.pricing import PriceTable, price_table
from cloud.commands.common import JobsFile, PriceFile, Region, print_notice, progress_line, read_jobs_file
from cloud.commands.storage_report import measure_usage
from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, option
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.sagemaker_schema import StorageDocument
from psa.core.files import write_atomically
from psa.core.formatting import format_bytes, pluralize


def estimate_storage(
    *,
    detailed: Annotated[bool, Parameter(help="Also print a table of all jobs.", negative="")] = False,
    jobs_file: JobsFile = None,
    output_file: Annotated[
        Path | None, option(OUTPUT_FILES, "Path of the report (JSON). [default: none]")
    ] = None,
    prices: PriceFile = None,
    region: Region = None,
    as_json: JsonOption = False,
) -> Outcome:
    """Measure the storage of jobs in S3, by kind of file, and its cost per month.

    Old versions of files in a bucket with versioning are not counted. Checkpoints of psa's sweeps are listed
    per managed job, since all of its attempts share them.

    Example: sagemaker-estimate-storage --detailed
    """
    out, table = console(quiet=as_json), price_table(prices)
    only = read_jobs_file(jobs_file)[0] or None
    bucket = accounts.open_account(region).bucket
    with progress_line(out, f"Listing {bucket.uri}") as progress:
        usage = measure_usage(bucket.objects(progress=progress), only)
    out.print(_table("kind", usage.by_kind(), table))
    if detailed:
        out.print(_table("job", usage.by_job(), table))
    missing = [name for name in only or [] if name not in usage.by_job()]
    print_notice(out, len(missing), "job", f"without any file below {bucket.uri}", missing)
    others = [kind for kind in usage.classes if kind != "STANDARD"]
    print_notice(out, len(others), "storage class", "counted at the price of S3 Standard", others)
    print_line(
        out,
        f"{bucket.uri}: {pluralize(usage.count, 'file')}, {format_bytes(usage.size)}: "
        f"${table.monthly_cost(usage.size):,.2f} a month ({table.description})",
    )
    report = usage.json(bucket.uri, table)
    if output_file is not None:
        write_atomically(output_file, encode_report(report))
        print_line(out, f"Report {output_file}")
    where = None if output_file is None else str(output_file)
    return Outcome(0, StorageDocument.model_validate(report | {"report": where}))


def _table(head: str, sizes: dict[str, tuple[int, int]], prices: PriceTable) -> Table:
    table = Table(title=f"Storage by {head}", title_justify="left")
    table.add_column(head)
    for each in ("files", "size", "dollars a month"):
        table.add_column(each, justify="right")
    for name, (files, count) in sizes.items():
        table.add_row(name, f"{files:,}", format_bytes(count), f"{prices.monthly_cost(count):,.4f}")
    return table
