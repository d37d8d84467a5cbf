"""Messages about managed jobs and their jobs: their progress, and jobs that continue without a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cloud.aws.job_names import parse_job_name
from cloud.aws.training_jobs import TrainingJobStatus
from cloud.sagemaker.jobs.controller import JobController
from cloud.sagemaker.jobs.managed_job import ManagedJob
from cloud.sagemaker.jobs.progress import parse_progress
from cloud.sagemaker.jobs.reconcile import Reconciliation
from psa.core.errors import UserError
from psa.core.formatting import pluralize

_WHY: Final = {
    "quota": "since the quota is reached",
    "budget": "since running jobs may use all of --max-cost",
}


def describe_job(
    managed: ManagedJob, pending: int, jobs: Mapping[str, TrainingJobStatus], progress: bytes | None
) -> str:
    """Return the status of the last training job. pending: number of trials not downloaded."""
    names = sorted(
        name for name in jobs if (parts := parse_job_name(name)) and parts.managed_job == managed.name
    )
    left = f"{pending:,} of {pluralize(len(managed.trials), 'trial')} not downloaded"
    if not names:
        return f"{managed.job_name(1)}: not submitted; {left}"
    status = jobs[names[-1]]
    text = status.status if status.ended else f"{status.status}, {status.secondary}"
    loops = [last["loop"] for last in parse_progress(progress).values()]
    horizon = max(pack.horizon for pack in managed.packs.values())
    at = f", loop {min(loops)} to {max(loops)} of {horizon}" if loops and not status.ended else ""
    return f"{names[-1]}: {text}{at}; {left}"


def with_running_jobs(error: UserError, controller: JobController) -> UserError:
    """Return the error with a remark on the jobs that keep running after the sweep."""
    running = sum(state.running for state in controller.states)
    if not running:
        return error
    text = (
        f"{pluralize(running, 'job')} may still be running: run the same command to watch them, and press "
        "Ctrl-C there to stop them"
    )
    return UserError(error.message, f"{error.hint}. {text}")


def detach_message(controller: JobController) -> str:
    """Return the message of a sweep that exits and leaves its jobs running."""
    running = sum(state.running for state in controller.states)
    waiting = sum(not state.running and not state.over for state in controller.states)
    text = f"{pluralize(running, 'job')} left running"
    if waiting:
        stall = controller.submission.stall
        why = _WHY[stall.kind] if stall else "since --workers is reached"
        text += f", {pluralize(waiting, 'job')} not submitted {why}"
    return f"{text}. Run the same command to resume, or `psa fetch` to download finished results."


def startup_notices(reconciled: Reconciliation, region_notice: str) -> Iterator[str]:
    """Yield remarks on the jobs of earlier sweeps. region_notice: a remark on the prices, "" for none."""
    known, running, doubles = (
        pluralize(len(each), "job") for each in (reconciled.known, reconciled.running, reconciled.doubles)
    )
    if reconciled.known:
        yield (
            f"{known} of an earlier sweep resumed with the same packs: --jobs and --pack-size "
            "apply to new ones"
        )
    if reconciled.running:
        yield (
            f"{running} running with more trials than requested, or another horizon: watched to the end, "
            "then missing trials get new jobs"
        )
    if reconciled.doubles:
        yield f"{doubles} stopped, since another job trains the same trials"
    if region_notice:
        yield region_notice
