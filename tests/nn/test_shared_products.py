"""Products of trials that share their samples: a trial has the same bits at any place and in any company."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from psa.nn.layers import Layer, product, weight_gradients
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
