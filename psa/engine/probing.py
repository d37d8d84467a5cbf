"""Probing: the interface of probes, and the calls of a pack's probes during its loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from psa.core.plugins.identity import plugin_code
from psa.data.splits import Splits
from psa.engine.batches import Batches
from psa.engine.device_pack import DevicePack
from psa.engine.train_step import Observer
from psa.interventions.memory.hook import MemorySite
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.probes import PROBE_PLUGINS, check_observations
from psa.storage.array_file import Arrays
from psa.storage.records.record import storable
from psa.storage.trial_state import Observation, TrialState


@dataclass(frozen=True)
class ProbeInput:
    """The input of a probe: T networks, the loop that made the weights of each, and their memories if they
    have any, begun at those loops. A probe must not change it.
    """

    net: Dense
    weights: StackedParams
    loops: Sequence[int]
    splits: Splits
    memory_site: MemorySite | None = None


class Probe(Protocol):
    """An observer of networks, in the table `psa.specs.probes.PROBES`.

    A probe reads and never writes: the same weights give the same numbers, in any pack and at any position.
    Its constructor takes the options of its name, `NAME(key=value)`, as keyword arguments.

    Attributes:
        name: The name of the probe in `PROBES`, in records and in the probe frame.

    Example:
        >>> class WeightNorm:
        ...     name = "weight_norm"
        ...
        ...     def places(self, net):
        ...         return {}
        ...
        ...     def on_loop_end(self, probe_input):
        ...         rows = range(len(probe_input.loops))
        ...         return [{"norm": [float(probe_input.weights.rest[row].norm())]} for row in rows]
        ...
        ...     def on_finish(self, probe_input):
        ...         return self.on_loop_end(probe_input)

    """

    name: str

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Name what the numbers of each quantity belong to, for example layers.

        Args:
            net: The network after its last loop.

        Returns:
            A list of names as long as the numbers of the quantity, by the name of the quantity or, where many
            are of one kind, by the last part of the name (`norm` of `val.norm`). The key "" holds for all
            others. A quantity without a list has no names.

        """

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe the networks before their first loop and after each loop.

        Args:
            probe_input: The networks of the trials that have just been trained.

        Returns:
            One mapping per network, in order: a list of numbers by quantity.

        """

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe the LKG of each trial, after the last loop. Only here may a probe read the test split.

        Args:
            probe_input: The LKGs of all trials of a pack.

        Returns:
            One mapping per network, as in `on_loop_end`.

        """


class EpochObserver(Observer, Protocol):
    """The observer of one epoch that a `TrainingProbe` returns: `step` and `layer` of
    `psa.engine.train_step.Observer` during the epoch, then `arrays`.

    Example:
        >>> import numpy as np
        >>> class Sizes:
        ...     def __init__(self):
        ...         self.sizes = []
        ...
        ...     def step(self, number, chosen, logits):
        ...         self.sizes.append(chosen.shape[1])
        ...
        ...     def layer(self, number, x, delta):
        ...         pass
        ...
        ...     def arrays(self, row):
        ...         return {"size": np.array(self.sizes)}

    """

    def arrays(self, row: int) -> Arrays | None:
        """Return what to store of one trial of the epoch.

        Args:
            row: The position of the trial in `loops` of `follow`.

        Returns:
            Arrays by name, stored in a file beside the state; None to store nothing.

        """


@runtime_checkable
class TrainingProbe(Protocol):
    """A probe that also follows training step by step.

    Example:
        >>> class BatchSizes:
        ...     def follow(self, net, splits, batches, loops):
        ...         return None if max(loops) > 1 else Sizes()

    """

    def follow(
        self, net: Dense, splits: Splits, batches: Batches, loops: Sequence[int]
    ) -> EpochObserver | None:
        """Return an observer of the next epoch.

        Args:
            net: The network that is trained.
            splits: The data on the device.
            batches: The batches of the epoch, in the order of the trials.
            loops: The number of the loop that the epoch is, for each trial.

        Returns:
            The observer; None where the probe needs nothing of this epoch.

        Raises:
            UserError: An option of the probe that does not fit the network.

        """


@runtime_checkable
class ArrayProbe(Protocol):
    """A probe that also stores arrays of the LKG, after the last loop.

    Example:
        >>> class Weights:
        ...     def arrays(self, probe_input, row):
        ...         return {"rest": probe_input.weights.rest[row].cpu().numpy()}

    """

    def arrays(self, probe_input: ProbeInput, row: int) -> Arrays:
        """Return what to store of one trial.

        Args:
            probe_input: The LKGs of all trials of a pack.
            row: The position of the trial in `probe_input`.

        Returns:
            Arrays by name, stored in a file beside the state.

        Raises:
            UserError: An option of the probe that does not fit the network.

        """


Entry = dict[str, Any]

