"""The one epoch loop: perturb a copy of the LKG, train it, evaluate it, keep it where it is better.

The engine is handed its pieces (network, data, policy, probes, callbacks) and imports none of the
studies. It trains any number of trials as one tensor; they may differ in mode, seed, rates and in the
loop they have reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from psa.data.splits import Splits
from psa.engine.batches import Batches, batch_order, row_of
from psa.engine.deduplication import find_equal_rows, gather_rows
from psa.engine.device_pack import DevicePack, EpochBuffers, TrainingRun
from psa.engine.policies import Policy
from psa.engine.probing import Entry, EpochObserver, KeepArrays, ObserverGroup, Probe, ProbeRunner
from psa.engine.save_interval import SaveInterval
from psa.engine.scoring import evaluate_lkgs, score_untrained
from psa.engine.train_step import EVALUATION_BATCH, batch_sizes, evaluate, padded, train_epoch
from psa.interventions.ablation import Unit
from psa.interventions.memory.hook import MemorySite
from psa.interventions.selection import units_text
from psa.nn.dense import Dense
from psa.storage.records.divergence import training_diverged
from psa.storage.trial_state import HISTORY_COLUMNS, Observation, TrialState


@dataclass(frozen=True)
class LoopReport:
    """One finished loop of one trial, as callbacks receive it. Counts are of `total` validation samples.

    kept: it is the best so far. accepted: it became the LKG, as all kept ones do. copied: the epoch of
    another trial was the same to the bit, and was trained for both.
    """

    state: TrialState
    correct: int
    total: int
    kept: bool
    units: tuple[Unit, ...]
    loss: float
    train_loss: float
    copied: bool = False
    accepted: bool = False

    @property
    def unit(self) -> Unit | None:
        """The ablated unit, the first of several; None if there is none."""
        return next(iter(self.units), None)

    @property
    def diverged(self) -> bool:
        """Return True for a loop with a loss, a logit or a weight that is not finite."""
        return not (math.isfinite(self.loss) and math.isfinite(self.train_loss))

    @property
    def score(self) -> float:
        """Return the present validation accuracy of the LKG, as a share; 0 for a trial that has diverged."""
        state = self.state
        lost = training_diverged(state.trial.method, state.history, state.lkg_loop)
        return 0.0 if lost else state.best_correct / self.total


class TestResult(NamedTuple):
    """The test of a finished trial, the last observation of each probe (by name), and the files kept."""

    correct: int
    loss: float
    probes: dict[str, Observation]
    files: dict[str, Entry]


def run_loops(  # noqa: PLR0913  # it is handed its pieces, one by one
    net: Dense,
    splits: Splits,
    states: Sequence[TrialState],
    horizon: int,
    policy: Policy,
    *,
    device: torch.device,
    save: Callable[[Sequence[TrialState]], None],
    listen: Callable[[Sequence[LoopReport]], None] = lambda reports: None,
    stop: Callable[[], bool] = lambda: False,
    save_interval: SaveInterval | None = None,
    probes: Sequence[Probe] = (),
    keep: KeepArrays | None = None,
) -> list[TestResult]:
    """Train every state up to `horizon`. Return test counts and mean test losses of the final LKGs, in order.

    States share data, shape and batch size; they are updated in place and saved at the engine's interval.
    `keep` stores the arrays of probes that have any. Raises Interrupted when `stop` returns True, after
    saving every finished loop.
    """
    training_run = TrainingRun(net, states, device, save, save_interval or SaveInterval())
    observing = ProbeRunner(splits, probes, keep)
    for pack in training_run.packs:
        observing.on_start(pack)
    try:
        while waiting := [state for state in states if not state.finished(horizon)]:
            training_run.grow([(state, policy.growth_due(state, len(splits.val))) for state in waiting])
            for pack in training_run.packs:
                if rows := _next_rows(pack.states, horizon):
                    epoch = _train_one(pack, rows, splits, policy, stop, observing)
                    with training_run.end_of_loop():
                        _take_over(pack, epoch, splits, policy, observing)
                    listen(epoch.reports)
                    del epoch  # its memory is needed for the next
                    training_run.store_when_due()
    finally:
        training_run.store()
    tested = {
        id(state): found for pack in training_run.packs for state, found in _test(pack, splits, observing)
    }
    return [tested[id(state)] for state in states]


def _next_rows(states: Sequence[TrialState], horizon: int) -> list[int]:
    """Return the rows of the trials that train next, in an order in which they share batches."""
    waiting = [row for row, state in enumerate(states) if not state.finished(horizon)]
    return [waiting[at] for at in batch_order([row_of(states[row]) for row in waiting])]


@dataclass(frozen=True)
class _TrainedEpoch:
    """A trained and evaluated epoch of some rows of a pack, of which their states know nothing yet."""

    rows: list[int]
    buffers: EpochBuffers
    reports: list[LoopReport]
    observers: dict[str, EpochObserver]
    memory_site: MemorySite | None


def _train_one(
    pack: DevicePack,
    rows: list[int],
    splits: Splits,
    policy: Policy,
    stop: Callable[[], bool],
    observing: ProbeRunner,
) -> _TrainedEpoch:
    """Train an epoch of some rows, those that are equal to the bit once, and let the policy judge it."""
    states = [pack.states[row] for row in rows]
    batch_size = states[0].trial.method.batch_size
    batches = batch_sizes(len(splits.train), batch_size) | batch_sizes(len(splits.val), EVALUATION_BATCH)
    settings = [row_of(state) for state in states]
    epoch = policy.begin_epoch(pack, rows, settings)
    units = epoch.units
    watched = pack.memory_site is not None or observing.follows
    first_equal = list(range(len(rows))) if watched else find_equal_rows(epoch, settings)
    distinct = sorted(set(first_equal))
    # A lone trial may need a twin beside it to get the bits it has in a pack; the twin is forgotten.
    chosen = distinct * 2 if padded(pack.net, len(distinct), batches) else distinct
    if len(chosen) != len(rows):
        del epoch  # its memory is needed for the next
        settings = [settings[at] for at in chosen]
        epoch = policy.begin_epoch(pack, [rows[at] for at in chosen], settings)
    shuffled = Batches(settings, splits.train, batch_size)
    loops = [row.loop for row in settings]
    following = observing.epoch_observers(pack.net, shuffled, loops[: len(distinct)])
    memory_site = pack.memories([rows[at] for at in chosen], loops)
    train_loss = train_epoch(
        pack.net,
        settings,
        epoch.active,
        epoch.gradients,
        epoch.optimizer,
        shuffled,
        stop,
        ObserverGroup(list(following.values())) if following else None,
        memory_site,
    )
    correct, loss = evaluate(pack.net, epoch.active, splits.val, loops, memory_site)
    # a saturated unit may hide an infinite weight from every logit
    loss = loss.where(epoch.active.finite(), math.nan)
    place = {row: at for at, row in enumerate(distinct)}
    places = [place[first] for first in first_equal]
    epoch = gather_rows(epoch, places)
    scores = zip(*(each[places].tolist() for each in (correct, loss, train_loss)), strict=True)
    reports = [
        _reported(
            policy, LoopReport(state, count, len(splits.val), False, some, of_val, of_train, first != at)
        )
        for at, (state, some, first, (count, of_val, of_train)) in enumerate(
            zip(states, units, first_equal, scores, strict=True)
        )
    ]
    return _TrainedEpoch(rows, epoch, reports, following, memory_site)


def _take_over(
    pack: DevicePack, trained: _TrainedEpoch, splits: Splits, policy: Policy, observing: ProbeRunner
) -> None:
    """Take an epoch over into the states of its trials: weights, histories, and what probes observe."""
    rows, reports = trained.rows, trained.reports
    score_untrained(pack, [row for row, each in zip(rows, reports, strict=True) if each.diverged], splits)
    _commit(pack, rows, trained.buffers, reports, trained.memory_site)
    for report in reports:
        _record_loop(policy, report, pack)
    observing.on_loop_end(pack, rows, trained.buffers.active)
    observing.on_epoch_end([report.state for report in reports], trained.observers)


def _commit(
    pack: DevicePack,
    rows: list[int],
    epoch: EpochBuffers,
    reports: Sequence[LoopReport],
    memory_site: MemorySite | None,
) -> None:
    """Copy the results of an epoch into the pack: better weights, and what accepted ones carry with them."""
    if pack.memory_site is not None and memory_site is not None:
        pack.memory_site.memory.put_back(rows, memory_site.memory)
    for kind, buffer in epoch.carried.items():
        pack.carried[kind].put(rows, buffer)
    taken = [at for at, report in enumerate(reports) if report.accepted]
    for kind, buffer in epoch.accepted.items():
        pack.carried[kind].put([rows[at] for at in taken], buffer[taken])
    if winners := [at for at, report in enumerate(reports) if report.kept]:
        pack.lkg.put([rows[at] for at in winners], epoch.active[winners])


def _reported(policy: Policy, report: LoopReport) -> LoopReport:
    """Return the report with the verdict of the policy. A loop that diverged is rejected like a worse one."""
    if report.diverged:
        return report
    scores = report.state, report.correct, report.loss
    better = policy.is_better(*scores)
    return replace(report, kept=better, accepted=better or policy.accepts(*scores))


def _record_loop(policy: Policy, report: LoopReport, pack: DevicePack) -> None:
    """Add a loop to the history of its trial."""
    state = report.state
    state.loops += 1
    if report.kept:
        state.lkg_loop, state.best_correct, state.best_loss = state.loops, report.correct, report.loss
    values = {
        "loop": state.loops,
        "mode": state.trial.intervention.mode_at(state.loops),
        "layer": None if report.unit is None else report.unit.layer,
        "unit": None if report.unit is None else report.unit.number,
        "correct": report.correct,
        "loss": finite_or_none(report.loss),
        "train_loss": finite_or_none(report.train_loss),
        "kept": report.kept,
        "units": units_text(report.units, pack.net.shape),
        "accepted": report.accepted,
    }
    for column in (*HISTORY_COLUMNS, *state.trial.further_columns):
        state.history.setdefault(column, []).append(values[column])
    if pack.device.type not in state.devices:
        state.devices.append(pack.device.type)
    state.stopped = policy.should_stop(state)


def finite_or_none(value: float) -> float | None:
    """Return a value, or None (missing) if it is NaN or infinite, which JSON cannot hold."""
    return value if math.isfinite(value) else None


def _test(pack: DevicePack, splits: Splits, observing: ProbeRunner) -> list[tuple[TrialState, TestResult]]:
    """Evaluate the LKGs on the test split, once and after selection, and run the probes for the last time."""
    correct, loss = evaluate_lkgs(pack, list(range(len(pack.states))), splits.test)
    seen = observing.on_finish(pack)
    return [(state, TestResult(correct[row], loss[row], *seen[row])) for row, state in enumerate(pack.states)]
