"""Products of trials that share their samples: a trial has the same bits at any place and in any company."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from psa.nn.layers import Layer, product, weight_gradients
from psa.nn.shared_products import (
    FEWEST_ROWS,
    Inputs,
    SharedProducts,
    fewest_rows,
    shared_gradient,
    shared_product,
)
from psa.nn.stacked import empty_rows

FEATURES = (1, 2, 5, 9, 13, 17, 30, 99)
SAMPLES = (1, 2, 3, 5, 9, 11, 12, 16, 17, 80)


def copies(values: Tensor, trials: int) -> Tensor:
    """The same matrix for each of some trials, laid out as the engine does."""
    made = empty_rows(trials, *values.shape, device=values.device)
    made.copy_(values.expand(trials, -1, -1))
    return made


def results(trials: int, outputs: int, features: int, samples: int) -> list[Tensor]:
    """The output of a first layer and the gradient of its weights, for trials that are all equal."""
    draws = torch.Generator().manual_seed(features * 100 + samples)
    weight, bias, x, delta = (
        torch.randn(*shape, generator=draws)
        for shape in ((1, features), (1, 1), (samples, features), (1, samples))
    )
    bias = bias.expand(outputs, 1)
    gradient, bias_gradient = (empty_rows(trials, outputs, count, device=x.device) for count in (features, 1))
    layer = Layer(
        number=0,
        weight=copies(weight.expand(outputs, -1), trials),
        bias=copies(bias, trials),
        weight_grad=gradient,
        bias_grad=bias_gradient,
        relu=False,
        single=features == 1,
        rows=(slice(0, trials),),
    )
    y = empty_rows(trials, outputs, samples, device=x.device)
    product(layer, layer.weight, x.unsqueeze(0), y)
    weight_gradients(layer, layer.rows, x.unsqueeze(0), copies(delta.expand(outputs, -1), trials))
    return [y.flatten(0, 1), gradient.flatten(0, 1)]


@pytest.mark.parametrize(("features", "samples"), list(itertools.product(FEATURES, SAMPLES)))
def test_every_row_of_a_shared_product_has_the_same_bits(features: int, samples: int) -> None:
    """Equal rows give equal results: on some processors kernels for few columns add up every fourth row in
    another order.
    """
    alone = results(1, 1, features, samples)
    for trials, outputs in ((1, 5), (3, 5), (6, 5), (13, 2), (30, 3)):
        for one, many in zip(alone, results(trials, outputs, features, samples), strict=True):
            assert torch.equal(many, one.expand_as(many))


def first_layer(trials: int, outputs: int, features: int, samples: int) -> list[Tensor]:
    """Weights, biases and the gradient of the outputs of a first layer, laid out as the engine does."""
    draws = torch.Generator().manual_seed(outputs * 100 + features)
    made = []
    for shape in ((outputs, features), (outputs, 1), (outputs, samples)):
        rows = empty_rows(trials, *shape, device=torch.device("cpu"))
        made.append(rows.copy_(torch.randn(trials, *shape, generator=draws)))
    return made


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize(("features", "samples"), [(64, 32), (13, 32), (64, 11), (784, 256)])
def test_views_made_once_change_no_bit(
    outputs: int, features: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups of one to six trials, the fewest rows as measured and as for any processor; a batch that takes
    the place of another.
    """
    rows = (slice(0, 1), slice(1, 7), slice(7, 10))
    weight, bias, delta = first_layer(10, outputs, features, samples)
    draws = torch.Generator().manual_seed(samples)
    inputs = Inputs(torch.empty(3, samples, features), rows)
    found = [torch.zeros_like(delta), torch.zeros_like(weight)]
    products = SharedProducts(weight, bias, inputs, found[0], delta, found[1])
    for _ in range(2):
        inputs.x.copy_(torch.randn(inputs.x.shape, generator=draws))
        products.forward()
        products.backward()
        with monkeypatch.context() as change:
            change.setattr("psa.nn.shared_products.fewest_rows", lambda *shape, transposed: FEWEST_ROWS)
            for x, part in zip(inputs.x, rows, strict=True):
                expected = [torch.zeros_like(values[part]) for values in found]
                shared_product(weight[part], bias[part], x, expected[0])
                shared_gradient(delta[part], x, expected[1])
                assert torch.equal(found[0][part], expected[0])
                assert torch.equal(found[1][part], expected[1])


@pytest.mark.parametrize("transposed", [True, False])
def test_the_fewest_rows_are_enough(transposed: bool) -> None:
    """On any processor, a product with that many rows has the same bits as one with more rows."""
    inner, columns = 256, 784
    fewest = fewest_rows(inner, columns, transposed=transposed)
    assert fewest in {4, FEWEST_ROWS}
    matrix, column = torch.randn(48, inner), torch.randn(48, 1)
    x = torch.randn(columns, inner).T if transposed else torch.randn(inner, columns)
    whole = torch.addmm(column, matrix, x) if transposed else torch.mm(matrix, x)
    for count in range(fewest, 24):
        for start in (0, 5, 48 - count):
            part = slice(start, start + count)
            few = torch.addmm(column[part], matrix[part], x) if transposed else torch.mm(matrix[part], x)
            assert torch.equal(few, whole[part])


@pytest.mark.parametrize(("samples", "measured"), [(256, True), (250, False), (54_000, False)])
def test_products_of_small_aligned_batches_alone_are_measured(
    samples: int, measured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training split of MNIST as one batch took seconds to measure; other shapes take all rows."""
    seen: list[tuple[int, int]] = []

    def measure(inner: int, columns: int, *, transposed: bool) -> int:
        seen.append((inner, columns))
        return FEWEST_ROWS

    monkeypatch.setattr("psa.nn.shared_products.fewest_rows", measure)
    x = torch.zeros(1).expand(samples, 784)
    shared_product(torch.zeros(2, 1, 784), torch.zeros(2, 1, 1), x, torch.zeros(2, 1, samples))
    shared_gradient(torch.zeros(2, 1, samples), x, torch.zeros(2, 1, 784))
    assert seen == ([(784, samples), (samples, 784)] if measured else [])


def test_more_rows_are_taken_where_a_processor_needs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product whose bits depend on the number of its rows: all of them are filled up to FEWEST_ROWS."""
    multiply = torch.mm

    def depends_on_rows(matrix: Tensor, x: Tensor) -> Tensor:
        return multiply(matrix, x) * (1 if len(matrix) >= FEWEST_ROWS else 2)

    monkeypatch.setattr(torch, "mm", depends_on_rows)
    assert fewest_rows.__wrapped__(16, 32, transposed=False) == FEWEST_ROWS
