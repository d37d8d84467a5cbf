"""`sagemaker-results-parser`: write the original study's two result files from its jobs' artifacts in S3."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from cloud.aws import account as accounts
from cloud.aws.bucket import Bucket
from cloud.aws.job_names import is_sweep_job, is_valid_job_name, parse_legacy_name
from cloud.commands.common import TRAINED_FAMILY, JobsFile, Region, progress_line, read_jobs_file
from cloud.legacy.artifacts import (
    ARTIFACT,
    MAX_ARTIFACT_SIZE,
    LegacyResults,
    ReadObject,
    collect_results,
    frame_of_results,
)
from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, option
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.sagemaker_schema import JobResultsDocument
from psa.cli.record_options import CONFIGURATIONS
from psa.core.errors import UserError
from psa.core.files import read_bytes, write_atomically
from psa.core.formatting import pluralize
from psa.specs.model import Family


def results_parser(
    *,
    family: Annotated[Family, Parameter(help="Family of the networks.")] = TRAINED_FAMILY,
    jobs_file: JobsFile = None,
    artifacts_dir: Annotated[
        Path | None, Parameter(help=f"Folder with JOB/{ARTIFACT}, instead of S3.")
    ] = None,
    order: Annotated[
        Path | None,
        Parameter(
            help="List of architectures in the order of the tables. "
            f"[default: {CONFIGURATIONS} if it exists, else all]"
        ),
    ] = None,
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the two files.")] = Path("results"),
    region: Region = None,
    as_json: JsonOption = False,
) -> Outcome:
    """Write the summary and the table of trials from the artifacts of the original study's jobs.

    Uses the latest job of each architecture and mode; if it has no results, a token in the summary gives the
    reason. Artifacts are read within limits, and nothing in them is unpickled. For sweeps of psa use
    `psa fetch GRID`.

    Example: sagemaker-results-parser --family simplemlp --output-dir results
    """
    from psa.reports.ablation.cells import archs_in
    from psa.reports.ablation.markdown import summary_markdown, trials_markdown

    if artifacts_dir is not None and region is not None:
        raise UserError("results need --region or --artifacts-dir, got both", "Give one of them")
    out = console(quiet=as_json)
    archs = archs_in(order or CONFIGURATIONS) if order or CONFIGURATIONS.is_file() else ()
    listed = read_jobs_file(jobs_file)[0]
    with progress_line(out, "Collecting results") as progress:
        if artifacts_dir is not None:
            names, read = _here(artifacts_dir)
        else:
            account = accounts.open_account(region)
            names, read = listed or account.stored_job_names(progress), _in_bucket(account.bucket)
        names = listed or names
        _check(names, str(artifacts_dir or "the bucket"))
        results = collect_results(names, archs, read, progress)
    frame = frame_of_results(results, family)
    tables = []
    for name, text in (
        ("summary", summary_markdown(frame, results.tokens)),
        ("trials", trials_markdown(frame)),
    ):
        tables.append(output_dir / f"psa_{family}_{name}.md")
        write_atomically(tables[-1], text.encode())
        print_line(out, f"Table {tables[-1]}")
    ours = sum(map(is_sweep_job, names))
    _say(out, results, ours)
    document = JobResultsDocument(
        cells=len(results.bounties),
        trials=sum(map(len, results.bounties.values())),
        without_results=dict(Counter(results.tokens.values())),
        sweep_jobs=ours,
        tables=list(map(str, tables)),
        remarks=list(results.remarks),
    )
    return Outcome(0, document)


def _check(names: list[str], where: str) -> None:
    """Raise UserError unless there is a job of the original study."""
    if any(parse_legacy_name(name) is not None for name in names):
        return
    if any(map(is_sweep_job, names)):
        raise UserError(
            f"{where} has no job of the original study, only jobs of psa's own sweeps",
            "Download their records with `psa fetch GRID`, then see `psa report`",
        )
    raise UserError(f"{where} has no job of the original study", "Name its jobs with --jobs-file")


def _here(folder: Path) -> tuple[list[str], ReadObject]:
    """Return the jobs of a folder, and a function that reads their artifacts."""
    if not folder.is_dir():
        raise UserError(f"the folder {folder} does not exist", "Name one with a folder per job")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and is_valid_job_name(path.name)]
    return names, lambda job: read_bytes(folder / job.name / ARTIFACT)


def _in_bucket(bucket: Bucket) -> ReadObject:
    return lambda job: bucket.read(f"{job.name}/{ARTIFACT}", MAX_ARTIFACT_SIZE)


def _say(out: Console, results: LegacyResults, ours: int) -> None:
    for text in results.remarks:
        print_line(out, text)
    trials = sum(map(len, results.bounties.values()))
    empty = ", ".join(f"{count:,} {token}" for token, count in Counter(results.tokens.values()).items())
    cells = pluralize(len(results.bounties), "cell")
    print_line(
        out, f"{pluralize(trials, 'trial')} in {cells}{f'; without results: {empty}' if empty else ''}"
    )
    if ours:
        print_line(
            out, f"{pluralize(ours, 'job')} of psa's own sweeps left out: `psa fetch GRID` downloads them"
        )
