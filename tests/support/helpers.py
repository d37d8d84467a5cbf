"""Short ways to make trials and to run them through the engine without files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from psa.data.splits import Splits
from psa.engine import loop
from psa.engine.batches import Batches, batch_order
from psa.engine.device_pack import fresh_state
from psa.engine.loop import row_of
from psa.engine.optimizer import optimizer_for
from psa.engine.policies import policy_for
from psa.engine.train_step import evaluate, train_epoch
from psa.execution.worker.record import probes_for
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.training import MODES, Ablation, Mode, RatchetTraining, StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState

EXPLODING = "60*16"  # at a learning rate of 10 its logits overflow within an epoch
# A search of six configurations, two seeds each, seconds of training.
SMALL = """
study = "ablation"
name = "small"
meta_loops = 6
seeds = "0..1"
[base]
family = "simplemlp"
arch = "1*4"
digits = [0, 1]
[space]
lr = { low = 1e-5, high = 1e-2, log = true }
dropout = { low = 0.1, high = 0.5 }
mode = ["none", "dropout"]
[search]
samples = 6
scheduler = "asha"
grace = 1
reduction = 2
"""


def trial(arch: str, mode: Mode = "none", seed: int = 0, family: str = "simplemlp", **method: Any) -> Trial:
    """A trial of the ratchet; batches of 64 and a rate at which a few steps already move something."""
    rates: dict[str, Any] = {"lr": 1e-3, "batch_size": 64} | method
    return Trial(
        model=PublishedModelSpec(
            family=family, arch=Arch.coerce(arch), dropout=0.25 if mode == "dropout" else 0.0
        ),
        method=RatchetTraining(weight_decay=0.1 if mode == "decay" else 0.0, **rates),
        intervention=Ablation(mode=mode),
        seed=seed,
    )


def arms(
    arch: str, seeds: Sequence[int], family: str = "simplemlp", modes: Sequence[Mode] = MODES
) -> list[Trial]:
    """Every mode of every seed."""
    return [trial(arch, mode, seed, family) for seed in seeds for mode in modes]


def kept_trial(arch: str, seed: int = 0, **method: Any) -> Trial:
    """A trial of ordinary training."""
    return Trial(
        model=PublishedModelSpec(family="simplemlp", arch=Arch.coerce(arch)),
        method=StandardTraining(**({"lr": 1e-3, "batch_size": 64} | method)),
        seed=seed,
    )


def net_trial(
    arch: str,
    seed: int = 0,
    family: str = "mlp",
    probes: tuple[str, ...] = (),
    lr: float = 1e-3,
    **model: Any,
) -> Trial:
    """A trial of ordinary training of a network whose parts are named; `optimizer` and such by `method`."""
    method = model.pop("method", {})
    scaling = "simplex" if model.get("simplex") == "all" else "standard"
    return Trial(
        model=NetworkSpec(family=family, arch=Arch.coerce(arch), **model),
        method=StandardTraining(**({"lr": lr, "batch_size": 64} | method)),
        probes=probes,
        data=DataSpec(scaling=scaling),
        seed=seed,
    )


def run(
    trials: Sequence[Trial],
    splits: Splits,
    loops: int,
    states: list[TrialState] | None = None,
    **options: Any,
) -> tuple[list[TrialState], list[loop.TestResult]]:
    """Train trials as one pack, or go on from `states`; the states afterwards and the test results."""
    net = Dense(trials[0].model, splits.classes, trials[0].data.shape)
    states = states or [fresh_state(each, net, loops) for each in trials]
    last: list[TrialState] = []

    def save(changed: Sequence[TrialState]) -> None:
        last[:] = changed

    options.setdefault("probes", probes_for(trials[0]))
    policy = options.pop("policy", None) or policy_for(trials[0], net, splits)
    tests = loop.run_loops(
        net, splits, states, loops, policy, device=torch.device("cpu"), save=save, **options
    )
    return last or states, tests


def two_epochs(trials: Sequence[Trial], splits: Splits, batch: int) -> list[torch.Tensor]:
    """Everything that two epochs of a pack compute: weights, losses, answers."""
    net = Dense(trials[0].model, 10)
    rows = [row_of(fresh_state(each, net, 1)) for each in trials]
    rows = [rows[at] for at in batch_order(rows)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows])
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    found = [
        train_epoch(net, rows, active, gradients, optimizer, Batches(rows, splits.train, batch))
        for _ in range(2)
    ]
    return [*found, *evaluate(net, active, splits.val), *active.parts, *gradients.parts]


def assert_same_bits(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Every tensor has the same numbers, and the same signs of zeros."""
    for one, other in zip(ones, others, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one.signbit(), other.signbit())
