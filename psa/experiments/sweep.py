"""The sweep: train the remaining trials of a grid stage by stage, across failures and interruptions."""

from __future__ import annotations

import contextlib
import inspect
import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, Self

from psa.core.files import check_writable
from psa.core.formatting import pluralize
from psa.core.stop import StopRequest
from psa.data.own import keep_tables
from psa.execution.backend import Backend, BackendOptions, Job, RemoteBackend, backend_named
from psa.execution.cost_model import SIZES, CostModel, WorkloadKey
from psa.execution.eta import EtaEstimator
from psa.execution.local import LocalBackend
from psa.execution.machine import Machine
from psa.execution.packing import enough, groups_of, packed
from psa.execution.worker.protocol import WorkerEvent, failures_of, store_failures
from psa.experiments.grid import Grid
from psa.experiments.planning import Plan, PlanOptions, planned_for, take_equal_results
from psa.experiments.promotion import StageStatus, delete_weights, stage_statuses
from psa.experiments.sweep_progress import RefreshCallback, StageProgress, SweepProgress
from psa.experiments.tracking.base import Tracker
from psa.experiments.tracking.notification import notified, parse_notify
from psa.experiments.tracking.trackers import TrackerGroup, TrackerOptions, plugin_trackers, trackers_for
from psa.specs.trial import Pack, Trial
from psa.storage import locks
from psa.storage.plugin_versions import check_versions
from psa.storage.retention import KeepWeights, delete_checkpoints
from psa.storage.store import Store
from psa.storage.sweep_registry import Describe, register_sweep

