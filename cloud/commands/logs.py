"""`sagemaker-get-training-logs`, `sagemaker-logs-parser`: download the logs of jobs, and parse them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from cloud.aws import account as accounts
from cloud.aws.bucket import ProgressCallback
from cloud.aws.cloudwatch import DOWNLOADS_FILE, download_logs, is_downloaded
from cloud.aws.job_description import JOBS_FILE, encode_report
from cloud.commands.common import (
    TRAINED_FAMILY,
    JobsFile,
    Region,
    print_notice,
    progress_line,
    read_jobs_file,
)
from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, option
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.sagemaker_schema import LogDownloadDocument, LogTablesDocument
from psa.core.errors import UserError
from psa.core.files import check_writable, write_atomically
from psa.core.formatting import format_bytes, pluralize
from psa.specs.model import Family

LOGS_DIR: Final = Path("results/logs")


def get_training_logs(
    *,
    reconstruct_jobs: Annotated[
        bool, Parameter(help="Find the jobs by their folders in S3, and write --jobs-file.", negative="")
    ] = False,
    output_dir: Annotated[
        Path, option(OUTPUT_FILES, "Folder of the logs, with a subfolder per job.")
    ] = LOGS_DIR,
    jobs_file: JobsFile = None,
    force: Annotated[bool, Parameter(help="Download logs again that already exist.", negative="")] = False,
    region: Region = None,
    as_json: JsonOption = False,
) -> Outcome:
    """Download the logs of training jobs from CloudWatch.

    Existing logs are not downloaded again. --reconstruct-jobs writes --jobs-file, by default
    requested-jobs.txt.

    Example: sagemaker-get-training-logs --reconstruct-jobs --output-dir results/logs
    """
    out, path = console(quiet=as_json), None
    account = accounts.open_account(region)
    check_writable(output_dir)
    if reconstruct_jobs:
        with progress_line(out, f"Listing {account.bucket.uri}") as progress:
            names = account.known_job_names(progress)
        if not names:
            raise UserError(
                f"{account.bucket.uri} must have a folder of a job, got none",
                "Name jobs with --jobs-file",
            )
        path = jobs_file or JOBS_FILE
        write_atomically(path, "".join(f"{name}\n" for name in names).encode())
        print_line(out, f"{pluralize(len(names), 'job')} found, listed in {path}")
    else:
        names = read_jobs_file(jobs_file)[0]
    with progress_line(out, "Fetching logs") as progress:
        names = names or account.job_names(progress)
        if not names:
            raise UserError(
                f"{account.region} must have a job of psa, got none",
                "Name another region, or --jobs-file",
            )
        done = _fetched(account.client("logs"), names, output_dir, force, progress)
    write_atomically(output_dir / DOWNLOADS_FILE, encode_report(done))
    print_line(
        out,
        f"{pluralize(done['downloaded'], 'job')} fetched, {format_bytes(done['bytes'])}; "
        f"{done['skipped']:,} were here "
        "already",
    )
    print_notice(out, len(done["without_log"]), "job", "without a log", done["without_log"])
    print_line(out, f"Logs {output_dir}")
    listed = None if path is None else str(path)
    return Outcome(
        0, LogDownloadDocument.model_validate(done | {"folder": str(output_dir), "jobs_file": listed})
    )


def _fetched(
    client: Any, names: list[str], folder: Path, force: bool, progress: ProgressCallback
) -> dict[str, Any]:
    """Fetch the logs of each job. Return a summary. Logs already fetched are kept if a later job fails."""
    downloaded, skipped, nothing, count = [], [], [], 0
    for at, name in enumerate(names, 1):
        progress(f"{at:,} of {len(names):,} jobs: {name}")
        if not force and is_downloaded(folder / name):
            skipped.append(name)
            continue
        summary = download_logs(client, name, folder / name, progress)
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
    logs_dir: Annotated[Path, Parameter(help="Folder of the logs, with a subfolder per job.")] = LOGS_DIR,
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the three tables.")] = Path("results"),
    family: Annotated[Family, Parameter(help="Family of the networks.")] = TRAINED_FAMILY,
    as_json: JsonOption = False,
) -> Outcome:
    """Write tables of the convergence and the LKG of the original study's jobs, from their logs.

    Writes the accuracy of each loop (convergence), the LKG, and its growth as tables in the layout of the
    study, with means over the trials of the latest job of each architecture and mode. Incomplete trials
    are listed and left out. For sweeps of psa see `psa report`.

    Example: sagemaker-logs-parser --logs-dir results/logs --output-dir results
    """
    from cloud.legacy.logs import frame_of_logs, read_logs
    from psa.reports.ablation.markdown import (
        convergence_markdown,
        lkg_growth_markdown,
        lkg_markdown,
    )

    out = console(quiet=as_json)
    with progress_line(out, f"Reading {logs_dir}"):
        logs = read_logs(logs_dir)
        frame = frame_of_logs(logs, family)
    for text in logs.remarks:
        print_line(out, text)
    runs = [run for found in logs.runs.values() for run in found]
    complete = sum(run.complete for run in runs)
    print_line(
        out, f"{pluralize(len(logs.runs), 'job')}, {complete:,} of {pluralize(len(runs), 'trial')} complete"
    )
    tables = []
    for name, text in (
        ("convergence", convergence_markdown(frame)),
        ("lkg", lkg_markdown(frame)),
        ("lkg_growth", lkg_growth_markdown(frame)),
    ):
        tables.append(output_dir / f"psa_{family}_trials_{name}.md")
        write_atomically(tables[-1], text.encode())
        print_line(out, f"Table {tables[-1]}")
    document = LogTablesDocument(
        jobs=len(logs.runs),
        trials=len(runs),
        complete=complete,
        tables=list(map(str, tables)),
        remarks=list(logs.remarks),
    )
    return Outcome(0, document)
