"""Stacked building blocks: T trials' parameters as rows of one buffer, and layers over all of them at once.

Why buffers with aligned rows: one thread of the batched product gives each trial the same bits in any pack
and at any position only where every operand starts on the same 64-byte phase (measured; an odd width
otherwise moves its neighbours to another kernel). Rows and tensors therefore start on 64-byte boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from psa.nets.shapes import Linear

LANES: Final = 16  # float32 per 64 bytes


def aligned(count: int) -> int:
    """The next multiple of 64 bytes, in floats."""
    return -(-count // LANES) * LANES


def empty_rows(trials: int, *shape: int, device: torch.device) -> Tensor:
    """An uninitialised [trials, *shape] tensor whose rows each start on a 64-byte boundary."""
    count = 1
    for size in shape:
        count *= size
    return torch.empty(trials, aligned(count), device=device)[:, :count].view(trials, *shape)


class Layout:
    """Where each weight [inputs, outputs] and bias [outputs] lies in a trial's row of `size` floats."""

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = tuple(linears)
        self.weight_at: list[int] = []
        self.bias_at: list[int] = []
        size = 0
        for linear in self.linears:
            self.weight_at.append(size)
            size += aligned(linear.inputs * linear.outputs)
            self.bias_at.append(size)
            size += aligned(linear.outputs)
        self.size = size

    def weight(self, rows: Tensor, layer: int) -> Tensor:
        """View [T, inputs, outputs] of the weights of one layer in `rows` [T, size]."""
        linear, start = self.linears[layer], self.weight_at[layer]
        flat = rows[:, start : start + linear.inputs * linear.outputs]
        return flat.view(-1, linear.inputs, linear.outputs)

    def bias(self, rows: Tensor, layer: int) -> Tensor:
        """View [T, 1, outputs] of the biases of one layer in `rows` [T, size]."""
        start = self.bias_at[layer]
        return rows[:, start : start + self.linears[layer].outputs].unsqueeze(1)

    def views(self, rows: Tensor) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of every layer, in compute order."""
        return [(self.weight(rows, layer), self.bias(rows, layer)) for layer in range(len(self.linears))]


@dataclass(frozen=True)
class Inputs:
    """A batch for T trials of which some share their samples.

    x: S groups x B x features. runs: (rows of the pack, groups of x), equal lengths: those trials read
    those groups one to one. With `x` expanded over T a single run serves all.
    """

    x: Tensor
    runs: tuple[tuple[slice, slice], ...]

    @classmethod
    def same_for_all(cls, x: Tensor, trials: int) -> Inputs:
        """Every one of `trials` trials reads the same B x features (no copy is made)."""
        everyone = slice(0, trials)
        return cls(x.unsqueeze(0).expand(trials, *x.shape), ((everyone, everyone),))

    def by_row(self) -> Tensor:
        """The samples of every trial, [T, B, features], copied where trials share them."""
        return torch.cat([self.x[groups] for _, groups in self.runs])


@dataclass(frozen=True)
class Dropout:
    """Dropout for the contiguous `rows` of a pack, drawn by hashing counters.

    keys: int32 [n], one per row, of (seed, loop). threshold: int32 [n, 1, 1], a hash at or above it keeps
    the element. scale: float32 [n, 1, 1], 1 / (1 - p). `step` is the batch number within the epoch.
    """

    rows: slice
    keys: Tensor
    threshold: Tensor
    scale: Tensor
    step: int

    def mask(self, layer: int, batch: int, width: int) -> Tensor:
        """[n, batch, width]: 0 where dropped, `scale` where kept."""
        place = _mixed(self.keys + _wrap32(self.step * _STEP + layer * _LAYER))
        element = torch.arange(batch * width, dtype=torch.int32, device=place.device)
        bits = _mixed(element.mul_(_ELEMENT).view(1, batch, width) + place.view(-1, 1, 1))
        return (bits >= self.threshold).to(torch.float32).mul_(self.scale)


# Odd constants: multiples of the golden ratio and the two multipliers of MurmurHash3's final mix.
_STEP: Final = 0x9E3779B1
_LAYER: Final = 0x85EBCA77
_ELEMENT: Final = -1640531535
_MIX_1: Final = -2048144789
_MIX_2: Final = -1028477387


def _wrap32(value: int) -> int:
    return (value + 2**31) % 2**32 - 2**31


def _mixed(bits: Tensor) -> Tensor:
    """MurmurHash3's finaliser on int32, in place. The product wraps as two's complement on every device."""
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    bits *= _MIX_1
    bits ^= (bits >> 13).bitwise_and_(0x7FFFF)
    bits *= _MIX_2
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits


@dataclass(frozen=True)
class Layer:
    """One stacked linear layer in one pass: its views, and where its gradients go."""

    number: int
    weight: Tensor
    bias: Tensor
    weight_grad: Tensor | None
    bias_grad: Tensor | None
    relu: bool
    dropout: Dropout | None = None
    runs: tuple[tuple[slice, slice], ...] | None = None  # of the first layer, see Inputs


def stacked_linear(x: Tensor, layer: Layer, anchor: Tensor, skip: Tensor | None = None) -> Tensor:
    """[T, B, outputs] = dropout(relu(x W + b + skip)), parts as `layer` says.

    Gradients of weights and biases are written into the layer's buffers, not accumulated: each layer is
    used once a pass. `anchor` is any tensor that requires a gradient; it ties the first layer, whose input
    needs none, into the graph.
    """
    return _StackedLinear.apply(x, skip, anchor, layer)  # type: ignore[no-any-return]


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None, anchor: Tensor, layer: Layer) -> Tensor:
        trials, outputs = layer.weight.shape[0], layer.weight.shape[2]
        y = empty_rows(trials, x.shape[1], outputs, device=x.device)
        for rows, groups in layer.runs or ((slice(0, trials), slice(0, trials)),):
            torch.baddbmm(layer.bias[rows], x[groups], layer.weight[rows], out=y[rows])
        if skip is not None:
            y += skip
        if layer.relu:
            torch.relu_(y)
        if layer.dropout is not None:
            y[layer.dropout.rows] *= layer.dropout.mask(layer.number, *y.shape[1:])
        ctx.layer = layer
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        layer: Layer = ctx.layer
        x, y = ctx.saved_tensors
        delta = gradient
        if layer.relu:
            # y > 0 exactly where the unit was on and kept, so one comparison undoes both ReLU and dropout.
            delta = empty_rows(*y.shape, device=y.device)
            torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=delta)
            if layer.dropout is not None:
                delta[layer.dropout.rows] *= layer.dropout.scale
        _weight_gradients(layer, x, delta)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = empty_rows(*x.shape, device=x.device)
            torch.bmm(delta, layer.weight.transpose(1, 2), out=x_gradient)
        return x_gradient, delta if ctx.needs_input_grad[1] else None, None, None


def _weight_gradients(layer: Layer, x: Tensor, delta: Tensor) -> None:
    if layer.weight_grad is None or layer.bias_grad is None:
        return
    trials = delta.shape[0]
    for rows, groups in layer.runs or ((slice(0, trials), slice(0, trials)),):
        torch.bmm(x[groups].transpose(1, 2), delta[rows], out=layer.weight_grad[rows])
    torch.sum(delta, dim=1, keepdim=True, out=layer.bias_grad)
