"""Forward and backward pass of plain and residual ReLU networks without autograd, in buffers allocated once.

A narrow deep network consists of hundreds of products of microseconds each, and autograd spends more on a
layer (its node, saved tensors, fresh memory) than its products take. The pass calls the functions of
psa.nn.layers in the same order, and the gradients of several narrow layers at once. In processor time of one
core beside other work (2026-11) deep narrow networks train 1.3 to 2.3 times as fast as with autograd, 1*2048
as fast. Its bits are those of `Bound` (tests/nn/test_relu_pass.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from psa.nn.dense import Bound, Dense
from psa.nn.dropout import Dropout
from psa.nn.layers import (
    Inputs,
    Layer,
    drop_units,
    input_gradient,
    product,
    through_relu,
    weight_gradients,
)
from psa.nn.stacked import LANES, aligned
from psa.nn.unit_chain import UnitChain, find_chain

_ROLES: Final = {"hidden", "enter", "leave", "output"}
_ALIVE: Final = 3  # buffers that take turns: a block's input is read again behind its second layer
_NARROW: Final = 16  # width up to which the gradients of several layers are computed at once
_AT_ONCE: Final = 1 << 18  # numbers in the inputs and deltas of these layers: they stay in the cache


class ReluPass:
    """The pass of a bound network over batches of one size.

    Args:
        bound: The network.
        trials: T.
        batch: B.
        training: Keep what `backward` reads. Without it three buffers serve all layers.

    """

    def __init__(self, bound: Bound, trials: int, batch: int, *, training: bool) -> None:
        self.layers = bound.plan
        sizes = [trials * aligned(layer.weight.shape[1] * batch) for layer, _ in self.layers]
        device = bound.anchor.device
        ends = list(itertools.accumulate(sizes, initial=0))
        flat = torch.empty(ends[-1] if training else _ALIVE * max(sizes), device=device)
        starts = ends[:-1] if training else [at % _ALIVE * max(sizes) for at in range(len(sizes))]
        shapes = [(trials, layer.weight.shape[1], batch) for layer, _ in self.layers]
        self.outputs = [_rows(flat, start, *shape) for start, shape in zip(starts, shapes, strict=True)]
        chunks = _chunks(self.layers, trials, batch) if training else []
        largest = max((sum(sizes[chunk]) for chunk in chunks), default=0)
        turns = torch.empty(_ALIVE, largest, device=device)
        self.deltas: dict[int, Tensor] = {}
        self.narrow: dict[int, _NarrowLayers] = {}  # by the first of its layers
        self.covered: set[int] = set()
        for turn, chunk in enumerate(chunks):
            for at in range(chunk.start, chunk.stop):
                self.deltas[at] = _rows(turns[turn % _ALIVE], ends[at] - ends[chunk.start], *shapes[at])
            if _is_narrow(self.layers[chunk.start][0], batch):
                inputs, deltas = flat[starts[chunk.start - 1] :], turns[turn % _ALIVE]
                some = [layer for layer, _ in self.layers[chunk]]
                self.covered.update(range(chunk.start, chunk.stop))
                self.narrow[chunk.start] = _NarrowLayers.of(some, inputs, deltas, batch)
        self.chain, self.parts = None, dict[int, _ChainPart]()  # the parts by the last of their layers
        run = find_chain(self.layers)
        if run is not None and (batch % LANES == 0 or not training):
            self.chain = UnitChain(self.layers, run, batch)
            rows = (-1, trials, aligned(batch))
            begin, end = (starts[run.start], ends[run.stop]) if training else (starts[run.stop - 1], 0)
            self.chain_outputs = flat[begin : end or begin + trials * rows[2]].view(rows)
            for turn, chunk in enumerate(chunks):
                if run.start <= chunk.start and chunk.stop <= run.stop:
                    outputs = flat[ends[chunk.start] : ends[chunk.stop]].view(rows)
                    deltas = turns[turn % _ALIVE][: ends[chunk.stop] - ends[chunk.start]].view(rows)
                    below = self.deltas[chunk.start - 1].as_strided(rows[1:], (rows[2], 1))
                    self.parts[chunk.stop - 1] = _ChainPart(chunk, outputs, deltas, below)
        self.inputs: Inputs | None = None
        self.dropout: Dropout | None = None

    @staticmethod
    def serves(net: Dense) -> bool:
        """Return True for a network of linear layers with ReLU and skip connections alone."""
        return (
            net.activation.is_relu
            and not net.shape.summed
            and all(linear.role in _ROLES and not linear.simplex for linear in net.shape.linears)
        )

    def forward(self, inputs: Inputs, dropout: Dropout | None = None) -> Tensor:
        """Return logits [T, classes, B], which the next call overwrites."""
        self.inputs, self.dropout = inputs, dropout
        h = inputs.x
        skip: Tensor | None = None
        for (layer, role), y in zip(self.layers, self.outputs, strict=True):
            if self.chain is not None and self.chain.start <= layer.number < self.chain.stop:
                if layer.number == self.chain.start:
                    self.chain.forward(h, self.chain_outputs, dropout)
                h = y
                continue
            if layer.number == 0:
                layer.rows = inputs.rows
            if role == "enter":
                skip = h if layer.number else inputs.by_row()
            product(layer, layer.weight, h, y)
            if role == "leave" and skip is not None:
                y.add_(skip)
            if role != "output":
                torch.relu_(y)
            if dropout is not None and role in ("hidden", "enter"):
                drop_units(y, layer.number, dropout)
            h = y
        return h

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of all parameters into the buffers bound, from that of the logits.

        Raises:
            RuntimeError: It was called before `forward`.

        """
        if self.inputs is None:
            raise RuntimeError("backward must follow forward")
        self.deltas[len(self.layers) - 1] = gradient
        skip_gradient = gradient  # of a block's second layer, which the block's input gets too
        number = len(self.layers)
        while number:
            number -= 1
            if self.chain is not None and number in self.parts:
                part = self.parts[number]
                if skip_gradient is not self.chain.skip and self.layers[number][1] == "enter":
                    self.chain.skip.copy_(skip_gradient)
                self.chain.backward(part.layers, part.outputs, part.deltas, part.below)
                skip_gradient, number = self.chain.skip, part.layers.start
                self.narrow[number].write_gradients()
                continue
            (layer, role), delta = self.layers[number], self.deltas[number]
            if role != "output":
                through_relu(delta, self.outputs[number], None if role == "leave" else self.dropout, delta)
            if role == "leave":
                skip_gradient = delta
            self._weight_gradients(layer, delta)
            if number:
                input_gradient(layer, layer.weight, delta, self.deltas[number - 1])
            if number and role == "enter":
                self.deltas[number - 1] += skip_gradient

    def _weight_gradients(self, layer: Layer, delta: Tensor) -> None:
        """Write a layer's gradients; those of narrow layers together, when the first one's delta is known."""
        if layer.number in self.narrow:
            self.narrow[layer.number].write_gradients()
        elif layer.number not in self.covered:
            below = self.outputs[layer.number - 1] if layer.number else self.inputs.x  # type: ignore[union-attr]
            weight_gradients(layer, layer.rows, below, delta)


