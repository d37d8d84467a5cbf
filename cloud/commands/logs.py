"""`sagemaker-get-training-logs` and `sagemaker-logs-parser`: fetch the logs of jobs, and parse the
study's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from cloud.aws import account as accounts
from cloud.aws.bucket import ProgressCallback
from cloud.aws.cloudwatch import DOWNLOADS, is_kept, keep
from cloud.aws.job_description import JOBS_FILE, written
from cloud.commands.common import JobsFile, Region, named_jobs, remark, say, working
from psa.cli.console import console
from psa.cli.record_options import FAMILY
from psa.core.errors import UserError
from psa.core.files import check_writable, write_atomically
from psa.core.formatting import format_bytes, pluralize
from psa.specs.model import Family

LOGS_DIR: Final = Path("results/logs")


def get_training_logs(
    *,
    reconstruct_jobs: Annotated[
        bool,
        Parameter(help="Find the jobs by their folders in S3, and write the list of them.", negative=""),
    ] = False,
    output_dir: Annotated[
        Path, Parameter(help="Folder of the logs, a folder in it for each job.")
    ] = LOGS_DIR,
    jobs_file: JobsFile = None,
    force: Annotated[bool, Parameter(help="Also fetch what is here already.", negative="")] = False,
    region: Region = None,
) -> int:
    """Fetch the logs of training jobs from CloudWatch; those that are here already stay as they are.

    With --reconstruct-jobs the list that is written is --jobs-file, or requested-jobs.txt.

    Example: sagemaker-get-training-logs --reconstruct-jobs --output-dir results/logs
    """
    out = console()
    account = accounts.open_account(region)
    check_writable(output_dir)
    if reconstruct_jobs:
        with working(out, f"Listing {account.bucket.uri}") as progress:
            names = account.stored_job_names(progress)
        if not names:
            raise UserError(f"{account.bucket.uri} holds no folder of a job", "Name jobs with --jobs-file")
        path = jobs_file or JOBS_FILE
        write_atomically(path, "".join(f"{name}\n" for name in names).encode())
        say(out, f"{pluralize(len(names), 'job')} found, listed in {path}")
    else:
        names = named_jobs(jobs_file)[0]
    with working(out, "Fetching logs") as progress:
        names = names or account.job_names(progress)
        if not names:
            raise UserError(f"{account.region} has no job of psa", "Name another region, or --jobs-file")
        done = _fetched(account.client("logs"), names, output_dir, force, progress)
    write_atomically(output_dir / DOWNLOADS, written(done))
    say(
        out,
        f"{pluralize(done['downloaded'], 'job')} fetched, {format_bytes(done['bytes'])}; "
        f"{done['skipped']:,} were here "
        "already",
    )
    remark(out, len(done["without_log"]), "job", "without a log", done["without_log"])
    say(out, f"Logs {output_dir}")
    return 0


def _fetched(
    client: Any, names: list[str], folder: Path, force: bool, progress: ProgressCallback
) -> dict[str, Any]:
    """Fetch the logs of each job. Return a summary. Logs already fetched are kept if a later job fails."""
    downloaded, skipped, nothing, count = [], [], [], 0
    for at, name in enumerate(names, 1):
        progress(f"{at:,} of {len(names):,} jobs: {name}")
        if not force and is_kept(folder / name):
            skipped.append(name)
            continue
        summary = keep(client, name, folder / name, progress)
        if summary is None:
            nothing.append(name)
        else:
            downloaded.append(name)
            count += summary["total_bytes"]
    return {
        "jobs": len(names),
        "downloaded": len(downloaded),
        "skipped": len(skipped),
        "bytes": count,
        "downloaded_jobs": downloaded,
        "skipped_jobs": skipped,
        "without_log": nothing,
    }


def logs_parser(
    *,
    logs_dir: Annotated[Path, Parameter(help="Folder of the logs, a folder in it for each job.")] = LOGS_DIR,
    output_dir: Annotated[Path, Parameter(help="Folder of the two tables.")] = Path("results"),
    family: Annotated[Family, Parameter(help="Which networks, which the logs do not say.")] = FAMILY,
) -> int:
    """Write how the jobs of the original study converged, and how their LKG grew, from their log lines.

    Two Markdown tables in the study's layout, means over the trials of the latest job of each architecture
    and mode. Trials that are cut off are named and left out. Sweeps of psa have records: see `psa report`.

    Example: sagemaker-logs-parser --logs-dir results/logs --output-dir results
    """
    from cloud.legacy.logs import frame_of_logs, logs_in
    from psa.reports.ablation.markdown import convergence_markdown, lkg_growth_markdown

    out = console()
    with working(out, f"Reading {logs_dir}"):
        logs = logs_in(logs_dir)
        frame = frame_of_logs(logs, family)
    for text in logs.remarks:
        say(out, text)
    runs = [run for found in logs.runs.values() for run in found]
    whole = sum(run.whole for run in runs)
    say(out, f"{pluralize(len(logs.runs), 'job')}, {whole:,} of {pluralize(len(runs), 'trial')} whole")
    for name, text in (
        ("convergence", convergence_markdown(frame)),
        ("lkg_growth", lkg_growth_markdown(frame)),
    ):
        path = output_dir / f"psa_{family}_trials_{name}.md"
        write_atomically(path, text.encode())
        say(out, f"Table {path}")
    return 0
