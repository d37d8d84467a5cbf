"""The protocol of a backend (plan, launch, fetch), the options of backends, and the table of their names.

The local backend gives each idle worker process the longest pack left; others are imported by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, runtime_checkable

from psa.core.errors import UserError
from psa.core.extras import import_cloud
from psa.core.formatting import format_duration, pluralize
from psa.core.plugins.identity import PluginError
from psa.core.plugins.registry import Registry
from psa.execution.cost_model import CostModel
from psa.execution.job_options import JOB_OPTIONS, TrainingJobOptions
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store


@dataclass(frozen=True)
class Job:
    """A pack for one worker process, and its expected time in seconds."""

    pack: Pack
    seconds: float


@dataclass(frozen=True)
class BackendOptions(TrainingJobOptions):
    """Options that select and configure a backend. A field that is None takes the backend's default.

    workers: packs trained at once (sagemaker: jobs at once). address, storage, gpus_per_pack: of a Ray
    cluster. jobs: total number of training jobs; spot: use spare capacity; detach: exit after the jobs are
    submitted; max_cost: in dollars; prices: a price table. partition, account, qos, time, gpus_per_task: as
    sbatch takes them; array_parallelism: tasks of an array at once. The others are those of a training job.
    """

    workers: int | None = None
    address: str | None = None
    storage: str | None = None
    gpus_per_pack: float | None = None
    jobs: int | None = None
    spot: bool = False
    detach: bool = False
    max_cost: float | None = None
    prices: Path | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    gpus_per_task: str | None = None
    array_parallelism: int | None = None


class Backend(Protocol):
    """The place where packs are trained: a class with these methods, in the table `BACKENDS`.

    A backend is built once per sweep. The sweep calls `fetch`, then `plan` and `launch` for every round of
    packs that are still to be trained; a dry run calls `plan` and `preview`. Results do not pass through the
    events: the backend stores them in `store` before it yields `done`.

    Args:
        store: The states and records of this machine.
        machine: The data folder and the device that the user asked for.
        costs: The expected time of a loop of a pack.
        options: The options of the user, of which `BACKEND_OPTIONS` lists those that this backend takes.

    Raises:
        UserError: An option, an account or a package that is missing or unusable.

    Example:
        A backend that trains pack after pack in this process:

        >>> class InProcess:
        ...     stopped = "nothing is left running."
        ...
        ...     def __init__(self, store, machine, costs, options):
        ...         self.store, self.machine, self.costs = store, machine, costs
        ...
        ...     def plan(self, packs):
        ...         return plan_jobs(packs, self.costs)
        ...
        ...     def preview(self, jobs):
        ...         yield describe_jobs(jobs, workers=1)
        ...
        ...     def launch(self, jobs):
        ...         from psa.execution.worker.run import run_unlocked
        ...
        ...         for job in jobs:
        ...             records, elsewhere = run_unlocked(job.pack, self.store, self.machine)
        ...             facts = {"trained": len(records), "elsewhere": elsewhere, "failed": {}}
        ...             yield WorkerEvent("done", job.pack, facts)
        ...
        ...     def fetch(self):
        ...         pass

    """

    def __init__(self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions) -> None: ...

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Turn packs into jobs. Start nothing and write nothing.

        Args:
            packs: The packs to train, the longest first.

        Returns:
            One job per pack with its expected time. A backend may return other packs of the same trials, such
            as those of an interrupted run that it can continue.

        """

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Describe what `launch` would start. Start nothing and write nothing.

        Args:
            jobs: The result of `plan`, at least one job.

        Yields:
            Lines to print: the number of packs, the expected time, requests and costs.

        Raises:
            UserError: A request that would be refused, by the service or by a limit of the user.

        """

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Train the jobs to their end and report what happens.

        Closing the generator stops what is running: workers save their states and exit, unless the user
        asked to detach from them, or `RemoteBackend.leave_running` was called.

        Args:
            jobs: The result of `plan`, at least one job.

        Yields:
            The events of all packs as they happen. For each pack, in this order: `begun`, any number of
            `loop`, then one `done` or `failed`, after which no event of that pack follows. `begun` is left
            out where no loop was left to train, or the backend saw none of them. `died` may come at any point
            before the end; that pack, and those that shared a job with it, then start again with `begun`.
            Packs run side by side, so their events interleave. An event carries the pack object of its job.

            begun: A worker has the pack. left: loops to train, summed over trials.
            loop: Progress of the pack. loop: loops of its least trained trial; trained: loops trained since
                the last such event, summed over trials; best: best validation accuracy of its trials in that
                loop, a share; mean: their mean, 0 for a diverged one; trial: id of the trial with the best.
            died: A worker or job ended too early, and the pack is retried. error: the reason.
            done: Records and states are stored here. trained: number of trials; elsewhere: number of trials
                that another process holds; failed: the error of each failed trial, by id.
            failed: All trials of the pack failed. error: the reason.

            Of the backend itself, with any of its packs:

            tick: Nothing new. An event of some kind must come at least once a second, since the sweep
                notices a stop and refreshes its display only between two events.
            ready: The size of the cluster is known. workers: packs that it trains at once.
            message: A message for the user. message: the line to print.
            taken: Another process holds these trials; no pack of these jobs is trained. The last event.
            detached: The jobs continue without this process. message: the line to print. The last event.

        Raises:
            UserError: An error that every other pack would meet, too, such as an unusable device.

        """

    def fetch(self) -> None:
        """Store the states and records here that interrupted sweeps have left with the backend.

        Raises:
            UserError: Results that cannot be read or stored.

        """

    @property
    def stopped(self) -> str:
        """The fate of running workers after a stop.

        Returns:
            A sentence without its first letter, printed behind "Stopped; ".

        """


