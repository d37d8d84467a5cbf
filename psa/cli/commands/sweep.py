"""`psa sweep`: train what is left of a declared grid, whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from psa.cli.commands.plan import previewed, say_damaged, waiting
from psa.cli.console import console
from psa.cli.options import DataDir, Device, GridFile, ModelDir, Only, Options, Override, ResultsDir, Runs
from psa.cli.sweep_view import Refresh, Refreshed, SweepView
from psa.core.files import check_writable
from psa.core.stop import StopRequest
from psa.execution.backend import Backend, backend_named
from psa.execution.cost_model import SIZES, CostModel, Kind
from psa.execution.eta import TimeLeft
from psa.execution.local import Local
from psa.execution.machine import Machine
from psa.execution.packing import enough, groups_of, packed
from psa.execution.worker.protocol import Event, failures_of
from psa.experiments.grid import Grid, load
from psa.experiments.planning import Plan, planned_for
from psa.experiments.promotion import Entered, entered
from psa.experiments.tracking.trackers import Audience, listeners_for
from psa.specs.trial import Pack, Trial
from psa.storage import locks
from psa.storage.retention import KeepWeights, drop_weights
from psa.storage.store import Store
from psa.storage.sweep_registry import Tell, announced

FIRST_WAIT_SECONDS: Final = 1.0  # for others' trials, before they are looked at again; then twice as long
LONGEST_WAIT_SECONDS: Final = 30.0


def sweep(
    grid: GridFile,
    *overrides: Override,
    only: Only = "",
    runs: Annotated[Runs | None, Parameter(name="*")] = None,
    options: Annotated[Options | None, Parameter(name="*")] = None,
    device: Device = None,
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Train all trials of a grid that are not done yet.

    Run it again to go on after any interruption. Finished trials are never trained again, failed ones are
    tried again, a longer horizon (meta_loops=200) continues all. Exit code 0: complete, also where trials
    diverged; 1: trials failed; 130: stopped by Ctrl-C; 143: stopped by SIGTERM.

    Example: psa sweep reproduction/smoke.toml meta_loops=1
    """
    store, machine = Store(model_dir, results_dir), Machine(data_dir, device)
    declared, runs, options = load(grid, overrides, only), runs or Runs(), options or Options()
    return swept(declared, store, machine, runs, options, console(lasting=True), StopRequest())


def swept(
    declared: Grid,
    store: Store,
    machine: Machine,
    runs: Runs,
    options: Options,
    out: Console,
    stop: StopRequest,
) -> int:
    """Train what is left of a grid; the exit code of `psa sweep`. Raises UserError."""
    check_writable(store.results)
    check_writable(store.models)
    store.warn_of_strays(sorted({trial.study for trial in declared.trials}))
    costs = CostModel.of_machine(store.models, machine.device)
    backend = backend_named(runs.backend or "local", runs.where)(store, machine, costs, runs.where)
    audience = Audience(listeners_for(declared.name, options.tensorboard, options.mlflow), store)
    if options.dry_run:
        return previewed(declared, store, costs, machine, backend, runs, options, out)
    locks.check(store)
    with stop, announced(store.models) as tell:
        backend.fetch()
        work = _Work(
            declared.name, store, costs, machine, backend, runs.workers, options, out, stop, tell, audience
        )
        for stage in entered(declared, store):
            if not work.ends() and stage.points is not None:
                work.train(stage)
    if stop():
        out.print(f"Stopped; {backend.stopped} The same command goes on from there.", soft_wrap=True)
        return stop.exit_code
    if work.detached:
        out.print(work.detached, markup=False, soft_wrap=True)
        return 0
    stages = [stage for stage in entered(declared, store) if stage.stage.points]
    complete = [_concluded(stage, work) for stage in stages]
    _drop(stages, store, options.keep_weights)
    return 0 if all(complete) else 1


def _concluded(stage: Entered, work: _Work) -> bool:
    """Say how far a stage is; whether it is complete."""
    if stage.points is None:
        work.out.print(waiting(stage), markup=False, soft_wrap=True)
        return False
    survey = work.store.survey(stage.trials, stage.meta_loops)
    say_damaged(work.out, survey.damaged)
    failed = sum(trial.id in work.failed for trial in survey.pending)
    work.out.print(f"{stage.title}{survey.counts}, {failed:,} failed", markup=False)
    return not survey.pending and not survey.damaged


def _drop(stages: Sequence[Entered], store: Store, keep: KeepWeights) -> None:
    """Drop the weights that are not to be kept: of trials that are done in every stage they have reached,
    and of none while it is open who goes on.
    """
    if keep == "all" or any(stage.points is None for stage in stages):
        return
    surveys = [store.survey(stage.trials, stage.meta_loops) for stage in stages]
    open_still = {trial.id for survey in surveys for trial in survey.pending}
    done = {trial.id: trial for survey in surveys for trial in survey.done if trial.id not in open_still}
    drop_weights(store, list(done.values()), keep)


