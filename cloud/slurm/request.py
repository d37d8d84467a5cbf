"""The request of a job array: the options of the user, checked, as arguments of sbatch, and the script."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Final

import psa
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions

SAVE_SECONDS: Final = 60  # before the time limit: workers save within 30 s, and Slurm rounds to 30 s
# minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, days-hours:minutes:seconds
_TIME: Final = re.compile(r"(?:(\d{1,5})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)
_GPU: Final = re.compile(r"(?:[\w.-]+:)?1", re.ASCII)
# Imports psa and cloud from the folder it is given: a task runs the code of its sweep.
_ENTRY: Final = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from cloud.slurm.array_task import main
sys.exit(main())
"""


def check_options(options: BackendOptions) -> None:
    """Raise UserError for an option that Slurm cannot understand."""
    if options.time is not None and not time_limit_seconds(options.time):
        raise UserError(
            f"--time must be a time above 0 in Slurm's form, got {options.time}",
            "Write MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS",
        )
    if options.gpus_per_task is not None and _GPU.fullmatch(options.gpus_per_task) is None:
        raise UserError(
            "--gpus-per-task must be 1 or TYPE:1, since a task trains on one GPU, "
            f"got {options.gpus_per_task}",
            "Write 1 or, for a kind of GPU, a100:1; a smaller --pack-size makes more tasks",
        )


def time_limit_seconds(text: str) -> int:
    """Return a time limit in seconds; 0 for a text that Slurm would not accept."""
    found = _TIME.fullmatch(text)
    if found is None:
        return 0
    days, first, second, third = (int(part or 0) for part in found.groups())
    if found[1] is not None:
        return 86_400 * days + 3600 * first + 60 * second + third
    if found[4] is not None:
        return 3600 * first + 60 * second + third
    return 60 * first + second


def sbatch_arguments(
    name: str, tasks: int, folder: Path, options: BackendOptions, excluded: Collection[str] = ()
) -> list[str]:
    """Return the arguments of sbatch for a job array.

    Options that the user left out are not passed, so that sbatch's own variables (SBATCH_PARTITION,
    SBATCH_CONSTRAINT and so on) and the defaults of the cluster apply.

    Args:
        name: The name of the job.
        tasks: The number of tasks.
        folder: The folder of the array, on the shared file system; it receives the logs.
        options: The options of the user.
        excluded: Names of nodes that must not be used.

    """
    limit = time_limit_seconds(options.time) if options.time is not None else 0
    save = min(SAVE_SECONDS, limit // 4) if limit else SAVE_SECONDS
    at_once = f"%{options.array_parallelism}" if options.array_parallelism else ""
    return [
        f"--job-name={name}",
        f"--array=0-{tasks - 1}{at_once}",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--requeue",
        f"--signal=B:USR2@{max(1, save)}",
        "--open-mode=append",
        f"--output={str(folder).replace('%', '%%')}/%a.log",
        f"--chdir={folder}",
        *(
            f"--{option.replace('_', '-')}={value}"
            for option in ("partition", "account", "qos", "time", "gpus_per_task")
            if (value := getattr(options, option)) is not None
        ),
        *([f"--exclude={','.join(excluded)}"] if excluded else []),
    ]


def batch_script(folder: Path) -> str:
    """Return the script of a job array: the interpreter and the code of this sweep, one pack per task.

    The shell is replaced by Python, which therefore receives the signals that Slurm sends to the script.
    """
    code = Path(str(psa.__file__)).absolute().parents[1]
    words = [sys.executable, "-P", "-c", _ENTRY, str(code), str(folder)]
    return f"#!/bin/sh\nexec {shlex.join(words)}\n"
