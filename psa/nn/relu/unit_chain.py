"""Chains of layers with one unit each, compiled into one loop over the batch of a trial by numba.

A network of 2,048 such layers consists of some 20,000 elementwise operations of microseconds in every step,
and each of them reads and writes memory. Here the batch of one trial stays in the cache from the first layer
of the chain to the last, and training keeps only what enters each part of the chain: to compute the outputs
of a part again costs less than to write all of them to memory and to read them back (256*1, 60 trials, one
core, 2026-11: 16.4 in place of 20 ms a step). Every operation is the one of psa.nn.layers in the same order,
so the bits are the same with numba and without it (tests/nn/test_unit_chain.py). Sums over the batch are left
to torch, whose order of addition differs between kinds of CPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from psa.nn.dropout import Dropout
from psa.nn.layers import Layer
from psa.nn.relu.compiled import Float32s, dropout_arrays, is_available

_FEWEST: Final = 8  # layers of a chain: a shorter one does not repay the import
_ROLES: Final = ("hidden", "enter", "leave")  # by their number in psa.nn.kernels


def find_chain(plan: Sequence[tuple[Layer, str]]) -> slice | None:
    """Return the longest run of layers with one input and one unit that `UnitChain` can compute.

    It begins and ends at the border of a residual block. None on a GPU, without numba, and for a short run.
    """
    best = slice(0, 0)
    start: int | None = None
    for number, (layer, role) in enumerate([*plan, (plan[0][0], "end")]):
        unit = number > 0 and role in _ROLES and layer.weight.shape[1:] == (1, 1)
        if unit and start is None and role != "leave":
            start = number
        elif not unit and start is not None:
            stop = number - 1 if plan[number - 1][1] == "enter" else number
            best = max(best, slice(start, stop), key=lambda run: run.stop - run.start)
            start = None
    return best if best.stop - best.start >= _FEWEST and is_available(plan) else None


class UnitChain:
    """K consecutive layers with one unit each, for T trials.

    Args:
        plan: The layers with their roles.
        chain: Those of the chain, as `find_chain` returns them.
        batch: B.
        outputs: [1, T, C] with C >= B, for the last output.

    """

    def __init__(
        self, plan: Sequence[tuple[Layer, str]], chain: slice, batch: int, outputs: Float32s
    ) -> None:
        self.start, self.stop, self.outputs = chain.start, chain.stop, outputs
        layers = [layer for layer, _ in plan[chain]]
        first = layers[0].weight
        # the layout packs one-input layers without gaps: weight, bias, weight, bias
        pairs = torch.as_strided(first, (len(first), len(layers), 2), (first.stride(0), 2, 1))
        self.pairs: Float32s = pairs.detach().numpy()
        self.kinds = np.array([_ROLES.index(role) for _, role in plan[chain]], dtype=np.int64)
        self.numbers = np.array([layer.number for layer in layers], dtype=np.int64)
        self.skip: Float32s = np.zeros((len(first), batch), np.float32)
        self.dropout = dropout_arrays(None, len(first))

    def forward(self, x: Tensor, dropout: Dropout | None) -> None:
        """Compute the last output from x [T, 1, B]."""
        self.dropout = dropout_arrays(dropout, len(x))
        self._compute(slice(None), x.squeeze(1).numpy(), self.outputs)

    def _compute(self, layers: slice, x: Float32s, out: Float32s) -> None:
        """Compute some layers into [layers, T, C] for all outputs, or [1, T, C] for the last one."""
        from psa.nn.kernels import chain_forward

        pairs, kinds, numbers = self.pairs[:, layers], self.kinds[layers], self.numbers[layers]
        chain_forward(pairs, kinds, numbers, x, self.skip, out, *self.dropout)


@dataclass(frozen=True)
class ChainPart:
    """Some layers of a chain whose gradients are computed at once.

    layers: their numbers in the network. deltas: [layers, T, C]; the last one holds the gradient of the last
    layer's output, all others are written. below: [T, C], written: the gradient of the output of the layer
    before.
    """

    layers: slice
    deltas: Float32s
    below: Float32s


class TrainedChain(UnitChain):
    """A chain with the gradients of its products.

    Args:
        plan: The layers with their roles.
        chain: Those of the chain, as `find_chain` returns them.
        batch: B.
        parts: All layers of the chain, by the number of the last layer of each part, the last part first.
        outputs: [1 + K, T, C], K layers in the longest part: the input of a part and its outputs, those of
            the last part after `forward`, then those of the last one given to `backward`.

    """

    def __init__(
        self,
        plan: Sequence[tuple[Layer, str]],
        chain: slice,
        batch: int,
        parts: dict[int, ChainPart],
        outputs: Float32s,
    ) -> None:
        super().__init__(plan, chain, batch, outputs)
        self.parts = parts
        self.inputs = {last: np.empty_like(outputs[0]) for last in parts}
        self.skips = {last: np.zeros_like(self.skip) for last in parts}
        self.skip_gradient = np.zeros_like(self.skip)
        self.products = np.empty((len(outputs) - 1, *self.skip.shape), np.float32)

    def forward(self, x: Tensor, dropout: Dropout | None) -> None:
        """Compute the last outputs from x [T, 1, B]."""
        self.dropout = dropout_arrays(dropout, len(x))
        ends = list(reversed(self.parts))
        self.inputs[ends[0]][:, : x.shape[2]] = x.squeeze(1).numpy()
        for end, following in itertools.pairwise(ends):
            self.skips[end][:] = self.skip
            self._compute(self._inner(end), self.inputs[end], self.inputs[following][np.newaxis])
        self.skips[ends[-1]][:] = self.skip
        self._compute_outputs(ends[-1])

    def _inner(self, end: int) -> slice:
        layers = self.parts[end].layers
        return slice(layers.start - self.start, layers.stop - self.start)

    def _compute_outputs(self, end: int) -> None:
        """Compute all outputs of a part from its input."""
        layers = self._inner(end)
        self.outputs[0], self.skip[:] = self.inputs[end], self.skips[end]
        self._compute(layers, self.outputs[0], self.outputs[1 : 1 + layers.stop - layers.start])

    def backward(self, end: int) -> int:
        """Compute the gradients of the products of a part, and its outputs; return its first layer's number.

        end: the number of its last layer. The last part comes first.
        """
        from psa.nn.kernels import chain_backward

        if end != self.stop - 1:  # the outputs of the last part are still there
            self._compute_outputs(end)
        part, layers = self.parts[end], self._inner(end)
        chain_backward(
            self.pairs[:, layers], self.kinds[layers], self.outputs, part.deltas, self.products, part.below,
            self.skip_gradient, self.dropout[0], self.dropout[3],
        )  # fmt: skip
        start: int = part.layers.start
        return start
