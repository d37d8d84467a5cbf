"""Stacked building blocks: T trials' parameters as rows of two buffers, and layers over all at once.

Weights are [T, outputs, inputs] and activations [T, width, B], so that the batch is the inner dimension of
every product: narrow layers then run in the same fast kernels as wide ones, and the first layers of all
trials that read the same samples are one product. On one thread such products give a trial the same bits in
any pack and at any position (measured at widths 1 to 128 and batches of 1 to 500) provided that
- every matrix starts on a 64-byte boundary (an odd size otherwise moves its neighbours to another kernel),
- a product has at least FEWEST_ROWS rows and 2 columns (smaller ones are done by vector kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from psa.nets.dropout import Dropout
from psa.nets.shapes import Linear

LANES: Final = 16  # float32 per 64 bytes
FEWEST_ROWS: Final = 4


def aligned(count: int) -> int:
    """The next multiple of 64 bytes, in floats."""
    return -(-count // LANES) * LANES


def empty_rows(trials: int, *shape: int, device: torch.device) -> Tensor:
    """An uninitialised [trials, *shape] tensor whose rows each start on a 64-byte boundary."""
    count = 1
    for size in shape:
        count *= size
    return torch.empty(trials, aligned(count), device=device)[:, :count].view(trials, *shape)


@dataclass(frozen=True)
class Rows:
    """The parameters of T trials (or their gradients, or an optimiser's moments).

    first: [T, width * features], the weights of the first layer without gaps between trials, so that
    neighbours form one matrix. rest: [T, size], all other parameters, each on a 64-byte boundary.
    """

    first: Tensor
    rest: Tensor

    def __len__(self) -> int:
        return len(self.first)

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Both buffers."""
        return self.first, self.rest

    def __getitem__(self, rows: slice | list[int]) -> Rows:
        """Some rows: views for a slice, a copy for a list."""
        return Rows(self.first[rows], self.rest[rows])

    def put(self, rows: list[int], values: Rows) -> None:
        """Overwrite some rows in place."""
        self.first[rows] = values.first
        self.rest[rows] = values.rest

    def clone(self) -> Rows:
        """A copy."""
        return Rows(self.first.clone(), self.rest.clone())

    def zeros_like(self) -> Rows:
        """As many zeros."""
        return Rows(torch.zeros_like(self.first), torch.zeros_like(self.rest))

    def repeat(self, times: int) -> Rows:
        """All rows, `times` over."""
        return Rows(self.first.repeat(times, 1), self.rest.repeat(times, 1))

    def to(self, device: torch.device) -> Rows:
        """The same on another device."""
        return Rows(self.first.to(device), self.rest.to(device))

    @classmethod
    def stacked(cls, rows: Sequence[Rows]) -> Rows:
        """Several one below the other."""
        return cls(torch.cat([row.first for row in rows]), torch.cat([row.rest for row in rows]))


class Layout:
    """Where each weight [outputs, inputs], bias [outputs] and threshold lies in the buffers of Rows.

    weight_at, bias_at, threshold_at: per layer, the offset in the row; the first layer's weight is alone in
    `first`. A layer without a bias has zeros in its place, which no gradient moves.
    """

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = tuple(linears)
        self.weight_at: list[int] = [0]
        self.bias_at: list[int] = [0]
        self.threshold_at: dict[int, int] = {}
        self.first_size = self.linears[0].inputs * self.linears[0].outputs
        size = aligned(self.linears[0].outputs)
        for linear in self.linears[1:]:
            self.weight_at.append(size)
            size += aligned(linear.inputs * linear.outputs)
            self.bias_at.append(size)
            size += aligned(linear.outputs)
        for layer, linear in enumerate(self.linears):
            if linear.threshold:
                self.threshold_at[layer] = size
                size += LANES
        self.size = size

    def zeros(self, trials: int) -> Rows:
        """Rows of zeros, on the CPU."""
        return Rows(torch.zeros(trials, self.first_size), torch.zeros(trials, self.size))

    def weight(self, rows: Rows, layer: int) -> Tensor:
        """View [T, outputs, inputs] of the weights of one layer."""
        linear, start = self.linears[layer], self.weight_at[layer]
        row = rows.rest if layer else rows.first
        return row[:, start : start + linear.inputs * linear.outputs].view(-1, linear.outputs, linear.inputs)

    def bias(self, rows: Rows, layer: int) -> Tensor:
        """View [T, outputs, 1] of the biases of one layer."""
        start = self.bias_at[layer]
        return rows.rest[:, start : start + self.linears[layer].outputs].unsqueeze(2)

    def threshold(self, rows: Rows, layer: int) -> Tensor | None:
        """View [T, 1, 1] of the threshold of one layer, None where it has none."""
        if layer not in self.threshold_at:
            return None
        start = self.threshold_at[layer]
        return rows.rest[:, start : start + 1].unsqueeze(2)

    def tensors(self, row: Rows) -> dict[str, Tensor]:
        """The parameters of one row as views under ordinary names and with ordinary sizes."""
        found = {}
        for layer, linear in enumerate(self.linears):
            found[f"{linear.name}.weight"] = self.weight(row, layer)[0]
            if not linear.simplex:
                found[f"{linear.name}.bias"] = self.bias(row, layer)[0, :, 0]
            threshold = self.threshold(row, layer)
            if threshold is not None:
                found[f"{linear.name}.threshold"] = threshold[0, :, 0]
        return found

    def views(self, rows: Rows) -> list[tuple[Tensor, Tensor]]:
        """(weight, bias) of every layer, in compute order."""
        return [(self.weight(rows, layer), self.bias(rows, layer)) for layer in range(len(self.linears))]


@dataclass(frozen=True)
class Inputs:
    """A batch for T trials of which neighbours may share their samples.

    x: S groups x B x features. rows: for each group the slice of trials that read it, in order, covering
    all T.
    """

    x: Tensor
    rows: tuple[slice, ...]

    @classmethod
    def same_for_all(cls, x: Tensor, trials: int) -> Inputs:
        """Every one of `trials` trials reads the same B x features."""
        return cls(x.unsqueeze(0), (slice(0, trials),))

    def by_row(self) -> Tensor:
        """The samples of every trial, [T, features, B], copied where trials share them."""
        parts = [
            group.T.expand(rows.stop - rows.start, -1, -1)
            for group, rows in zip(self.x, self.rows, strict=True)
        ]
        return torch.cat(parts)


@dataclass(slots=True)
class Layer:
    """One stacked linear layer: its views, and where its gradients go (None where none are wanted).

    single: it has one input, an outer product, for which matrix kernels are slow and their choice depends
    on the pack. temperature: of a simplex layer, whose effective weights are softmax(weight / temperature)
    over its outputs, None of a linear one. rows, dropout: of the present batch; rows only in the first layer
    (see Inputs).
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


def stacked_linear(x: Tensor, layer: Layer, anchor: Tensor, skip: Tensor | None = None) -> Tensor:
    """[T, outputs, B] = dropout(relu(W x + b + skip)), parts as `layer` says; x is [T, inputs, B], or for
    the first layer [S, B, features].

    Gradients of weights and biases are written into the layer's buffers, not accumulated: each layer is
    used once a pass. `anchor` is any tensor that requires a gradient; it ties the first layer, whose input
    needs none, into the graph.
    """
    return _StackedLinear.apply(x, skip, anchor, layer)  # type: ignore[no-any-return]


def effective(layer: Layer) -> Tensor:
    """[T, outputs, inputs] by which a layer multiplies: its weights, or of a simplex layer their softmax."""
    if layer.temperature is None:
        return layer.weight
    weight = empty_rows(*layer.weight.shape, device=layer.weight.device)
    for row, values in zip(weight, layer.weight, strict=True):  # each alone: its bits are its own
        row.copy_(torch.softmax(values / layer.temperature, dim=0))
    return weight


def _product(layer: Layer, weight: Tensor, x: Tensor) -> Tensor:
    trials, outputs, _ = weight.shape
    if layer.rows is None:
        y = empty_rows(trials, outputs, x.shape[2], device=x.device)
        if layer.single:
            return torch.mul(weight, x, out=y).add_(layer.bias)
        return torch.baddbmm(layer.bias, weight, x, out=y)
    y = empty_rows(trials, outputs, x.shape[1], device=x.device)
    for group, rows in zip(x, layer.rows, strict=True):
        y[rows] = _shared_product(weight[rows], layer.bias[rows], group)
    return y


def _shared_product(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """[n, outputs, B] of n trials that read the same x [B, features], as one product of two matrices."""
    trials, outputs, features = weight.shape
    matrix, column = weight.reshape(-1, features), bias.reshape(-1, 1)
    samples = len(x)
    if samples == 1:
        x = x.expand(2, -1)
    if len(matrix) < FEWEST_ROWS:
        missing = FEWEST_ROWS - len(matrix)
        matrix = torch.cat([matrix, matrix.new_zeros(missing, features)])
        column = torch.cat([column, column.new_zeros(missing, 1)])
    y = torch.addmm(column, matrix, x.T)
    return y[: trials * outputs, :samples].view(trials, outputs, samples)


class _StackedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, skip: Tensor | None, anchor: Tensor, layer: Layer) -> Tensor:
        weight = effective(layer)
        y = _product(layer, weight, x)
        if skip is not None:
            y += skip
        if layer.relu:
            torch.relu_(y)
        if layer.dropout is not None:
            y[layer.dropout.rows] *= layer.dropout.mask(layer.number, *y.shape[1:])
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
            # y > 0 exactly where the unit was on and kept, so one comparison undoes both ReLU and dropout.
            delta = empty_rows(*y.shape, device=y.device)
            torch.ops.aten.threshold_backward.grad_input(gradient, y, 0, grad_input=delta)
            if ctx.dropout is not None:
                delta[ctx.dropout.rows] *= ctx.dropout.scale
        _weight_gradients(layer, ctx.rows, x, delta)
        if layer.temperature is not None:
            _through_softmax(layer, weight)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = empty_rows(*x.shape, device=x.device)
            if layer.single:
                torch.sum(weight * delta, dim=1, keepdim=True, out=x_gradient)
            else:
                torch.bmm(weight.transpose(1, 2), delta, out=x_gradient)
        return x_gradient, delta if ctx.needs_input_grad[1] else None, None, None


def _through_softmax(layer: Layer, weight: Tensor) -> None:
    """Turn the gradient of the effective weights into that of the numbers that are learned, in place; there
    is no bias to learn.
    """
    if layer.weight_grad is None or layer.bias_grad is None or layer.temperature is None:
        return
    for into, own in zip(layer.weight_grad, weight, strict=True):
        back = torch.ops.aten._softmax_backward_data(into.contiguous(), own.contiguous(), 0, own.dtype)
        into.copy_(back / layer.temperature)
    layer.bias_grad.zero_()


def _weight_gradients(layer: Layer, runs: tuple[slice, ...] | None, x: Tensor, delta: Tensor) -> None:
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
        _shared_gradient(delta[rows], group, into)


def _shared_gradient(delta: Tensor, x: Tensor, into: Tensor) -> None:
    """Write delta x into [n, outputs, features], for n trials that read the same x [B, features]."""
    trials, outputs, samples = delta.shape
    matrix = delta.reshape(-1, samples)
    if len(matrix) < FEWEST_ROWS:
        matrix = torch.cat([matrix, matrix.new_zeros(FEWEST_ROWS - len(matrix), samples)])
        into.copy_(torch.mm(matrix, x)[: trials * outputs].view_as(into))
        return
    torch.mm(matrix, x, out=into.view(trials * outputs, -1))
