"""Networks, stacked: one forward pass for T trials, wired plain, residual, summed (GloNet) or as a CNN."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from psa.core.rng import generator
from psa.nn.activations import ActivationParams, activate, added, learned, placed, scales
from psa.nn.conv import first_patches, flattened, patches, pooled
from psa.nn.dropout import Dropout
from psa.nn.layers import Layer, LayerWatcher, stacked_linear
from psa.nn.shared_products import Inputs
from psa.nn.stacked import Layout, StackedParams
from psa.specs.activation import Activation
from psa.specs.arch import Arch
from psa.specs.memory_sites import SitePosition
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.shapes import IMAGE, Linear, Shape, shape_of

# A function of a hidden layer's number, and of [T, width, B] before and after its activation.
Tap = Callable[[int, Tensor, Tensor], None]
# What is done to [T, width, B] at a place of a plain network: another tensor like it.
Change = tuple[SitePosition, Callable[[Tensor], Tensor]]
_CUT_STD: Final = 0.87962566103423978  # of a standard normal cut off at two deviations


class Dense:
    """One architecture for any number of trials; the parameters live outside, as rows of a buffer."""

    def __init__(
        self, model: PublishedModelSpec | NetworkSpec, classes: int, sample: tuple[int, ...] = IMAGE
    ) -> None:
        self.model, self.classes, self.sample = model, classes, sample
        self.family, self.arch = model.family, model.arch
        self.activation = model.activation if isinstance(model, NetworkSpec) else Activation("ReLU")
        self.shape: Shape = shape_of(model, classes, sample)
        self.layout = Layout(self.shape.linears)

    def grown(self, widths: Sequence[int]) -> Dense:
        """Return the network with these hidden widths; itself if it has them."""
        if tuple(widths) == self.arch.widths:
            return self
        arch = Arch.of_stacks([(1, width) for width in widths])
        return Dense(self.model.model_copy(update={"arch": arch}), self.classes, self.sample)

    def described(self) -> dict[str, object]:
        """Return a description of the network as built, for the record."""
        built: dict[str, object] = {
            "family": self.family,
            "arch": str(self.arch),
            "classes": self.classes,
            "linear_layers": len(self.shape.linears),
            "parameters": self.shape.parameters,
        }
        if isinstance(self.model, NetworkSpec):
            built |= {
                "activation": str(self.activation),
                "simplex_layers": sum(linear.simplex for linear in self.shape.linears),
                "thresholds": len(self.layout.threshold_at),
                "summed": self.shape.summed,
                "init": self.model.init,
            }
        return built

    @property
    def dropping(self) -> dict[int, int]:
        """The width of each layer behind which dropout has its place, by the layer's number."""
        return {
            number: linear.outputs
            for number, linear in enumerate(self.shape.linears)
            if linear.role in ("hidden", "enter")
        }

    @property
    def smallest_dimension(self) -> int:
        """The least of all layer sizes (see psa.engine.train_step.padded)."""
        return min(min(linear.inputs, linear.outputs) for linear in self.shape.linears)

    def initial(self, seed: int, loop: int = 0) -> StackedParams:
        """Return one row, drawn on the CPU so that every device starts from the same bits.

        Linear layers as torch draws an nn.Linear: weights and biases ~ U(+-1/sqrt(inputs)); or, with init
        `he`, weights of variance 2/inputs from a normal cut off at two deviations and biases 0 (He et al.
        2015, as flax draws it); with `he-cut` the normal has that variance before it is cut. Simplex layers
        ~ U(+-sqrt(6/(inputs + outputs))) (Glorot and Bengio 2010). loop: above 0 for another draw.
        """
        draws = generator(seed, "init", loop)
        row = self.layout.zeros(1)
        for number, linear in enumerate(self.shape.linears):
            weight, bias = self.layout.weight(row, number), self.layout.bias(row, number)
            if isinstance(self.model, NetworkSpec) and self.model.init != "torch" and not linear.simplex:
                std = math.sqrt(2 / linear.inputs) / (_CUT_STD if self.model.init == "he" else 1)
                weight.copy_(_cut_normal(draws, weight.shape, std))
                continue
            bound = math.sqrt(6 / (linear.inputs + linear.outputs)) if linear.simplex else None
            for tensor in (weight,) if linear.simplex else (weight, bias):
                limit = np.float32(bound or 1 / math.sqrt(linear.inputs))
                unit = draws.random(tensor.numel(), dtype=np.float32)
                tensor.copy_(torch.from_numpy((2 * unit - 1) * limit).view(tensor.shape))
        for layer in self.layout.threshold_at:
            threshold = self.layout.threshold(row, layer)
            if threshold is not None:
                threshold.fill_(self.activation.number("initial"))
        return row

    def bind(
        self, rows: StackedParams, gradients: StackedParams | None = None, loops: Sequence[int] | None = None
    ) -> Bound:
        """Bind the network to the parameters of `rows`; with `gradients`, backward() writes them there.

        loops: the epoch of each row, which only activations with a schedule ask for.
        """
        layers = [
            self._layer(number, linear, rows, gradients) for number, linear in enumerate(self.shape.linears)
        ]
        return Bound(self, layers, rows, gradients, loops)

    def _layer(
        self, number: int, linear: Linear, rows: StackedParams, gradients: StackedParams | None
    ) -> Layer:
        layout = self.layout
        return Layer(
            number,
            layout.weight(rows, number),
            layout.bias(rows, number),
            None if gradients is None else layout.weight(gradients, number),
            None if gradients is None else layout.bias(gradients, number),
            relu=linear.role != "output" and self.activation.is_relu,
            single=linear.inputs == 1,
            temperature=self.model.temperature
            if isinstance(self.model, NetworkSpec) and linear.simplex
            else None,
        )

    def unstack(self, row: StackedParams) -> dict[str, Tensor]:
        """Return one trial's row as an ordinary state dict: weights [outputs, inputs], biases [outputs]."""
        return {name: view.clone() for name, view in self.layout.tensors(row).items()}

    def stack(self, state: dict[str, Tensor]) -> StackedParams:
        """Return the row of an ordinary state dict. Raises KeyError or RuntimeError if it does not fit."""
        row = self.layout.zeros(1)
        for name, view in self.layout.tensors(row).items():
            view.copy_(state[name])
        return row


