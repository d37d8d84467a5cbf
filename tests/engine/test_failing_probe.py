"""A probe or its storage that fails at the end of a loop: what is stored lacks that loop, and the same run
resumes to the undisturbed end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import arms
from torch import Tensor

from psa.data.splits import Splits
from psa.engine.batches import Batches
from psa.engine.device_pack import fresh_state
from psa.engine.loop import run_loops
from psa.engine.policies import policy_for
from psa.engine.probing import ProbeInput
from psa.engine.save_interval import SaveInterval
from psa.nn.dense import Dense
from psa.specs.trial import Trial
from psa.storage.array_file import Arrays
from psa.storage.trial_state import Observation, TrialState, decode_state, encode_state

LOOPS = 4
EVERY_LOOP, AT_THE_END = 0.0, 1e9


class Steps:
    """An observer that counts the steps of an epoch."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        self.steps += 1

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        pass

    def arrays(self, row: int) -> Arrays:
        return {"steps": np.array([self.steps])}


class Norm:
    """A probe that observes a norm, stores an array after each epoch, and may be told to fail in a loop."""

    name = "norm"

    def __init__(self, failing: int = 0) -> None:
        self.failing = failing

    def places(self, net: Dense) -> dict[str, list[str]]:
        return {}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        if self.failing in probe_input.loops:
            raise MemoryError
        return [{"norm": [float(row.norm())]} for row in probe_input.weights.rest]

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        return [{"norm": [float(row.norm())]} for row in probe_input.weights.rest]

    def follow(self, net: Dense, splits: Splits, batches: Batches, loops: Sequence[int]) -> Steps:
        return Steps()


class Disk:
    """Stored states and arrays. It may be told which arrays cannot be written."""

    def __init__(self) -> None:
        self.states: dict[str, bytes] = {}
        self.arrays: dict[str, list[int]] = {}
        self.refused = ""

    def save(self, states: Sequence[TrialState]) -> None:
        self.states |= {state.trial.id: encode_state(state) for state in states}

    def keep(self, state: TrialState, name: str, arrays: Arrays) -> dict[str, Any]:
        if name == self.refused and state.trial.seed == 1:
            raise OSError
        self.arrays[f"{state.trial.id} {name}"] = arrays["steps"].tolist()
        return {"sha256": "0" * 64, "bytes": arrays["steps"].nbytes}

    def train(self, trials: Sequence[Trial], small: Splits, probe: Norm, interval: float) -> list[Any]:
        """Train from what is stored, with a save interval in seconds."""
        net = Dense(trials[0].model, small.classes)
        save_interval = SaveInterval()
        save_interval.interval = interval
        states = [
            decode_state(self.states[each.id], each.id)
            if each.id in self.states
            else fresh_state(each, net, LOOPS)
            for each in trials
        ]
        policy, cpu = policy_for(trials[0], net, small), torch.device("cpu")
        given: dict[str, Any] = {"device": cpu, "save": self.save, "probes": [probe], "keep": self.keep}
        return run_loops(net, small, states, LOOPS, policy, save_interval=save_interval, **given)


@pytest.mark.parametrize("interval", [EVERY_LOOP, AT_THE_END])
@pytest.mark.parametrize(("loop", "refused"), [(1, ""), (3, ""), (0, "norm-1"), (0, "norm-3")])
def test_a_loop_whose_observation_fails_is_not_stored_in_part(
    small: Splits, loop: int, refused: str, interval: float
) -> None:
    """A probe raises, or its array cannot be written, with each save interval."""
    trials = arms("1*4", [0, 1], modes=("none", "output"))
    expected, disk = Disk(), Disk()
    tested = expected.train(trials, small, Norm(), AT_THE_END)
    disk.refused = refused
    with pytest.raises((MemoryError, OSError)):
        disk.train(trials, small, Norm(loop), interval)
    for trial_id, content in disk.states.items():
        state = decode_state(content, trial_id)
        assert len(state.files) == state.loops < (loop or int(refused[-1]))
    disk.refused = ""
    assert disk.train(trials, small, Norm(), interval) == tested
    assert (disk.states, disk.arrays) == (expected.states, expected.arrays)
