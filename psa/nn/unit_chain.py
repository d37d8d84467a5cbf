"""Chains of layers with one unit each, compiled into one loop over the batch of a trial by numba.

A network of 2,048 such layers consists of some 20,000 elementwise operations of microseconds in every step,
and each of them reads and writes memory. Here the batch of one trial stays in the cache from the first layer
of the chain to the last. Every operation is the one of psa.nn.layers in the same order, so the bits are the
same with numba and without it (tests/nn/test_unit_chain.py). Sums over the batch are left to torch, whose
order of addition differs between kinds of CPU.

numba is an optional dependency (extra `fast`) and is imported only where a network has such a chain.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psa.nn.dropout import Dropout
from psa.nn.layers import Layer

_FEWEST: Final = 8  # layers of a chain: a shorter one does not repay the import
_ROLES: Final = ("hidden", "enter", "leave")  # by their number in psa.nn.unit_kernels
_Float32s = NDArray[np.float32]


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
    long_enough = best.stop - best.start >= _FEWEST
    usable = long_enough and plan[0][0].weight.device.type == "cpu" and _is_installed()
    return best if usable else None


@functools.cache
def _is_installed() -> bool:
    return importlib.util.find_spec("numba") is not None


class UnitChain:
    """K consecutive layers with one unit each, for T trials.

    Args:
        plan: The layers with their roles.
        chain: Those of the chain, as `find_chain` returns them.
        batch: B.

    """

    def __init__(self, plan: Sequence[tuple[Layer, str]], chain: slice, batch: int) -> None:
        self.start, self.stop = chain.start, chain.stop
        layers = [layer for layer, _ in plan[chain]]
        first = layers[0].weight
        # the layout packs one-input layers without gaps: weight, bias, weight, bias
        pairs = torch.as_strided(first, (len(first), len(layers), 2), (first.stride(0), 2, 1))
        self.pairs: _Float32s = pairs.detach().numpy()
        self.kinds = np.array([_ROLES.index(role) for _, role in plan[chain]], dtype=np.int64)
        self.numbers = np.array([layer.number for layer in layers], dtype=np.int64)
        self.skip = torch.zeros(len(first), 1, batch)
        self.dropout = _no_dropout(len(first))

    def forward(self, x: Tensor, into: Tensor, dropout: Dropout | None) -> None:
        """Compute the chain from x [T, 1, B].

        into: a contiguous [K, T, C] with C >= B for the outputs of all layers, or [1, T, C] for the last one.
        """
        self.dropout = _no_dropout(len(x)) if dropout is None else _dropout_of(dropout, len(x))
        from psa.nn.unit_kernels import chain_forward

        chain_forward(self.pairs, self.kinds, self.numbers, x.squeeze(1).numpy(), into.numpy(), *self.dropout)

    def backward(self, part: slice, outputs: Tensor, deltas: Tensor, below: Tensor) -> None:
        """Compute the gradients of the products of some layers of the chain, the last of them first.

        Args:
            part: Their numbers in the network.
            outputs: Their outputs, contiguous [layers, T, C].
            deltas: The same of gradients; the last one holds that of the last layer's output, all others are
                written.
            below: [T, C], written: the gradient of the output of the layer before.

        """
        inner = slice(part.start - self.start, part.stop - self.start)
        from psa.nn.unit_kernels import chain_backward

        chain_backward(
            self.pairs[:, inner], self.kinds[inner], outputs.numpy(), deltas.numpy(), below.numpy(),
            self.skip.squeeze(1).numpy(), self.dropout[0], self.dropout[3],
        )  # fmt: skip


_DropoutArrays = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int32], _Float32s]


def _dropout_of(dropout: Dropout, trials: int) -> _DropoutArrays:
    """Return the number of each trial among those that drop (-1 for the others), and their place, threshold
    and scale.
    """
    which = np.full(trials, -1, dtype=np.int64)
    rows = dropout.rows if isinstance(dropout.rows, slice) else dropout.rows.numpy()
    which[rows] = np.arange(len(dropout.keys))
    place = dropout._place.numpy().view(np.uint32)
    return which, place, dropout.threshold.numpy().reshape(-1), dropout.scale.numpy().reshape(-1)


def _no_dropout(trials: int) -> _DropoutArrays:
    none = np.full(trials, -1, dtype=np.int64)
    return none, np.zeros(1, np.uint32), np.zeros(1, np.int32), np.zeros(1, np.float32)