@dataclass
class _Work:
    """What all that is trained in one sweep shares. `failed`: ids of trials that are not tried again."""

    name: str
    store: Store
    costs: CostModel
    machine: Machine
    backend: Backend
    workers: int | None
    options: Options
    out: Console
    stop: StopRequest
    tell: Tell
    audience: Audience
    failed: set[str] = field(default_factory=set)
    detached: str = ""  # what there is to say of what goes on without this sweep
    keep: KeepWeights = "all"

    def train(self, stage: Entered) -> None:
        """Train the trials of a stage, until none is left to be done but those that failed.

        Ends early when a stop is asked for, or at a failure where that is wanted.
        """
        # those who go on to a later stage need their weights there
        self.keep = self.options.keep_weights if stage.last else "all"
        planned = self._planned(stage)
        time_left = TimeLeft(self.costs, len(planned.places))
        view = SweepView(self.out, stage.title + self.name, len(stage.trials), time_left, self.tell)
        view.done = planned.done
        self.audience.tell(stage.trials, stage.meta_loops)
        with Refreshed(view) as refresh:
            if planned.packs and not self.options.pack_size and isinstance(self.backend, Local):
                self._calibrate(self.backend, planned, view, refresh)
                planned = self._planned(stage)
            self._rounds(planned, view, refresh)

    def _planned(self, stage: Entered) -> Plan:
        return planned_for(
            stage.trials,
            stage.meta_loops,
            self.store,
            self.costs,
            self.machine.device,
            self.workers,
            self.options.pack_size,
        )

    def _calibrate(self, backend: Local, planned: Plan, view: SweepView, refresh: Refresh) -> None:
        """Measure the kinds of network that this machine has not seen yet, once."""
        unknown: dict[Kind, Pack] = {}
        for group in groups_of(planned.pending):
            kind = Kind.of(group[0])
            if not self.costs.measured(kind) and kind not in unknown:
                unknown[kind] = Pack(trials=enough(group, max(SIZES)), horizon=planned.horizon)
        if not unknown:
            return
        view.measures(len(unknown))
        with contextlib.closing(backend.calibrate(list(unknown.values()))) as lefts:
            for left in lefts:
                view.measures(left)
                refresh()
                if self.stop():
                    return

    def _rounds(self, planned: Plan, view: SweepView, refresh: Refresh) -> None:
        """Train what is free, again and again.

        What another sweep, or a worker that outlived its own, is at work on comes round until it is done or
        free. Meanwhile no worker is started.
        """
        pending, wait = planned.pending, FIRST_WAIT_SECONDS
        while not self.ends():
            pending = self.store.survey(pending, planned.horizon).pending
            left = [trial for trial in pending if trial.id not in self.failed]
            if not left:
                return
            view.done = planned.done + len(planned.pending) - len(pending)
            before = view.done, len(self.failed)
            free = locks.free(self.store, left)
            if free:
                self._round(free, planned, view, refresh)
            if self.ends():
                return
            if before != (view.done, len(self.failed)):
                wait = FIRST_WAIT_SECONDS
                continue
            self._wait(wait, len(left), view, refresh)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _round(self, free: Sequence[Trial], planned: Plan, view: SweepView, refresh: Refresh) -> None:
        packs = packed(groups_of(free), planned.horizon, self.costs, self.options.pack_size)
        jobs = self.backend.plan(packs)
        view.time_left.planned([job.pack for job in jobs], self.store)
        view.trains()
        with contextlib.closing(self.backend.launch(jobs)) as events:
            for event in events:
                view.heard(event)
                refresh()
                self.failed |= failures_of(event).keys()
                if event.kind == "detached":
                    self.detached = event.facts["said"]
                _booked(self.store, event, self.keep)
                if event.kind == "done":
                    self.audience.tell(event.pack.trials, event.pack.horizon)
                if self.ends():
                    return

    def ends(self) -> bool:
        """Whether nothing more is to be trained here: a stop was asked for, a failure ends it, or the rest
        goes on without this sweep.
        """
        return self.stop() or bool(self.detached) or (self.options.fail_fast and bool(self.failed))

    def _wait(self, seconds: float, trials: int, view: SweepView, refresh: Refresh) -> None:
        until = time.monotonic() + seconds
        while not self.stop() and (rest := until - time.monotonic()) > 0:
            view.waits(trials)
            refresh()
            self.stop.wait(min(1.0, rest))


def _booked(store: Store, event: Event, keep: KeepWeights) -> None:
    """What a finished or failed pack leaves to be done."""
    errors = failures_of(event)
    failed = [trial for trial in event.pack.trials if trial.id in errors]
    # a worker that died over one trial may have stored the records of others: those are done, not failed
    for trial in store.survey(failed, event.pack.horizon).pending:
        store.write_failure(trial, errors[trial.id])
    if event.kind == "done" and keep == "none":
        drop_weights(store, store.survey(event.pack.trials, event.pack.horizon).done, keep)
