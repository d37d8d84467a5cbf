"""States and records that no training made, for tests of how they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of
from psa.specs.training import Ablation
from psa.specs.trial import Trial
from psa.storage.trial_state import HISTORY_COLUMNS, Tensors, TrialState, empty_history

# A grid of four trials.
TINY = """
name = "tiny"
seeds = [0, 1]
meta_loops = 3
[base]
family = "simplemlp"
[axes]
arch = ["1*1"]
mode = ["none", "hidden"]
"""


def weights(model: PublishedModelSpec, offset: float = 0.0) -> Tensors:
    """Made-up weights of the right shapes, all different."""
    found: Tensors = {}
    for linear in shape_of(model).linears:
        for name, size in (("weight", (linear.outputs, linear.inputs)), ("bias", (linear.outputs,))):
            count = int(np.prod(size))
            found[f"{linear.name}.{name}"] = (np.arange(count, dtype=np.float32) + offset).reshape(size)
    return found


def some_state(loops: int = 3, arch: str = "[1*1]", trial: Trial | None = None) -> TrialState:
    """A state after some loops."""
    model = PublishedModelSpec(family="simplemlp", arch=Arch.parse(arch))
    trial = trial or Trial(model=model, intervention=Ablation(mode="hidden"))
    history = empty_history()
    for loop in range(1, loops + 1):
        unit = (None, None) if loop == 1 else (0, loop % 2)
        for column, value in zip(
            HISTORY_COLUMNS, (loop, "hidden", *unit, 1000 + loop, 2.5 / loop, 2.0, loop < 3), strict=True
        ):
            history[column].append(value)
    return TrialState(trial, 10, weights(trial.model), loops, min(loops, 2), 1002, 1.25, history)


def some_record(loops: int = 3, trial: Trial | None = None) -> dict[str, Any]:
    """A record of the trial of `some_state`, shaped like those of psa.execution.worker.record."""
    state = some_state(loops, trial=trial)
    return {
        "id": state.trial.id,
        "digest": state.trial.digest,
        "spec": state.trial.model_dump(mode="json"),
        "built": {"family": "simplemlp", "arch": "[1*1]", "parameters": 805},
        "device": "cpu",
        "samples": {"train": 50_000, "validation": 10_000, "test": 10_000, "zero_r_validation": 1102},
        "loops": loops,
        "history": state.history,
        "events": [],
        "finals": {
            "bounty": {"correct": state.best_correct, "loop": state.lkg_loop},
            "test": {"correct": 1000 + loops, "loss": 2.25},
            "stopped_early": False,
        },
    }
