"""`psa plan`: the content of a declared grid, its progress, and the cost of the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from psa.cli.console import console, print_line
from psa.cli.job_options import ManagedBackendArguments
from psa.cli.options import (
    Device,
    GridFileArgument,
    ModelDir,
    Only,
    Override,
    PackSize,
    PluginFiles,
    ResultsDir,
)
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.grid_status import trial_reasons
from psa.cli.output.schema import PackCount, PlanDocument, PlannedStage
from psa.cli.output.status_view import waiting_text
from psa.cli.output.sweep_view import say_damaged, waiting
from psa.core.formatting import format_bytes, format_duration, pluralize
from psa.core.plugins.loading import load_plugins
from psa.execution.backend import Backend, PricedBackend, backend_named
from psa.execution.cost_model import CostModel, WorkloadKey, memory_bytes, trial_bytes
from psa.execution.eta import EtaEstimator
from psa.execution.local import LocalBackend
from psa.execution.machine import Machine
from psa.experiments.grid import Grid, load_grid
from psa.experiments.planning import Plan, PlanOptions, planned_for
from psa.experiments.promotion import StageStatus, stage_statuses
from psa.experiments.sweep import Sweep
from psa.storage.plugin_versions import check_versions
from psa.storage.store import Store

_SIZES_SHOWN: Final = 8


def plan(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    plugin: PluginFiles = (),
    runs: Annotated[ManagedBackendArguments | None, Parameter(name="*")] = None,
    as_json: JsonOption = False,
    pack_size: PackSize = None,
    device: Device = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> Outcome:
    """Show the trials of a grid and their estimated cost; run nothing.

    Prints the number of finished trials, and the time, memory and disk space that the rest takes on this
    machine. With --backend, the packs are those for that backend, and what it would run is added; for
    sagemaker the hours and dollars, which needs no account.

    Example: psa plan reproduction/smoke.toml --backend sagemaker
    """
    load_plugins(plugin)
    store, costs, out, runs = (
        Store(model_dir, results_dir),
        CostModel.of_machine(model_dir, device),
        console(quiet=as_json),
        runs or ManagedBackendArguments(),
    )
    kind = backend_named(runs.backend or "local", runs.backend_options)
    machine = Machine(Path("dataset"), device)
    backend = None if runs.backend is None else kind(store, machine, costs, runs.backend_options)
    options = PlanOptions(device, runs.workers, pack_size, elsewhere=not issubclass(kind, LocalBackend))
    kinds: set[WorkloadKey] = set()
    stages: list[PlannedStage] = []
    with activity(out, f"reading the grid and the records of {grid}"):
        declared = load_grid(grid, overrides, only)
        store.check_folders()
        check_versions(declared.trials, store)
        for stage in stage_statuses(declared, store):
            if not stage.stage.points:
                continue
            planned = planned_for(stage.trials, stage.meta_loops, store, costs, options)
            kinds |= {WorkloadKey.of(pack.trials[0]) for pack in planned.packs}
            stages.append(_planned_stage(stage, planned, store, costs, backend))
    unmeasured = sum(not costs.measured(kind) for kind in kinds)
    document = PlanDocument(
        name=declared.name,
        stages=stages,
        networks=len(kinds),
        unmeasured=unmeasured,
        notes=list(declared.warnings),
    )
    _show(document, declared.heading, out)
    return Outcome(0, document)


def _planned_stage(
    stage: StageStatus, planned: Plan, store: Store, costs: CostModel, backend: Backend | None
) -> PlannedStage:
    """Return the entry of a stage in the document."""
    workers = len(planned.places)
    time_left = EtaEstimator(costs, workers)
    time_left.plan(planned.packs, store)
    peaks = sorted((memory_bytes(pack.trials) for pack in planned.packs), reverse=True)
    sizes = Counter(len(pack.trials) for pack in planned.packs)
    return PlannedStage(
        name=stage.stage.name,
        meta_loops=stage.meta_loops,
        waiting=stage.points is None,
        left_out=stage.left_out,
        trials=stage.seats if stage.points is None else len(stage.trials),
        done=planned.done,
        pending=len(planned.pending),
        damaged=trial_reasons(planned.damaged),
        packs=[PackCount(trials=size, packs=count) for size, count in sorted(sizes.items(), reverse=True)],
        workers=workers if planned.packs else 0,
        gpus=len(set(planned.places)) if planned.packs and planned.places[0] else 0,
        seconds=time_left.remaining(),
        memory_bytes=sum(peaks[:workers]),
        disk_bytes=sum(trial_bytes(trial, planned.horizon) for trial in planned.pending),
        estimate=[] if backend is None or not planned.packs else list(_estimate(backend, planned)),
    )


def _show(document: PlanDocument, heading: str, out: Console) -> None:
    """Print the plan as text."""
    before = ""
    for stage in document.stages:
        title = f"{heading}: stage {stage.name}: " if stage.name else f"{heading}: "
        if stage.waiting:
            print_line(out, title + waiting_text(stage.trials, f"stage {before}", stage.left_out))
        else:
            trials = pluralize(stage.trials, "trial")
            print_line(out, f"{title}{trials} of {pluralize(stage.meta_loops, 'meta-loop')}")
            out.print(_table(stage), markup=False)
            for line in stage.estimate:
                print_line(out, line)
            say_damaged(out, {each.trial: each.reason for each in stage.damaged})
        before = stage.name
    for warning in document.notes:
        print_line(out, f"note: {warning}")
    if document.unmeasured:
        print_line(out, _not_measured(document.unmeasured, document.networks))


def _estimate(backend: Backend, planned: Plan) -> Iterator[str]:
    """Yield lines about what a backend would run, without its requests. Raises UserError."""
    jobs = backend.plan(planned.packs)
    return backend.estimate(jobs) if isinstance(backend, PricedBackend) else backend.preview(jobs)


def has_begun(declared: Grid, store: Store, out: Console) -> Iterator[StageStatus]:
    """Yield the stages whose trials are known; print what each of the others waits for. Raises UserError."""
    store.check_folders()
    check_versions(declared.trials, store)
    for stage in stage_statuses(declared, store):
        if stage.stage.points and stage.points is None:
            print_line(out, f"{declared.heading}: {waiting(stage)}")
        elif stage.stage.points:
            yield stage


def _not_measured(count: int, total: int) -> str:
    subject = "The network" if total == 1 else f"{count:,} of {total:,} networks"
    they_are, their, them = ("is", "its", "it") if count == 1 else ("are", "their", "them")
    return (
        f"{subject} {they_are} not measured on this machine yet: {their} times are estimated from the "
        f"arithmetic. `psa sweep` measures {them} first."
    )


def _table(stage: PlannedStage) -> Table:
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right", overflow="fold")
    for row in _rows(stage):
        table.add_row(*row)
    return table


def _rows(stage: PlannedStage) -> Iterator[tuple[str, str]]:
    yield "trials done", f"{stage.done:,}"
    if stage.damaged:
        yield "records damaged", f"{len(stage.damaged):,}"
    yield "trials pending", f"{stage.pending:,}"
    if not stage.packs:
        return
    where = f" on {pluralize(stage.gpus, 'GPU')}" if stage.gpus else ""
    yield "packs", f"{sum(each.packs for each in stage.packs):,}: {_sizes(stage.packs)}"
    yield (
        "time left here",
        f"{format_duration(stage.seconds)} with {pluralize(stage.workers, 'worker')}{where}",
    )
    yield "peak memory", format_bytes(stage.memory_bytes)
    yield "on disk, all weights kept", format_bytes(stage.disk_bytes)


def _sizes(packs: Sequence[PackCount]) -> str:
    """Return the number of packs of each size: `66 of 60 trials, 26 of 30`."""
    first, *others = [(f"{each.packs:,} of", each.trials) for each in packs]
    shown = [f"{first[0]} {pluralize(first[1], 'trial')}", *(f"{of} {each:,}" for of, each in others)]
    return ", ".join(shown[:_SIZES_SHOWN]) + (" and smaller" if len(shown) > _SIZES_SHOWN else "")


def previewed(sweep: Sweep, out: Console) -> int:
    """Print what would be launched for the stages that have been reached. Launch nothing."""
    backend = sweep.backend
    for stage in has_begun(sweep.declared, sweep.store, out):
        planned = sweep.planned(stage)
        done = f"{planned.done:,} of {len(stage.trials):,} trials done"
        out.print(f"{sweep.declared.heading}: {stage.title}{done}", markup=False)
        for line in backend.preview(backend.plan(planned.packs)) if planned.packs else ():
            print_line(out, line)
    return 0
