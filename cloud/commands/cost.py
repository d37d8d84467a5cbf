"""`sagemaker-cost-estimator`: the cost of training jobs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from cloud.aws import account as accounts
from cloud.aws.job_description import TrainingJob, encode_report, parse_description
from cloud.aws.pricing import price_table
from cloud.aws.training_jobs import UnknownJob
from cloud.commands.common import JobsFile, PriceFile, print_notice, progress_line, read_jobs_file
from cloud.commands.cost_report import Bill, CostTotal, make_bill
from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, option
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.sagemaker_schema import CostDocument
from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.core.formatting import format_duration, pluralize

Group = Literal["status", "arch", "mode", "both"]
_HEADS: Final = {"status": ("status",), "arch": ("arch",), "mode": ("mode",), "both": ("arch", "mode")}


def cost_estimator(
    *,
    jobs_file: JobsFile = None,
    output_file: Annotated[Path, option(OUTPUT_FILES, "Path of the report (JSON).")] = Path(
        "results/sagemaker_cost_report.json"
    ),
    by: Annotated[
        tuple[Group, ...],
        Parameter(help="Tables to print; both: by arch and mode.", consume_multiple=True, negative=""),
    ] = ("status", "mode"),
    prices: PriceFile = None,
    region: Annotated[
        str | None,
        Parameter(help="Region of the account, or of the jobs in --jobs-file. [default: AWS_REGION, or all]"),
    ] = None,
    as_json: JsonOption = False,
) -> Outcome:
    """Compute the cost of training jobs: billed time x instances x on-demand price.

    The billed time already includes the discount of spot instances. The report contains all groups and every
    job. No account is needed if --jobs-file is a JSON list of descriptions.

    Example: sagemaker-cost-estimator --jobs-file jobs.json --by arch
    """
    out, table = console(quiet=as_json), price_table(prices)
    names, jobs = read_jobs_file(jobs_file)
    unknown: list[str] = []
    if not jobs:
        jobs, unknown = _asked(out, names, region)
    elif region is not None:
        jobs = [job for job in jobs if job.region == region]
        if not jobs:
            raise UserError(
                f"--jobs-file must list jobs of --region {region}, got none", "Leave --region out"
            )
    bill = make_bill(jobs, table)
    report = bill.json | {"unknown": unknown}
    write_atomically(output_file, encode_report(report))
    for group in dict.fromkeys(by):
        out.print(_table(bill, group))
    _say(out, bill, unknown)
    print_line(out, f"Report {output_file}")
    return Outcome(0, CostDocument.model_validate(report | {"report": str(output_file)}))


def _asked(out: Console, names: list[str], region: str | None) -> tuple[list[TrainingJob], list[str]]:
    """Describe the named jobs, or all of the account. Raises UserError if none exist."""
    where, jobs, unknown = accounts.open_account(region), list[TrainingJob](), list[str]()
    with progress_line(out, "Asking SageMaker") as progress:
        wanted = names or where.job_names(progress)
        for number, name in enumerate(wanted, 1):
            progress(f"{number:,} of {len(wanted):,} jobs: {name}")
            try:
                jobs.append(parse_description(where.jobs.describe(name), "SageMaker"))
            except UnknownJob:
                unknown.append(name)
    if not jobs:
        raise UserError(
            f"{where.region} must have {'one of these jobs' if names else 'a job of psa'}, got none",
            "Name another region with --region, or jobs with --jobs-file",
        )
    return jobs, unknown


def _table(bill: Bill, group: Group) -> Table:
    table = Table(title=f"Cost by {' and '.join(_HEADS[group])}", title_justify="left")
    for head in _HEADS[group]:
        table.add_column(head)
    for head in ("jobs", "billed hours", "dollars", "longest, hours"):
        table.add_column(head, justify="right")
    for name, each in bill.by(group).items():
        table.add_row(*name, *_cells(each))
    table.add_section()
    table.add_row("all", *[""] * (len(_HEADS[group]) - 1), *_cells(bill.total))
    return table


def _cells(each: CostTotal) -> list[str]:
    return [f"{each.jobs:,}", f"{each.hours:,.1f}", f"{each.dollars:,.2f}", f"{each.longest:.1f}"]


def _say(out: Console, bill: Bill, unknown: list[str]) -> None:
    total, longest = bill.total, bill.longest
    hours = f"{total.hours:,.1f} billed hours"
    print_line(
        out, f"{pluralize(total.jobs, 'job')}, {hours}: ${total.dollars:,.2f} ({bill.table.description})"
    )
    if longest is not None:
        print_line(out, f"Longest: {longest.name}, {format_duration(longest.billable_seconds)}")
    if bill.saved is not None:
        print_line(out, f"Spot instances saved {100 * bill.saved:.0f} % of what their jobs would have cost")
    print_notice(out, len(bill.running), "job", "not ended yet, counted as far as billed", bill.running)
    for kind, names in bill.unpriced.items():
        print_notice(out, len(names), "job", f"left out, {kind} has no price (--prices names a table)", names)
    print_notice(
        out, len(bill.elsewhere), "job", f"of another region than {bill.table.region}", bill.elsewhere
    )
    print_notice(out, len(unknown), "job", "unknown to SageMaker in this region", unknown)
