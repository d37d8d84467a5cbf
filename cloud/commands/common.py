"""Code shared by these commands: options, progress display, and the selection of jobs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from cloud.aws.bucket import ProgressCallback
from cloud.aws.job_description import JOBS_FILE, TrainingJob, read_jobs
from psa.cli.console import print_line
from psa.cli.output.activity import activity
from psa.core.formatting import join_names, pluralize
from psa.specs.model import Family

JobsFile = Annotated[
    Path | None,
    Parameter(
        help="List of job names, one per line, or JSON list of responses of describe-training-job. "
        f"[default: {JOBS_FILE} if it exists, else all jobs of the account]"
    ),
]
Region = Annotated[str | None, Parameter(help="Region of the account. [default: AWS_REGION]")]
PriceFile = Annotated[Path | None, Parameter(help="Table of prices in TOML. [default: the built-in one]")]
TRAINED_FAMILY: Final[Family] = "resmlp"  # of jobs without --family, as in `train`
_NAMED: Final = 5  # items that a remark names


@contextlib.contextmanager
def progress_line(out: Console, text: str) -> Iterator[ProgressCallback]:
    """Show what a command does while the block lasts, and yield a function that adds how far it is."""
    with activity(out, text) as show:

        def progress(message: str) -> None:
            show(f"{text}: {message}")

        yield progress


def print_notice(out: Console, count: int, thing: str, what: str, names: Sequence[str]) -> None:
    """Print a remark about `count` unexpected items, unless it is zero."""
    if count:
        print_line(out, f"{pluralize(count, thing)} {what}: {join_names(list(names), _NAMED)}")


def read_jobs_file(path: Path | None) -> tuple[list[str], list[TrainingJob]]:
    """Read the jobs of --jobs-file, or of the default file if it exists; else return nothing."""
    if path is None and not JOBS_FILE.is_file():
        return [], []
    return read_jobs(path or JOBS_FILE)
