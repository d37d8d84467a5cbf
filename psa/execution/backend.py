"""Where packs run: the protocol of a backend (plan, launch, fetch), and this machine's.

`Local` hands each of its worker processes the longest pack that is left; other backends are found by name.
"""

from __future__ import annotations

import importlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final, Protocol

from psa.core.cloud_package import import_cloud
from psa.core.errors import UserError
from psa.core.formatting import format_duration, pluralize
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store


@dataclass(frozen=True)
class Job:
    """What one process is asked to do, and how long that should take."""

    pack: Pack
    seconds: float


@dataclass(frozen=True)
class BackendOptions:
    """What a user says of where packs run; what is None is left to the backend.

    workers: packs at once; of sagemaker: jobs at once. address, storage, gpus_per_pack: of a Ray cluster.
    jobs: training jobs in all; spot: on spare capacity; detach: leave them alone once they are submitted;
    max_cost: dollars; prices: a table of them.
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


class Backend(Protocol):
    """Three verbs, lists in and lists out."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, where: BackendOptions) -> None: ...

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """What would be launched. Pure."""

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """What there is to say of it beforehand, in lines. Raises UserError for what would be refused."""

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Run the jobs; what happens, as it happens."""

    def fetch(self) -> None:
        """Bring states and records home."""

    @property
    def stopped(self) -> str:
        """What has become of those at work when a sweep was stopped; a sentence without its first letter."""


STOP_MESSAGE: Final = "workers have saved what they had."
BACKENDS: Final = {
    "local": "psa.execution.local:LocalBackend",
    "ray": "cloud.ray.backend:RayBackend",
    "sagemaker": "cloud.sagemaker.backend:SageMakerBackend",
}

# Which of Where's fields mean something to which backend; another one's option is a mistake.
BACKEND_OPTIONS: Final = {
    "local": frozenset({"workers"}),
    "ray": frozenset({"workers", "address", "storage", "gpus_per_pack"}),
    "sagemaker": frozenset({"workers", "jobs", "spot", "detach", "max_cost", "prices"}),
}


def backend_named(name: str, where: BackendOptions) -> type[Backend]:
    """The class of a backend. Raises UserError for an option that is not its own."""
    for option, value in vars(where).items():
        if value is not None and value is not False and option not in BACKEND_OPTIONS[name]:
            those = " or ".join(each for each, known in BACKEND_OPTIONS.items() if option in known)
            raise UserError(
                f"--{option.replace('_', '-')} means nothing to --backend {name}",
                f"It is of --backend {those}",
            )
    module, _, kind = BACKENDS[name].partition(":")
    found: type[Backend] = getattr(_imported(module), kind)
    return found


def _imported(module: str) -> ModuleType:
    return import_cloud(module) if module.startswith("cloud.") else importlib.import_module(module)


def plan_jobs(packs: Sequence[Pack], costs: CostModel) -> list[Job]:
    """One job per pack, the longest first."""
    jobs = [Job(pack, pack.horizon * costs.loop_seconds(pack.trials)) for pack in packs]
    return sorted(jobs, key=lambda job: -job.seconds)


def describe_jobs(jobs: Sequence[Job], workers: int) -> str:
    """`4 packs, 24 trials: 20 s estimated, with 2 workers`."""
    trials = sum(len(job.pack.trials) for job in jobs)
    seconds = max(sum(job.seconds for job in jobs) / max(1, workers), jobs[0].seconds)
    return (
        f"{pluralize(len(jobs), 'pack')}, {pluralize(trials, 'trial')}: {format_duration(seconds)} "
        "estimated, with "
        f"{pluralize(workers, 'worker')}"
    )