FIRST_WAIT_SECONDS: Final = 1.0  # before trials of other processes are checked again; then twice as long
LONGEST_WAIT_SECONDS: Final = 30.0


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """The options of a sweep. pack_size: trials per pack, None for the fastest by measurement.
    trackers: further ones than those that the options name.
    """

    backend: str = "local"
    backend_options: BackendOptions = field(default_factory=BackendOptions)
    pack_size: int | None = None
    keep_weights: KeepWeights = "all"
    fail_fast: bool = False
    targets: TrackerOptions = field(default_factory=TrackerOptions)
    trackers: tuple[str | Tracker, ...] = ()
    notify: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep that is ready to start: its grid, and the backend that trains it."""

    declared: Grid
    store: Store
    machine: Machine
    options: SweepOptions
    costs: CostModel
    backend: Backend

    @classmethod
    def prepared(cls, declared: Grid, store: Store, machine: Machine, options: SweepOptions) -> Self:
        """Check what can be checked before anything is trained. Raises UserError."""
        kind = backend_named(options.backend, options.backend_options)  # before any folder is made
        check_writable(store.results)
        check_writable(store.models)
        store.warn_of_strays(sorted({trial.study for trial in declared.trials}))
        check_versions(declared.trials, store)
        costs = CostModel.of_machine(store.models, machine.device)
        backend = kind(store, machine, costs, options.backend_options)
        if options.notify is not None:
            parse_notify(options.notify)
        return cls(declared, store, machine, options, costs, backend)

    @cached_property
    def trackers(self) -> TrackerGroup:
        """The trackers of the options, opened at the first use: a dry run opens none. Raises UserError."""
        label, given = self.declared.label, self.options.trackers
        own = [each for each in given if not isinstance(each, str)]
        names = tuple(each for each in given if isinstance(each, str))
        named = [*trackers_for(label, self.options.targets, self.store), *plugin_trackers(label, names)]
        return TrackerGroup([*named, *own], self.store)

    @property
    def is_local(self) -> bool:
        """True if the workers are processes of this machine."""
        return isinstance(self.backend, LocalBackend)

    def planned(self, stage: StageStatus) -> Plan:
        """Return the plan for what is left of a stage."""
        workers = self.options.backend_options.workers
        options = PlanOptions(self.machine.device, workers, self.options.pack_size, not self.is_local)
        return planned_for(stage.trials, stage.meta_loops, self.store, self.costs, options)

    def run(self, progress: SweepProgress, stop: StopRequest) -> int:
        """Train what is left of the grid; return the exit code of `psa sweep`. Raises UserError.

        At the end, whatever it is, trackers are closed and the command of `--notify` is run.
        """
        with contextlib.closing(self.trackers), notified(self.options.notify, self.declared.label) as end:
            end.exit_code = self._train(progress, stop, lambda line: progress.say(end.add(line)))
        return end.exit_code

    def _train(self, progress: SweepProgress, stop: StopRequest, say: Callable[[str], None]) -> int:
        locks.check_lockable(self.store)
        keep_tables(self.declared.trials, self.machine.data_dir)
        with stop, register_sweep(self.store.models) as report_status:
            self.backend.fetch()
            work = _SweepRunner(self, progress, stop, report_status)
            for stage in stage_statuses(self.declared, self.store):
                if not work.ends() and stage.points is not None:
                    work.train(stage)
        if stop():
            say(f"Stopped; {self.backend.stopped} Run the same command again to resume.")
            return stop.exit_code
        if work.detached:
            say(work.detached)
            return 0
        stages = [stage for stage in stage_statuses(self.declared, self.store) if stage.stage.points]
        complete = [_concluded(stage, work, say) for stage in stages]
        delete_weights(stages, self.store, self.options.keep_weights)
        return 0 if all(complete) else 1


def _concluded(stage: StageStatus, work: _SweepRunner, say: Callable[[str], None]) -> bool:
    """Show the progress of a stage. Return True if it is complete, or waits for trials outside of --only."""
    if stage.points is None:
        work.progress.waiting(stage)
        return bool(stage.left_out)
    survey = work.sweep.store.progress(stage.trials, stage.meta_loops)
    work.progress.damaged(survey.damaged)
    failed = sum(trial.id in work.failed for trial in survey.pending)
    say(f"{stage.title}{survey.counts}, {failed:,} failed")
    return not survey.pending and not survey.damaged


@dataclass
class _SweepRunner:
    """The state shared by the stages of one sweep. `failed`: ids of trials that are not tried again."""

    sweep: Sweep
    progress: SweepProgress
    stop: StopRequest
    report_status: Describe
    failed: set[str] = field(default_factory=set)
    detached: str = ""  # the message about jobs that continue without this process
    keep: KeepWeights = "all"

    def train(self, stage: StageStatus) -> None:
        """Train the trials of a stage until only failed ones are left.

        Ends early at a stop request, or at a failure with `fail_fast`.
        """
        # promoted trials need their weights in a later stage
        self.keep = self.sweep.options.keep_weights if stage.last else "all"
        self._take_results(stage)
        planned = self.sweep.planned(stage)
        time_left = EtaEstimator(self.sweep.costs, len(planned.places))
        self.sweep.trackers.log_finished(stage.trials, stage.meta_loops)
        name = stage.title + self.sweep.declared.heading
        with self.progress.stage(name, len(stage.trials), time_left, self.report_status) as (view, refresh):
            view.done = planned.done
            backend = self.sweep.backend
            if planned.packs and not self.sweep.options.pack_size and isinstance(backend, LocalBackend):
                time_left.plan(planned.packs, self.sweep.store)  # shown while networks are measured
                self._calibrate(backend, planned, view, refresh)
                planned = self.sweep.planned(stage)
            self._rounds(planned, view, refresh)

    def _take_results(self, stage: StageStatus) -> None:
        """Take the results of finished trials with equal training, where no weights would be stored."""
        if self.keep == "none":
            taken = take_equal_results(stage.trials, stage.meta_loops, self.sweep.store)
            if taken:
                count = pluralize(taken, "result")
                self.progress.say(f"{stage.title}{count} copied from trials with equal training")

    def _calibrate(
        self, backend: LocalBackend, planned: Plan, view: StageProgress, refresh: RefreshCallback
    ) -> None:
        """Measure the step times of networks that this machine has not measured yet."""
        unknown: dict[WorkloadKey, Pack] = {}
        for group in groups_of(planned.pending):
            kind = WorkloadKey.of(group[0])
            if not self.sweep.costs.measured(kind) and kind not in unknown:
                unknown[kind] = Pack(trials=enough(group, max(SIZES)), horizon=planned.horizon)
        if not unknown:
            return
        view.show_measuring(len(unknown))
        with contextlib.closing(backend.calibrate(list(unknown.values()))) as lefts:
            for left in lefts:
                view.show_measuring(left)
                refresh()
                if self.stop():
                    return

    def _rounds(self, planned: Plan, view: StageProgress, refresh: RefreshCallback) -> None:
        """Train the trials that no other process holds, round after round.

        Trials held by another sweep, or by a worker that outlived its own, are checked again until they are
        done or free. No worker is started for them meanwhile.
        """
        pending, wait = planned.pending, FIRST_WAIT_SECONDS
        while not self.ends():
            pending = self.sweep.store.progress(pending, planned.horizon).pending
            left = [trial for trial in pending if trial.id not in self.failed]
            if not left:
                return
            view.done = planned.done + len(planned.pending) - len(pending)
            before = view.done, len(self.failed)
            free = locks.unlocked_trials(self.sweep.store, left)
            if free:
                self._round(free, planned, view, refresh)
            if self.ends():
                return
            if before != (view.done, len(self.failed)):
                wait = FIRST_WAIT_SECONDS
                continue
            self._wait(wait, len(left), view, refresh)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _round(
        self, free: Sequence[Trial], planned: Plan, view: StageProgress, refresh: RefreshCallback
    ) -> None:
        size = self.sweep.options.pack_size
        packs = packed(groups_of(free), planned.horizon, self.sweep.costs, size, planned.workers)
        jobs = self.sweep.backend.plan(packs)
        view.time_left.plan([job.pack for job in jobs], self.sweep.store)
        view.time_left.launch(self.sweep.costs.startup_seconds)
        view.show_training()
        with self._launched(jobs) as events:
            for event in events:
                starting = view.time_left.startup_taken is None
                view.handle_event(event)
                refresh()
                taken = view.time_left.startup_taken
                if starting and taken is not None and self.sweep.is_local:
                    self.sweep.costs.update_startup(taken)  # for the next estimate
                self.failed |= failures_of(event).keys()
                if event.kind == "detached":
                    self.detached = event.facts["message"]
                _booked(self.sweep.store, event, self.keep)
                self.sweep.trackers.log_event(event)
                if self.ends():
                    return

    @contextlib.contextmanager
    def _launched(self, jobs: Sequence[Job]) -> Iterator[Generator[WorkerEvent, None, None]]:
        """Launch jobs, and stop them at the end of the block.

        Jobs of a remote backend continue after an error of this process and after all signals but Ctrl-C,
        which may be a dropped connection or the reboot of a login node.
        """
        backend = self.sweep.backend
        remote = backend if isinstance(backend, RemoteBackend) else None
        with contextlib.closing(backend.launch(jobs)) as events:
            try:
                yield events
                if remote and self.stop.signal not in (None, signal.SIGINT):
                    remote.leave_running()
            except Exception:
                if remote and inspect.getgeneratorstate(events) == inspect.GEN_SUSPENDED:
                    remote.leave_running()
                    events.close()
                    self.progress.say(f"An error ends this sweep; {backend.stopped}")
                raise

    def ends(self) -> bool:
        """Return True if nothing more is to be trained here: a stop was requested, a failure ends the sweep,
        or the remaining jobs continue without this process.
        """
        return self.stop() or bool(self.detached) or (self.sweep.options.fail_fast and bool(self.failed))

    def _wait(self, seconds: float, trials: int, view: StageProgress, refresh: RefreshCallback) -> None:
        until = time.monotonic() + seconds
        while not self.stop() and (rest := until - time.monotonic()) > 0:
            view.show_waiting(trials)
            refresh()
            self.stop.wait(min(1.0, rest))


def _booked(store: Store, event: WorkerEvent, keep: KeepWeights) -> None:
    """Store the failures of a pack that has ended, and delete its checkpoints if none are kept."""
    store_failures(store, event)
    if event.kind == "done" and keep == "none":
        delete_checkpoints(store, store.progress(event.pack.trials, event.pack.horizon).done, keep)
