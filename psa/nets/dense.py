"""Dense networks, stacked: one forward pass for T trials, wired plain (SimpleMLP) or residual (ResMLP)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from psa.nets.dropout import Dropout
from psa.nets.layers import Inputs, Layer, Layout, Rows, stacked_linear
from psa.nets.shapes import Shape, shape_of
from psa.streams import stream
from psa.trial import ModelSpec


class Dense:
    """One architecture for any number of trials; the parameters live outside, as rows of a buffer."""

    def __init__(self, model: ModelSpec, classes: int) -> None:
        self.family, self.arch, self.classes = model.family, model.arch, classes
        self.shape: Shape = shape_of(model, classes)
        self.layout = Layout(self.shape.linears)

    def described(self) -> dict[str, object]:
        """What was really built, for the record."""
        return {
            "family": self.family,
            "arch": str(self.arch),
            "classes": self.classes,
            "linear_layers": len(self.shape.linears),
            "parameters": self.shape.parameters,
        }

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
        """The least of all layer sizes (see psa.train.padded)."""
        return min(min(linear.inputs, linear.outputs) for linear in self.shape.linears)

    def initial(self, seed: int) -> Rows:
        """One row drawn as torch draws an nn.Linear: weights and biases ~ U(+-1/sqrt(inputs)).

        Drawn on the CPU whatever the device, so that every device starts from the same bits.
        """
        draws = stream(seed, "init")
        row = self.layout.zeros(1)
        for linear, (weight, bias) in zip(self.shape.linears, self.layout.views(row), strict=True):
            bound = np.float32(1 / math.sqrt(linear.inputs))
            for tensor in (weight, bias):
                unit = draws.random(tensor.numel(), dtype=np.float32)
                tensor.copy_(torch.from_numpy((2 * unit - 1) * bound).view(tensor.shape))
        return row

    def bind(self, rows: Rows, gradients: Rows | None = None) -> Bound:
        """This network with the parameters of `rows`; with `gradients`, backward() writes them there."""
        into: list[tuple[Tensor | None, Tensor | None]] = [(None, None)] * len(self.shape.linears)
        if gradients is not None:
            into = list(self.layout.views(gradients))
        layers = [
            Layer(number, *views, *grads, relu=linear.role != "output", single=linear.inputs == 1)
            for number, (linear, views, grads) in enumerate(
                zip(self.shape.linears, self.layout.views(rows), into, strict=True)
            )
        ]
        return Bound(self.shape, layers)

    def unstack(self, row: Rows) -> dict[str, Tensor]:
        """One trial's row as an ordinary state dict: weights [outputs, inputs], biases [outputs]."""
        state = {}
        for linear, (weight, bias) in zip(self.shape.linears, self.layout.views(row), strict=True):
            state[f"{linear.name}.weight"] = weight[0].clone()
            state[f"{linear.name}.bias"] = bias[0, :, 0].clone()
        return state

    def stack(self, state: dict[str, Tensor]) -> Rows:
        """The row of an ordinary state dict. Raises KeyError or RuntimeError where it does not fit."""
        row = self.layout.zeros(1)
        for linear, (weight, bias) in zip(self.shape.linears, self.layout.views(row), strict=True):
            weight[0].copy_(state[f"{linear.name}.weight"])
            bias[0, :, 0].copy_(state[f"{linear.name}.bias"])
        return row


class Bound:
    """A network and the parameters of T trials, ready for many batches."""

    def __init__(self, shape: Shape, layers: list[Layer]) -> None:
        self.plan = [(layer, linear.role) for layer, linear in zip(layers, shape.linears, strict=True)]
        device = layers[0].weight.device
        self.anchor = torch.zeros((), device=device, requires_grad=layers[0].weight_grad is not None)

    def __call__(self, inputs: Inputs, dropout: Dropout | None = None) -> Tensor:
        """Logits [T, classes, B]. A later backward() writes every gradient into the buffers bound."""
        h, skip = inputs.x, None
        for layer, role in self.plan:
            if role == "enter":
                skip = h if layer.number else inputs.by_row()
            if role in ("hidden", "enter"):
                layer.dropout = dropout
            if layer.number == 0:
                layer.rows = inputs.rows
            h = stacked_linear(h, layer, self.anchor, skip if role == "leave" else None)
        return h
