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
from psa.core.formatting import join_names, pluralize

JobsFile = Annotated[
    Path | None,
    Parameter(
        help="Jobs, one name a line, or a JSON list of what describe-training-job says of each. "
        f"[default: {JOBS_FILE}, if there, else all of the account]"
    ),
]
Region = Annotated[str | None, Parameter(help="Region of the account. [default: AWS_REGION]")]
PriceFile = Annotated[
    Path | None, Parameter(help="A table of prices in TOML. [default: the one that psa brings along]")
]
_NAMED: Final = 5  # items that a remark names


@contextlib.contextmanager
def working(out: Console, text: str) -> Iterator[ProgressCallback]:
    """Show a progress line on a terminal; do nothing elsewhere."""
    if not out.is_terminal:
        yield lambda _text: None
        return
    with out.status(text) as status:
        yield lambda said: status.update(f"{text}: {said}")


def say(out: Console, text: str) -> None:
    """Print a line without wrapping or markup."""
    out.print(text, markup=False, soft_wrap=True)


def remark(out: Console, count: int, thing: str, what: str, names: Sequence[str]) -> None:
    """Print a remark about `count` unexpected items, unless it is zero."""
    if count:
        say(out, f"{pluralize(count, thing)} {what}: {join_names(list(names), _NAMED)}")


def named_jobs(path: Path | None) -> tuple[list[str], list[TrainingJob]]:
    """Read the jobs of --jobs-file, or of the default file if it exists; else return nothing."""
    if path is None and not JOBS_FILE.is_file():
        return [], []
    return read_jobs(path or JOBS_FILE)
