"""The submission of packs as job arrays, so that no trial is queued twice."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from cloud.aws.errors import Unreachable
from cloud.slurm.array_job import ArrayJob, ArrayJobFolder
from cloud.slurm.client import SlurmClient, TaskStatus
from cloud.slurm.request import sbatch_arguments
from cloud.slurm.watched_task import PENDING, WatchedTask
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions
from psa.execution.machine import Machine
from psa.specs.trial import Pack

Queue = Mapping[tuple[str, int], TaskStatus]


def queued_tasks(arrays: ArrayJobFolder, queue: Queue) -> list[WatchedTask]:
    """Return the tasks in the queue whose packs are stored here."""
    known = {array.name: array for array in arrays.find({name for name, _ in queue})}
    return [
        WatchedTask(known[name].packs[index], known[name], index, status.array_id, state=status.state)
        for (name, index), status in sorted(queue.items())
        if name in known and index < len(known[name].packs)
    ]


class ArraySubmission:
    """The submission of some packs. It may be repeated where Slurm's answer was lost: nothing doubles."""

    def __init__(
        self,
        arrays: ArrayJobFolder,
        client: SlurmClient,
        prefix: str,
        machine: Machine,
        options: BackendOptions,
    ) -> None:
        self.arrays, self.client, self.prefix, self.machine, self.options = (
            arrays, client, prefix, machine, options,
        )  # fmt: skip
        self.written: dict[int, WatchedTask] = {}  # new tasks by the id of their pack object

    def submit(self, packs: Sequence[Pack], queued: Mapping[int, WatchedTask]) -> list[WatchedTask] | None:
        """Submit packs, and return the task of each; None if another sweep has just queued their trials.

        queued: tasks of earlier sweeps by the id of their pack object, which are not submitted.
        Raises UserError, Unreachable.
        """
        with self.arrays.lock():
            queue = self.client.list_tasks(self.prefix)
            tasks = {id(pack): queued[id(pack)] for pack in packs if id(pack) in queued}
            new = [pack for pack in packs if id(pack) not in tasks]
            wanted = {trial.id for pack in new for trial in pack.trials}
            taken = {task.key for task in tasks.values()}
            for task in queued_tasks(self.arrays, self._foreign(queue)):
                if task.key not in taken and any(trial.id in wanted for trial in task.pack.trials):
                    return None
            tasks |= self._submitted(new, queue)
        return [tasks[id(pack)] for pack in packs]

    def submit_again(self, packs: Sequence[Pack], excluded: Collection[str] = ()) -> list[WatchedTask]:
        """Submit packs whose tasks have ended, and return the new tasks. excluded: nodes not to be used.

        Another sweep that watched the same tasks may have been faster: its tasks are taken then.
        Raises UserError, Unreachable.
        """
        with self.arrays.lock():
            queue = self.client.list_tasks(self.prefix)
            others = {_trials_of(task.pack): task for task in queued_tasks(self.arrays, self._foreign(queue))}
            tasks = {id(pack): others[_trials_of(pack)] for pack in packs if _trials_of(pack) in others}
            tasks |= self._submitted([pack for pack in packs if id(pack) not in tasks], queue, excluded)
        return [tasks[id(pack)] for pack in packs]

    def _foreign(self, queue: Queue) -> dict[tuple[str, int], TaskStatus]:
        own = {task.array.name for task in self.written.values()}
        return {key: status for key, status in queue.items() if key[0] not in own}

    def _submitted(
        self, packs: Sequence[Pack], queue: Queue, excluded: Collection[str] = ()
    ) -> dict[int, WatchedTask]:
        """Write and submit new arrays, but for those that an earlier attempt has submitted."""
        self._write([pack for pack in packs if id(pack) not in self.written])
        arrays: dict[str, ArrayJob] = {task.array.name: task.array for task in self.written.values()}
        for name, array in arrays.items():
            tasks = [task for task in self.written.values() if task.array is array]
            if tasks[0].array_id:
                continue
            status = next((each for key, each in queue.items() if key[0] == name), None)
            arguments = sbatch_arguments(name, len(tasks), array.folder, self.options, excluded)
            with self._removed_if_refused():
                array_id = status.array_id if status else self.client.submit(arguments, array.script)
            for task in tasks:
                task.array_id, task.state = array_id, PENDING
        return self.written

    @contextlib.contextmanager
    def _removed_if_refused(self) -> Iterator[None]:
        """Remove the arrays that are not submitted if Slurm refuses one: a later attempt writes new ones."""
        try:
            yield
        except Unreachable:  # Slurm may have accepted it
            raise
        except UserError:
            self.arrays.remove({task.array.name for task in self.written.values() if not task.array_id})
            self.written = {key: task for key, task in self.written.items() if task.array_id}
            raise

    def _write(self, packs: Sequence[Pack]) -> None:
        most = self.client.max_array_size()
        for start in range(0, len(packs), most):
            part = packs[start : start + most]
            array = self.arrays.create(self.prefix, part, self.machine)
            for index, pack in enumerate(part):
                self.written[id(pack)] = WatchedTask(pack, array, index, "")


def _trials_of(pack: Pack) -> tuple[int, frozenset[str]]:
    return pack.horizon, frozenset(trial.id for trial in pack.trials)
