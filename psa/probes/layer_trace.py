"""The values of hidden layers before and after activation on a split, batch by batch, for probes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from psa.data.splits import Split
from psa.engine.probing import ProbeInput
from psa.engine.train_step import EVALUATION_BATCH
from psa.nn.shared_products import Inputs

# A function of one trial's hidden layer: its number, and [width, B] before and after its activation.
_Watch = Callable[[int, Tensor, Tensor], None]


@torch.no_grad()
def trace_layers(
    probe_input: ProbeInput, split: Split, row: int, watch: _Watch, logits: Callable[[Tensor, Tensor], None]
) -> None:
    """Show each hidden layer of one trial on every batch of a split, then the logits [classes, B] and labels.

    One trial at a time, beside a copy of itself: what it is shown then has the same bits in any pack.
    """
    weights = probe_input.weights[[row, row]]
    bound = probe_input.net.bind(weights, loops=[probe_input.loops[row]] * 2)
    for start in range(0, len(split), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        inputs = Inputs.same_for_all(split.images[part], 2)
        made = bound(inputs, tap=lambda layer, before, after: watch(layer, before[0], after[0]))
        logits(made[0], split.labels[part])


def ignore(logits: Tensor, labels: Tensor) -> None:
    """Ignore the logits, for probes that need hidden layers alone."""


def hidden_layers(probe_input: ProbeInput) -> list[int]:
    """Return the numbers of the layers that have an activation."""
    return [number for number, linear in enumerate(probe_input.net.shape.linears) if linear.role != "output"]
