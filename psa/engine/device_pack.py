"""The trials of a pack on the device: weights, what is carried between epochs, memories, and when all of it
is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from psa.engine.optimizer import StackedOptimizer
from psa.engine.save_interval import SaveInterval
from psa.interventions.ablation import Unit
from psa.interventions.growth import apply_growth, hidden_widths, just_grown
from psa.interventions.memory.hidden_memory import HiddenMemory
from psa.interventions.memory.hook import MemorySite
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.growth import GrowthEvent
from psa.specs.memory_sites import position_of, site_widths
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState


@dataclass
class EpochBuffers:
    """The buffers of one epoch: the weights being trained, their gradients, the optimiser over them, the
    ablated units of each row, and the buffers that outlive the epoch, by name: `carried` always, `accepted`
    for a row whose weights become the LKG.
    """

    active: StackedParams
    gradients: StackedParams
    optimizer: StackedOptimizer
    units: Sequence[tuple[Unit, ...]]
    carried: dict[str, StackedParams] = field(default_factory=dict)
    accepted: dict[str, StackedParams] = field(default_factory=dict)


class DevicePack:
    """Trials of one network on the device: their LKGs, their memories where they have any, and further
    buffers carried between epochs.
    """

    def __init__(self, net: Dense, states: Sequence[TrialState], device: torch.device) -> None:
        self.net, self.states, self.device = net, list(states), device
        self.lkg = self._stacked([state.lkg for state in states])
        kinds = {kind for state in states for kind in state.carried}
        self.carried = {kind: self._carried(kind) for kind in sorted(kinds)}
        self.memory_site = _memory_site(net, self.states, device)

    def _stacked(self, parts: Iterable[dict[str, Any]]) -> StackedParams:
        rows = [
            self.net.stack({name: torch.from_numpy(array) for name, array in part.items()}) for part in parts
        ]
        return StackedParams.stacked(rows).to(self.device)

    def _carried(self, kind: str) -> StackedParams:
        blank = {name: np.zeros_like(tensor) for name, tensor in self.states[0].lkg.items()}
        return self._stacked([state.carried.get(kind, blank) for state in self.states])

    def snapshot(self) -> list[TrialState]:
        """Return the states, with the values on the device copied into them."""
        for row, state in enumerate(self.states):
            state.lkg = self._named(self.lkg, row)
            for kind, buffer in self.carried.items():
                state.carried[kind] = self._named(buffer, row)
            if self.memory_site is not None and state.loops:
                state.memory = self.memory_site.memory.snapshot(row)
        return self.states

    def _named(self, rows: StackedParams, row: int) -> dict[str, Any]:
        one = rows[row : row + 1].to(torch.device("cpu"))
        return {name: tensor.numpy() for name, tensor in self.net.unstack(one).items()}

    def memories(self, rows: Sequence[int], loops: Sequence[int]) -> MemorySite | None:
        """Return copies of the memories of some rows at these epochs, None if trials have none."""
        if self.memory_site is None:
            return None
        some = self.memory_site.take(rows)
        some.begin(loops)
        return some


def group_by_network(net: Dense, states: Sequence[TrialState], device: torch.device) -> list[DevicePack]:
    """Return one DevicePack per network that trials have grown to from `net`; without growth there is one."""
    if all(state.trial.growth is None for state in states):
        return [DevicePack(net, states, device)]
    groups: dict[tuple[int, ...], list[TrialState]] = {}
    for state in states:
        groups.setdefault(hidden_widths(state.lkg), []).append(state)
    return [DevicePack(net.grown(widths), group, device) for widths, group in groups.items()]


def _memory_site(net: Dense, states: Sequence[TrialState], device: torch.device) -> MemorySite | None:
    """Return the memories in the states, at the present position of their site in the network."""
    trial = states[0].trial
    if trial.memory is None:
        return None
    site, began = trial.memory.site, trial.model.arch.widths
    width = site_widths(trial.model, trial.data.shape[0])[position_of(site, len(began)).layer]
    memory = HiddenMemory(trial.memory, [state.trial.seed for state in states], width, net.classes, device)
    for row, state in enumerate(states):
        if state.memory:
            memory.restore(row, state.memory)
    return MemorySite(memory, position_of(site, len(began), len(net.arch.widths)))


class TrainingRun:
    """A training run: its trials on the device, and whether all of their state is stored.

    Example:
        >>> run = TrainingRun(net, states, device, save, SaveInterval())
        ... with run.end_of_loop():
        ...     update(run.packs)
        ... run.store_when_due()

    """

    def __init__(
        self,
        net: Dense,
        states: Sequence[TrialState],
        device: torch.device,
        save: Callable[[Sequence[TrialState]], None],
        save_interval: SaveInterval,
    ) -> None:
        self.net, self.states, self.device = net, states, device
        self.save, self.save_interval = save, save_interval
        self.packs = group_by_network(net, states, device)
        self.stored, self.halfway = True, False

    @contextmanager
    def end_of_loop(self) -> Iterator[None]:
        """Return a context in which the states take over a loop: weights, histories and observations.

        After an error in the block some have the loop and others lack it. The states are then no longer
        stored, and training resumes from the last stored loop.
        """
        self.halfway = True
        yield
        self.stored = self.halfway = False

    def grow(self, asked: Sequence[tuple[TrialState, GrowthEvent | None]]) -> None:
        """Grow the networks whose growth is due, and group the trials by network anew."""
        growing = [(state, event) for state, event in asked if event is not None]
        if not growing:
            return
        self.store()
        for pack in self.packs:
            pack.snapshot()
        for state, event in growing:
            apply_growth(state, event)
        self.packs = group_by_network(self.net, self.states, self.device)

    def store_when_due(self) -> None:
        """Store the states if the save interval has passed."""
        if self.save_interval.should_save():
            self.save_interval.timed_save(self.store)

    def store(self) -> None:
        """Store the states, unless they are stored or a loop was taken over in part.

        A trial whose network has grown and has not been trained since is left out: its file stays as it was
        before the growth.
        """
        if self.stored or self.halfway:
            return
        for pack in self.packs:
            pack.snapshot()
        self.save([state for state in self.states if not just_grown(state)])
        self.stored = True


def fresh_state(trial: Trial, net: Dense, horizon: int) -> TrialState:
    """Return the state of a trial before its first loop."""
    lkg = {name: tensor.numpy() for name, tensor in net.unstack(net.initial(trial.seed)).items()}
    return TrialState(trial, horizon, lkg)
