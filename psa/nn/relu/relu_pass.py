"""Forward and backward pass of plain and residual ReLU networks without autograd, in buffers allocated once.

A narrow deep network consists of hundreds of products of microseconds each, and autograd spends more on a
layer (its node, saved tensors, fresh memory) than its products take. The pass calls the functions of
psa.nn.layers, or the loops of this package compiled by numba, in the same order, and computes the gradients
of several narrow layers at once. In processor time of one core beside other work (2026-11, without
numba) deep narrow networks train 1.3 to 2.3 times as fast as with autograd, 1*2048 as fast. Its bits are
those of `Bound` (tests/nn/test_relu_pass.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from psa.nn.dense import Bound, Dense
from psa.nn.dropout import Dropout
from psa.nn.layers import (
    Layer,
    drop_units,
    input_gradient,
    product,
    through_relu,
    weight_gradients,
)
from psa.nn.relu.compiled import ReluKernels, is_available, is_worthwhile
from psa.nn.relu.pass_layout import PassLayout
from psa.nn.relu.unit_chain import ChainPart, TrainedChain, UnitChain
from psa.nn.shared_products import Inputs, SharedProducts

_ROLES: Final = {"hidden", "enter", "leave", "output"}


class ReluPass:
    """The pass of a bound network over batches of one size.

    Args:
        bound: The network.
        trials: T.
        batch: B.
        training: Keep what `backward` reads. Without it three buffers serve all layers.

    """

    def __init__(self, bound: Bound, trials: int, batch: int, *, training: bool) -> None:
        self.layers = bound.plan
        layout = PassLayout(self.layers, trials, batch, training=training)
        flat = torch.empty(layout.size, device=bound.anchor.device)
        self.outputs = [layout.view(flat, start, at) for at, start in enumerate(layout.starts)]
        self.deltas: dict[int, Tensor] = {}
        self.narrow: dict[int, _NarrowLayers] = {}  # by the first of its layers
        self.covered: set[int] = set()
        buffers = layout.delta_buffers()
        for chunk, deltas in zip(layout.chunks, buffers, strict=True):
            starts = itertools.accumulate(layout.sizes[chunk], initial=0)
            for at, start in zip(range(chunk.start, chunk.stop), starts, strict=False):
                self.deltas[at] = layout.view(deltas, start, at)
            if layout.is_narrow(chunk.start):
                before = flat[layout.starts[chunk.start] - layout.sizes[chunk.start] :]
                some = [layer for layer, _ in self.layers[chunk]]
                self.covered.update(range(chunk.start, chunk.stop))
                self.narrow[chunk.start] = _NarrowLayers.of(some, before, deltas, batch)
        self.chain = self._chain(layout, flat, buffers) if layout.chain else None
        self.kernels: ReluKernels | None = None
        if is_available(self.layers) and is_worthwhile(self.layers, batch):
            alone = {at: y for at, y in enumerate(self.outputs[:-1]) if at not in layout.chain}
            self.kernels = ReluKernels(alone, self.deltas)
        self.shared: SharedProducts | None = None
        self.inputs: Inputs | None = None
        self.dropout: Dropout | None = None

    def _chain(self, layout: PassLayout, flat: Tensor, buffers: Sequence[Tensor]) -> UnitChain:
        """Return the compiled chain over the buffers of the pass."""
        chain, size = slice(layout.chain.start, layout.chain.stop), layout.sizes[layout.chain.start]
        rows = (-1, layout.trials, size // layout.trials)
        if not layout.chunks:
            output = flat[layout.starts[chain.stop - 1] :][:size].view(rows)
            return UnitChain(self.layers, chain, layout.batch, output.numpy())
        parts = {}
        for part, buffer in zip(layout.chunks, buffers, strict=True):
            if part.start in layout.chain:
                deltas = buffer[: sum(layout.sizes[part])].view(rows)
                below = self.deltas[part.start - 1].as_strided(rows[1:], (rows[2], 1))
                parts[part.stop - 1] = ChainPart(part, deltas.numpy(), below.numpy())
        outputs = flat[layout.starts[chain.start] - size :].view(rows)
        return TrainedChain(self.layers, chain, layout.batch, parts, outputs.numpy())

    @staticmethod
    def serves(net: Dense) -> bool:
        """Return True for a network of linear layers with ReLU, whose blocks have two layers, alone."""
        linears = net.shape.linears
        roles = ["hidden", *(linear.role for linear in linears)]
        return (
            net.activation.is_relu
            and not net.shape.summed
            and all(linear.role in _ROLES and not linear.simplex for linear in linears)
            and all((one == "enter") == (after == "leave") for one, after in itertools.pairwise(roles))
        )

    def forward(self, inputs: Inputs, dropout: Dropout | None = None) -> Tensor:
        """Return logits [T, classes, B], which the next call overwrites."""
        self.inputs, self.dropout = inputs, dropout
        if self.kernels is not None:
            self.kernels.begin(dropout)
        h = inputs.x
        skip: Tensor | None = None
        for (layer, role), y in zip(self.layers, self.outputs, strict=True):
            if self.chain is not None and self.chain.start <= layer.number < self.chain.stop:
                if layer.number == self.chain.start:
                    self.chain.forward(h, dropout)
                h = y
                continue
            if role == "enter":
                skip = h if layer.number else inputs.by_row()
            if layer.number == 0:
                self._first_product(inputs, y)
            else:
                product(layer, layer.weight, h, y)
            if role == "leave" and skip is not None:
                y.add_(skip)
            if role != "output":
                self._activate(layer.number, y, drops=role != "leave")
            h = y
        return h

    def backward(self, gradient: Tensor) -> None:
        """Write the gradients of all parameters into the buffers bound, from that of the logits.

        Raises:
            RuntimeError: It was not called once after `forward`, whose outputs it overwrites in part.

        """
        inputs, self.inputs = self.inputs, None
        if inputs is None:
            raise RuntimeError("backward must follow forward")
        self.deltas[len(self.layers) - 1] = gradient
        skip_gradient = gradient  # of a block's second layer, which the block's input gets too
        number = len(self.layers)
        while number:
            number -= 1
            if isinstance(self.chain, TrainedChain) and number in self.chain.parts:
                number = self.chain.backward(number)
                self.narrow[number].write_gradients(torch.from_numpy(self.chain.products))
                continue
            (layer, role), delta = self.layers[number], self.deltas[number]
            if role != "output":
                self._through_activation(number, delta, drops=role != "leave")
            if role == "leave":
                skip_gradient = delta
            self._weight_gradients(layer, delta)
            if number:
                input_gradient(layer, layer.weight, delta, self.deltas[number - 1])
            if number and role == "enter":
                self.deltas[number - 1] += skip_gradient

    def _first_product(self, inputs: Inputs, y: Tensor) -> None:
        """Write the product of the first layer, whose trials share their samples."""
        if self.shared is None or self.shared.inputs is not inputs:
            layer = self.layers[0][0]
            self.shared = SharedProducts(
                layer.weight, layer.bias, inputs, y, self.deltas.get(0), layer.weight_grad
            )
        self.shared.forward()

    def _activate(self, number: int, y: Tensor, *, drops: bool) -> None:
        """Apply ReLU and dropout to the product of a layer in place."""
        if self.kernels is not None:
            self.kernels.forward(number, drops=drops)
            return
        torch.relu_(y)
        if drops and self.dropout is not None:
            drop_units(y, number, self.dropout)

    def _through_activation(self, number: int, delta: Tensor, *, drops: bool) -> None:
        """Turn the gradient of a layer's output into that of its product in place."""
        if self.kernels is not None:
            self.kernels.backward(number, drops=drops)
        else:
            through_relu(delta, self.outputs[number], self.dropout if drops else None, delta)

    def _weight_gradients(self, layer: Layer, delta: Tensor) -> None:
        """Write a layer's gradients; those of narrow layers together, when the first one's delta is known."""
        if layer.number in self.narrow:
            self.narrow[layer.number].write_gradients()
        elif layer.number == 0 and self.shared is not None and layer.bias_grad is not None:
            torch.sum(delta, dim=2, keepdim=True, out=layer.bias_grad)
            self.shared.backward()
        elif layer.number not in self.covered:
            weight_gradients(layer, None, self.outputs[layer.number - 1], delta)


