"""Policies between epochs: `ratchet` keeps only strictly better weights, `keep` is standard training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from psa.data.splits import Splits
from psa.engine.batches import RowSettings
from psa.engine.device_pack import DevicePack, EpochBuffers
from psa.engine.optimizer import StackedOptimizer, optimizer_for
from psa.interventions import ablation
from psa.interventions.growth import growth_due
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.growth import GrowthEvent
from psa.specs.training import MOMENTS, StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState


class Policy(Protocol):
    """The decisions of the engine between two epochs.

    For every loop the engine calls `growth_due`, `begin_epoch`, then, after training and validation,
    `is_better` and `should_stop`. It never keeps a loop that diverged, and does not call `is_better` for it.
    A policy has no state of its own: a resumed run starts with a new one.

    Example:
        A ratchet that ablates nothing and ends at the first loop without improvement:

        >>> class HillClimb(RatchetPolicy):
        ...     def __init__(self):
        ...         super().__init__(perturb=lambda copy, states: [None] * len(states))
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
            Copies of the weights to train, their gradients and their optimiser, the ablated unit of each row,
            and the buffers to store in `pack.carried` after the epoch.

        """

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Decide whether the trained weights become the LKG.

        Args:
            state: The trial, before the loop is added to its history.
            correct: Validation samples that the trained weights classify correctly.
            loss: Their mean validation loss.

        Returns:
            True to keep the weights.

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

    def __call__(self, copy: StackedParams, states: Sequence[TrialState]) -> Sequence[ablation.Unit | None]:
        """Ablate in place at most one unit per row of `copy`, which has a row per state. Return the ablated
        unit of each row, None for none.
        """


class RatchetPolicy:
    """Every loop starts from a copy of the LKG, perturbed, with a fresh AdamW."""

    def __init__(self, perturb: Perturbation) -> None:
        self.perturb = perturb

    def begin_epoch(
        self, pack: DevicePack, rows: Sequence[int], settings: Sequence[RowSettings]
    ) -> EpochBuffers:
        """Copy the LKG of `rows`, perturb the copy, and set a new optimiser over it."""
        active = pack.lkg[list(rows)]
        units = self.perturb(active, [pack.states[row] for row in rows])
        gradients = active.zeros_like()
        return EpochBuffers(active, gradients, optimizer_for("adamw", settings, active, gradients), units)

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return True if validation accuracy strictly improved; equal accuracy is discarded."""
        return correct > state.best_correct

    def should_stop(self, state: TrialState) -> bool:
        """Return False: the ratchet never stops early."""
        return False

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
        if not pack.carried:
            pack.carried = {kind: pack.lkg.zeros_like() for kind in ("active", *MOMENTS[self.optimizer])}
        fresh = [row for row in rows if pack.states[row].loops == 0]
        for kind, buffer in pack.carried.items():
            buffer.put(fresh, pack.lkg[fresh] if kind == "active" else pack.lkg[fresh].zeros_like())
        carried = {kind: buffer[list(rows)] for kind, buffer in pack.carried.items()}
        active = carried["active"]
        gradients = active.zeros_like()
        optimizer = optimizer_for(self.optimizer, settings, active, gradients)
        self._remember(optimizer, carried, settings)
        return EpochBuffers(active, gradients, optimizer, [None] * len(rows), carried)

    def _remember(
        self, optimizer: StackedOptimizer, carried: dict[str, StackedParams], settings: Sequence[RowSettings]
    ) -> None:
        """Restore the moments of the optimiser. Its step count follows from the loop and is not stored."""
        start = 0
        for group in optimizer.param_groups:
            part = slice(start, start + len(group["params"][0]))
            steps = float((settings[start].loop - 1) * self.steps_per_epoch)
            moments = {moment: carried[moment][part].parts for moment in optimizer.moments}
            for which, parameter in enumerate(group["params"]):
                optimizer.state[parameter] = {"step": torch.tensor(steps, device=parameter.device)} | {
                    moment: parts[which] for moment, parts in moments.items()
                }
            start = part.stop

    def is_better(self, state: TrialState, correct: int, loss: float) -> bool:
        """Return True without patience; with it, if the validation loss is the least so far."""
        return True if _patience(state) is None else loss < state.best_loss

    def should_stop(self, state: TrialState) -> bool:
        """Return True once patience has run out."""
        patience = _patience(state)
        return patience is not None and state.loops - state.lkg_loop >= patience

    def growth_due(self, state: TrialState, validation: int) -> GrowthEvent | None:
        """Return the growth that the trial's schedule asks for."""
        return growth_due(state, self.steps_per_epoch, validation)


def _patience(state: TrialState) -> int | None:
    """Return the patience of a trial, in which the trials of a pack may differ."""
    method = state.trial.method
    return method.patience if isinstance(method, StandardTraining) else None


def policy_for(trial: Trial, net: Dense, splits: Splits) -> Policy:
    """Return the policy of a trial's method."""
    if isinstance(trial.method, StandardTraining):
        return KeepPolicy(trial.method, -(-len(splits.train) // trial.method.batch_size))

    def perturb(copy: StackedParams, states: Sequence[TrialState]) -> Sequence[ablation.Unit | None]:
        units = [
            ablation.choose_unit(state.trial.intervention.mode, net.shape, state.trial.seed, state.loops + 1)
            for state in states
        ]
        ablation.ablate(copy, net.layout, units)
        return units

    return RatchetPolicy(perturb)
