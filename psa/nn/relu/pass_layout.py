"""The places of all layers' outputs and gradients in the buffers of a pass (see psa.nn.relu.relu_pass)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from psa.nn.layers import Layer
from psa.nn.relu.unit_chain import find_chain
from psa.nn.stacked import LANES, aligned

_ALIVE: Final = 3  # buffers that take turns: a block's input is read again behind its second layer
_NARROW: Final = 16  # width up to which the gradients of several layers are computed at once
_AT_ONCE: Final = 1 << 18  # numbers in the inputs and deltas of these layers: they stay in the cache


class PassLayout:
    """The layout of a pass over batches of one size.

    Args:
        layers: The layers with their roles.
        trials: T.
        batch: B.
        training: Keep what the backward pass reads. Without it three buffers serve all layers.

    Attributes:
        chain: The numbers of the layers of the unit chain; empty without one. Training needs rows without
            gaps for it, since the gradients of its layers are sums over several layers at once.
        sizes: The size of each layer's outputs, with the gaps between trials.
        chunks: The hidden layers in chunks, the last first: equal narrow layers together, others alone. No
            chunk is partly in the chain. Empty without training.
        starts: The places of each layer's outputs in the buffer. All chunks of the chain share one place,
            with room for the input before them.
        size: The size of this buffer.

    """

    def __init__(
        self, layers: Sequence[tuple[Layer, str]], trials: int, batch: int, *, training: bool
    ) -> None:
        self.layers, self.trials, self.batch = [layer for layer, _ in layers], trials, batch
        chain = find_chain(layers) if batch % LANES == 0 or not training else None
        self.chain = range(0) if chain is None else range(chain.start, chain.stop)
        self.sizes = [trials * aligned(layer.weight.shape[1] * batch) for layer in self.layers]
        self.chunks = self._chunks() if training else []
        if training:
            self.starts, self.size = self._kept()
        else:
            largest = max(self.sizes)
            self.starts = [at % _ALIVE * largest for at in range(len(self.sizes))]
            self.size = _ALIVE * largest

    def view(self, flat: Tensor, start: int, number: int) -> Tensor:
        """Return a layer's outputs or gradients in a flat buffer, [T, width, B], every trial on a 64-byte
        boundary.
        """
        width = self.layers[number].weight.shape[1]
        rows = flat[start : start + self.sizes[number]].view(self.trials, -1)
        return rows[:, : width * self.batch].view(self.trials, width, self.batch)

    def is_narrow(self, number: int) -> bool:
        """Return True for a square layer that shares a product with its neighbours. The layer behind a chain
        does not, since the outputs of the chain do not stand before its own.
        """
        _, outputs, inputs = self.layers[number].weight.shape
        square = number > 0 and inputs == outputs <= _NARROW and outputs * self.batch % LANES == 0
        return square and number != self.chain.stop

    def delta_buffers(self) -> tuple[Tensor, ...]:
        """Return a buffer for the gradients of each chunk; three take turns."""
        longest = max((sum(self.sizes[chunk]) for chunk in self.chunks), default=0)
        turns = torch.empty(_ALIVE, longest, device=self.layers[0].weight.device)
        return tuple(turns[at % _ALIVE] for at in range(len(self.chunks)))

    def _chunks(self) -> list[slice]:
        chunks: list[slice] = []
        for number in reversed(range(len(self.layers) - 1)):
            width = self.layers[number].weight.shape[1]
            most = max(1, _AT_ONCE // (2 * self.trials * width * self.batch))
            if chunks and self._joined(number) and chunks[-1].stop - chunks[-1].start < most:
                chunks[-1] = slice(number, chunks[-1].stop)
            else:
                chunks.append(slice(number, number + 1))
        return chunks

    def _joined(self, number: int) -> bool:
        """Return True if a layer may share a chunk with the one behind it."""
        return (
            self.layers[number].weight.shape == self.layers[number + 1].weight.shape
            and self.is_narrow(number)
            and self.is_narrow(number + 1)
            and (number in self.chain) == (number + 1 in self.chain)
        )

    def _kept(self) -> tuple[list[int], int]:
        """Return the starts and the size of a training pass."""
        kept = [0 if at in self.chain else size for at, size in enumerate(self.sizes)]
        *starts, end = itertools.accumulate(kept, initial=0)
        longest = 0
        for chunk in self.chunks:
            if chunk.start in self.chain:
                size, count = self.sizes[chunk.start], chunk.stop - chunk.start
                starts[chunk] = range(end + size, end + size * (1 + count), size)
                longest = max(longest, size * (1 + count))
        return starts, end + longest