@dataclass(frozen=True)
class _NarrowLayers:
    """K equal square layers whose gradients are computed as one product of K T matrices.

    inputs, deltas: [K T, width, B]. weights, biases: views of the gradients, [K, T, width, width or 1].
    """

    inputs: Tensor
    deltas: Tensor
    weights: Tensor
    biases: Tensor

    @classmethod
    def of(cls, layers: Sequence[Layer], inputs: Tensor, deltas: Tensor, batch: int) -> _NarrowLayers:
        """Return layers whose inputs and deltas stand first in these buffers, one layer after the other."""
        trials, width, _ = layers[0].weight.shape
        shape = (len(layers) * trials, width, batch)
        count = shape[0] * width * batch
        views = []
        for grads in ([layer.weight_grad for layer in layers], [layer.bias_grad for layer in layers]):
            first, second = grads[0], grads[min(1, len(grads) - 1)]
            if first is None or second is None:
                raise ValueError("a training pass needs buffers for gradients")
            step = second.storage_offset() - first.storage_offset()
            views.append(torch.as_strided(first, (len(layers), *first.shape), (step, *first.stride())))
        return cls(inputs[:count].view(shape), deltas[:count].view(shape), *views)

    def write_gradients(self, products: Tensor | None = None) -> None:
        """Write the gradients of all K layers.

        products: of one-unit layers, each delta times its input, [K or more, T, B], if that is known.
        """
        if self.inputs.shape[1] == 1:
            if products is None:
                products = self.deltas * self.inputs
            else:
                products = products.view(-1, *self.deltas.shape[1:])[: len(self.deltas)]
            weights = torch.sum(products, dim=2, keepdim=True)
        else:
            weights = torch.bmm(self.deltas, self.inputs.transpose(1, 2))
        self.weights.copy_(weights.view(self.weights.shape))
        self.biases.copy_(torch.sum(self.deltas, dim=2, keepdim=True).view(self.biases.shape))
