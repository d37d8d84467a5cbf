"""Slurm's commands: sbatch, squeue, scontrol, scancel.

Not submitit, which was measured on 2026-11-29 (submitit 1.5.4, Slurm 22.05): it asks only sacct for states,
so that every job is UNKNOWN on a cluster without an accounting database; it ignores SIGTERM, so that a job
that is cancelled or preempted is killed without saving; and it moves functions and results as pickles.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cloud.aws.errors import Unreachable
from psa.core.errors import UserError, one_line
from psa.core.process import run_captured

ANSWER_SECONDS: Final = 60.0  # a busy controller answers late
DEFAULT_ARRAY_SIZE: Final = 1001  # Slurm's MaxArraySize where it is not configured: indices up to 1000
# The fields of squeue, in the order of TaskStatus. -r lists pending tasks of an array one by one.
_SQUEUE: Final = ("squeue", "--noheader", "--array", "--format=%j|%F|%K|%T|%N|%U|%r")
_COMMANDS: Final = ("sbatch", "squeue", "scontrol", "scancel")
_OUTAGE: Final = re.compile(
    r"unable to (contact|connect)|connection (refused|reset|timed out)|socket timed out|timed out|"
    r"zero bytes were transmitted|standby mode|transport endpoint|temporarily|send/recv|munge|"
    r"authentication (error|credential)|message receive failure|cannot allocate memory|unable to fork",
    re.IGNORECASE,
)
_PREFIX: Final = re.compile(r"^(sbatch|squeue|scontrol|scancel): (error: )?", re.MULTILINE)
_OPTIONS_HINT: Final = (
    "Choose other values of --partition, --account, --qos, --time or --gpus-per-task (`sinfo` lists the "
    "partitions); a larger --pack-size submits fewer tasks"
)


@dataclass(frozen=True)
class TaskStatus:
    """The status of one array task in the queue. state: PENDING, RUNNING, COMPLETING and so on. user: the
    numeric id of the user who submitted it.
    """

    job_name: str
    array_id: str
    index: int
    state: str
    node: str
    user: int
    reason: str

    @property
    def task_id(self) -> str:
        """The id of the task, `12_3`. SLURM_JOB_ID would not do: for one task it is that of the array."""
        return f"{self.array_id}_{self.index}"


class SlurmClient:
    """The Slurm cluster of this host. commands: those that are needed. Raises UserError if one is absent."""

    def __init__(self, commands: Sequence[str] = _COMMANDS) -> None:
        # all of them now: a command that is missing later is a fault of its file system, and may come back
        missing = next((name for name in commands if shutil.which(name) is None), None)
        if missing is not None:
            raise UserError(
                f"--backend slurm: Slurm's command {missing} must be on PATH",
                "Run psa on a login node of the cluster; some need `module load slurm` first",
            )

    def submit(self, arguments: Sequence[str], script: Path) -> str:
        """Submit a job array and return its id. Raises UserError where it is refused, Unreachable."""
        answer = _run(["sbatch", "--parsable", *arguments, str(script)], _OPTIONS_HINT)
        return answer.strip().splitlines()[-1].partition(";")[0]

    def check(self, arguments: Sequence[str], script: Path) -> str:
        """Return Slurm's estimate of the start of a job array. Submit nothing. Raises UserError."""
        return one_line(_run(["sbatch", "--test-only", *arguments, str(script)], _OPTIONS_HINT, both=True))

    def list_tasks(self, prefix: str) -> dict[tuple[str, int], TaskStatus]:
        """Return queued and running array tasks, by the name of their job and their index.

        Tasks of all users are listed, since the members of a group may share a folder of states.

        prefix: the beginning of the job names. Raises Unreachable for any error: squeue refuses nothing.
        """
        try:
            answer = _run(_SQUEUE)
        except UserError as error:
            raise Unreachable(error.message, error.hint) from error
        found = {}
        for line in answer.splitlines():
            name, array_id, index, state, node, user, reason = [*line.split("|", 6), *[""] * 7][:7]
            if name.startswith(prefix) and index.isdecimal() and user.isdecimal():
                found[name, int(index)] = TaskStatus(
                    name, array_id, int(index), state, node, int(user), reason
                )
        return found

    def cancel(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Cancel array tasks, given as id of the array and index. Those that have ended are left out.

        Running ones receive SIGTERM, and are killed after KillWait seconds (30 by default).
        """
        indices: defaultdict[str, list[int]] = defaultdict(list)
        for array_id, index in tasks:
            indices[array_id].append(index)
        for array_id, each in indices.items():
            _run(["scancel", "--quiet", f"{array_id}_[{','.join(map(str, sorted(each)))}]"])

    def requeue(self, task_id: str) -> None:
        """Put a running task back into the queue; Slurm ends it first. Raises UserError, Unreachable."""
        _run(["scontrol", "requeue", task_id])

    def describe(self, task_id: str) -> dict[str, str]:
        """Return what Slurm still knows of a task (JobState, ExitCode, NodeList and so on), {} for nothing.

        The controller forgets a job MinJobAge seconds after its end (300 by default); an accounting database
        remembers it.
        """
        try:
            shown = _run(["scontrol", "--oneliner", "show", "job", task_id])
            return dict(part.split("=", 1) for part in shown.split() if "=" in part)
        except UserError:
            return _recall(task_id)

    def max_array_size(self) -> int:
        """Return the number of tasks that an array may have."""
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.MULTILINE)
        return max(2, int(found[1]) if found else DEFAULT_ARRAY_SIZE) - 1


def describe_end(facts: Mapping[str, str]) -> str:
    """Return how a task ended: `NODE_FAIL on n1`, `FAILED on n1, exit code 127`."""
    state, node = facts.get("JobState", ""), facts.get("NodeList", "")
    if not state:
        return "has ended, and Slurm does not say how"
    text = f"ended as {state}" + (f" on {node}" if node not in ("", "(null)", "None assigned") else "")
    code, _, number = facts.get("ExitCode", "").partition(":")
    if code not in ("", "0"):
        text += f", exit code {code}"
    elif number not in ("", "0"):
        text += f", signal {number}"
    return text


def _recall(task_id: str) -> dict[str, str]:
    """Return state, exit code and node of an ended task from the accounting database, {} without one."""
    command = ["sacct", "--noheader", "--allocations", "--parsable2", "--format=State,ExitCode,NodeList"]
    try:
        rows = _run([*command, f"--jobs={task_id}"]).splitlines()
    except UserError:
        return {}
    values = rows[-1].split("|") if rows else []
    return dict(zip(("JobState", "ExitCode", "NodeList"), values, strict=False))


def _run(command: Sequence[str], hint: str = "", *, both: bool = False) -> str:
    """Return the output of a command, with `both` standard error too. Raises UserError, Unreachable."""
    try:
        done = run_captured(command, ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        raise Unreachable(
            f"{command[0]} did not answer within {ANSWER_SECONDS:g} s", "Wait for the controller"
        ) from None
    except OSError as error:  # the login node lacks processes or memory, or its file system hangs
        raise Unreachable(
            f"{command[0]} cannot be run: {error.strerror}", "Free memory and processes of this host"
        ) from error
    said = _PREFIX.sub("", done.stderr)
    if done.returncode == 0:
        return said + done.stdout if both else done.stdout
    reason = f"{command[0]} failed: {one_line(said)[:300] or f'exit code {done.returncode}'}"
    if _OUTAGE.search(said):
        raise Unreachable(reason, "Ask the administrators whether Slurm's controller is up")
    raise UserError(reason, hint)
