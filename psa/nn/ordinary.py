"""A trained network as an ordinary module: one network, samples in rows, nothing of a pack.

Its parameters have the names and shapes of the state file. The logits are those of the stacked network up to
rounding: products are summed in another order.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from psa.nn.activations import ActivationParams, activate_samples
from psa.specs.activation import Activation
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.shapes import Linear, Shape


class OrdinaryLayer(nn.Module):
    """One layer before its activation: [B, inputs] to [B, outputs], or images to images.

    Its weight is [outputs, inputs], or [outputs, channels, 3, 3] of a convolution with a border of zeros. A
    stochastic layer multiplies with softmax(weight / temperature) over its outputs, and has no bias.
    """

    bias: Tensor | None
    threshold: Tensor | None

    def __init__(self, linear: Linear, temperature: float) -> None:
        super().__init__()
        self.role, self.simplex, self.temperature = linear.role, linear.simplex, temperature
        for name in ("weight", "bias", "threshold"):  # in the order of torch
            self.register_parameter(name, None)
        for name, sizes in linear.tensors.items():
            self.register_parameter(name.rpartition(".")[2], nn.Parameter(torch.zeros(sizes)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the product with the weights, plus the bias."""
        weight: Tensor = self.get_parameter("weight")
        if self.role == "conv":
            return nn.functional.conv2d(x, weight, self.bias, padding=1)
        if self.simplex:
            weight = torch.softmax(weight / self.temperature, dim=0)
        return nn.functional.linear(x, weight, self.bias)


class OrdinaryNetwork(nn.Module):
    """A network of psa for other programs: it can be evaluated, exported and trained further.

    Submodules have the names of the layers (see psa.specs.shapes), such as `hidden.0` or
    `stacks.0.blocks.1.enter`. In training mode hidden units are dropped out at the rate of the model, and the
    activation Threshold is soft.

    Args:
        model: The model; of one that has grown, its present size.
        shape: Its layers.
        epoch: The epoch whose scale an activation with a schedule has.

    """

    def __init__(self, model: PublishedModelSpec | NetworkSpec, shape: Shape, epoch: int = 1) -> None:
        super().__init__()
        named = isinstance(model, NetworkSpec)
        self.kind = model.activation if isinstance(model, NetworkSpec) else Activation("ReLU")
        self.scale = self.kind.scale_at(epoch) if self.kind.decays else None
        self.drop, self.summed = nn.Dropout(model.dropout), shape.summed
        first = shape.linears[0]
        self.features = first.side**2 * first.inputs // 9 if first.role == "conv" else first.inputs
        self.plan = tuple((linear.name, linear.role, linear.side) for linear in shape.linears)
        for linear in shape.linears:
            layer = OrdinaryLayer(linear, model.temperature if named else 1.0)  # type: ignore[union-attr]
            self._parent_of(linear.name).add_module(linear.name.rpartition(".")[2], layer)

    def _parent_of(self, name: str) -> nn.Module:
        """Return the module that holds a layer, made on the way where it is missing."""
        parent: nn.Module = self
        for part in name.split(".")[:-1]:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        return parent

    @classmethod
    def with_weights(
        cls,
        model: PublishedModelSpec | NetworkSpec,
        shape: Shape,
        weights: Mapping[str, Tensor],
        epoch: int = 1,
    ) -> OrdinaryNetwork:
        """Return the network with these weights, ready to evaluate. Raises RuntimeError unless they fit."""
        network = cls(model, shape, epoch)
        network.load_state_dict(dict(weights))
        return network.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, classes].

        Args:
            x: Samples [B, features] or [B, height, width], scaled as the trial's data were.

        """
        h, skip, total = x.flatten(1), x, None
        for name, role, side in self.plan:
            layer = self.get_submodule(name)
            if role == "output":
                return layer(h if total is None else total)  # type: ignore[no-any-return]
            if role == "conv":
                channels = h.shape[1] // side**2  # not the number of samples, which a tracer would fix
                images = torch.relu(layer(h.reshape(-1, channels, side, side)))
                h = nn.functional.max_pool2d(images, 2).flatten(1)
                continue
            skip = h if role == "enter" else skip
            before = layer(h) + skip if role == "leave" else layer(h)
            h = self._activated(before, layer.threshold)  # type: ignore[arg-type]
            if role in ("hidden", "enter"):
                h = self.drop(h)
            if self.summed:
                total = h if total is None else total + h
        raise ValueError(
            f"the last layer must be an output layer, got {self.plan[-1][1] if self.plan else 'none'}"
        )

    def _activated(self, x: Tensor, threshold: Tensor | None) -> Tensor:
        if self.kind.is_relu:
            return torch.relu(x)
        scale = None if self.scale is None else torch.tensor(self.scale, device=x.device)
        theta = None if threshold is None else threshold.view(1, 1, 1)
        return activate_samples(x, ActivationParams(self.kind, theta, scale, self.training))
