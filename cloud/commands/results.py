"""`sagemaker-results-parser`: write the original study's two result files from its jobs' artifacts in S3."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from cloud.aws import account as accounts
from cloud.aws.bucket import Bucket
from cloud.aws.job_names import is_name, is_ours, parse_legacy_name
from cloud.commands.common import JobsFile, Region, named_jobs, say, working
from cloud.legacy.artifacts import (
    ARTIFACT,
    MOST_BYTES,
    LegacyResults,
    ReadObject,
    frame_of_results,
    results_of,
)
from psa.cli.console import console
from psa.cli.record_options import CONFIGURATIONS, FAMILY
from psa.core.errors import UserError
from psa.core.files import read_bytes, write_atomically
from psa.core.formatting import pluralize
from psa.specs.model import Family


def results_parser(
    *,
    family: Annotated[Family, Parameter(help="Which networks, which the jobs do not say.")] = FAMILY,
    jobs_file: JobsFile = None,
    artifacts_dir: Annotated[
        Path | None, Parameter(help=f"A folder that holds JOB/{ARTIFACT}, in the place of S3.")
    ] = None,
    order: Annotated[
        Path | None,
        Parameter(help=f"The architectures, one a line. [default: {CONFIGURATIONS}, if there, else all]"),
    ] = None,
    output_dir: Annotated[Path, Parameter(help="Folder of the two files.")] = Path("results"),
    region: Region = None,
) -> int:
    """Write the summary and the table of trials from the artifacts that the original study's jobs left.

    Of each architecture and mode the latest job counts; where it has no results, a word in the summary says
    why. Artifacts are read within limits, and nothing in them is loaded. Sweeps of psa leave records
    instead, which `psa fetch GRID` brings home.

    Example: sagemaker-results-parser --family simplemlp --output-dir results
    """
    from psa.reports.ablation.cells import archs_in
    from psa.reports.ablation.markdown import summary_markdown, trials_markdown

    if artifacts_dir is not None and region is not None:
        raise UserError("--region means nothing to --artifacts-dir", "Give one of them")
    out = console()
    archs = archs_in(order or CONFIGURATIONS) if order or CONFIGURATIONS.is_file() else ()
    listed = named_jobs(jobs_file)[0]
    with working(out, "Collecting results") as progress:
        if artifacts_dir is not None:
            names, read = _here(artifacts_dir)
        else:
            account = accounts.open_account(region)
            names, read = listed or account.stored_job_names(progress), _in_bucket(account.bucket)
        names = listed or names
        _check(names, str(artifacts_dir or "the bucket"))
        results = results_of(names, archs, read, progress)
    frame = frame_of_results(results, family)
    for name, text in (
        ("summary", summary_markdown(frame, results.tokens)),
        ("trials", trials_markdown(frame)),
    ):
        path = output_dir / f"psa_{family}_{name}.md"
        write_atomically(path, text.encode())
        say(out, f"Table {path}")
    _say(out, results, sum(map(is_ours, names)))
    return 0


def _check(names: list[str], where: str) -> None:
    """Raise UserError unless there is a job of the original study."""
    if any(parse_legacy_name(name) is not None for name in names):
        return
    if any(map(is_ours, names)):
        raise UserError(
            f"all jobs in {where} are of psa's own sweeps",
            "Bring their records home with `psa fetch GRID`, then see `psa report`",
        )
    raise UserError(f"there is no job of the original study in {where}", "Name them with --jobs-file")


def _here(folder: Path) -> tuple[list[str], ReadObject]:
    """Return the jobs of a folder, and a function that reads their artifacts."""
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}", "Name one that holds a folder for each job")
    names = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and is_name(path.name)]
    return names, lambda job: read_bytes(folder / job.name / ARTIFACT)


def _in_bucket(bucket: Bucket) -> ReadObject:
    return lambda job: bucket.read(f"{job.name}/{ARTIFACT}", MOST_BYTES)


def _say(out: Console, results: LegacyResults, ours: int) -> None:
    for text in results.remarks:
        say(out, text)
    trials = sum(map(len, results.bounties.values()))
    empty = ", ".join(f"{count:,} {token}" for token, count in Counter(results.tokens.values()).items())
    cells = pluralize(len(results.bounties), "cell")
    say(out, f"{pluralize(trials, 'trial')} in {cells}{f'; without results: {empty}' if empty else ''}")
    if ours:
        say(out, f"{pluralize(ours, 'job')} of psa's own sweeps left out: `psa fetch GRID` brings them home")
