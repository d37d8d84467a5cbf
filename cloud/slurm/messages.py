"""Messages about array tasks: those in the queue, and those that continue without a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from cloud.slurm.client import TaskStatus
from cloud.slurm.watched_task import PENDING, WatchedTask
from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize

_SHOWN = 5  # jobs named in one message


def describe_array(statuses: Sequence[TaskStatus], packs: int) -> str:
    """Return the counts of the tasks of an array. statuses: its tasks in the queue; packs: all of them."""
    pending = [status for status in statuses if status.state == PENDING]
    reasons = sorted({status.reason.strip("()") for status in pending} - {"None", ""})
    why = f" ({', '.join(reasons)})" if reasons else ""
    return (
        f"job {statuses[0].array_id}: {len(statuses) - len(pending):,} of {pluralize(packs, 'task')} "
        f"running, {len(pending):,} pending{why}, {packs - len(statuses):,} ended"
    )


def detached_message(tasks: Sequence[WatchedTask]) -> str:
    """Return the message of a sweep that exits after it has submitted its tasks."""
    return (
        f"{pluralize(len(tasks), 'task')} left to Slurm ({_jobs(tasks)}). `psa status GRID --backend slurm` "
        "shows them; run the same command without --detach to watch them, or again to retry what has failed."
    )


def left_running_message(tasks: Sequence[WatchedTask]) -> str:
    """Return the remark on the tasks that continue after a sweep has stopped watching them."""
    known = [task for task in tasks if task.array_id]
    if not known:
        return "no task is left running."
    return f"{pluralize(len(known), 'task')} left to Slurm ({_jobs(known)})."


def with_queued_tasks(error: UserError, tasks: Sequence[WatchedTask]) -> UserError:
    """Return the error with a remark on the tasks that stay in Slurm's queue after the sweep."""
    known = [task for task in tasks if task.array_id]
    if not known:
        return error
    text = (
        f"{pluralize(len(known), 'task')} left to Slurm ({_jobs(known)}): run the same command to watch "
        "them, and press Ctrl-C there to cancel them"
    )
    return UserError(error.message, f"{error.hint.rstrip('.')}. {text}" if error.hint else text)


def _jobs(tasks: Sequence[WatchedTask]) -> str:
    return f"job {join_names(sorted({task.array_id for task in tasks}), _SHOWN)}"
