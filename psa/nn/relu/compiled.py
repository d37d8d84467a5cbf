"""ReLU and dropout of a layer in one call, compiled by numba.

torch takes four to seven sweeps for them, each with a call of microseconds, and hashes the masks before it
multiplies by them. The bits are the same with numba and without it (tests/nn/test_compiled.py). numba is an
optional dependency (extra `fast`) and is imported (0.3 s) only for a pack that gains from it. Measured on one
core (2026-11), best of four: 1*2048 1.06 times as fast, 4*47 and 2*16 1.2, 8*8 1.5, 119*4 2.3; residual
32*32 and 115*2 1.6; 12 trials of 2*2 or 2*4 1.2; with psa.nn.relu.unit_chain 256*1 1.7 and 2048*1 7.6.
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

_FEWEST: Final = 1 << 12  # outputs of hidden units in a batch; fewer do not repay the import
Float32s = NDArray[np.float32]
DropoutArrays = tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int32], Float32s]


@functools.cache
def is_installed() -> bool:
    """Return True if numba is installed."""
    return importlib.util.find_spec("numba") is not None


def is_available(layers: Sequence[tuple[Layer, str]]) -> bool:
    """Return True on a CPU if numba is installed."""
    return layers[0][0].weight.device.type == "cpu" and is_installed()


def is_worthwhile(layers: Sequence[tuple[Layer, str]], batch: int) -> bool:
    """Return True if a pass over a batch has so many outputs that the kernels repay their import."""
    hidden = layers[:-1]
    return sum(layer.weight.shape[0] * layer.weight.shape[1] for layer, _ in hidden) * batch >= _FEWEST


def dropout_arrays(dropout: Dropout | None, trials: int) -> DropoutArrays:
    """Return the number of each trial among those that drop (-1 for the others), and their place, threshold
    and scale.
    """
    which = np.full(trials, -1, dtype=np.int64)
    if dropout is None:
        return which, np.zeros(1, np.uint32), np.zeros(1, np.int32), np.zeros(1, np.float32)
    rows = dropout.rows if isinstance(dropout.rows, slice) else dropout.rows.numpy()
    which[rows] = np.arange(len(dropout.keys))
    place = dropout._place.numpy().view(np.uint32)
    return which, place, dropout.threshold.numpy().reshape(-1), dropout.scale.numpy().reshape(-1)


class ReluKernels:
    """ReLU and dropout of the layers of a pass.

    Args:
        outputs: Of the layers, by number, [T, width, B], in which every trial's numbers follow each other.
        deltas: The gradients of these outputs, in the same form; empty without training.

    """

    def __init__(self, outputs: dict[int, Tensor], deltas: dict[int, Tensor]) -> None:
        self.outputs = {number: _rows(y) for number, y in outputs.items()}
        self.deltas = {number: _rows(deltas[number]) for number in outputs if number in deltas}
        trials = len(next(iter(self.outputs.values()), ()))
        self.no_dropout: DropoutArrays = dropout_arrays(None, trials)
        self.dropout = self.no_dropout
        from psa.nn import kernels

        self._forward, self._backward = kernels.relu_forward, kernels.relu_backward

    def begin(self, dropout: Dropout | None) -> None:
        """Take the dropout of a batch."""
        trials = len(self.no_dropout[0])
        self.dropout = self.no_dropout if dropout is None else dropout_arrays(dropout, trials)

    def forward(self, number: int, *, drops: bool) -> None:
        """Apply ReLU, and dropout if the layer `drops`, to the product of a layer."""
        self._forward(self.outputs[number], number, *(self.dropout if drops else self.no_dropout))

    def backward(self, number: int, *, drops: bool) -> None:
        """Turn the gradient of a layer's output into that of its product."""
        which, _, _, scale = self.dropout if drops else self.no_dropout
        self._backward(self.deltas[number], self.outputs[number], which, scale)


def _rows(values: Tensor) -> Float32s:
    """Return [T, width, B] as [T, width * B]."""
    trials, width, batch = values.shape
    flat: Float32s = torch.as_strided(values, (trials, width * batch), (values.stride(0), 1)).numpy()
    return flat
