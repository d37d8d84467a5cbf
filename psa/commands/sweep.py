"""`psa plan`, `psa sweep`, `psa status`: what a declared grid would cost, running it, how far it is."""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from psa.backend import Event, Local
from psa.commands.options import Count, DataDir, ModelDir, ResultsDir
from psa.console import console
from psa.cost import SIZES, CostModel, Kind, memory_bytes, stored_bytes
from psa.files import check_writable
from psa.grid import Grid, load
from psa.machine import DeviceName, Machine
from psa.packs import enough, groups_of, packed
from psa.progress import Refreshed, SweepView, duration, failures_of, running_sweep
from psa.retention import KeepWeights, drop_weights
from psa.signals import StopRequest
from psa.store import Store
from psa.trial import Pack, Trial

GridFile = Annotated[Path, Parameter(help="A declared experiment, e.g. reproduction/smoke.toml.")]
Override = Annotated[str, Parameter(help="Settings that override the file's: lr=1e-3 seeds=0..4")]
Only = Annotated[str, Parameter(help="A part of the grid: 'arch=1*16 mode=hidden,none seed=0'.")]
Workers = Annotated[Count, Parameter(help="Processes of one thread [default: one per core].")]
EXIT_STOPPED: Final = 130
WAIT_SECONDS: Final = 3.0  # for another sweep's trials, before they are asked for again
SHOWN: Final = 20
PackSize = Annotated[Count, Parameter(help="Trials per pack [default: the fastest, by measurement].")]


@dataclass(frozen=True)
class Plan:
    """What is to be done for a grid, on this machine."""

    grid: Grid
    pending: list[Trial]
    packs: list[Pack]
    seconds: float
    damaged: dict[str, str]


