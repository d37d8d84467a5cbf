"""Policies between epochs: `ratchet` trains copies of the LKG, `keep` is standard training.

The ratchet keeps only strictly better copies, unless `patience` lets a worse one take the place of the LKG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from psa.data.splits import Splits
from psa.engine.batches import RowSettings
from psa.engine.device_pack import DevicePack, EpochBuffers
from psa.engine.optimizer import optimizer_for, restore_moments
from psa.interventions.ablation import Unit
from psa.interventions.change import change_units
from psa.interventions.growth import growth_due
from psa.interventions.schedule import mode_of_loop
from psa.interventions.selection import select_units
from psa.interventions.unit_scores import unit_scores
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.growth import GrowthEvent
from psa.specs.training import MOMENTS, RatchetTraining, StandardTraining
from psa.specs.trial import Trial
from psa.storage.records.history import lkg_correct, loops_since_accepted
from psa.storage.trial_state import TrialState

_MOMENTS: Final = {name for names in MOMENTS.values() for name in names}


class Policy(Protocol):
    """The decisions of the engine between two epochs.

    For every loop the engine calls `growth_due`, `begin_epoch`, then, after training and validation,
    `is_better`, `accepts` where it is not better, and `should_stop`. It never keeps or accepts a loop that
    diverged, and does not ask about it.
    A policy has no state of its own: a resumed run starts with a new one.

    Example:
        A ratchet that ablates nothing and ends at the first loop without improvement:

        >>> class HillClimb(RatchetPolicy):
        ...     def __init__(self):
        ...         super().__init__(perturb=lambda copy, states: [()] * len(states))
        ...
        ...     def should_stop(self, state):
        ...         return state.lkg_loop < state.loops

    """

    def begin_epoch(
        self, pack: DevicePack, rows: Sequence[int], settings: Sequence[RowSettings]
    ) -> EpochBuffers:
        """Prepare the next epoch of some trials.

        It is called twice for an epoch in which some rows are equal, the second time with only the distinct
        rows, and must prepare these as before.

        Args:
            pack: The trials on the device.
            rows: The positions in the pack of those that train now. A position may occur twice.
            settings: Rates, seed and loop number of each of these.

        Returns:
            Copies of the weights to train, their gradients and their optimiser, the ablated units of each
            row, and the buffers to store in `pack.carried` after the epoch, or where weights become the LKG.

        """

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Decide whether the trained weights are the best so far, which are selected and tested.

        Args:
            state: The trial, before the loop is added to its history.
            correct: Validation samples that the trained weights classify correctly.
            loss: Their mean validation loss.

        Returns:
            True to keep the weights.

        """

    def accepts(self, state: TrialState, correct: int, loss: float) -> bool:
        """Decide whether weights that are not the best become the LKG, from which the next loop begins.

        Args:
            state: The trial, before the loop is added to its history.
            correct: Validation samples that the trained weights classify correctly.
            loss: Their mean validation loss.

        Returns:
            True to begin the next loop from these weights.

        """

    def should_stop(self, state: TrialState) -> bool:
        """Decide whether a trial ends before its horizon.

        Args:
            state: The trial, with the finished loop in its history.

        Returns:
            True to train it no further.

        """

    def growth_due(self, state: TrialState, validation: int) -> GrowthEvent | None:
        """Decide whether the network of a trial grows before its next loop.

        Args:
            state: The trial.
            validation: The number of validation samples.

        Returns:
            The growth to carry out; None for none.

        """


class Perturbation(Protocol):
    """A function that ablates units in a copy of the LKG of each trial before an epoch."""

    def __call__(self, copy: StackedParams, states: Sequence[TrialState]) -> Sequence[tuple[Unit, ...]]:
        """Ablate units in place in `copy`, which has a row per state. Return those of each row."""