def _cut_normal(draws: np.random.Generator, shape: torch.Size, std: float) -> Tensor:
    """Draw from a normal of that standard deviation, cut off at two of them."""
    values = draws.standard_normal(shape.numel(), dtype=np.float32)
    while (far := np.flatnonzero(np.abs(values) > 2)).size:
        values[far] = draws.standard_normal(far.size, dtype=np.float32)
    return torch.from_numpy(values * np.float32(std)).view(shape)


class Bound:
    """A network and the parameters of T trials, ready for many batches."""

    def __init__(
        self,
        net: Dense,
        layers: list[Layer],
        rows: StackedParams,
        gradients: StackedParams | None,
        loops: Sequence[int] | None,
    ) -> None:
        self.net = net
        self.plan = [(layer, linear.role) for layer, linear in zip(layers, net.shape.linears, strict=True)]
        self.summed = net.shape.summed
        self.sides = [linear.side for linear in net.shape.linears]
        device = layers[0].weight.device
        self.anchor = torch.zeros((), device=device, requires_grad=gradients is not None)
        self.kind = net.activation
        if self.kind.decays and loops is None:
            raise ValueError(f"{self.kind.name} needs to know the epoch")
        self.scale = scales(self.kind, loops or (), device)
        self.training = gradients is not None
        self.thresholds = {
            number: (
                net.layout.threshold(rows, number),
                None if gradients is None else net.layout.threshold(gradients, number),
            )
            for number in net.layout.threshold_at
        }

    def __call__(
        self,
        inputs: Inputs,
        dropout: Dropout | None = None,
        tap: Tap | None = None,
        change: Change | None = None,
    ) -> Tensor:
        """Return logits [T, classes, B]. A later backward() writes every gradient into the buffers bound.

        tap: called with every hidden layer before and after its activation. change: the place of a change
        of hidden vectors, and the function that makes it.
        """
        h, skip, total = inputs.x, None, None
        for layer, role in self.plan:
            if role == "enter":
                skip = h if layer.number else inputs.by_row()
            if layer.number == 0:
                layer.rows = inputs.rows
            if role == "conv":
                h = self._convolved(inputs.x if layer.number == 0 else h, layer, tap, change)
                continue
            if role == "output":
                return stacked_linear(h if total is None else total, layer, self.anchor)
            drops = dropout if role in ("hidden", "enter") else None
            here = change is not None and change[0].layer == layer.number
            between = here and change is not None and not change[0].dropped
            h = self._hidden(h, layer, skip if role == "leave" else None, None if between else drops, tap)
            if here and change is not None:
                h = change[1](h)
            if between and drops is not None:
                h = placed(h, drops, layer.number)
            if self.summed:
                total = h if total is None else added(total, h)
        raise ValueError(
            f"the last layer must be an output layer, got {self.plan[-1][1] if self.plan else 'none'}"
        )

    def watch(self, watch: LayerWatcher) -> None:
        """Show every layer's input and delta to `watch` in each later backward pass."""
        for layer, _ in self.plan:
            layer.watch = watch

    def _convolved(self, h: Tensor, layer: Layer, tap: Tap | None, change: Change | None) -> Tensor:
        """Apply a convolution, ReLU, the change at its place and pooling, to hidden images."""
        side = self.sides[layer.number]
        if layer.number == 0:
            cut, layer.rows = first_patches(h, side, layer.rows or ())
        else:
            cut = patches(h, side)
        h = flattened(self._hidden(cut, layer, None, None, tap), side)
        if change is not None and change[0].layer == layer.number:
            h = change[1](h)
        return pooled(h, side)

    def _hidden(
        self, h: Tensor, layer: Layer, skip: Tensor | None, dropout: Dropout | None, tap: Tap | None
    ) -> Tensor:
        """Apply one hidden layer: product, skip connection, activation, dropout."""
        if layer.relu and tap is None:
            layer.dropout = dropout
            return stacked_linear(h, layer, self.anchor, skip)
        built_in, layer.relu, layer.dropout = layer.relu, False, None
        before = stacked_linear(h, layer, self.anchor, skip)
        layer.relu = built_in
        after = placed(activate(placed(before), self._setting(layer.number)), dropout, layer.number)
        if tap is not None:
            tap(layer.number, before, after)
        return after

    def _setting(self, layer: int) -> ActivationParams:
        value, into = self.thresholds.get(layer, (None, None))
        threshold = None if value is None else learned(self.anchor, value, into)
        return ActivationParams(self.kind, threshold, self.scale, self.training)
