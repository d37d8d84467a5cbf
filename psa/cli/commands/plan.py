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
from psa.cli.job_options import ManagedSweepOptions
from psa.cli.options import (
    Device,
    GridFileArgument,
    ModelDir,
    Only,
    Override,
    PackSize,
    ResultsDir,
)
from psa.cli.sweep_view import say_damaged, waiting
from psa.core.formatting import format_bytes, format_duration, pluralize
from psa.execution.backend import Backend, PricedBackend, backend_named
from psa.execution.cost_model import CostModel, WorkloadKey, memory_bytes, trial_bytes
from psa.execution.eta import EtaEstimator
from psa.execution.machine import Machine
from psa.experiments.grid import Grid, load_grid
from psa.experiments.planning import Plan, planned_for
from psa.experiments.promotion import StageStatus, stage_statuses
from psa.experiments.sweep import Sweep
from psa.specs.trial import Pack
from psa.storage.store import Store

_SIZES_SHOWN: Final = 8


def plan(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    runs: Annotated[ManagedSweepOptions | None, Parameter(name="*")] = None,
    pack_size: PackSize = None,
    device: Device = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Show the trials of a grid and their estimated cost; run nothing.

    Prints the number of finished trials, and the time, memory and disk space that the rest takes on this
    machine. With --backend it adds what that backend would run; for sagemaker the hours and dollars, which
    needs no account.

    Example: psa plan reproduction/smoke.toml --backend sagemaker
    """
    store, costs = Store(model_dir, results_dir), CostModel.of_machine(model_dir, device)
    declared, out, runs = load_grid(grid, overrides, only), console(), runs or ManagedSweepOptions()
    kind, workers = backend_named(runs.backend or "local", runs.where), runs.workers
    backend = (
        None if runs.backend is None else kind(store, Machine(Path("dataset"), device), costs, runs.where)
    )
    kinds: set[WorkloadKey] = set()
    for stage in has_begun(declared, store, out):
        planned = planned_for(stage.trials, stage.meta_loops, store, costs, device, workers, pack_size)
        trials, loops = pluralize(len(stage.trials), "trial"), pluralize(stage.meta_loops, "meta-loop")
        print_line(out, f"{declared.name}: {stage.title}{trials} of {loops}")
        out.print(_table(planned, store, costs), markup=False)
        if backend is not None and planned.packs:
            _print_estimate(backend, planned, out)
        say_damaged(out, planned.damaged)
        kinds |= {WorkloadKey.of(pack.trials[0]) for pack in planned.packs}
    for warning in declared.warnings:
        print_line(out, f"note: {warning}")
    unmeasured = sum(not costs.measured(kind) for kind in kinds)
    if unmeasured:
        print_line(out, _not_measured(unmeasured, len(kinds)))
    return 0


def _print_estimate(backend: Backend, planned: Plan, out: Console) -> None:
    """Print what a backend would run, without its requests. Raises UserError."""
    jobs = backend.plan(planned.packs)
    for line in backend.estimate(jobs) if isinstance(backend, PricedBackend) else backend.preview(jobs):
        print_line(out, line)


def has_begun(declared: Grid, store: Store, out: Console) -> Iterator[StageStatus]:
    """Yield the stages whose trials are known; print what each of the others waits for. Raises UserError."""
    store.check_folders()
    for stage in stage_statuses(declared, store):
        if stage.stage.points and stage.points is None:
            print_line(out, f"{declared.name}: {waiting(stage)}")
        elif stage.stage.points:
            yield stage


def _not_measured(count: int, total: int) -> str:
    subject = "The network" if total == 1 else f"{count:,} of {total:,} networks"
    they_are, their, them = ("is", "its", "it") if count == 1 else ("are", "their", "them")
    return (
        f"{subject} {they_are} not measured on this machine yet: {their} times are estimated from the "
        f"arithmetic. `psa sweep` measures {them} first."
    )


def _table(planned: Plan, store: Store, costs: CostModel) -> Table:
    table = Table(show_header=False)
    table.add_column("")
    table.add_column("", justify="right", overflow="fold")
    for row in _rows(planned, store, costs):
        table.add_row(*row)
    return table


def _rows(planned: Plan, store: Store, costs: CostModel) -> Iterator[tuple[str, str]]:
    yield "trials done", f"{planned.done:,}"
    if planned.damaged:
        yield "records damaged", f"{len(planned.damaged):,}"
    yield "trials pending", f"{len(planned.pending):,}"
    if not planned.packs:
        return
    workers = len(planned.places)
    where = f" on {pluralize(len(set(planned.places)), 'GPU')}" if planned.places[0] else ""
    time_left = EtaEstimator(costs, workers)
    time_left.plan(planned.packs, store)
    peak = sum(sorted((memory_bytes(pack.trials) for pack in planned.packs), reverse=True)[:workers])
    yield "packs", f"{len(planned.packs):,}: {_sizes(planned.packs)}"
    yield (
        "time left here",
        f"{format_duration(time_left.remaining())} with {pluralize(workers, 'worker')}{where}",
    )
    yield "peak memory", format_bytes(peak)
    disk = sum(trial_bytes(trial, planned.horizon) for trial in planned.pending)
    yield "on disk, all weights kept", format_bytes(disk)


def _sizes(packs: Sequence[Pack]) -> str:
    """Return the number of packs of each size: `66 of 60 trials, 26 of 30`."""
    counts = sorted(Counter(len(pack.trials) for pack in packs).items(), reverse=True)
    first, *others = [(f"{count:,} of", each) for each, count in counts]
    shown = [f"{first[0]} {pluralize(first[1], 'trial')}", *(f"{of} {each:,}" for of, each in others)]
    return ", ".join(shown[:_SIZES_SHOWN]) + (" and smaller" if len(shown) > _SIZES_SHOWN else "")


def previewed(sweep: Sweep, out: Console) -> int:
    """Print what would be launched for the stages that have been reached. Launch nothing."""
    options, backend = sweep.options, sweep.backend
    for stage in has_begun(sweep.declared, sweep.store, out):
        planned = planned_for(
            stage.trials,
            stage.meta_loops,
            sweep.store,
            sweep.costs,
            sweep.machine.device,
            options.where.workers,
            options.pack_size,
        )
        done = f"{planned.done:,} of {len(stage.trials):,} trials done"
        out.print(f"{sweep.declared.name}: {stage.title}{done}", markup=False)
        for line in backend.preview(backend.plan(planned.packs)) if planned.packs else ():
            print_line(out, line)
    return 0
