"""The options of commands that train: where packs run, how a sweep goes about it; what a dry run says."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from psa.commands.options import Count, Dollars, Number
from psa.commands.plan import PackSize, Workers, begun, planned_for
from psa.execution.backend import Backend, Where
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import Grid
from psa.storage.retention import KeepWeights
from psa.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Where packs run."""

    backend: Annotated[
        Literal["local", "ray", "sagemaker"] | None,
        Parameter(
            help="Here, as trials of Ray Tune on a cluster, or as jobs of SageMaker. "
            "[default: local; a search: ray]"
        ),
    ] = None
    workers: Workers = None
    address: Annotated[
        str | None,
        Parameter(
            help="Of a Ray cluster: auto, HOST:PORT, ray://HOST:10001. [default: local, one made here]"
        ),
    ] = None
    gpus_per_pack: Annotated[
        Number | None,
        Parameter(help="Of Ray's GPUs, e.g. 0.25. [default: a quarter of one, if there are any]"),
    ] = None
    storage: Annotated[
        str | None,
        Parameter(
            help="A folder or s3://BUCKET/PREFIX that all nodes of Ray reach. [default: in --model-dir]"
        ),
    ] = None

    jobs: Annotated[
        Count, Parameter(help="Of SageMaker, in all. [default: as many as hold four hours each]")
    ] = None
    spot: Annotated[
        bool, Parameter(negative="", help="Of SageMaker: on spare capacity, cheaper and interrupted.")
    ] = False
    detach: Annotated[
        bool, Parameter(negative="", help="Of SageMaker: submit what the quota allows, and leave.")
    ] = False
    max_cost: Annotated[
        Dollars | None,
        Parameter(help="Of SageMaker: dollars that the jobs of a study may cost at most, all that it had."),
    ] = None
    prices: Annotated[
        Path | None, Parameter(help="Of SageMaker: a table of prices like cloud/prices.toml.")
    ] = None

    @property
    def where(self) -> Where:
        """What the backend is told."""
        return Where(**{field.name: getattr(self, field.name) for field in fields(Where)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a sweep goes about it."""

    pack_size: PackSize = None
    keep_weights: Annotated[
        KeepWeights, Parameter(help="Of finished trials: all, the best seed per arch and mode, or none.")
    ] = "all"
    fail_fast: Annotated[bool, Parameter(negative="", help="Stop at the first pack that fails.")] = False
    dry_run: Annotated[bool, Parameter(negative="", help="Only show, and check, what would be launched.")] = (
        False
    )
    tensorboard: Annotated[
        Path | None, Parameter(help="Folder in which TensorBoard finds every finished trial as a run.")
    ] = None
    mlflow: Annotated[
        str | None,
        Parameter(
            help="MLflow's server that is told of finished trials: http://HOST:5000, sqlite:///runs.db."
        ),
    ] = None


def previewed(
    declared: Grid,
    store: Store,
    costs: CostModel,
    machine: Machine,
    backend: Backend,
    runs: Runs,
    options: Options,
    out: Console,
) -> int:
    """Say what would be launched for the stages that have been reached. Launches nothing."""
    for stage in begun(declared, store, out):
        planned = planned_for(
            stage.trials, stage.meta_loops, store, costs, machine.device, runs.workers, options.pack_size
        )
        done = f"{planned.done:,} of {len(stage.trials):,} trials done"
        out.print(f"{declared.name}: {stage.title}{done}", markup=False)
        for line in backend.preview(backend.plan(planned.packs)) if planned.packs else ():
            out.print(line, markup=False, soft_wrap=True)
    return 0
