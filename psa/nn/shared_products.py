"""The products of a first layer, whose trials share their samples: one product of matrices for each group.

A row of such a product is one unit of one trial. It has the same bits in any pack provided that the product
has FEWEST_COLUMNS columns and `fewest_rows` rows: kernels for smaller ones add up a row in an order that
depends on its place. Missing rows and columns are filled with zeros.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from psa.nn.stacked import LANES

# Below 4 rows every processor measured takes another kernel, below 16 those with AMX do (Emerald Rapids,
# MKL 2024.2, 2026-11).
FEWEST_ROWS: Final = 16
_FEWEST_WITHOUT_AMX: Final = 4
# Of one column every processor measured takes another kernel, below 12 an AMD EPYC with AVX-512 does (the
# same MKL).
FEWEST_COLUMNS: Final = 16
# Numbers in the second matrix of a product that is measured. A batch of all samples of MNIST has 40 times as
# many: 25 such products took 2.3 s (2026-11), and a step of so large a batch gains little.
_MOST_MEASURED: Final = 1 << 20


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
        """Return inputs with the same B x features for all of `trials` trials."""
        return cls(x.unsqueeze(0), (slice(0, trials),))

    def by_row(self) -> Tensor:
        """Return the samples of every trial, [T, features, B], copied where trials share them."""
        parts = [
            group.T.expand(rows.stop - rows.start, -1, -1)
            for group, rows in zip(self.x, self.rows, strict=True)
        ]
        return torch.cat(parts)


def shared_product(weight: Tensor, bias: Tensor, x: Tensor, into: Tensor) -> None:
    """Write W x + b, [n, outputs, B], of n trials that read the same x [B, features]."""
    trials, outputs, features = weight.shape
    matrix, column = weight.reshape(-1, features), bias.reshape(-1, 1)
    samples = len(x)
    fewest = _fewest_rows(len(matrix), x.T)
    if len(matrix) >= fewest and samples >= FEWEST_COLUMNS and into.is_contiguous():
        torch.addmm(column, matrix, x.T, out=into.view(-1, samples))
        return
    if samples < FEWEST_COLUMNS:
        x = torch.cat([x, x.new_zeros(FEWEST_COLUMNS - samples, features)])
    if len(matrix) < fewest:
        missing = fewest - len(matrix)
        matrix = torch.cat([matrix, matrix.new_zeros(missing, features)])
        column = torch.cat([column, column.new_zeros(missing, 1)])
    y = torch.addmm(column, matrix, x.T)
    into.copy_(y[: trials * outputs, :samples].view(trials, outputs, samples))


def shared_gradient(delta: Tensor, x: Tensor, into: Tensor) -> None:
    """Write delta x into [n, outputs, features], for n trials that read the same x [B, features]."""
    trials, outputs, samples = delta.shape
    matrix, features = delta.reshape(-1, samples), x.shape[1]
    fewest = _fewest_rows(len(matrix), x)
    if features < FEWEST_COLUMNS:
        x = torch.cat([x, x.new_zeros(samples, FEWEST_COLUMNS - features)], dim=1)
    if len(matrix) < fewest or features < FEWEST_COLUMNS or not into.is_contiguous():
        matrix = torch.cat([matrix, matrix.new_zeros(max(0, fewest - len(matrix)), samples)])
        found = torch.mm(matrix, x)[: trials * outputs, : into.shape[2]]
        into.copy_(found.reshape(into.shape))
        return
    torch.mm(matrix, x, out=into.view(trials * outputs, -1))


class SharedProducts:
    """The products of a first layer with one batch, or with batches that take its place in memory.

    The views of all groups are made once: in a step of narrow networks they would take a fifth of the time.

    Args:
        weight, bias: [T, outputs, features] and [T, outputs, 1].
        inputs: The batch.
        outputs: [T, outputs, B], to be written.
        delta: The gradient of `outputs`. None without training.
        gradient: [T, outputs, features], that of the weights, to be written. None without training.

    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor,
        inputs: Inputs,
        outputs: Tensor,
        delta: Tensor | None,
        gradient: Tensor | None,
    ) -> None:
        self.inputs = inputs
        groups = list(zip(inputs.x, inputs.rows, strict=True))
        self.products = [(weight[rows], bias[rows], x, outputs[rows]) for x, rows in groups]
        self.gradients = []
        if delta is not None and gradient is not None:
            self.gradients = [(delta[rows], x, gradient[rows]) for x, rows in groups]

    @functools.cached_property
    def _matrix_products(self) -> list[tuple[Tensor, Tensor, Tensor, Tensor] | None]:
        """The operands of each group's product as matrices; None where they must be filled or copied."""
        return [
            (bias, weight.flatten(0, 1), x.T, y.flatten(0, 1))
            if y.is_contiguous() and weight.is_contiguous() and _needs_no_zeros(y.flatten(0, 1), x.T)
            else None
            for weight, bias, x, y in self.products
        ]

    @functools.cached_property
    def _matrix_gradients(self) -> list[tuple[Tensor, Tensor, Tensor] | None]:
        return [
            (delta.flatten(0, 1), x, into.flatten(0, 1))
            if delta.is_contiguous() and into.is_contiguous() and _needs_no_zeros(into.flatten(0, 1), x)
            else None
            for delta, x, into in self.gradients
        ]

    def forward(self) -> None:
        """Write the products."""
        for matrices, parts in zip(self._matrix_products, self.products, strict=True):
            if matrices is None:
                shared_product(*parts)
            else:
                bias, weight, x, into = matrices
                torch.addmm(bias.reshape(-1, 1), weight, x, out=into)

    def backward(self) -> None:
        """Write the gradients of the weights."""
        for matrices, parts in zip(self._matrix_gradients, self.gradients, strict=True):
            if matrices is None:
                shared_gradient(*parts)
            else:
                delta, x, into = matrices
                torch.mm(delta, x, out=into)


