"""psa.nn.relu.compiled: ReLU and dropout compiled by numba give the bits of torch's operations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import arms, assert_same_bits, two_epochs

from psa.data.scaling import pixel_scaling, pixel_values
from psa.data.splits import Splits
from psa.nn.dense import Dense
from psa.nn.relu import compiled, relu_pass
from psa.nn.stacked import StackedParams

pytest.importorskip("numba", reason="the extra `fast` is not installed")


@pytest.mark.parametrize("batch", [64, 61])
@pytest.mark.parametrize(
    ("family", "arch", "seeds"),
    [
        ("simplemlp", "9*2", 2),
        ("simplemlp", "10*7", 3),
        ("simplemlp", "8*20", 1),
        ("simplemlp", "[1*3,12*1,2*4]", 2),  # a chain of one-unit layers among others
        ("resmlp", "5*3", 2),
        ("resmlp", "[3*17,4*5]", 2),
    ],
)
def test_bits_are_those_without_numba(
    family: str, arch: str, seeds: int, batch: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modes, dropout included; whole and short batches; training and evaluation."""
    trials = arms(arch, range(seeds), family)
    made: list[compiled.ReluKernels] = []

    class Seen(compiled.ReluKernels):
        def __init__(self, *values: dict[int, torch.Tensor]) -> None:
            super().__init__(*values)
            made.append(self)

    monkeypatch.setattr(relu_pass, "ReluKernels", Seen)
    monkeypatch.setattr(compiled, "_FEWEST", 0)
    with_numba = two_epochs(trials, small, batch)
    assert made
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    without = two_epochs(trials, small, batch)
    assert_same_bits(with_numba, without)


def test_infinite_and_missing_numbers_pass_through(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverging network has the same infinities, and NaN at the same places."""
    trials = [
        each.changed(method=each.method.model_copy(update={"lr": 1e18}))
        for each in arms("9*3", [0], "resmlp")
    ]
    monkeypatch.setattr(compiled, "_FEWEST", 0)
    with_numba = two_epochs(trials, small, 64)
    assert any(values.isnan().any() for values in with_numba)
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    for one, other in zip(with_numba, two_epochs(trials, small, 64), strict=True):
        assert torch.equal(one.nan_to_num(nan=-1.5), other.nan_to_num(nan=-1.5))


@pytest.mark.parametrize(
    ("arch", "seeds", "expected"), [("2*4", 1, False), ("2*4", 40, True), ("3*2", 1, False)]
)
def test_small_packs_do_without(arch: str, seeds: int, expected: bool, small: Splits) -> None:
    """The import of numba costs more than they gain."""
    trials = arms(arch, range(seeds))
    net = Dense(trials[0].model, 10)
    weights = StackedParams.stacked([net.initial(0)] * len(trials))
    made = relu_pass.ReluPass(net.bind(weights), len(trials), 64, training=False)
    assert (made.kernels is not None) == expected


@pytest.mark.parametrize("samples", [1, 2, 3, 7])
@pytest.mark.parametrize("scaling", ["none", "unit", "standard"])
def test_every_byte_is_scaled_to_the_bits_of_the_divisions(scaling: str, samples: int) -> None:
    """The kernel multiplies by reciprocals and corrects the remainder; for samples of any number and size."""
    from psa.nn.kernels import gather_pixels

    constants = pixel_scaling(scaling)
    assert constants is not None
    numbers = [np.float32(number) for number in (constants.divisor, constants.offset, constants.spread)]
    pixels = np.arange(7 * 300).reshape(7, 300).astype(np.uint8)  # every byte, by wrapping around
    chosen = np.arange(samples)[::-1].copy()
    gathered = np.full((samples, 300), np.nan, np.float32)
    gather_pixels(pixels, chosen, *numbers, gathered)
    expected = pixel_values(scaling)[pixels[chosen]]
    assert np.array_equal(gathered.view(np.uint32), expected.view(np.uint32))