STOP_MESSAGE: Final = "workers have saved what they had."
BACKENDS: Final = {
    "local": "psa.execution.local:LocalBackend",
    "ray": "cloud.ray.backend:RayBackend",
    "sagemaker": "cloud.sagemaker.backend:SageMakerBackend",
    "slurm": "cloud.slurm.backend:SlurmBackend",
}


@runtime_checkable
class PricedBackend(Protocol):
    """A backend that costs money, and whose estimate can be read without the requests of `preview`."""

    def estimate(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield lines with the hours, dollars and bytes of the jobs. Start nothing and write nothing."""


@runtime_checkable
class RemoteBackend(Protocol):
    """A backend whose jobs do not end with the sweep, such as those of a batch system or a cloud."""

    def leave_running(self) -> None:
        """Let jobs continue when the generator of `launch` is closed, and say so in `stopped`."""


SLURM_OPTIONS: Final = {"partition", "account", "qos", "time", "gpus_per_task", "array_parallelism"}
# The fields of BackendOptions that each backend takes; an option of another backend is an error.
BACKEND_OPTIONS: Final = {
    "local": frozenset({"workers"}),
    "ray": frozenset({"workers", "address", "storage", "gpus_per_pack"}),
    "sagemaker": frozenset({"workers", "jobs", "spot", "detach", "max_cost", "prices"} | JOB_OPTIONS),
    "slurm": frozenset(SLURM_OPTIONS | {"detach"}),
}


@dataclass(frozen=True)
class PluginBackend:
    """A backend of a plugin: its class, and the fields of BackendOptions that it takes."""

    make: type[Backend]
    options: frozenset[str]


BACKEND_PLUGINS: Final = Registry[PluginBackend]("backend", lambda: BACKENDS)


def register_backend(name: str, make: type[Backend], options: Collection[str] = ("workers",)) -> None:
    """Register a backend: a place where packs are trained. See `Backend`.

    Args:
        name: The name of the backend, given with --backend.
        make: A class of the protocol `Backend`.
        options: The fields of `BackendOptions` that it takes; any other option is an error.

    Raises:
        PluginError: The name is invalid, that of a backend of psa, or registered already; or an option is not
            a field of `BackendOptions`.

    Example:
        >>> from psa.execution.local import LocalBackend
        >>> class Careful(LocalBackend):
        ...     stopped = "nothing is left running."
        >>> def register():
        ...     register_backend("careful", Careful)

    """
    for option in options:
        if option not in BackendOptions.__dataclass_fields__:
            raise PluginError(
                f"the options of backend {name!r} must be fields of BackendOptions, got {option!r}",
                f"Known: {', '.join(BackendOptions.__dataclass_fields__)}",
            )
    BACKEND_PLUGINS.add(name, PluginBackend(make, frozenset(options)))


def backend_named(name: str, options: BackendOptions) -> type[Backend]:
    """Return the class of a backend. Raises UserError for an unknown name or an option of another one."""
    BACKEND_PLUGINS.check_choice(name, "--backend")
    plugin = BACKEND_PLUGINS.find(name)
    taken = BACKEND_OPTIONS[name] if plugin is None else plugin.options
    for option, value in vars(options).items():
        if value is not None and value is not False and option not in taken:
            those = " or ".join(each for each, known in BACKEND_OPTIONS.items() if option in known)
            raise UserError(
                f"--{option.replace('_', '-')} must be left out with --backend {name}",
                f"It belongs to --backend {those}",
            )
    if plugin is not None:
        return plugin.make
    module, _, kind = BACKENDS[name].partition(":")
    load = import_cloud if module.startswith("cloud.") else importlib.import_module
    found: type[Backend] = getattr(load(module), kind)
    return found


def plan_jobs(packs: Sequence[Pack], costs: CostModel) -> list[Job]:
    """Return one job per pack, the longest first."""
    jobs = [Job(pack, pack.horizon * costs.loop_seconds(pack.trials)) for pack in packs]
    return sorted(jobs, key=lambda job: -job.seconds)


def describe_jobs(jobs: Sequence[Job], workers: int) -> str:
    """Return a line such as `4 packs, 24 trials: 20 s estimated, with 2 workers`."""
    trials = sum(len(job.pack.trials) for job in jobs)
    seconds = max(sum(job.seconds for job in jobs) / max(1, workers), jobs[0].seconds)
    return (
        f"{pluralize(len(jobs), 'pack')}, {pluralize(trials, 'trial')}: {format_duration(seconds)} "
        f"estimated, with {pluralize(workers, 'worker')}"
    )