def _needs_no_zeros(result: Tensor, x: Tensor) -> bool:
    """Return True if a product [rows, columns] with x has enough rows and columns."""
    rows, columns = result.shape
    return columns >= FEWEST_COLUMNS and rows >= _fewest_rows(rows, x)


def _fewest_rows(rows: int, x: Tensor) -> int:
    """Return how many rows a product of `rows` rows with x must have, at most FEWEST_ROWS."""
    inner, columns = x.shape
    if rows >= FEWEST_ROWS or x.device.type != "cpu" or inner * columns > _MOST_MEASURED:
        return FEWEST_ROWS
    if inner % LANES or columns % LANES:
        return FEWEST_ROWS
    return fewest_rows(inner, columns, transposed=x.stride(0) == 1)


@functools.cache
def fewest_rows(inner: int, columns: int, *, transposed: bool) -> int:
    """Return the fewest rows of a product [rows, inner] x [inner, columns] with which a row has the bits that
    it has in a larger one. 4 if this processor gives them, by measurement with random numbers, otherwise
    FEWEST_ROWS.

    transposed: the second matrix is stored by columns.
    """
    draws = torch.Generator().manual_seed(inner * columns)
    matrix = torch.randn(FEWEST_ROWS, inner, generator=draws)
    column = torch.randn(FEWEST_ROWS, 1, generator=draws)
    x = torch.randn(*((columns, inner) if transposed else (inner, columns)), generator=draws)

    def result(part: slice) -> Tensor:
        return torch.addmm(column[part], matrix[part], x.T) if transposed else torch.mm(matrix[part], x)

    whole = result(slice(None))
    parts = [
        part
        for rows in range(_FEWEST_WITHOUT_AMX, FEWEST_ROWS)
        for part in (slice(0, rows), slice(FEWEST_ROWS - rows, None))
    ]
    same = all(torch.equal(result(part), whole[part]) for part in parts)
    return _FEWEST_WITHOUT_AMX if same else FEWEST_ROWS
