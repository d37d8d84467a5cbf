"""T trials' parameters as rows of two buffers, and the place of each layer in them.

Every matrix starts on a 64-byte boundary: an odd size would move its neighbours to another kernel, and a
trial's bits would depend on its pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from psa.specs.shapes import Linear

LANES: Final = 16  # float32 per 64 bytes


def aligned(count: int) -> int:
    """Return the next multiple of 64 bytes, in floats."""
    return -(-count // LANES) * LANES


def empty_rows(trials: int, *shape: int, device: torch.device) -> Tensor:
    """Return an uninitialised [trials, *shape] tensor whose rows each start on a 64-byte boundary."""
    count = 1
    for size in shape:
        count *= size
    return torch.empty(trials, aligned(count), device=device)[:, :count].view(trials, *shape)


@dataclass(frozen=True)
class StackedParams:
    """The parameters of T trials (or their gradients, or an optimiser's moments).

    first: [T, width * features], the weights of the first layer without gaps between trials, so that
    neighbours form one matrix. rest: [T, size], all other parameters, every matrix on a 64-byte boundary.
    """

    first: Tensor
    rest: Tensor

    def __len__(self) -> int:
        return len(self.first)

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Both buffers."""
        return self.first, self.rest

    def __getitem__(self, rows: slice | list[int]) -> StackedParams:
        """Return some rows: views for a slice, a copy for a list."""
        return StackedParams(self.first[rows], self.rest[rows])

    def put(self, rows: list[int], values: StackedParams) -> None:
        """Overwrite some rows in place."""
        self.first[rows] = values.first
        self.rest[rows] = values.rest

    def clone(self) -> StackedParams:
        """Return a copy."""
        return StackedParams(self.first.clone(), self.rest.clone())

    def zeros_like(self) -> StackedParams:
        """Return zeros of the same shape."""
        return StackedParams(torch.zeros_like(self.first), torch.zeros_like(self.rest))

    def repeat(self, times: int) -> StackedParams:
        """Return all rows, repeated `times` times."""
        return StackedParams(self.first.repeat(times, 1), self.rest.repeat(times, 1))

    def to(self, device: torch.device) -> StackedParams:
        """Return the same parameters on another device."""
        return StackedParams(self.first.to(device), self.rest.to(device))

    def finite(self) -> Tensor:
        """Return, per trial, whether all parameters are finite, bool [T].

        By extremes, which are NaN if any number is, and need no copy of the parameters.
        """
        extremes = [extreme for part in self.parts for extreme in (part.amin(dim=1), part.amax(dim=1))]
        return torch.stack(extremes).isfinite().all(dim=0)

    @classmethod
    def stacked(cls, rows: Sequence[StackedParams]) -> StackedParams:
        """Return the rows of several StackedParams, concatenated."""
        return cls(torch.cat([row.first for row in rows]), torch.cat([row.rest for row in rows]))


class Layout:
    """The offsets of weights [outputs, inputs], biases [outputs] and thresholds in StackedParams.

    weight_at, bias_at, threshold_at: per layer, the offset in the row; the first layer's weight is alone in
    `first`. A layer without a bias has zeros in its place, which no gradient moves.
    """

    def __init__(self, linears: Sequence[Linear]) -> None:
        self.linears = tuple(linears)
        self.weight_at: list[int] = [0]
        self.bias_at: list[int] = []
        self.threshold_at: dict[int, int] = {}
        # 784 inputs are whole vectors; of other data, and of convolutions, rows may have a gap between them
        self.first_size = aligned(self.linears[0].inputs * self.linears[0].outputs)
        size = 0
        for linear in self.linears[1:]:
            self.weight_at.append(size)
            if linear.inputs > 1:
                size += aligned(linear.inputs * linear.outputs)
        # Vectors need no boundaries: products of one input are elementwise, as are sums with biases. A deep
        # narrow network is many times smaller without, and so is the optimiser's work.
        for layer, linear in enumerate(self.linears):
            if layer and linear.inputs == 1:
                self.weight_at[layer] = size
                size += linear.outputs
            self.bias_at.append(size)
            size += linear.outputs
        size = aligned(size)
        for layer, linear in enumerate(self.linears):
            if linear.threshold:
                self.threshold_at[layer] = size
                size += LANES
        self.size = size

    def zeros(self, trials: int) -> StackedParams:
        """Return rows of zeros, on the CPU."""
        return StackedParams(torch.zeros(trials, self.first_size), torch.zeros(trials, self.size))

    def weight(self, rows: StackedParams, layer: int) -> Tensor:
        """View [T, outputs, inputs] of the weights of one layer."""
        linear, start = self.linears[layer], self.weight_at[layer]
        row = rows.rest if layer else rows.first
        return row[:, start : start + linear.inputs * linear.outputs].view(-1, linear.outputs, linear.inputs)

    def bias(self, rows: StackedParams, layer: int) -> Tensor:
        """View [T, outputs, 1] of the biases of one layer."""
        start = self.bias_at[layer]
        return rows.rest[:, start : start + self.linears[layer].outputs].unsqueeze(2)

    def threshold(self, rows: StackedParams, layer: int) -> Tensor | None:
        """View [T, 1, 1] of the threshold of one layer, None where it has none."""
        if layer not in self.threshold_at:
            return None
        start = self.threshold_at[layer]
        return rows.rest[:, start : start + 1].unsqueeze(2)

    def tensors(self, row: StackedParams) -> dict[str, Tensor]:
        """Return the parameters of one row as views under ordinary names and with ordinary sizes."""
        found = {}
        for layer, linear in enumerate(self.linears):
            weight = f"{linear.name}.weight"
            found[weight] = self.weight(row, layer)[0].view(linear.tensors[weight])
            if not linear.simplex:
                found[f"{linear.name}.bias"] = self.bias(row, layer)[0, :, 0]
            threshold = self.threshold(row, layer)
            if threshold is not None:
                found[f"{linear.name}.threshold"] = threshold[0, :, 0]
        return found

    def views(self, rows: StackedParams) -> list[tuple[Tensor, Tensor]]:
        """Return (weight, bias) of every layer, in compute order."""
        return [(self.weight(rows, layer), self.bias(rows, layer)) for layer in range(len(self.linears))]
