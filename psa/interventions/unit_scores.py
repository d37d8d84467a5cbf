"""Scores of the units of a network, by which an ablation ranks them. No score reads validation or test data.

weight: the L2 norm of the incoming weights, as magnitude pruning takes it (Han et al. 2015, Li et al. 2017).
activation: the mean absolute activation (Hu et al. 2016 count zeros in its place). gradient: the L2 norm of
the gradient of the mean loss with respect to the incoming weights. contribution: the mean over samples of
|activation x gradient of the sample's loss with respect to it|, the first-order estimate of what removing the
unit would change (Molchanov et al. 2017).

The last three are of the first `SCORED` samples of the training split, whose order is that of the split seed;
an activation is what the next layer reads, the logit in the last layer. Dropout is off.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psa.data.splits import Split
from psa.nn.dense import Dense
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams

SCORED: Final = 1_000


def unit_scores(
    net: Dense, row: StackedParams, measure: str, train: Split, loop: int = 1
) -> list[NDArray[np.float64]]:
    """Return a score of every unit of every linear layer, [outputs] each.

    row: the weights of one trial, [1, ...]; alone, so that its scores have the same bits in any pack.
    measure: weight, activation, gradient or contribution. loop: the epoch that made the weights, which
    activations with a schedule depend on.
    """
    layers = range(len(net.shape.linears))
    if measure == "weight":
        return [_norms(net.layout.weight(row, layer)) for layer in layers]
    activations, deltas, gradients = _backward(net, row, train, loop)
    if measure == "gradient":
        return [_norms(net.layout.weight(gradients, layer)) for layer in layers]
    values = [_float64(activation) for activation in activations]
    if measure == "contribution":
        values = [value * _float64(delta) for value, delta in zip(values, deltas, strict=True)]
    return [np.abs(value).mean(axis=1) for value in values]


def _backward(
    net: Dense, row: StackedParams, train: Split, loop: int
) -> tuple[list[Tensor], list[Tensor], StackedParams]:
    """Return activations and the gradients of each sample's loss by them, [1, outputs, N] per layer, and the
    gradient of the mean loss by the parameters.
    """
    images, labels = train.images[:SCORED], train.labels[:SCORED]
    gradients = row.zeros_like()
    hidden: list[Tensor] = []

    def keep(layer: int, before: Tensor, after: Tensor) -> None:
        after.retain_grad()
        hidden.append(after)

    with torch.enable_grad():
        logits = net.bind(row, gradients, [loop])(Inputs.same_for_all(images, 1), tap=keep)
    share = torch.softmax(logits.detach(), dim=1)
    delta = share.scatter_add(1, labels.view(1, 1, -1), torch.full_like(share[:, :1], -1.0))
    logits.backward(delta / len(labels))
    found = [
        len(labels) * (each.grad if each.grad is not None else torch.zeros_like(each)) for each in hidden
    ]
    return [*(each.detach() for each in hidden), logits.detach()], [*found, delta], gradients


def _float64(values: Tensor) -> NDArray[np.float64]:
    """Return the values of one trial on the CPU, where sums of one shape always have the same bits."""
    return np.ascontiguousarray(values[0].cpu().numpy(), dtype=np.float64)


def _norms(weight: Tensor) -> NDArray[np.float64]:
    """Return the L2 norm of the weights of each unit, from [1, outputs, inputs]."""
    return np.asarray(np.sqrt(np.square(_float64(weight)).sum(axis=1)))