class RatchetPolicy:
    """Every loop starts from a copy of the LKG, perturbed, with a fresh AdamW or the moments of the LKG.

    patience: a loop that would be rejected becomes the LKG, though it is worse, if at least patience - 1
    loops before it in a row were rejected; later loops are compared with it. The best state ever is still
    the one that is selected, recorded as the bounty and tested. stop_after: the trial ends after that many
    loops without a new bounty.
    """

    def __init__(self, perturb: Perturbation, steps_per_epoch: int = 0) -> None:
        self.perturb, self.steps_per_epoch = perturb, steps_per_epoch

    def begin_epoch(
        self, pack: DevicePack, rows: Sequence[int], settings: Sequence[RowSettings]
    ) -> EpochBuffers:
        """Copy the LKG of `rows`, perturb the copy, and set an optimiser over it."""
        carried = _carried(pack, rows)
        active = carried.get("lkg", pack.lkg[list(rows)])
        units = self.perturb(active, [pack.states[row] for row in rows])
        gradients = active.zeros_like()
        optimizer = optimizer_for("adamw", settings, active, gradients)
        if MOMENTS["adamw"][0] in carried:
            restore_moments(optimizer, carried, settings, self.steps_per_epoch)
        return EpochBuffers(active, gradients, optimizer, units, accepted=carried)

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return True if validation accuracy is strictly better than ever; equal accuracy is discarded."""
        return correct > state.best_correct

    def accepts(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return True with patience for a loop better than the LKG, or once patience has run out."""
        patience = _patience(state)
        if patience is None:
            return False
        lkg = lkg_correct(state.history)
        return (lkg is not None and correct > lkg) or loops_since_accepted(state.history) + 1 >= patience

    def should_stop(self, state: TrialState) -> bool:
        """Return True after `stop_after` loops without a new bounty; without it the ratchet never stops."""
        method = state.trial.method
        stop_after = method.stop_after if isinstance(method, RatchetTraining) else None
        return stop_after is not None and state.loops - state.lkg_loop >= stop_after

    def growth_due(self, state: TrialState, validation: int) -> GrowthEvent | None:
        """Return None: networks do not grow under the ratchet."""
        return None


class KeepPolicy:
    """One optimiser for all epochs; with patience, the state of least validation loss is the LKG."""

    def __init__(self, method: StandardTraining, steps_per_epoch: int) -> None:
        self.optimizer = method.optimizer
        self.steps_per_epoch = steps_per_epoch

    def begin_epoch(
        self, pack: DevicePack, rows: Sequence[int], settings: Sequence[RowSettings]
    ) -> EpochBuffers:
        """Continue with the present weights and moments; a new trial has its LKG and zero moments."""
        carried = _carried(pack, rows)
        active = carried["active"]
        gradients = active.zeros_like()
        optimizer = optimizer_for(self.optimizer, settings, active, gradients)
        restore_moments(optimizer, carried, settings, self.steps_per_epoch)
        return EpochBuffers(active, gradients, optimizer, [()] * len(rows), carried)

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return True without patience; with it, if the validation loss is the least so far."""
        return True if _patience(state) is None else loss < state.best_loss

    def accepts(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return False: the present weights go on in any case."""
        return False

    def should_stop(self, state: TrialState) -> bool:
        """Return True once patience has run out."""
        patience = _patience(state)
        return patience is not None and state.loops - state.lkg_loop >= patience

    def growth_due(self, state: TrialState, validation: int) -> GrowthEvent | None:
        """Return the growth that the trial's schedule asks for."""
        return growth_due(state, self.steps_per_epoch, validation)


def _carried(pack: DevicePack, rows: Sequence[int]) -> dict[str, StackedParams]:
    """Return copies of carried buffers of some rows: of a new trial initial weights and zero moments."""
    kinds = pack.states[0].trial.method.carried
    for kind in kinds:
        pack.carried.setdefault(kind, pack.lkg.zeros_like())
    fresh = [row for row in rows if pack.states[row].loops == 0]
    for kind, buffer in pack.carried.items():
        buffer.put(fresh, pack.lkg[fresh].zeros_like() if kind in _MOMENTS else pack.lkg[fresh])
    return {kind: pack.carried[kind][list(rows)] for kind in kinds}


def _patience(state: TrialState) -> int | None:
    """Return the patience of a trial, in which the trials of a pack may differ."""
    return state.trial.method.patience


def policy_for(trial: Trial, net: Dense, splits: Splits) -> Policy:
    """Return the policy of a trial's method."""
    carried = trial.method.carried
    steps = -(-len(splits.train) // trial.method.batch_size) if carried else 0
    if isinstance(trial.method, StandardTraining):
        return KeepPolicy(trial.method, steps)

    def units_of(copy: StackedParams, row: int, state: TrialState) -> tuple[Unit, ...]:
        ablation, seed, loop = state.trial.intervention, state.trial.seed, state.loops + 1
        mode = mode_of_loop(ablation, seed, loop, state.history)
        scores = []
        if ablation.ranked and loop > 1 and mode != "none":
            measure = ablation.choice.partition("_")[2]
            made_in = max(1, state.loops - loops_since_accepted(state.history))
            scores = unit_scores(net, copy[[row]], measure, splits.train, made_in)
        return select_units(ablation, mode, net.shape, seed, loop, scores)

    def perturb(copy: StackedParams, states: Sequence[TrialState]) -> Sequence[tuple[Unit, ...]]:
        units = [units_of(copy, row, state) for row, state in enumerate(states)]
        names = [(state.trial.seed, state.loops + 1) for state in states]
        change_units(copy, net, [state.trial.intervention for state in states], names, units)
        return units

    return RatchetPolicy(perturb, steps)
