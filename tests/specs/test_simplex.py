"""Stochastic layers: columns of weights sum to 1, so what sums to 100 still does behind every layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import run
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from psa.data.splits import Split, Splits, load_splits
from psa.nn.dense import Dense
from psa.nn.layers import effective
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial

TOTAL = 100.0
ARCHS = ("1*1", "1*7", "3*5", "1*12, 1*3, 1*9")


def net_of(arch: str, temperature: float, activation: str = "Identity") -> Dense:
    """A network of stochastic layers alone."""
    model = NetworkSpec(
        family="mlp", arch=Arch.coerce(arch), simplex="all", temperature=temperature, activation=activation
    )
    return Dense(model, 10)


def outputs(net: Dense, rows: StackedParams, images: Tensor) -> list[Tensor]:
    """[T, width, B] behind every layer, the logits last."""
    found: list[Tensor] = []
    inputs = Inputs.same_for_all(images, len(rows.rest))
    logits = net.bind(rows)(inputs, tap=lambda _layer, _before, after: found.append(after.clone()))
    return [*found, logits]


@pytest.fixture(scope="module")
def images(data_dir: Path) -> Splits:
    """MNIST as points of the simplex, times 100."""
    return load_splits(DataSpec(scaling="simplex"), data_dir)


def test_inputs_are_non_negative_and_sum_to_100(images: Splits) -> None:
    """Every image of every split."""
    for split in (images.train, images.val, images.test):
        assert (split.images >= 0).all()
        sums = split.images.sum(dim=1, dtype=torch.float64)
        torch.testing.assert_close(sums, torch.full_like(sums, TOTAL), rtol=1e-5, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    arch=st.sampled_from(ARCHS),
    temperature=st.sampled_from([0.003, 0.01, 0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**31),
    spread=st.integers(0, 50),
)
def test_columns_sum_to_1_and_outputs_to_100_at_every_layer(
    arch: str, temperature: float, seed: int, spread: int
) -> None:
    """Whatever the weights V are: for any temperature, also where V is far from its beginning."""
    net = net_of(arch, temperature)
    rows = StackedParams.stacked([net.initial(seed), net.initial(seed + 1)])
    draws = torch.Generator().manual_seed(seed)
    for number in range(len(net.shape.linears)):
        weight = net.layout.weight(rows, number)
        weight.add_(spread * torch.randn(weight.shape, generator=draws))
    for layer, _ in net.bind(rows).plan:
        columns = effective(layer).sum(dim=1, dtype=torch.float64)
        torch.testing.assert_close(columns, torch.ones_like(columns), rtol=1e-5, atol=0)
    x = torch.rand(9, 784, generator=draws)
    for out in outputs(net, rows, TOTAL * x / x.sum(dim=1, keepdim=True)):
        assert (out >= 0).all()
        sums = out.sum(dim=1, dtype=torch.float64)
        torch.testing.assert_close(sums, torch.full_like(sums, TOTAL), rtol=1e-4, atol=0)


@pytest.mark.parametrize("activation", ["Identity", "HectoSparseMax", "HectoRescaledReLU"])
def test_training_keeps_the_sums(activation: str, images: Splits) -> None:
    """After two epochs as well: it is the layer that sums so, not its beginning."""
    parts = (
        Split(each.images[:400], each.labels[:400], each.digits[:400], each.index[:400])
        for each in (images.train, images.val, images.test)
    )
    corner = Splits(*parts, 10, images.digits)
    net = net_of("2*8", 0.05, activation)
    trial = Trial(
        data=DataSpec(scaling="simplex"), model=net.model, method=StandardTraining(batch_size=64), seed=3
    )
    (state,), _ = run([trial], corner, 2)
    lkg = {name: torch.from_numpy(tensor) for name, tensor in state.lkg.items()}
    row = StackedParams.stacked([net.stack(lkg), net.stack(lkg)])
    for out in outputs(net, row, corner.val.images):
        sums = out.sum(dim=1, dtype=torch.float64)
        torch.testing.assert_close(sums, torch.full_like(sums, TOTAL), rtol=1e-4, atol=0)
