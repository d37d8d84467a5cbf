"""One epoch and one evaluation of T stacked trials: the hot path, and nothing else.

An epoch is one permutation per (seed, loop) of tensors that lie on the device; there is no loader and no
progress bar. Trials of one seed and loop read the same batch, which is gathered once for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim.adam import adam

from psa.data import Split
from psa.errors import Interrupted
from psa.nets.dense import Dense
from psa.nets.dropout import Dropout
from psa.nets.layers import Inputs, Rows, empty_rows
from psa.streams import hash_key, stream

EVALUATION_BATCH = 500  # divides 10,000 and 5,000; the counts do not depend on it


@dataclass(frozen=True)
class Row:
    """What one row of a pack needs to know for one epoch."""

    seed: int
    loop: int
    dropout: float
    lr: float
    weight_decay: float


def in_order(rows: Sequence[Row]) -> list[int]:
    """Positions of `rows` in the order that puts those of one (seed, loop) side by side: they share their
    batches. Within a seed, rows of equal rate and decay are neighbours too.
    """
    return sorted(
        range(len(rows)),
        key=lambda at: (rows[at].seed, rows[at].loop, rows[at].lr, rows[at].weight_decay, rows[at].dropout),
    )


def runs_of(values: Sequence[object]) -> list[slice]:
    """Maximal slices of equal neighbours."""
    starts = [at for at in range(len(values)) if at == 0 or values[at] != values[at - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


class Batches:
    """The batches of one epoch for the rows of a pack: a permutation for each run of one (seed, loop)."""

    def __init__(self, rows: Sequence[Row], split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size
        draws = [(row.seed, row.loop) for row in rows]
        self.rows = tuple(runs_of(draws))
        orders = [
            stream(draws[run.start][0], "shuffle", draws[run.start][1]).permutation(len(split))
            for run in self.rows
        ]
        device = split.images.device
        self.order = torch.from_numpy(np.stack(orders)).to(device)  # S x N
        self.group = torch.tensor(
            [group for group, run in enumerate(self.rows) for _ in range(run.start, run.stop)], device=device
        )

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def __getitem__(self, step: int) -> tuple[Inputs, Tensor]:
        """Inputs of S x B samples, and labels [T, B]."""
        chosen = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
        x = self.split.images.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)
        return Inputs(x, self.rows), self.split.labels[chosen][self.group]


class DropoutPlan:
    """Dropout for those rows of an epoch that have any. layers: the width of each layer that drops."""

    def __init__(
        self, rows: Sequence[Row], device: torch.device, layers: Mapping[int, int] | None = None
    ) -> None:
        self.layers = layers or {}
        on = [at for at, row in enumerate(rows) if row.dropout > 0]
        self.rows = _evenly_spaced(on) or torch.tensor(on, dtype=torch.int64, device=device)
        self.any = bool(on)
        keys = [hash_key(rows[at].seed, "dropout", rows[at].loop) for at in on]
        self.keys = torch.tensor(keys, dtype=torch.int32, device=device)
        threshold = [min(round(rows[at].dropout * 2**32), 2**32 - 1) - 2**31 for at in on]
        self.threshold = torch.tensor(threshold, dtype=torch.int32, device=device).view(-1, 1, 1)
        scale = [1 / (1 - rows[at].dropout) for at in on]
        self.scale = torch.tensor(scale, dtype=torch.float32, device=device).view(-1, 1, 1)

    def at(self, step: int) -> Dropout | None:
        """The dropout of batch number `step`, None where no row has any."""
        if not self.any:
            return None
        return Dropout(self.rows, self.keys, self.threshold, self.scale, step, self.layers)


def _evenly_spaced(places: Sequence[int]) -> slice | None:
    """The slice that picks `places`, where there is one: views are cheaper than gathered copies."""
    if not places:
        return None
    step = places[1] - places[0] if len(places) > 1 else 1
    found = slice(places[0], places[-1] + 1, step)
    return found if list(range(found.start, found.stop, step)) == list(places) else None


OptimizerKind = Literal["adam", "adamw"]


class FusedAdam:
    """torch's fused Adam or AdamW over stacked rows, without the class around it: building that imports
    torch's compiler, 1.6 s that every process would pay before its first step.

    param_groups: one per run of rows with the same rate, decay and loop, each with two params (that run of
    `active.first` and of `active.rest`), lr and weight_decay. state: per param step, exp_avg and exp_avg_sq,
    made at the first step where they are not set before.
    """

    betas = (0.9, 0.999)
    eps = 1e-8

    def __init__(self, kind: OptimizerKind, param_groups: list[dict[str, Any]]) -> None:
        self.decoupled = kind == "adamw"
        self.param_groups = param_groups
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
        """Update every param by its gradient."""
        for group in self.param_groups:
            states = [self._state(parameter) for parameter in group["params"]]
            adam(
                group["params"],
                [parameter.grad for parameter in group["params"]],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                decoupled_weight_decay=self.decoupled,
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


def optimizer_for(kind: OptimizerKind, rows: Sequence[Row], active: Rows, gradients: Rows) -> FusedAdam:
    """A fresh optimiser over `active`, fed by `gradients`.

    It works on whole rows: the thousands of small tensors of a deep network are two.
    """
    groups = []
    for run in runs_of([(row.lr, row.weight_decay, row.loop) for row in rows]):
        parameters = list(active[run].parts)
        for parameter, gradient in zip(parameters, gradients[run].parts, strict=True):
            parameter.grad = gradient
        row = rows[run.start]
        groups.append({"params": parameters, "lr": row.lr, "weight_decay": row.weight_decay})
    return FusedAdam(kind, groups)


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss per trial [T] (float64) of logits [T, classes, B], and the gradient of the batch mean."""
    log_p = torch.log_softmax(logits, dim=1)
    chosen = labels.unsqueeze(1)
    loss = -log_p.gather(1, chosen).squeeze(1).to(torch.float64).sum(dim=1)
    share = torch.zeros_like(log_p).scatter_(1, chosen, -1 / labels.shape[1])
    gradient = empty_rows(*logits.shape, device=logits.device)
    gradient.copy_(torch.ops.aten._log_softmax_backward_data(share, log_p, 1, log_p.dtype))
    return loss, gradient


