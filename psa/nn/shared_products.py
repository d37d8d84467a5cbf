"""The products of a first layer, whose trials share their samples: one product of matrices for each group.

A row of such a product is one unit of one trial. It has the same bits in any pack provided that the product
has FEWEST_COLUMNS columns and `fewest_rows` rows: kernels for smaller ones add up a row in an order that
depends on its place. Missing rows and columns are filled with zeros.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
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
    bound_product(weight, bias, x, into)()


def shared_gradient(delta: Tensor, x: Tensor, into: Tensor) -> None:
    """Write delta x into [n, outputs, features], for n trials that read the same x [B, features]."""
    bound_gradient(delta, x, into)()


def bound_product(weight: Tensor, bias: Tensor, x: Tensor, into: Tensor) -> Callable[[], object]:
    """Return a function that does what shared_product does, with the numbers that are then in the tensors.

    The views of the operands are made once: in a step of narrow networks they would take a fifth of the time.
    """
    missing = _missing_rows(weight, x.T)
    contiguous = into.is_contiguous() and weight.is_contiguous()
    if missing or len(x) < FEWEST_COLUMNS or not contiguous:
        return functools.partial(_filled_product, weight, bias, x, into, missing)
    matrix, columns, y = weight.flatten(0, 1), x.T, into.flatten(0, 1)
    return lambda: torch.addmm(bias.reshape(-1, 1), matrix, columns, out=y)


def bound_gradient(delta: Tensor, x: Tensor, into: Tensor) -> Callable[[], object]:
    """Return a function that does what shared_gradient does, see bound_product."""
    missing = _missing_rows(delta, x)
    contiguous = into.is_contiguous() and delta.is_contiguous()
    if missing or x.shape[1] < FEWEST_COLUMNS or not contiguous:
        return functools.partial(_filled_gradient, delta, x, into, missing)
    matrix, gradient = delta.flatten(0, 1), into.flatten(0, 1)
    return lambda: torch.mm(matrix, x, out=gradient)


def _filled_product(weight: Tensor, bias: Tensor, x: Tensor, into: Tensor, missing: int) -> None:
    """Write W x + b by way of operands with as many rows and columns as a product must have.

    missing: rows.
    """
    trials, outputs, features = weight.shape
    matrix, column, samples = weight.reshape(-1, features), bias.reshape(-1, 1), len(x)
    if samples < FEWEST_COLUMNS:
        x = torch.cat([x, x.new_zeros(FEWEST_COLUMNS - samples, features)])
    if missing:
        matrix = torch.cat([matrix, matrix.new_zeros(missing, features)])
        column = torch.cat([column, column.new_zeros(missing, 1)])
    y = torch.addmm(column, matrix, x.T)
    into.copy_(y[: trials * outputs, :samples].view(trials, outputs, samples))


def _filled_gradient(delta: Tensor, x: Tensor, into: Tensor, missing: int) -> None:
    """Write delta x by way of operands with as many rows and columns as a product must have.

    missing: rows.
    """
    trials, outputs, samples = delta.shape
    matrix, features = delta.reshape(-1, samples), x.shape[1]
    if features < FEWEST_COLUMNS:
        x = torch.cat([x, x.new_zeros(samples, FEWEST_COLUMNS - features)], dim=1)
    if missing:
        matrix = torch.cat([matrix, matrix.new_zeros(missing, samples)])
    found = torch.mm(matrix, x)[: trials * outputs, :features]
    into.copy_(found.reshape(into.shape))


class SharedProducts:
    """The products of a first layer with one batch, or with batches that take its place in memory.

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
        self._products = [bound_product(weight[rows], bias[rows], x, outputs[rows]) for x, rows in groups]
        self._gradients = []
        if delta is not None and gradient is not None:
            self._gradients = [bound_gradient(delta[rows], x, gradient[rows]) for x, rows in groups]

    def forward(self) -> None:
        """Write the products."""
        for product in self._products:
            product()

    def backward(self) -> None:
        """Write the gradients of the weights."""
        for gradient in self._gradients:
            gradient()


def _missing_rows(units: Tensor, x: Tensor) -> int:
    """Return how many rows a product of `units` [n, rows of each, inner] with x needs in addition."""
    rows = units.shape[0] * units.shape[1]
    return max(0, _fewest_rows(rows, x) - rows)


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