@dataclass(frozen=True)
class _ChainPart:
    """Some layers of a chain, whose gradients are computed at once: their outputs and their deltas, [layers,
    T, C], and the delta of the layer before, [T, C].
    """

    layers: slice
    outputs: Tensor
    deltas: Tensor
    below: Tensor


@dataclass(frozen=True)
class _NarrowLayers:
    """K equal square layers whose gradients are computed as one product of K T matrices.

    inputs, deltas: [K T, width, B]. weights, biases: views of the gradients, [K, T, width, width or 1].
    """

    inputs: Tensor
    deltas: Tensor
    weights: Tensor
    biases: Tensor

    @classmethod
    def of(cls, layers: Sequence[Layer], inputs: Tensor, deltas: Tensor, batch: int) -> _NarrowLayers:
        """Return layers whose inputs and deltas stand first in these buffers, one layer after the other."""
        trials, width, _ = layers[0].weight.shape
        shape = (len(layers) * trials, width, batch)
        count = shape[0] * width * batch
        views = []
        for grads in ([layer.weight_grad for layer in layers], [layer.bias_grad for layer in layers]):
            first, second = grads[0], grads[min(1, len(grads) - 1)]
            if first is None or second is None:
                raise ValueError("a training pass needs buffers for gradients")
            step = second.storage_offset() - first.storage_offset()
            views.append(torch.as_strided(first, (len(layers), *first.shape), (step, *first.stride())))
        return cls(inputs[:count].view(shape), deltas[:count].view(shape), *views)

    def write_gradients(self) -> None:
        """Write the gradients of all K layers."""
        if self.inputs.shape[1] == 1:
            weights = torch.sum(self.deltas * self.inputs, dim=2, keepdim=True)
        else:
            weights = torch.bmm(self.deltas, self.inputs.transpose(1, 2))
        self.weights.copy_(weights.view(self.weights.shape))
        self.biases.copy_(torch.sum(self.deltas, dim=2, keepdim=True).view(self.biases.shape))


def _is_narrow(layer: Layer, batch: int) -> bool:
    """Return True for a square layer that shares a product with its neighbours."""
    _, outputs, inputs = layer.weight.shape
    return layer.number > 0 and inputs == outputs <= _NARROW and outputs * batch % LANES == 0


def _chunks(plan: Sequence[tuple[Layer, str]], trials: int, batch: int) -> list[slice]:
    """Return the layers in chunks, the last first: equal narrow layers together, others alone."""
    chunks: list[slice] = []
    for number in reversed(range(len(plan) - 1)):
        layer = plan[number][0]
        width = layer.weight.shape[1]
        most = max(1, _AT_ONCE // (2 * trials * width * batch))
        last = chunks[-1] if chunks else slice(0, 0)
        same_shape = last.start == number + 1 and plan[last.start][0].weight.shape == layer.weight.shape
        if same_shape and _is_narrow(layer, batch) and last.stop - last.start < most:
            chunks[-1] = slice(number, last.stop)
        else:
            chunks.append(slice(number, number + 1))
    return chunks


def _rows(flat: Tensor, start: int, trials: int, width: int, batch: int) -> Tensor:
    """Return [T, width, batch] of a flat buffer, every trial on a 64-byte boundary."""
    size = aligned(width * batch)
    rows = flat[start : start + trials * size].view(trials, size)
    return rows[:, : width * batch].view(trials, width, batch)
