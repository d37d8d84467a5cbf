"""Adam, AdamW and SGD over stacked rows: one update for all trials of a pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from psa.engine.batches import RowSettings, equal_runs
from psa.nn.stacked import StackedParams
from psa.specs.training import MOMENTS
from psa.specs.training import OptimizerName as Kind


class StackedOptimizer(Protocol):
    """The interface of optimisers. moments: the names of the values that it keeps for each parameter."""

    moments: ClassVar[tuple[str, ...]]
    param_groups: list[dict[str, Any]]
    state: dict[Tensor, dict[str, Tensor]]

    def step(self) -> None:
        """Update every param by its gradient."""


class FusedAdam:
    """torch's fused Adam or AdamW over stacked rows, without the class and the function around the kernel:
    building the class imports torch's compiler, 1.6 s that every process would pay before its first step,
    and the function takes twice as long as the kernel for 25 trials of 4*1 (34 of 51 us, 2026-11).

    param_groups: one per run of rows with the same rate, decay and loop, each with two params (that run of
    `active.first` and of `active.rest`), lr and weight_decay. state: per param step, exp_avg and exp_avg_sq,
    made at the first step where they are not set before.
    """

    moments: ClassVar = MOMENTS["adamw"]
    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, kind: Kind, param_groups: list[dict[str, Any]]) -> None:
        self.decoupled = kind == "adamw"
        self.param_groups = param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every param by its gradient."""
        update = torch._fused_adamw_ if self.decoupled else torch._fused_adam_
        for group in self.param_groups:
            states = [self._state(parameter) for parameter in group["params"]]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            update(
                group["params"],
                [parameter.grad for parameter in group["params"]],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if parameter not in self.state:
            self.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        return self.state[parameter]


class FusedSgd:
    """torch's fused SGD with momentum over stacked rows; weight decay is coupled, as torch's SGD has it.

    state: per param its momentum buffer, from zeros: the first step's buffer is then the gradient, as torch
    starts it.
    """

    moments: ClassVar = MOMENTS["sgd"]

    def __init__(self, param_groups: list[dict[str, Any]]) -> None:
        self.param_groups = param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every param by its gradient."""
        for group in self.param_groups:
            sgd(
                group["params"],
                [parameter.grad for parameter in group["params"]],
                [self._buffer(parameter) for parameter in group["params"]],
                fused=True,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=0,
                nesterov=False,
                maximize=False,
            )

    def _buffer(self, parameter: Tensor) -> Tensor:
        if parameter not in self.state:
            self.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}
        return self.state[parameter]["momentum_buffer"]


def optimizer_for(
    kind: Kind, rows: Sequence[RowSettings], active: StackedParams, gradients: StackedParams
) -> StackedOptimizer:
    """Return a new optimiser over `active` that reads `gradients`.

    It works on whole rows, so a deep network has two tensors in place of thousands of small ones.
    """
    groups = []
    for run in equal_runs([(row.lr, row.weight_decay, row.momentum, row.loop, row.epochs) for row in rows]):
        parameters = list(active[run].parts)
        for parameter, gradient in zip(parameters, gradients[run].parts, strict=True):
            parameter.grad = gradient
        row = rows[run.start]
        groups.append(
            {
                "params": parameters,
                "lr": row.lr,
                "weight_decay": row.weight_decay,
                "momentum": row.momentum,
            }
        )
    return FusedSgd(groups) if kind == "sgd" else FusedAdam(kind, groups)


def restore_moments(
    optimizer: StackedOptimizer,
    moments: Mapping[str, StackedParams],
    rows: Sequence[RowSettings],
    steps_per_epoch: int,
) -> None:
    """Let an optimiser begin with moments, which it then updates in place. Its step count follows from the
    epochs behind them and is not stored.
    """
    start = 0
    for group in optimizer.param_groups:
        part = slice(start, start + len(group["params"][0]))
        steps = float(rows[start].epochs * steps_per_epoch)
        parts = {moment: moments[moment][part].parts for moment in optimizer.moments}
        for which, parameter in enumerate(group["params"]):
            optimizer.state[parameter] = {"step": torch.tensor(steps, device=parameter.device)} | {
                moment: both[which] for moment, both in parts.items()
            }
        start = part.stop
