"""A memory inside a real stacked network: gradients, bits in a pack, and an effect of a size that counts."""

from __future__ import annotations

import torch
from memories import CPU, memory
from torch import Tensor

from psa.engine.train_step import cross_entropy
from psa.interventions.memory.hidden_memory import HiddenMemory
from psa.interventions.memory.targets import per_sample
from psa.nn.dense import Dense
from psa.nn.layers import stacked_linear
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec


def walked(seeds: list[int], steps: int = 4, size: int = 21) -> tuple[Tensor, Tensor]:
    """Plain gradient descent with a memory at the last hidden layer; weights, and relative effects."""
    net = Dense(PublishedModelSpec(family="simplemlp", arch=Arch.coerce("1*30, 1*17")), 10)
    weights = StackedParams.stacked([net.initial(seed) for seed in seeds])
    gradients = weights.zeros_like()
    hidden = HiddenMemory(memory(capacity=50), seeds, 17, 10, CPU)
    effects = []
    for step in range(steps):
        draws = torch.Generator().manual_seed(step)
        x, labels = torch.rand(size, 784, generator=draws), torch.randint(10, (size,), generator=draws)
        many, samples = labels.expand(len(seeds), -1), torch.arange(size).expand(len(seeds), -1)
        bound = net.bind(weights, gradients)
        (one, _), (two, _), (last, _) = bound.plan
        one.rows = Inputs.same_for_all(x, len(seeds)).rows
        h = stacked_linear(stacked_linear(x.unsqueeze(0), one, bound.anchor), two, bound.anchor)
        h.retain_grad()
        changed, trace = hidden.forward(h, samples, training=True)
        logits = stacked_linear(changed, last, bound.anchor)
        loss, gradient = cross_entropy(logits.detach(), many)
        logits.backward(gradient)
        assert h.grad is not None
        losses = torch.nn.functional.cross_entropy(logits.detach(), many, reduction="none")
        right = logits.detach().argmax(dim=1) == many
        effects.append(hidden.observed(trace, many)["relative"])
        hidden.learn(trace, per_sample(h.grad), losses, right, many, samples)
        for part, slope in zip(weights.parts, gradients.parts, strict=True):
            part.sub_(slope, alpha=0.5)
        assert torch.isfinite(loss).all()
    return torch.cat([weights.first, weights.rest], dim=1), torch.cat(effects, dim=1)


def test_a_trial_trains_to_the_same_bits_in_any_pack() -> None:
    """Alone, and at each end of packs; an odd width and batch, so that nothing is aligned by luck."""
    alone, effect = walked([7])
    for seeds in ([7, 8], [8, 7], [5, 6, 7]):
        together, effects = walked(seeds)
        assert torch.equal(together[seeds.index(7)], alone[0])
        assert torch.equal(effects[seeds.index(7)], effect[0])


def test_the_effect_is_not_the_numerical_zero_of_batch_means() -> None:
    """Values made of a sample's own gradient move hidden vectors by far more than rounding.

    Made of the batch mean, they moved them by about 1e-6 of their length.
    """
    effect = walked([7])[1]
    assert float(effect[0, :21].abs().max()) == 0  # nothing is stored before the first step
    assert float(effect[0, 21:].mean()) > 1e-3