def plan(
    grid: GridFile,
    *overrides: Override,
    only: Only = "",
    workers: Workers = None,
    pack_size: PackSize = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Show what a grid holds, what of it is done, and what the rest takes on this machine. Runs nothing.

    Example: psa plan reproduction/smoke.toml lr=1e-3
    """
    store = Store(model_dir, results_dir)
    declared = load(grid, overrides, only)
    costs = CostModel.of_machine(model_dir)
    count = workers or os.cpu_count() or 1
    planned = _planned(declared, store, costs, count, pack_size)
    out = console()
    out.print(_plan_table(planned, count), markup=False)
    _say_damaged(out, planned.damaged)
    unmeasured = {
        Kind.of(pack.trials[0]) for pack in planned.packs if not costs.measured(Kind.of(pack.trials[0]))
    }
    if unmeasured:
        out.print(
            f"{len(unmeasured)} of the networks are not measured on this machine yet: their times are "
            "estimates from the arithmetic. `psa sweep` measures them first.",
            markup=False,
            soft_wrap=True,
        )
    return 0


def sweep(
    grid: GridFile,
    *overrides: Override,
    only: Only = "",
    workers: Workers = None,
    pack_size: PackSize = None,
    keep_weights: Annotated[
        KeepWeights, Parameter(help="Of finished trials: all, the best seed per arch and mode, or none.")
    ] = "all",
    fail_fast: Annotated[bool, Parameter(negative="", help="Stop at the first pack that fails.")] = False,
    device: Annotated[DeviceName | None, Parameter(help="[default: the best one found]")] = None,
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Train every trial of a grid that is not done yet; run it again to go on after any interruption.

    Finished trials are never trained again, failed ones are tried again, a longer horizon
    (meta_loops=200) continues all. Exit code 0: complete; 1: packs failed; 130: stopped.

    Example: psa sweep reproduction/smoke.toml meta_loops=1
    """
    declared = load(grid, overrides, only)
    check_writable(results_dir)
    check_writable(model_dir)
    store = Store(model_dir, results_dir)
    costs = CostModel.of_machine(model_dir, device)
    backend = Local(store, Machine(data_dir, device), costs, workers or os.cpu_count() or 1)
    out = console()
    pending = store.survey(declared.trials, declared.meta_loops).pending
    if pending and not pack_size:
        _calibrate(backend, pending, declared.meta_loops, out)
    planned = _planned(declared, store, costs, backend.workers, pack_size)
    view = SweepView(
        out,
        declared.name,
        len(declared.trials),
        planned.packs,
        len(planned.pending),
        planned.seconds,
        store,
    )
    try:
        with StopRequest() as stop, Refreshed(view) as refresh:
            for event in _events(backend, planned, pack_size, stop):
                view.heard(event)
                refresh()
                _booked(store, event, keep_weights)
                if fail_fast and failures_of(event):
                    break
    finally:
        view.close()
    if stop():
        out.print("Stopped; workers have saved what they had. The same command goes on from there.")
        return EXIT_STOPPED
    drop_weights(store, declared.trials, declared.meta_loops, keep_weights)
    survey = store.survey(declared.trials, declared.meta_loops)
    _say_damaged(out, survey.damaged)
    out.print(f"{len(survey.done):,} of {view.total:,} trials done, {view.failures:,} failed", markup=False)
    return 1 if survey.pending or survey.damaged else 0


def _events(backend: Local, planned: Plan, pack_size: int | None, stop: StopRequest) -> Iterator[Event]:
    """Everything that happens until no trial is left to be done but those that failed.

    Trials that another sweep, or a worker that outlived its own, is at work on come round again until they
    are done or free.
    """
    failed: set[str] = set()
    store, horizon, packs = backend.store, planned.grid.meta_loops, planned.packs
    while packs and not stop():
        trained = 0
        with contextlib.closing(backend.launch(backend.plan(packs))) as events:
            for event in events:
                failed |= failures_of(event).keys()
                if event.kind == "done":
                    trained += event.facts["trained"]
                yield event
                if stop():
                    return
        left = [trial for trial in planned.pending if trial.id not in failed]
        left = store.survey(left, horizon).pending
        packs = packed(groups_of(left), horizon, backend.costs, pack_size)
        if packs and not trained:
            time.sleep(WAIT_SECONDS)


def _booked(store: Store, event: Event, keep: KeepWeights) -> None:
    """What a finished or failed pack leaves to be done."""
    errors = failures_of(event)
    failed = [trial for trial in event.pack.trials if trial.id in errors]
    # a worker that died over one trial may have stored the records of others: those are done, not failed
    for trial in store.survey(failed, event.pack.horizon).pending:
        store.write_failure(trial, errors[trial.id])
    if event.kind == "done" and keep == "none":
        drop_weights(store, event.pack.trials, event.pack.horizon, keep)


def status(
    grid: GridFile,
    *overrides: Override,
    only: Only = "",
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Show how far a grid is, also while a sweep is at work in another terminal.

    Example: psa status reproduction/smoke.toml
    """
    declared = load(grid, overrides, only)
    store = Store(model_dir, results_dir)
    out = console()
    survey = store.survey(declared.trials, declared.meta_loops)
    failed = [trial for trial in survey.pending if store.failure(trial) is not None]
    out.print(f"{declared.name}: {len(survey.done):,} of {len(declared.trials):,} trials done", markup=False)
    _say_damaged(out, survey.damaged)
    for path in sorted((model_dir / ".sweeps").glob("*.json")):
        running = running_sweep(path)
        if running is not None:
            out.print(running, markup=False, soft_wrap=True)
    for trial in failed[:SHOWN]:
        out.print(f"failed {trial.id}: {store.failure(trial)}", markup=False, soft_wrap=True)
    if len(failed) > SHOWN:
        out.print(f"and {len(failed) - SHOWN:,} more failed")
    return 0


def _say_damaged(out: Console, damaged: Mapping[str, str]) -> None:
    for reason in list(damaged.values())[:SHOWN]:
        out.print(reason, markup=False, soft_wrap=True)
    if len(damaged) > SHOWN:
        out.print(f"and {len(damaged) - SHOWN:,} more damaged records: see `psa verify`", markup=False)


def _planned(declared: Grid, store: Store, costs: CostModel, workers: int, pack_size: int | None) -> Plan:
    survey = store.survey(declared.trials, declared.meta_loops)
    packs = packed(groups_of(survey.pending), declared.meta_loops, costs, pack_size)
    seconds = [declared.meta_loops * costs.loop_seconds(pack.trials) for pack in packs]
    # the last pack cannot be shared: no schedule ends before the longest one
    total = max([sum(seconds) / workers, *seconds[:1]], default=0.0)
    return Plan(declared, survey.pending, packs, total, survey.damaged)


def _plan_table(planned: Plan, workers: int) -> Table:
    grid, packs = planned.grid, planned.packs
    table = Table(
        title=f"{grid.name}: {len(grid.trials):,} trials of {grid.meta_loops:,} meta-loops",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("", justify="right")
    sizes = Counter(len(pack.trials) for pack in packs)
    shown = ", ".join(f"{count:,} of {size}" for size, count in sorted(sizes.items(), reverse=True)[:6])
    peak = sum(sorted((memory_bytes(pack.trials) for pack in packs), reverse=True)[:workers])
    disk = sum(stored_bytes(trial, grid.meta_loops) for trial in planned.pending)
    for name, value in (
        ("trials done", f"{len(grid.trials) - len(planned.pending) - len(planned.damaged):,}"),
        ("trials pending", f"{len(planned.pending):,}"),
        ("packs", f"{len(packs):,}" + (f" ({shown})" if shown else "")),
        ("time left here", f"{duration(planned.seconds)} on {workers} worker{'s' * (workers > 1)}"),
        ("peak memory", f"{peak / 1e9:.1f} GB"),
        ("on disk, all weights kept", f"{disk / 1e9:.2f} GB"),
    ):
        table.add_row(name, value)
    return table


def _calibrate(backend: Local, pending: Sequence[Trial], horizon: int, out: Console) -> None:
    """Measure the kinds of network that this machine has not seen yet, once."""
    unknown: dict[Kind, Pack] = {}
    for group in groups_of(pending):
        kind = Kind.of(group[0])
        if not backend.costs.measured(kind) and kind not in unknown:
            unknown[kind] = Pack(trials=enough(group, max(SIZES)), horizon=horizon)
    if not unknown:
        return
    with out.status(f"measuring {len(unknown)} networks on this machine") as shown:
        backend.calibrate(
            list(unknown.values()),
            lambda left: shown.update(f"measuring {left} more networks on this machine"),
        )
