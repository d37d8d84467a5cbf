"""Messages about lines and their jobs: their progress, and jobs that continue without a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from cloud.aws.job_names import job_parts
from cloud.aws.training_jobs import TrainingJobStatus
from cloud.sagemaker.jobs.controller import JobController
from cloud.sagemaker.jobs.managed_job import ManagedJob
from cloud.sagemaker.jobs.progress import parse_progress
from cloud.sagemaker.jobs.reconcile import Reconciliation
from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize

_SHOWN: Final = 5  # jobs named in one message
_WHY: Final = {
    "full": "since the quota is reached",
    "unpaid": "since those at work may take all that --max-cost allows",
}


def describe_job(
    line: ManagedJob, pending: int, jobs: Mapping[str, TrainingJobStatus], progress: bytes | None
) -> str:
    """Return the last job of a line and the progress of its packs. pending: trials that are not here yet."""
    names = sorted(name for name in jobs if (parts := job_parts(name)) and parts[1] == line.name)
    left = f"{pending:,} of {pluralize(len(line.trials), 'trial')} not at home"
    if not names:
        return f"{line.job(1)}: not submitted; {left}"
    status = jobs[names[-1]]
    said = status.status if status.over else f"{status.status}, {status.secondary}"
    loops = [last["loop"] for last in parse_progress(progress).values()]
    horizon = max(pack.horizon for pack in line.packs.values())
    at = f", loop {min(loops)} to {max(loops)} of {horizon}" if loops and not status.over else ""
    return f"{names[-1]}: {said}{at}; {left}"


def with_running_jobs(error: UserError, watch: JobController) -> UserError:
    """Return the error with a remark on the jobs that keep running after the sweep."""
    running = sum(course.running for course in watch.courses)
    if not running:
        return error
    said = (
        f"{pluralize(running, 'job')} may still be at work: the same command watches again, Ctrl-C "
        "there stops"
    )
    return UserError(error.message, f"{error.hint}. {said}")


def detach_message(watch: JobController) -> str:
    """Return the message of a sweep that exits and leaves its jobs running."""
    running = sum(course.running for course in watch.courses)
    waiting = sum(not course.running and not course.over for course in watch.courses)
    said = f"{pluralize(running, 'job')} at work without this sweep"
    if waiting:
        stall = watch.submission.stall
        why = _WHY[stall.kind] if stall else "since --workers allows no more at once"
        said += f", {pluralize(waiting, 'job')} not submitted {why}"
    return f"{said}. The same command watches them and goes on; `psa fetch` brings home what is there."


def startup_notices(found: Reconciliation, foreign: str) -> Iterator[str]:
    """Yield remarks on the jobs of earlier sweeps. foreign: a remark on the prices, "" for none."""
    known, running, doubles = (
        pluralize(len(each), "job") for each in (found.known, found.running, found.doubles)
    )
    if found.known:
        yield (
            f"{known} of an earlier sweep to go on as packed then: --jobs and --pack-size are for new ones"
        )
    if found.running:
        yield (
            f"{running} at work with more than is asked for, or another horizon: watched to the end, then "
            "what is missing is lined up anew"
        )
    if found.doubles:
        yield f"{doubles} asked to stop, whose trials another job trains as well"
    if foreign:
        yield foreign


def stop_message(count: int, not_reached: Sequence[str]) -> str:
    """Return the message of a stop: the number of jobs asked to save and stop, and those not reached."""
    running = ""
    if not_reached:
        jobs = pluralize(len(not_reached), "job")
        running = (
            f" {jobs} could not be asked to stop and may run on, at a price: "
            f"{join_names(not_reached, _SHOWN)}. "
            "Stop them with `aws sagemaker stop-training-job --training-job-name NAME`."
        )
    if not count:
        return running.lstrip() or "no job was asked to stop."
    return f"{pluralize(count, 'job')} asked to save and stop, which may take two minutes.{running}"
