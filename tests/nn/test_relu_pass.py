"""psa.nn.relu.relu_pass: without autograd the bits are those of the network that autograd differentiates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from helpers import arms, net_trial, two_epochs

from psa.data.splits import Splits
from psa.engine import train_step
from psa.nn.dense import Dense
from psa.nn.relu.relu_pass import ReluPass
from psa.nn.shared_products import Inputs
from psa.specs.shapes import Linear

NETWORKS = [
    ("simplemlp", "20*1", 2),  # one-unit layers, in chunks and more than one chunk
    ("simplemlp", "1*1", 1),
    ("simplemlp", "7*2", 3),
    ("simplemlp", "4*5", 2),
    ("simplemlp", "3*16", 2),
    ("simplemlp", "3*17", 1),
    ("simplemlp", "2*10", 2),  # hidden layers as wide as the output layer
    ("simplemlp", "[2*3,2*5,1*3]", 2),
    ("resmlp", "12*1", 2),
    ("resmlp", "6*3", 2),
    ("resmlp", "3*20", 1),
    ("resmlp", "1*784", 1),  # no projection: the block reads the samples
    ("resmlp", "[2*4,2*6]", 2),
]


@pytest.mark.parametrize("batch", [64, 61])
@pytest.mark.parametrize(("family", "arch", "seeds"), NETWORKS)
def test_bits_are_those_of_autograd(
    family: str, arch: str, seeds: int, batch: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modes, batches that fill whole vectors and others, the short last one, and the evaluation."""
    trials = arms(arch, range(seeds), family)
    served: list[Dense] = []

    def refuses(net: Dense) -> bool:
        served.append(net)
        return False

    direct = two_epochs(trials, small, batch)
    monkeypatch.setattr(train_step.ReluPass, "serves", staticmethod(refuses))
    by_autograd = two_epochs(trials, small, batch)
    assert served
    for one, other in zip(direct, by_autograd, strict=True):
        assert torch.equal(one, other)


def test_a_network_that_grows_its_chunks(monkeypatch: pytest.MonkeyPatch, small: Splits) -> None:
    """The number of layers whose gradients are computed at once changes no bit."""
    trials = arms("9*2", range(2))
    found = []
    for at_once in (1, 1 << 13, 1 << 30):
        monkeypatch.setattr("psa.nn.relu.pass_layout._AT_ONCE", at_once)
        found.append(two_epochs(trials, small, 64))
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_other_networks_are_left_to_autograd() -> None:
    """Sums, other activations, simplex layers and convolutions."""
    for trial in (
        net_trial("3*4", family="glonet"),
        net_trial("3*4", activation="Tanh"),
        net_trial("[1*3,1*4]", family="cnn"),
    ):
        assert not ReluPass.serves(Dense(trial.model, 10))
    assert ReluPass.serves(Dense(net_trial("3*4").model, 10))


def test_backward_needs_forward() -> None:
    """The gradients of nothing are refused."""
    net = Dense(net_trial("2*4").model, 10)
    rows = net.initial(0)
    passed = ReluPass(net.bind(rows, rows.zeros_like()), 1, 8, training=True)
    with pytest.raises(RuntimeError, match="must follow forward"):
        passed.backward(torch.zeros(1, 10, 8))
    passed.forward(Inputs.same_for_all(torch.zeros(8, 784), 1))
    passed.backward(torch.zeros(1, 10, 8))
    with pytest.raises(RuntimeError, match="must follow forward"):  # once: outputs were overwritten
        passed.backward(torch.zeros(1, 10, 8))


@pytest.mark.parametrize(
    ("roles", "served"),
    [
        (["hidden", "enter", "leave", "output"], True),
        (["enter", "hidden", "leave", "output"], False),
        (["hidden", "leave", "output"], False),
        (["enter", "output"], False),
        (["hidden", "conv", "output"], False),
    ],
)
def test_blocks_of_another_length_are_left_to_autograd(roles: list[str], served: bool) -> None:
    """A plugin may build them; the buffers of the pass hold a block's input for two layers only."""
    net = Dense(net_trial("1*4").model, 10)
    linears = tuple(Linear(f"layer{at}", 4, 4, role) for at, role in enumerate(roles))  # type: ignore[arg-type]
    net.shape = replace(net.shape, linears=linears)
    assert ReluPass.serves(net) == served