# Stores the arrays of a trial under a name, and returns the entry of the file for the record.
KeepArrays = Callable[[TrialState, str, Arrays], Entry]


@dataclass(frozen=True)
class ObserverGroup:
    """A group of observers of one epoch, used as one."""

    observers: Sequence[EpochObserver]

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        for one in self.observers:
            one.step(number, chosen, logits)

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        for one in self.observers:
            one.layer(number, x, delta)


class ProbeRunner:
    """The probes of a pack. keep: stores arrays; without it probes are not asked for any."""

    def __init__(self, splits: Splits, probes: Sequence[Probe], keep: KeepArrays | None) -> None:
        self.splits, self.probes, self.keep = splits, probes, keep

    @property
    def follows(self) -> bool:
        """Return True if a probe may follow the steps of an epoch."""
        return self.keep is not None and any(isinstance(probe, TrainingProbe) for probe in self.probes)

    def on_start(self, pack: DevicePack) -> None:
        """Run the probes before the first loop, on trials that have not begun and were not stored since."""
        rows = [row for row, state in enumerate(pack.states) if state.loops == 0 and not state.observed]
        if self.probes and rows:
            self.on_loop_end(pack, rows, pack.lkg[rows])

    def on_loop_end(self, pack: DevicePack, rows: Sequence[int], weights: StackedParams) -> None:
        """Run the probes after a loop, and add their observations to the states of its trials."""
        if not self.probes:
            return
        states = [pack.states[row] for row in rows]
        # the epoch of weights that nothing has trained is the first: schedules begin there
        loops = [max(1, state.loops) for state in states]
        probe_input = ProbeInput(pack.net, weights, loops, self.splits, pack.memories(rows, loops))
        for probe in self.probes:
            seen = _observed(probe, probe.on_loop_end, probe_input)
            for state, one in zip(states, seen, strict=True):
                # a diverged threshold must not stop its pack
                state.observed.setdefault(probe.name, []).append(storable(one))

    def epoch_observers(self, net: Dense, batches: Batches, loops: Sequence[int]) -> dict[str, EpochObserver]:
        """Return the observers of the next epoch, by probe name."""
        followers = [probe for probe in self.probes if isinstance(probe, TrainingProbe)] if self.keep else []
        found: dict[str, EpochObserver | None] = {}
        for probe in followers:
            with _code_of(probe.name):
                found[probe.name] = probe.follow(net, self.splits, batches, loops)
        return {name: each for name, each in found.items() if each is not None}

    def on_epoch_end(self, states: Sequence[TrialState], seen: dict[str, EpochObserver]) -> None:
        """Store what was seen of an epoch; `states` have it in their books already."""
        for name, each in seen.items():
            for row, state in enumerate(states):
                with _code_of(name):
                    arrays = each.arrays(row)
                if arrays is not None and self.keep is not None:
                    file = f"{name}-{state.loops}"
                    state.files[file] = self.keep(state, file, arrays)

    def on_finish(self, pack: DevicePack) -> list[tuple[dict[str, Observation], dict[str, Entry]]]:
        """Return each probe's observation of the LKG of every trial, and the entries of its array files."""
        if not self.probes:
            return [({}, {}) for _ in pack.states]
        made_in = [max(1, state.lkg_loop) for state in pack.states]
        memories = pack.memories(range(len(pack.states)), made_in)
        probe_input = ProbeInput(pack.net, pack.lkg, made_in, self.splits, memories)
        seen = {probe.name: _observed(probe, probe.on_finish, probe_input) for probe in self.probes}
        files: list[dict[str, Entry]] = [{} for _ in pack.states]
        for probe in self.probes if self.keep else ():
            for row, state in enumerate(pack.states):
                if isinstance(probe, ArrayProbe) and self.keep is not None:
                    # its last epoch has the name without
                    name = f"{probe.name}-{'final-' * isinstance(probe, TrainingProbe)}{state.loops}"
                    with _code_of(probe.name):
                        arrays = probe.arrays(probe_input, row)
                    files[row][name] = self.keep(state, name, arrays)
        return [({name: each[row] for name, each in seen.items()}, files[row]) for row in range(len(files))]


def _observed(
    probe: Probe, observe: Callable[[ProbeInput], list[Observation]], probe_input: ProbeInput
) -> list[Observation]:
    """Return what a probe observes. Raises UserError if that of a plugin fails or returns something else."""
    with _code_of(probe.name):
        seen = observe(probe_input)
        if PROBE_PLUGINS.origin(probe.name) is not None:
            check_observations(probe.name, seen, probe.places(probe_input.net), len(probe_input.loops))
    return seen


def _code_of(name: str) -> AbstractContextManager[None]:
    return plugin_code(f"probe {name!r}", PROBE_PLUGINS.origin(name))
