"""Every sample's own gradient of every linear layer, kept as factors: while training, or of the LKG.

For z = W a + b the gradient is the outer product of delta = dl/dz and a (see
psa.analysis.gradients.factored), so a backward pass of the whole batch has all of them. What is
differentiated is the mean loss of the batch, of which a sample's own loss is B times its part: delta is
multiplied by the size of the batch, also of the last and short one. The input of the first layer is the image
itself, of which only the place in the data is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psa.core.errors import UserError
from psa.data.splits import Split, Splits
from psa.engine.batches import Batches
from psa.engine.probing import ProbeInput
from psa.engine.train_step import EVALUATION_BATCH, cross_entropy
from psa.nn.dense import Dense
from psa.nn.shared_products import Inputs
from psa.probes.base import FileProbe
from psa.storage.array_file import Arrays


class Factors:
    """Room for N samples of T trials, filled batch by batch; an observer of training. Rows beyond the T (a
    twin that only lends a lone trial its bits) are not kept.

    layers: the linear layers, by number.
    """

    def __init__(
        self,
        net: Dense,
        layers: Sequence[int],
        trials: int,
        samples: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.net, self.trials, self.batch_size = net, trials, batch_size
        linears = net.shape.linears
        self.delta = {
            layer: torch.empty(trials, samples, linears[layer].outputs, device=device) for layer in layers
        }
        self.activation = {
            layer: torch.empty(trials, samples, linears[layer].inputs, device=device)
            for layer in layers
            if layer
        }
        self.chosen = torch.empty(trials, samples, dtype=torch.int64, device=device)
        self.predictions = torch.empty_like(self.chosen)
        self.rows = slice(0, 0)

    def step(self, number: int, chosen: Tensor, logits: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        start = number * self.batch_size
        self.rows = slice(start, start + chosen.shape[1])
        self.chosen[:, self.rows] = chosen[: self.trials]
        self.predictions[:, self.rows] = logits[: self.trials].argmax(dim=1)

    def layer(self, number: int, x: Tensor, delta: Tensor) -> None:
        """See psa.engine.train_step.Observer."""
        if number in self.delta:
            own = delta[: self.trials].transpose(1, 2)
            torch.mul(own, own.shape[1], out=self.delta[number][:, self.rows])
        if number in self.activation:
            self.activation[number][:, self.rows] = x[: self.trials].transpose(1, 2)

    def of(self, trial: int, split: Split, digits: Sequence[int]) -> Arrays:
        """Return one trial's columns (psa.specs.probes) and the factors of each layer, float32 [N, width]."""
        chosen = self.chosen[trial]
        found = {
            "index": split.index[chosen],
            "digit": split.digits[chosen],
            "label": split.labels[chosen],
            "prediction": torch.tensor(digits, device=chosen.device)[self.predictions[trial]],
        }
        linears = self.net.shape.linears
        found |= {f"{linears[layer].name}.delta": kept[trial] for layer, kept in self.delta.items()}
        found |= {f"{linears[layer].name}.activation": kept[trial] for layer, kept in self.activation.items()}
        return {name: tensor.cpu().numpy() for name, tensor in found.items()}


class Followed:
    """One epoch of some trials. wanted: the trials whose factors are kept."""

    def __init__(self, factors: Factors, splits: Splits, wanted: Sequence[bool]) -> None:
        self.factors, self.splits, self.wanted = factors, splits, wanted
        self.step, self.layer = factors.step, factors.layer

    def arrays(self, row: int) -> Arrays | None:
        """See psa.engine.probing.EpochObserver."""
        return self.factors.of(row, self.splits.train, self.splits.digits) if self.wanted[row] else None


class GradientsOnline(FileProbe):
    """Each sample's gradient in the step that trained on it: with the weights (and the dropout) of that
    moment, before the optimiser's step. Samples stand in the order of training.

    epochs: by number, all if none is given. layers: by name, all if none is given.
    """

    name = "gradients_online"

    def __init__(self, epochs: Sequence[str] = (), layers: Sequence[str] = ()) -> None:
        self.epochs, self.layers = {int(epoch) for epoch in epochs}, tuple(layers)

    def follow(self, net: Dense, splits: Splits, batches: Batches, loops: Sequence[int]) -> Followed | None:
        """See psa.engine.probing.TrainingProbe. Raises UserError for an unknown layer."""
        layers = numbers_of(net, self.layers)
        wanted = [not self.epochs or loop in self.epochs for loop in loops]
        if not any(wanted):
            return None
        device = batches.order.device
        factors = Factors(net, layers, len(loops), len(batches.split), batches.batch_size, device)
        return Followed(factors, splits, wanted)


class Gradients(FileProbe):
    """Each training sample's gradient at one checkpoint: the LKG after selection, without dropout. Samples
    stand in the order of the training split.

    layers: by name, all if none is given.
    """

    name = "gradients"

    def __init__(self, layers: Sequence[str] = ()) -> None:
        self.layers = tuple(layers)

    def arrays(self, probe_input: ProbeInput, row: int) -> Arrays:
        """See psa.engine.probing.ArrayProbe. One trial at a time beside a copy of itself: the same bits in
        any pack.
        """
        split, weights = probe_input.splits.train, probe_input.weights[[row, row]]
        layers = numbers_of(probe_input.net, self.layers)
        factors = Factors(probe_input.net, layers, 1, len(split), EVALUATION_BATCH, split.images.device)
        bound = probe_input.net.bind(weights, weights.zeros_like(), [probe_input.loops[row]] * 2)
        bound.training = False
        bound.watch(factors.layer)
        for layer, _ in bound.plan:
            layer.weight_grad = layer.bias_grad = None  # their sums over samples are not needed
        places = torch.arange(len(split), device=split.images.device)
        for number, start in enumerate(range(0, len(split), EVALUATION_BATCH)):
            part = slice(start, start + EVALUATION_BATCH)
            logits = bound(Inputs.same_for_all(split.images[part], 2))
            _, gradient = cross_entropy(logits.detach(), split.labels[part].expand(2, -1))
            factors.step(number, places[part].expand(2, -1), logits.detach())
            logits.backward(gradient)
        return factors.of(0, split, probe_input.splits.digits)


def numbers_of(net: Dense, names: Sequence[str]) -> list[int]:
    """Return the numbers of the named layers, all if none is named. Raises UserError for an unknown layer and
    for those whose gradient is not an outer product: that of a stochastic layer passes a softmax, and that
    of a convolution is a sum over the places of an image.
    """
    linears = {linear.name: number for number, linear in enumerate(net.shape.linears)}
    for name in names:
        if name not in linears:
            raise UserError(f"probe of gradients: unknown layer {name!r}", f"Known: {', '.join(linears)}")
    chosen = [linears[name] for name in names or linears]
    for number in chosen:
        linear = net.shape.linears[number]
        if linear.simplex or linear.role == "conv":
            kind = "stochastic one" if linear.simplex else "convolution"
            raise UserError(
                f"probe of gradients: layer {linear.name} must be linear, got a {kind}",
                "Name other layers, or use psa.analysis.gradients.vmap.per_sample_gradients",
            )
    return sorted(chosen)
