"""Stacked building blocks: T trials' parameters as rows of two buffers, and layers over all at once.

Weights are [T, outputs, inputs] and activations [T, width, B], so that the batch is the inner dimension of
every product: narrow layers then run in the same fast kernels as wide ones, and the first layers of all
trials that read the same samples are one product. On one thread such products give a trial the same bits in
any pack and at any position (measured at widths 1 to 128 and batches of 1 to 500) provided that every matrix
starts on a 64-byte boundary (an odd size otherwise moves its neighbours to another kernel), and that products
of trials that share their samples are not too small (see psa.nn.shared_products).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from psa.nn.dropout import Dropout
from psa.nn.shared_products import shared_gradient, shared_product
from psa.nn.stacked import empty_rows

# Of a layer: its number, its input as it was handed over, and [T, outputs, B], the gradient of what was
# differentiated with respect to its product W x + b (+ skip).
LayerWatcher = Callable[[int, Tensor, Tensor], None]


@dataclass(slots=True)
class Layer:
    """One stacked linear layer: its views, and where its gradients go (None where none are wanted).

    single: it has one input, an outer product, for which matrix kernels are slow and their choice depends
    on the pack. temperature: of a simplex layer, whose effective weights are softmax(weight / temperature)
    over its outputs, None of a linear one. rows, dropout: of the present batch; rows only in the first layer
    (see Inputs). watch: is shown every backward pass and may keep copies of what it sees.
    """

    number: int
    weight: Tensor
    bias: Tensor
    weight_grad: Tensor | None
    bias_grad: Tensor | None
    relu: bool
    single: bool
    temperature: float | None = None
    rows: tuple[slice, ...] | None = None
    dropout: Dropout | None = None
    watch: LayerWatcher | None = None


def stacked_linear(x: Tensor, layer: Layer, anchor: Tensor, skip: Tensor | None = None) -> Tensor:
    """Return dropout(relu(W x + b + skip)), [T, outputs, B], with the parts that `layer` has; x is
    [T, inputs, B], or for the first layer [S, B, features].

    Gradients of weights and biases are written into the layer's buffers, not accumulated: each layer is
    used once a pass. `anchor` is any tensor that requires a gradient; it ties the first layer, whose input
    needs none, into the graph.
    """
    return _StackedLinear.apply(x, skip, anchor, layer)  # type: ignore[no-any-return]


def effective(layer: Layer) -> Tensor:
    """Return a layer's effective weights [T, outputs, inputs]: its weights, or their softmax if simplex."""
    if layer.temperature is None:
        return layer.weight
    weight = empty_rows(*layer.weight.shape, device=layer.weight.device)
    for row, values in zip(weight, layer.weight, strict=True):  # each alone: its bits are its own
        row.copy_(torch.softmax(values / layer.temperature, dim=0))
    return weight


def product(layer: Layer, weight: Tensor, x: Tensor, y: Tensor) -> None:
    """Write W x + b into y [T, outputs, B]; x as in `stacked_linear`."""
    if layer.rows is not None:
        for group, rows in zip(x, layer.rows, strict=True):
            shared_product(weight[rows], layer.bias[rows], group, y[rows])
    elif layer.single:
        torch.mul(weight, x, out=y).add_(layer.bias)
    else:
        torch.baddbmm(layer.bias, weight, x, out=y)


def drop_units(y: Tensor, layer: int, dropout: Dropout) -> None:
    """Apply dropout behind a layer, by its number, to [T, outputs, B] in place."""
    y[dropout.rows] *= dropout.mask(layer, *y.shape[1:])


def through_relu(gradient: Tensor, y: Tensor, dropout: Dropout | None, into: Tensor) -> None:
    """Write the gradient behind dropout(relu(.)), whose result is y, as that before it into `into`."""
    # y > 0 exactly where the unit was on and kept, so one comparison undoes both ReLU and dropout.
    torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=into)
    if dropout is not None:
        into[dropout.rows] *= dropout.scale


def input_gradient(layer: Layer, weight: Tensor, delta: Tensor, into: Tensor) -> None:
    """Write the gradient of a layer's input, [T, inputs, B], from that of its product."""
    if layer.single and weight.shape[1] == 1 and layer.watch is None:
        torch.mul(weight, delta, out=into)  # a sum of one, but for the sign of a zero
    elif layer.single:
        torch.sum(weight * delta, dim=1, keepdim=True, out=into)
    else:
        torch.bmm(weight.transpose(1, 2), delta, out=into)


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None, anchor: Tensor, layer: Layer) -> Tensor:
        weight = effective(layer)
        batch = x.shape[2] if layer.rows is None else x.shape[1]
        y = empty_rows(*weight.shape[:2], batch, device=x.device)
        product(layer, weight, x, y)
        if skip is not None:
            y += skip
        if layer.relu:
            torch.relu_(y)
        if layer.dropout is not None:
            drop_units(y, layer.number, layer.dropout)
        ctx.layer, ctx.dropout, ctx.rows = layer, layer.dropout, layer.rows
        ctx.save_for_backward(x, y, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        layer: Layer = ctx.layer
        x, y, weight = ctx.saved_tensors
        delta = gradient
        if layer.relu:
            delta = empty_rows(*y.shape, device=y.device)
            through_relu(gradient, y, ctx.dropout, delta)
        if layer.watch is not None:
            layer.watch(layer.number, x, delta)
        weight_gradients(layer, ctx.rows, x, delta)
        if layer.temperature is not None:
            _through_softmax(layer, weight)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = empty_rows(*x.shape, device=x.device)
            input_gradient(layer, weight, delta, x_gradient)
        return x_gradient, delta if ctx.needs_input_grad[1] else None, None, None


def _through_softmax(layer: Layer, weight: Tensor) -> None:
    """Turn the gradient of the effective weights into that of the learned parameters, in place; there is no
    bias.
    """
    if layer.weight_grad is None or layer.bias_grad is None or layer.temperature is None:
        return
    for into, own in zip(layer.weight_grad, weight, strict=True):
        back = torch.ops.aten._softmax_backward_data(into.contiguous(), own.contiguous(), 0, own.dtype)
        into.copy_(back / layer.temperature)
    layer.bias_grad.zero_()


def weight_gradients(layer: Layer, runs: tuple[slice, ...] | None, x: Tensor, delta: Tensor) -> None:
    """Write the gradients of a layer's weights and biases into its buffers, if it has any."""
    if layer.weight_grad is None or layer.bias_grad is None:
        return
    torch.sum(delta, dim=2, keepdim=True, out=layer.bias_grad)
    if layer.single and runs is None:
        torch.sum(delta * x, dim=2, keepdim=True, out=layer.weight_grad)
        return
    if runs is None:
        torch.bmm(delta, x.transpose(1, 2), out=layer.weight_grad)
        return
    for group, rows in zip(x, runs, strict=True):
        into = layer.weight_grad[rows]
        shared_gradient(delta[rows], group, into)
