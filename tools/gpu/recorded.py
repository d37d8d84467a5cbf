"""Training steps that a CUDA graph replays, beside the same steps run one by one."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from gpu.checks import CheckFailure, Figures, require
from gpu.setting import FAMILIES, Setting, arms
from psa.engine.batches import Batches, batch_order, row_of
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import Observer, train_epoch
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.storage.trial_state import TrialState

SAMPLES = 600


class _Idle:
    """An observer that keeps nothing. The steps of an epoch with an observer are not recorded."""

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        """Ignore a batch."""

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        """Ignore a layer."""


class _Messages(logging.Handler):
    """The warnings of the engine, which say that a step cannot be recorded."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning."""
        self.texts.append(record.getMessage())


def recorded_steps(setting: Setting) -> tuple[str, Figures] | None:
    """Compare an epoch of recorded steps with one of eager steps, to the bit. None without CUDA."""
    if setting.device.type != "cuda":
        return None
    engine, messages = logging.getLogger("psa.engine"), _Messages()
    engine.addHandler(messages)
    same = total = 0
    try:
        for family in FAMILIES:
            for arch in ("2*16", "1*40, 3*5"):
                recorded, eager = (_epoch(family, arch, setting, observer) for observer in (None, _Idle()))
                rows = [torch.equal(one, other) for one, other in zip(recorded, eager, strict=True)]
                same, total = same + sum(rows), total + len(rows)
    finally:
        engine.removeHandler(messages)
    if messages.texts:
        raise CheckFailure(f"training steps must be recorded: {messages.texts[0]}")
    figures: Figures = {"trials": total, "same": same}
    require(
        same == total,
        f"recorded steps must give the bits of eager ones; {total - same} trials differ",
        figures,
    )
    return f"{total} trials have the same bits with recorded and with eager steps", figures


def _epoch(family: str, arch: str, setting: Setting, observer: Observer | None) -> Tensor:
    """Train one epoch. Return the weights of every trial, [T, parameters]."""
    trials = arms(family, arch, [1, 2])
    net = Dense(trials[0].model, 10)
    rows = [row_of(TrialState(trial, 1, {})) for trial in trials]
    rows = [rows[at] for at in batch_order(rows)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows]).to(setting.device)
    gradients = active.zeros_like()
    split = setting.corner.train.first(SAMPLES).to(setting.device)
    optimizer = optimizer_for("adamw", rows, active, gradients)
    batches = Batches(rows, split, trials[0].method.batch_size)
    train_epoch(net, rows, active, gradients, optimizer, batches, setting.deadline.passed, observer)
    return torch.cat(active.parts, dim=1)
