"""The local backend: worker processes on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence

from psa.execution.backend import STOP_MESSAGE, BackendOptions, Job, describe_jobs, plan_jobs
from psa.execution.cost_model import CostModel, WorkloadKey, memory_bytes
from psa.execution.devices import DeviceSlot, device_slots
from psa.execution.machine import Machine
from psa.execution.worker.pool import Task, WorkerPool
from psa.execution.worker.protocol import WorkerEvent, pack_body
from psa.specs.base import canonical_json
from psa.specs.trial import Pack
from psa.storage.store import Store


class LocalBackend:
    """The backend of this machine: one single-threaded worker process per slot."""

    stopped = STOP_MESSAGE

    def __init__(self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions) -> None:
        self.store, self.machine, self.costs, self.options = store, machine, costs, options

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one job per pack, the longest first."""
        return plan_jobs(packs, self.costs)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield a line with the number of packs and their expected time."""
        places = self._places([Task(job.pack, "") for job in jobs])
        yield describe_jobs(jobs, len(places))

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Run the jobs to their end. Yield their events, a tick at least once a second."""
        tasks = [Task(job.pack, self._task("train", job.pack)) for job in jobs]
        yield from WorkerPool(self.machine, self._places(tasks)).run(tasks)

    def calibrate(self, groups: Sequence[Pack]) -> Generator[int, None, None]:
        """Measure step times of packs like these. Yield the number of groups left, at least once a second.

        A group that fails keeps its estimate. Closing the generator stops the workers at once: they have
        nothing to save.
        """
        tasks = [Task(pack, self._task("calibrate", pack)) for pack in groups]
        left = len(tasks)
        with contextlib.closing(
            WorkerPool(self.machine, self._places(tasks), patience=0.0).run(tasks)
        ) as events:
            for event in events:
                if event.kind == "calibrated":
                    steps = {int(size): seconds for size, seconds in event.facts["steps"].items()}
                    self.costs.update(WorkloadKey.of(event.pack.trials[0]), steps)
                left -= event.kind in ("calibrated", "failed")
                yield left

    def fetch(self) -> None:
        """Do nothing: all results are on this machine already."""

    def _places(self, tasks: Sequence[Task]) -> list[DeviceSlot]:
        need = max(memory_bytes(task.pack.trials) for task in tasks)
        return device_slots(self.machine.device, need, self.options.workers)[: len(tasks)]

    def _task(self, task: str, pack: Pack) -> str:
        return canonical_json(
            {
                "task": task,
                "models": str(self.store.models),
                "results": str(self.store.results),
                "pack": pack_body(pack),
            }
        )
