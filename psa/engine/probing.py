"""Probing: what a probe is handed and when, and the probes of a pack on their way through its loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from psa.data.splits import Splits
from psa.engine.batches import Batches
from psa.engine.device_pack import DevicePack
from psa.engine.train_step import Observer
from psa.interventions.memory.hook import MemorySite
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.storage.array_file import Arrays
from psa.storage.records.record import storable
from psa.storage.trial_state import Observation, TrialState


@dataclass(frozen=True)
class ProbeInput:
    """What a probe is shown: T networks, the loop that made the weights of each, and their memories where
    they have any, begun at those loops. It changes nothing.
    """

    net: Dense
    weights: StackedParams
    loops: Sequence[int]
    splits: Splits
    visited: MemorySite | None = None


class Probe(Protocol):
    """A pure observer: the same weights give the same numbers, in any pack and at any position."""

    name: str

    def places(self, net: Dense) -> dict[str, list[str]]:
        """What the numbers of a quantity stand for, one by one: layers, say. By the quantity's name, or by
        its last part where there are many of one kind; under "" what holds for all others.
        """

    def each(self, look: ProbeInput) -> list[Observation]:
        """Before the first loop and after each: of every trial some quantities, each a list of numbers."""

    def last(self, look: ProbeInput) -> list[Observation]:
        """Of the LKG, after selection."""


class EpochObserver(Observer, Protocol):
    """What a probe has seen of an epoch."""

    def arrays(self, row: int) -> Arrays | None:
        """What is kept of one trial of the epoch, in a file of its own; None for nothing."""


@runtime_checkable
class TrainingProbe(Protocol):
    """A probe that also follows training step by step."""

    def follow(
        self, net: Dense, splits: Splits, batches: Batches, loops: Sequence[int]
    ) -> EpochObserver | None:
        """An observer of the epoch with these batches, which is loop `loops` of each of its trials; None for
        nothing to see.
        """


@runtime_checkable
class ArrayProbe(Protocol):
    """A probe that keeps arrays of the LKG, after selection."""

    def arrays(self, look: ProbeInput, row: int) -> Arrays:
        """What is kept of one trial, in a file of its own."""


Entry = dict[str, Any]

# Stores the arrays of a trial under a name, and says what the record is to say of the file.
KeepArrays = Callable[[TrialState, str, Arrays], Entry]


@dataclass(frozen=True)
class ObserverGroup:
    """Several observers of one epoch, as one."""

    each: Sequence[EpochObserver]

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        for one in self.each:
            one.step(number, chosen, logits)

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        for one in self.each:
            one.layer(number, x, delta)


class ProbeRunner:
    """The probes of a pack. keep: where arrays go; without it they are not asked for."""

    def __init__(self, splits: Splits, probes: Sequence[Probe], keep: KeepArrays | None) -> None:
        self.splits, self.probes, self.keep = splits, probes, keep

    def beginning(self, pack: DevicePack) -> None:
        """What they see before the first loop, of the trials that have not begun."""
        rows = [row for row, state in enumerate(pack.states) if self.probes and state.loops == 0]
        if rows:
            self.after(pack, rows, pack.lkg[rows])

    def after(self, pack: DevicePack, rows: Sequence[int], weights: StackedParams) -> None:
        """Write what they see after a loop into the books of its trials."""
        if not self.probes:
            return
        states = [pack.states[row] for row in rows]
        # the epoch of weights that nothing has trained is the first: schedules begin there
        loops = [max(1, state.loops) for state in states]
        look = ProbeInput(pack.net, weights, loops, self.splits, pack.memories(rows, loops))
        for probe in self.probes:
            for state, seen in zip(states, probe.each(look), strict=True):
                state.observed.setdefault(probe.name, []).append(
                    storable(seen)
                )  # a diverged threshold must not stop its pack

    def following(self, net: Dense, batches: Batches, loops: Sequence[int]) -> dict[str, EpochObserver]:
        """Who follows the next epoch, by probe."""
        followers = [probe for probe in self.probes if isinstance(probe, TrainingProbe)] if self.keep else []
        found = {probe.name: probe.follow(net, self.splits, batches, loops) for probe in followers}
        return {name: each for name, each in found.items() if each is not None}

    def followed(self, states: Sequence[TrialState], seen: dict[str, EpochObserver]) -> None:
        """Store what was seen of an epoch; `states` have it in their books already."""
        for name, each in seen.items():
            for row, state in enumerate(states):
                arrays = each.arrays(row)
                if arrays is not None and self.keep is not None:
                    file = f"{name}-{state.loops}"
                    state.files[file] = self.keep(state, file, arrays)

    def last(self, pack: DevicePack) -> list[tuple[dict[str, Observation], dict[str, Entry]]]:
        """What each probe says of the LKG of every trial, and the files of those that keep more."""
        if not self.probes:
            return [({}, {}) for _ in pack.states]
        made_in = [max(1, state.lkg_loop) for state in pack.states]
        memories = pack.memories(range(len(pack.states)), made_in)
        look = ProbeInput(pack.net, pack.lkg, made_in, self.splits, memories)
        seen = {probe.name: probe.last(look) for probe in self.probes}
        files: list[dict[str, Entry]] = [{} for _ in pack.states]
        for probe in self.probes if self.keep else ():
            for row, state in enumerate(pack.states):
                if isinstance(probe, ArrayProbe) and self.keep is not None:
                    name = f"{probe.name}-{state.loops}"
                    files[row][name] = self.keep(state, name, probe.arrays(look, row))
        return [
            ({name: each[row] for name, each in seen.items()}, files[row]) for row in range(len(pack.states))
        ]