def train_epoch(
    net: Dense,
    rows: Sequence[Row],
    active: Rows,
    gradients: Rows,
    optimizer: FusedAdam,
    batches: Batches,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Train the T rows of `active` in place for one epoch; mean training loss per trial [T], float64.

    Raises Interrupted between two steps when `stop` says so; `active` is then of no use.
    """
    device = active.first.device
    dropout = DropoutPlan(rows, device, net.dropping)
    bound = net.bind(active, gradients)
    total = torch.zeros(len(rows), dtype=torch.float64, device=device)
    for step in range(len(batches)):
        if stop():
            raise Interrupted
        inputs, labels = batches[step]
        logits = bound(inputs, dropout.at(step))
        loss, gradient = cross_entropy(logits.detach(), labels)
        logits.backward(gradient)
        optimizer.step()
        total += loss
    return total / len(batches.split)


@torch.no_grad()
def evaluate(net: Dense, weights: Rows, split: Split) -> tuple[Tensor, Tensor]:
    """Correct answers per trial [T] (int64) and mean loss per trial [T] (float64) on a split."""
    trials, device = len(weights), weights.first.device
    bound = net.bind(weights)
    correct = torch.zeros(trials, dtype=torch.int64, device=device)
    total = torch.zeros(trials, dtype=torch.float64, device=device)
    for start in range(0, len(split), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        labels = split.labels[part].expand(trials, -1)
        logits = bound(Inputs.same_for_all(split.images[part], trials))
        loss, _ = cross_entropy(logits, labels)
        correct += (logits.argmax(dim=1) == labels).sum(dim=1)
        total += loss
    return correct, total / len(split)


def batch_sizes(samples: int, batch_size: int) -> set[int]:
    """The sizes of the batches that `samples` samples are cut into."""
    return {min(samples, batch_size), samples % batch_size} - {0}


def padded(net: Dense, trials: int, batches: set[int]) -> bool:
    """Whether a lone trial must be computed beside a copy of itself to get the bits it has in a pack.

    A batched product of one matrix with a dimension of 1 goes to another kernel (measured); two do not.
    """
    return trials == 1 and 1 in batches | {net.smallest_dimension}
