"""The backend `slurm`: a job array whose tasks train one pack each, on a folder that all nodes share.

Two things keep a trial from being trained twice: Slurm's queue lists the array tasks of this folder of
states, and a task holds the leases of its trials while it trains. A sweep takes up the queued tasks of an
earlier one, and submits nothing that the queue already holds. Imports no torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from cloud.aws.errors import Unreachable
from cloud.retry import retry_with_ticks
from cloud.slurm.array_job import ArrayJobFolder
from cloud.slurm.client import SlurmClient
from cloud.slurm.event_log import EventLogReader
from cloud.slurm.messages import (
    describe_array,
    detached_message,
    left_running_message,
    with_queued_tasks,
)
from cloud.slurm.request import batch_script, check_options, sbatch_arguments
from cloud.slurm.submission import ArraySubmission, queued_tasks
from cloud.slurm.watch import ArrayWatch
from cloud.slurm.watched_task import PENDING, LocksNotSharedError, WatchedTask
from cloud.workspace import workspace_id
from psa.core.errors import UserError
from psa.core.file_locks import Locked
from psa.core.formatting import pluralize
from psa.data.files import data_files
from psa.execution.backend import BackendOptions, Job, describe_jobs, plan_jobs
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store

logger = logging.getLogger(__name__)

_STOP_SECONDS: Final = 45.0  # Slurm kills cancelled tasks after KillWait, 30 s by default
_POLL_SECONDS: Final = 0.5


class SlurmBackend:
    """The Slurm cluster of this login node. Raises UserError without Slurm's commands."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions) -> None:
        check_options(options)
        self.client = SlurmClient()
        # fixed here: a task without a GPU of its own must not take one that it sees, nor the other way round
        device = machine.device or ("cuda" if options.gpus_per_task else "cpu")
        self.machine = replace(machine, device=device)
        self.store, self.costs, self.options = store, costs, options
        self.prefix = f"psa-{workspace_id(store.models)}-"
        self.arrays = ArrayJobFolder(store)
        self._queued: dict[int, WatchedTask] = {}  # tasks of earlier sweeps, by the id of their pack object
        self._leaves = False  # tasks in the queue when the watch ends
        self._stopped = "no task is left running."

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one job per pack, the longest first. Packs that the queue holds are taken as they are."""
        wanted = {trial.id: pack.horizon for pack in packs for trial in pack.trials}
        try:
            queue = self.client.list_tasks(self.prefix)
        except Unreachable:  # `launch` asks again
            queue = {}
        queued = [task for task in queued_tasks(self.arrays, queue) if self._serves(task.pack, wanted)]
        self._queued = {id(task.pack): task for task in queued}
        covered = {trial.id for task in queued for trial in task.pack.trials}
        rest = []
        for pack in packs:
            left = tuple(trial for trial in pack.trials if trial.id not in covered)
            if left:
                rest.append(
                    pack if len(left) == len(pack.trials) else pack.model_copy(update={"trials": left})
                )
        return plan_jobs([*(task.pack for task in queued), *rest], self.costs)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield the arguments of sbatch and Slurm's own estimate of the start. Nothing is submitted."""
        yield describe_jobs(jobs, self.options.array_parallelism or len(jobs))
        new = [job for job in jobs if id(job.pack) not in self._queued]
        if len(new) < len(jobs):
            yield f"{pluralize(len(jobs) - len(new), 'pack')} already queued by an earlier sweep"
        if not new:
            return
        folder = self.arrays.path / f"{self.prefix}..."
        arguments = sbatch_arguments(folder.name, len(new), folder, self.options)
        yield f"sbatch {' '.join(arguments)}"
        with tempfile.TemporaryDirectory() as place:
            script = Path(place) / "script.sh"
            script.write_text(batch_script(folder))
            kept = [each for each in arguments if not each.startswith(("--chdir", "--output"))]
            try:
                yield self.client.check(kept, script)
            except Unreachable as trouble:
                yield f"not checked: {trouble.message}"

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Submit the packs that the queue does not hold, and watch all of them to their end."""
        packs, tick = [job.pack for job in jobs], WorkerEvent("tick", jobs[0].pack)
        yield tick
        specs = {trial.data.name: trial.data for pack in packs for trial in pack.trials}
        for name in sorted(specs):
            # read here, since compute nodes often reach no network
            data_files([specs[name]], self.machine.data_dir)
            yield tick
        submission = self._submission()
        with self._ending(lambda: list(submission.written.values())):
            tasks = yield from retry_with_ticks(lambda: submission.submit(packs, self._queued), tick)
        if tasks is None:
            yield WorkerEvent("taken", packs[0])
        elif self.options.detach:
            self._stopped = left_running_message(tasks)
            yield WorkerEvent("detached", packs[0], {"message": detached_message(tasks)})
        else:
            yield from self._watched(tasks)

    def _watched(self, tasks: list[WatchedTask]) -> Generator[WorkerEvent, None, None]:
        def resubmit(packs: Sequence[Pack], excluded: Collection[str]) -> Sequence[WatchedTask]:
            return self._submission().submit_again(packs, excluded)

        watch = ArrayWatch(self.client, self.store, self.prefix, tasks, resubmit)
        with self._ending(watch.queued):
            yield from watch.events()

    @contextlib.contextmanager
    def _ending(self, queued: Callable[[], Sequence[WatchedTask]]) -> Iterator[None]:
        """Decide what becomes of the tasks in the queue if the block ends early.

        A stop of the user cancels them, and so do leases that protect no trial. Any other error is one of
        this process, its host or one node: the tasks continue, and the message of the error says so.
        """
        try:
            yield
        except (GeneratorExit, LocksNotSharedError):
            self._stop(queued())
            raise
        except UserError as error:
            raise with_queued_tasks(error, queued()) from None

    def leave_running(self) -> None:
        """Let the tasks continue when the generator of `launch` is closed."""
        self._leaves = True

    @property
    def stopped(self) -> str:
        """A message about the jobs of a stopped sweep."""
        return self._stopped

    def fetch(self) -> None:
        """Remove the logs of earlier arrays: states and records are on the shared folder already."""
        with contextlib.suppress(Unreachable, Locked), self.arrays.lock():
            self.arrays.remove_ended({name for name, _ in self.client.list_tasks(self.prefix)})

    def status(self) -> Iterator[str]:
        """Yield a line per array with tasks in the queue, and one per running task."""
        queue = self.client.list_tasks(self.prefix)
        for array in self.arrays.find({name for name, _ in queue}):
            mine = [status for key, status in sorted(queue.items()) if key[0] == array.name]
            yield describe_array(mine, len(array.packs))
            for each in mine:
                if each.state != PENDING and each.index < len(array.packs):
                    pack = array.packs[each.index]
                    events = EventLogReader(array.events_path(each.index)).read_last_attempt()
                    loop = next((event["loop"] for event in reversed(events) if "loop" in event), None)
                    at = "begins" if loop is None else f"loop {loop} of {pack.horizon}"
                    trials = pluralize(len(pack.trials), "trial")
                    yield f"job {each.task_id} on {each.node}: {each.state}, pack of {trials}, {at}"

    def _submission(self) -> ArraySubmission:
        return ArraySubmission(self.arrays, self.client, self.prefix, self.machine, self.options)

    def _serves(self, pack: Pack, wanted: dict[str, int]) -> bool:
        """Return whether a queued pack trains some of the wanted trials to the wanted horizon."""
        return any(wanted.get(trial.id) == pack.horizon for trial in pack.trials)

    def _stop(self, tasks: Sequence[WatchedTask]) -> None:
        """Cancel this user's tasks: queued ones are removed, running ones save and end. Wait for them."""
        if self._leaves or self.options.detach:
            self._stopped = left_running_message(tasks)
            return
        keys, until = {task.key for task in tasks}, time.monotonic() + _STOP_SECONDS
        try:
            queue = self.client.list_tasks(self.prefix)
            mine = sorted(key for key in keys & queue.keys() if queue[key].user == os.getuid())
            self.client.cancel((queue[key].array_id, key[1]) for key in mine)
            while set(mine) & self.client.list_tasks(self.prefix).keys() and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
            self._stopped = "the tasks have saved and ended." if mine else self._stopped
        except UserError as error:
            logger.warning("%s", error.message)
            self._stopped = "tasks may still be running: `squeue --me` lists them, scancel ends them."
