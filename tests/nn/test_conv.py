"""psa.nn.conv: convolutions as products of patches are torch's, and a memory has its sites there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import run
from memories import memory
from torch import nn

from psa.data.splits import Split, Splits
from psa.engine.train_step import cross_entropy
from psa.experiments.studies.memory import Settings, from_settings
from psa.nn.dense import Dense
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.model import NetworkSpec
from psa.specs.training import RatchetTraining, StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import encode_state

ARCH = "1*3, 1*5, 1*11"


def cnn(seed: int = 1, arch: str = ARCH, **parts: object) -> Trial:
    """A small one; widths and channels are odd, so that nothing is aligned by luck."""
    model = NetworkSpec(family="cnn", arch=Arch.coerce(arch), dropout=0.2)
    return Trial.model_validate(
        {"model": model, "method": StandardTraining(optimizer="adam", batch_size=64), "seed": seed, **parts}
    )


@pytest.fixture(scope="module")
def few(small: Splits) -> Splits:
    """Less to convolve: 200, 60 and 40 samples."""

    def first(split: Split, count: int) -> Split:
        return split.first(count)

    return Splits(first(small.train, 200), first(small.val, 60), first(small.test, 40), 10, small.digits)


def module_of(arch: tuple[int, ...]) -> nn.Sequential:
    """The same network as one would write it."""
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 28, 28))]
    channels, side = 1, 28
    for width in arch[:-1]:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        channels, side = width, side // 2
    layers += [nn.Flatten(), nn.Linear(channels * side**2, arch[-1]), nn.ReLU(), nn.Linear(arch[-1], 10)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("arch", [ARCH, "1*4, 1*7", "1*2, 1*3, 1*4, 1*5, 1*6"])
def test_logits_and_gradients_are_those_of_torchs_convolutions(arch: str, few: Splits) -> None:
    """With the trial's own state dict, at every number of convolutions; an odd side loses its border."""
    trial = cnn(3, arch)
    net = Dense(trial.model, 10)
    weights = StackedParams.stacked([net.initial(3), net.initial(4)])
    gradients = weights.zeros_like()
    part = few.train.first(13)
    logits = net.bind(weights, gradients)(Inputs.same_for_all(part.images, 2))
    _, gradient = cross_entropy(logits.detach(), part.labels.expand(2, -1))
    logits.backward(gradient)
    module = module_of(trial.model.arch.widths)
    state = net.unstack(weights[:1])
    with torch.no_grad():
        for parameter, tensor in zip(module.parameters(), state.values(), strict=True):
            parameter.copy_(tensor)
    expected = module(part.images)
    nn.functional.cross_entropy(expected, part.labels).backward()
    assert torch.allclose(logits[0].T, expected, atol=1e-5)
    mine = net.unstack(gradients[:1]).values()
    for parameter, tensor in zip(module.parameters(), mine, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, tensor, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("site", [None, "early", "hidden_1", "penultimate"])
def test_a_cnn_trains_to_the_same_bits_in_any_pack(few: Splits, site: str | None) -> None:
    """Alone and among others, with a memory behind a convolution and without."""
    parts = {} if site is None else {"memory": memory(site=site, capacity=100)}
    (alone,), (outcome,) = run([cnn(4, **parts)], few, 2)
    together, outcomes = run([cnn(seed, **parts) for seed in (9, 4, 2)], few, 2)
    assert encode_state(together[1]) == encode_state(alone)
    assert outcomes[1] == outcome
    assert alone.lkg["conv.1.weight"].shape == (5, 3, 3, 3)
    if site is not None:
        width = {"early": 3 * 784, "hidden_1": 5 * 196, "penultimate": 11}[site]
        assert alone.memory["keys"].shape == (100, width)


def test_an_idle_memory_behind_a_convolution_changes_nothing(few: Splits) -> None:
    """To the bit."""
    (plain,), _ = run([cnn()], few, 2)
    (idle,), _ = run([cnn(memory=memory(site="early", control="inactive"))], few, 2)
    assert all(np.array_equal(plain.lkg[name], tensor) for name, tensor in idle.lkg.items())


def test_the_study_trains_cnns(few: Splits) -> None:
    """Twice the channels and the width for nn_large; its probes look at convolutions too."""
    settings = {"network": "cnn", "arch": ARCH, "memory_size": 50, "k": 3, "batch_size": 64}
    large = from_settings(Settings.model_validate(settings | {"method": "nn_large"}), 1)
    assert large.model.arch.widths == (6, 10, 22)
    trial = from_settings(Settings.model_validate(settings), 1)
    probes = (*trial.probes, "layer_usage", "early_exit", "distributions", "embedding_knn")
    _, (outcome,) = run([trial.changed(probes=probes)], few, 1)
    assert sum(outcome.probes["confusion"]["counts"]) == 40
    assert len(outcome.probes["layer_usage"]["mean_output"]) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"model": NetworkSpec.model_construct(family="cnn"), "method": RatchetTraining()},
            "policy must be keep with family cnn",
        ),
        ({"growth": {"width": 3}}, "family must be mlp or simplemlp to grow, got cnn"),
    ],
)
def test_what_a_cnn_cannot_do_is_refused(changes: dict[str, object], said: str) -> None:
    """Ablation and growth know linear layers."""
    if "model" in changes:
        changes = changes | {"model": NetworkSpec(family="cnn", arch=Arch.coerce(ARCH))}
    with pytest.raises(ValueError, match=said):
        cnn(**changes)


def test_an_arch_that_is_no_cnn_is_refused() -> None:
    """At least one convolution, and no more than leave an image."""
    for arch in ("1*9", "5*3, 1*4"):
        with pytest.raises(ValueError, match="1 to 4 convolutions"):
            cnn(arch=arch)
    with pytest.raises(ValueError, match="family cnn must have activation ReLU and simplex none"):
        NetworkSpec(family="cnn", arch=Arch.coerce(ARCH), activation="Tanh")
    with pytest.raises(ValueError, match="must have network mlp, got cnn"):
        Settings(network="cnn", method="nn_extra_layer")
