"""Training on data of any size: the same bits in any pack, and convolutions of images with channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run
from own_data import made
from torch import nn

from psa.data.own import content_of_arrays
from psa.data.splits import load_splits
from psa.experiments.grid import load_grid
from psa.nn.dense import Dense
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec
from psa.specs.training import MODES, StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import encode_state

# Features of which none, few and all fill whole vectors, with the fewest and with many classes.
SIZES = [((1,), 2), ((2,), 2), ((13,), 3), ((8, 8), 10), ((30,), 2), ((3_072,), 100)]


def spec_of(samples: int, shape: tuple[int, ...], classes: int, kind: Any = "f4") -> DataSpec:
    """Made data, known to this process."""
    content = content_of_arrays(*made(samples, shape, classes, kind))
    return DataSpec.model_validate({"name": content.name, "content": content})


@pytest.mark.parametrize(("shape", "classes"), SIZES, ids=str)
@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
def test_a_trial_has_the_same_bits_alone_and_in_any_pack(
    shape: tuple[int, ...], classes: int, family: str, tmp_path: Path
) -> None:
    """All six modes of two seeds together, and each of some of them alone."""
    data = spec_of(3 * classes + 90, shape, classes)
    base = {"family": family, "dataset": data.content, "arch": "1*5, 1*13", "lr": 1e-2, "batch_size": 16}
    grid = load_grid({"base": base, "axes": {"mode": list(MODES)}, "seeds": [0, 1]})
    splits = load_splits(data, tmp_path)
    together, tests = run(grid.trials, splits, 3)
    for at in (0, 5, 7):
        alone, test = run([grid.trials[at]], splits, 3)
        assert encode_state(alone[0]) == encode_state(together[at])
        assert test[0] == tests[at]
    two, _ = run(grid.trials[3:5], splits, 3)
    assert [encode_state(state) for state in two] == [encode_state(state) for state in together[3:5]]


def test_a_residual_network_as_wide_as_its_input_reads_it_unchanged(tmp_path: Path) -> None:
    """Its first block has no projection, as for 784 pixels."""
    data = spec_of(120, (6,), 2)
    base = {"family": "resmlp", "dataset": data.content, "arch": "2*6", "lr": 1e-2, "batch_size": 16}
    grid = load_grid({"base": base, "axes": {"mode": ["none", "hidden"]}, "seeds": [0, 1]})
    assert grid.trials[0].shape.linears[0].role == "enter"
    splits = load_splits(data, tmp_path)
    together, _ = run(grid.trials, splits, 2)
    alone, _ = run([grid.trials[2]], splits, 2)
    assert encode_state(alone[0]) == encode_state(together[2])


def test_separable_data_are_learnt(tmp_path: Path) -> None:
    """Two features and two classes, far apart: at most one of 40 is wrong."""
    samples, labels = made(200, (2,), 2)
    samples[:, 0] = 300 * labels + samples[:, 0] / 4
    content = content_of_arrays(samples, labels)
    base = {"family": "simplemlp", "dataset": content, "arch": "1*8", "lr": 1e-2, "batch_size": 16}
    grid = load_grid({"base": base, "seeds": [0, 1, 2]})
    splits = load_splits(grid.trials[0].data, tmp_path)
    _, tests = run(grid.trials, splits, 20)
    assert all(result.correct >= len(splits.test) - 1 for result in tests)


@pytest.mark.parametrize("shape", [(8, 8), (9, 9, 3), (32, 32, 3)], ids=str)
def test_a_convolution_of_channels_is_that_of_torch(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Logits of a network written by hand, with the same weights, on the same images."""
    data = spec_of(40, shape, 4, "u1")
    model = NetworkSpec(family="cnn", arch="1*3, 1*5, 1*7")  # type: ignore[arg-type]
    trial = Trial(data=data, model=model, method=StandardTraining(batch_size=16))
    net, split = Dense(model, data.classes, data.shape), load_splits(data, tmp_path).train
    row = StackedParams.stacked([net.initial(0), net.initial(1)])
    channels, side = shape[2] if len(shape) > 2 else 1, shape[0]
    layers: list[nn.Module] = [nn.Unflatten(1, (channels, side, side))]
    for width in (3, 5):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = width, side // 2
    by_hand = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(channels * side**2, 7), nn.ReLU(), nn.Linear(7, 4)
    )
    state = net.unstack(row[0:1])
    names = [name for name, _ in by_hand.named_parameters()]
    by_hand.load_state_dict(dict(zip(names, state.values(), strict=True)))
    logits = net.bind(row)(Inputs.same_for_all(split.images, 2))[0].T
    assert torch.allclose(logits, by_hand(split.images), atol=1e-5)
    states, _ = run([trial, trial.changed(seed=1)], load_splits(data, tmp_path), 1)
    alone, _ = run([trial], load_splits(data, tmp_path), 1)
    assert encode_state(alone[0]) == encode_state(states[0])
