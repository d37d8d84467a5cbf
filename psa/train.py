"""One epoch and one evaluation of T stacked trials: the hot path, and nothing else.

An epoch is one permutation per (seed, loop) of tensors that lie on the device; there is no loader and no
progress bar. Trials of one seed and loop read the same batch, which is gathered once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psa.data import Split
from psa.errors import Interrupted
from psa.nets.dense import Dense
from psa.nets.layers import Dropout, Inputs, empty_rows
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
    """Positions of `rows` in the order that makes few and long runs: equal settings side by side, and among
    them one arm of every (seed, loop) after another, so that a run reads consecutive groups of samples."""
    seen: dict[Row, int] = {}
    keys = []
    for at, row in enumerate(rows):
        arm = seen[row] = seen.get(row, -1) + 1
        keys.append((row.dropout, row.weight_decay, row.lr, arm, row.seed, row.loop, at))
    return [at for *_, at in sorted(keys)]


def runs_of(values: Sequence[object]) -> list[slice]:
    """Maximal slices of equal neighbours."""
    starts = [at for at in range(len(values)) if at == 0 or values[at] != values[at - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


class Batches:
    """The batches of one epoch for the rows of a pack: a permutation for each (seed, loop) among them."""

    def __init__(self, rows: Sequence[Row], split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size
        draws = sorted({(row.seed, row.loop) for row in rows})
        group = [draws.index((row.seed, row.loop)) for row in rows]
        # neighbours whose group rises by one belong to the same run: group minus position is constant
        steps = [g - at for at, g in enumerate(group)]
        self.runs = tuple((run, slice(group[run.start], group[run.stop - 1] + 1)) for run in runs_of(steps))
        orders = [stream(seed, "shuffle", loop).permutation(len(split)) for seed, loop in draws]
        device = split.images.device
        self.order = torch.from_numpy(np.stack(orders)).to(device)  # S x N
        self.group = torch.tensor(group, device=device)

    def __len__(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def __getitem__(self, step: int) -> tuple[Inputs, Tensor]:
        """Inputs of S x B samples, and labels [T, B]."""
        chosen = self.order[:, step * self.batch_size : (step + 1) * self.batch_size]
        x = self.split.images.index_select(0, chosen.reshape(-1)).view(*chosen.shape, -1)
        labels = self.split.labels[chosen]
        return Inputs(x, self.runs), labels[self.group]


class DropoutPlan:
    """Dropout for those rows of an epoch that have any; they are neighbours, since rows come in order."""

    def __init__(self, rows: Sequence[Row], device: torch.device) -> None:
        on = [at for at, row in enumerate(rows) if row.dropout > 0]
        if on and on[-1] - on[0] + 1 != len(on):
            raise ValueError("rows with dropout must be neighbours: sort the rows (in_order)")
        self.rows = slice(on[0], on[-1] + 1) if on else None
        keys = [hash_key(rows[at].seed, "dropout", rows[at].loop) for at in on]
        chance = [rows[at].dropout for at in on]
        self.keys = torch.tensor(keys, dtype=torch.int32, device=device)
        threshold = [round(p * 2**32) - 2**31 for p in chance]
        self.threshold = torch.tensor(threshold, dtype=torch.int32, device=device).view(-1, 1, 1)
        scale = [1 / (1 - p) for p in chance]
        self.scale = torch.tensor(scale, dtype=torch.float32, device=device).view(-1, 1, 1)

    def at(self, step: int) -> Dropout | None:
        """The dropout of batch number `step`, None where no row has any."""
        if self.rows is None:
            return None
        return Dropout(self.rows, self.keys, self.threshold, self.scale, step)


def optimizer_for(
    kind: type[torch.optim.Optimizer], rows: Sequence[Row], active: Tensor, gradients: Tensor
) -> torch.optim.Optimizer:
    """A fused optimiser over `active` [T, size], each run of rows with its own rate and decay.

    Works on whole rows: thousands of small tensors of a deep network are one call.
    """
    groups = []
    for run in runs_of([(row.lr, row.weight_decay, row.loop) for row in rows]):
        parameter = active[run]
        parameter.grad = gradients[run]
        row = rows[run.start]
        groups.append({"params": [parameter], "lr": row.lr, "weight_decay": row.weight_decay})
    return kind(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8, fused=True)  # type: ignore[call-arg]


def cross_entropy(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Summed loss per trial [T] (float64) and the gradient of the batch mean, [T, B, classes]."""
    log_p = torch.log_softmax(logits, dim=2)
    chosen = labels.unsqueeze(2)
    loss = -log_p.gather(2, chosen).squeeze(2).to(torch.float64).sum(dim=1)
    gradient = empty_rows(*logits.shape, device=logits.device)
    torch.exp(log_p, out=gradient)
    gradient.scatter_add_(2, chosen, torch.full_like(chosen, -1, dtype=gradient.dtype))
    return loss, gradient.div_(labels.shape[1])


def train_epoch(
    net: Dense,
    rows: Sequence[Row],
    active: Tensor,
    gradients: Tensor,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """Train `active` [T, size] in place for one epoch; mean training loss per trial [T], float64.

    Raises Interrupted between two steps when `stop` says so; `active` is then of no use.
    """
    dropout = DropoutPlan(rows, active.device)
    anchor = torch.zeros((), device=active.device, requires_grad=True)
    total = torch.zeros(len(rows), dtype=torch.float64, device=active.device)
    for step in range(len(batches)):
        if stop():
            raise Interrupted
        inputs, labels = batches[step]
        logits = net.forward(active, inputs, gradients, dropout.at(step), anchor)
        loss, gradient = cross_entropy(logits.detach(), labels)
        logits.backward(gradient)
        optimizer.step()
        total += loss
    return total / len(batches.split)


@torch.no_grad()
def evaluate(net: Dense, weights: Tensor, split: Split) -> tuple[Tensor, Tensor]:
    """Correct answers per trial [T] (int64) and mean loss per trial [T] (float64) on a split."""
    trials = weights.shape[0]
    correct = torch.zeros(trials, dtype=torch.int64, device=weights.device)
    total = torch.zeros(trials, dtype=torch.float64, device=weights.device)
    for start in range(0, len(split), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        labels = split.labels[part].expand(trials, -1)
        logits = net.forward(weights, Inputs.same_for_all(split.images[part], trials))
        loss, _ = cross_entropy(logits, labels)
        correct += (logits.argmax(dim=2) == labels).sum(dim=1)
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
