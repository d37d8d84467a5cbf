"""The shape of every network: its linear layers in compute order. Pure Python, so planning needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final, Literal

from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.core.plugins.identity import plugin_code
from psa.specs.arch import Arch
from psa.specs.model import FAMILY_PLUGINS, MAX_PARAMETERS, NetworkSpec, PublishedModelSpec

if TYPE_CHECKING:
    import numpy as np

IMAGE: Final = (28, 28)  # the shape of a sample of MNIST, which most studies use

# What follows the product of a linear layer (and where a skip connection starts and ends):
#   hidden  activation, dropout           output  nothing
#   enter   activation, dropout; its input is remembered
#   leave   add the remembered input, activation
#   conv    ReLU, pooling; it is a product with 3 x 3 patches of images of `side`
Role = Literal["hidden", "enter", "leave", "output", "conv"]


@dataclass(frozen=True)
class Linear:
    """One linear layer: its name in a state dict, its sizes, and what follows it.

    simplex: a stochastic layer, without a bias. threshold: its activation has one that is learned. side: of
    the images that a convolution reads, in pixels.
    """

    name: str
    inputs: int
    outputs: int
    role: Role
    simplex: bool = False
    threshold: bool = False
    side: int = 0

    @property
    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The sizes of its parameters, by name."""
        kernel = (self.inputs // 9, 3, 3) if self.role == "conv" else (self.inputs,)
        sizes: dict[str, tuple[int, ...]] = {f"{self.name}.weight": (self.outputs, *kernel)}
        if not self.simplex:
            sizes[f"{self.name}.bias"] = (self.outputs,)
        if self.threshold:
            sizes[f"{self.name}.threshold"] = (1,)
        return sizes

    @property
    def parameters(self) -> int:
        """The number of learned parameters."""
        return self.inputs * self.outputs + self.outputs * (not self.simplex) + self.threshold


@dataclass(frozen=True)
class Shape:
    """The linear layers of one network in compute order; those whose neurons mode `hidden` may ablate.

    summed: the last layer reads the sum of all hidden outputs, not the last of them.
    """

    linears: tuple[Linear, ...]
    hidden: tuple[int, ...]
    summed: bool = False

    @cached_property
    def parameters(self) -> int:
        """The number of weights and biases of the whole network."""
        return sum(linear.parameters for linear in self.linears)

    @property
    def multiplications(self) -> int:
        """The number of multiply-adds in a forward pass of one sample."""
        return sum(linear.inputs * linear.outputs * max(1, linear.side**2) for linear in self.linears)

    def epoch_flop(self, training: int, validation: int) -> float:
        """Return the FLOP of an epoch: forward, backward (the gradient of the samples is not needed), and the
        evaluation of the validation samples.
        """
        first = self.linears[0].inputs * self.linears[0].outputs * max(1, self.linears[0].side ** 2)
        products = self.multiplications
        return 2.0 * (training * (3 * products - first) + validation * products)


@dataclass(frozen=True)
class Unit:
    """A neuron: the linear layer that computes it, its number in that layer, and whether the weights that
    read it are zeroed too.
    """

    layer: int
    number: int
    outgoing: bool


# What chooses the neuron of a mode: of a network's layers, with a random stream of the seed and loop.
ChooseUnit = Callable[["Shape", "np.random.Generator"], Unit | None]
# What builds the layers of a family of a plugin: of hidden widths, classes, and the shape of a sample.
BuildShape = Callable[[tuple[int, ...], int, tuple[int, ...]], Shape]


def register_family(name: str, build: BuildShape) -> None:
    """Register a family of networks: the linear layers of a network of given widths, in compute order.

    Args:
        name: The name of the family, of a-z, 0-9, - and _.
        build: Returns the `Shape` for the hidden widths, input side first, the number of classes, and the
            shape of a sample, such as (28, 28); the first layer reads all of its values. The roles of its
            layers say what follows each of them (see `Role`); the last one has the role `output`. The same
            arguments must always give the same layers.

    Raises:
        PluginError: The name is invalid, built into psa, or registered already.

    Example:
        >>> def narrow(widths, classes, sample):
        ...     first = Linear("hidden.0", math.prod(sample), widths[0], "hidden")
        ...     return Shape((first, Linear("output", widths[0], classes, "output")), hidden=(0,))
        >>> def register():
        ...     register_family("narrow", narrow)

    """
    FAMILY_PLUGINS.add(name, build, function=True)


def _plain(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
    linears, inputs = [], math.prod(sample)
    for number, width in enumerate(widths):
        linears.append(Linear(f"hidden.{number}", inputs, width, "hidden"))
        inputs = width
    linears.append(Linear("output", inputs, classes, "output"))
    return Shape(tuple(linears), hidden=tuple(range(len(widths))))


def _residual(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
    """Build each stack of equal widths: a projection (only where the width changes) and a block per layer."""
    linears: list[Linear] = []
    inputs = math.prod(sample)
    stack = block = -1
    for number, width in enumerate(widths):
        if number == 0 or width != widths[number - 1]:
            stack, block = stack + 1, -1
            if width != inputs:
                linears.append(Linear(f"stacks.{stack}.project", inputs, width, "hidden"))
        block += 1
        name = f"stacks.{stack}.blocks.{block}"
        linears.append(Linear(f"{name}.enter", width, width, "enter"))
        linears.append(Linear(f"{name}.leave", width, width, "leave"))
        inputs = width
    linears.append(Linear("output", inputs, classes, "output"))
    # The published set leaves out the first linear layer, which is the input projection.
    return Shape(tuple(linears), hidden=tuple(range(1, len(linears) - 1)))


def _summed(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
    """Build a GloNet: the last layer of a plain network reads the sum of hidden outputs, not the input."""
    plain = _plain(widths, classes, sample)
    return replace(plain, summed=True)


def _convolved(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
    """Build convolutions of these channels, the side halved behind each, and one layer of the last width."""
    if len(sample) == 1 or sample[0] != sample[1]:
        raise UserError(
            f"family cnn must have square images as samples, got samples of {'x'.join(map(str, sample))}",
            "Use family mlp",
        )
    if sample[0] < 2 ** (len(widths) - 1):
        raise UserError(
            f"arch must have at most {sample[0].bit_length() - 1} convolutions with images of {sample[0]} "
            f"pixels a side, each of which is followed by pooling, got {len(widths) - 1}",
            "Leave some out",
        )
    linears, channels, side = [], sample[2] if len(sample) > 2 else 1, sample[0]
    for number, width in enumerate(widths[:-1]):
        linears.append(Linear(f"conv.{number}", 9 * channels, width, "conv", side=side))
        channels, side = width, side // 2
    linears.append(Linear("hidden.0", channels * side**2, widths[-1], "hidden"))
    linears.append(Linear("output", widths[-1], classes, "output"))
    return Shape(tuple(linears), hidden=())


_BUILDERS: Final[dict[str, BuildShape]] = {
    "simplemlp": _plain,
    "resmlp": _residual,
    "mlp": _plain,
    "residual": _residual,
    "glonet": _summed,
    "cnn": _convolved,
}


@lru_cache(maxsize=64)
def _plugin_builder(family: str, build: BuildShape) -> BuildShape:
    """Return the function of a plugin, with the layers that it returns checked."""

    def checked(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
        with plugin_code(f"family {family!r}", FAMILY_PLUGINS.origin(family)):
            shape = build(widths, classes, sample)
        _check_layers(family, shape, classes, sample)
        return shape

    return checked


def _check_layers(family: str, shape: object, classes: int, sample: tuple[int, ...]) -> None:
    """Raise UserError for layers that are no network."""
    linears = shape.linears if isinstance(shape, Shape) else ()
    if (
        not isinstance(shape, Shape)
        or not linears
        or not all(isinstance(linear, Linear) for linear in linears)
    ):
        fault = f"return a Shape of layers, got {quote(shape)}"
    elif [linear.name for linear in linears if linear.role == "output"] != [linears[-1].name]:
        fault = "have one layer of role output, the last"
    elif len({linear.name for linear in linears}) < len(linears):
        fault = "give each layer a name of its own"
    elif linears[-1].outputs != classes:
        fault = f"have {classes} outputs, one per class, got {linears[-1].outputs}"
    elif not _are_hidden(shape):
        fault = (
            f"name hidden layers by number, ascending, without the output layer, got {quote(shape.hidden)}"
        )
    else:
        fault = _unfitting(linears, sample)
    if fault:
        raise UserError(f"family {family!r} of plugin {FAMILY_PLUGINS.origin(family)} must {fault}")


def _are_hidden(shape: Shape) -> bool:
    """Return whether `hidden` names layers before the last, ascending."""
    inner = range(len(shape.linears) - 1)
    return all(layer in inner for layer in shape.hidden) and sorted(set(shape.hidden)) == list(shape.hidden)


def _unfitting(linears: tuple[Linear, ...], sample: tuple[int, ...]) -> str:
    """Return what is wrong with the inputs of the first layer that does not fit the one before it."""
    read = 9 if linears[0].role == "conv" else math.prod(sample)
    for linear, after in zip(linears, (*linears[1:], linears[-1]), strict=True):
        if linear.inputs != read:
            return f"give layer {linear.name!r} {read} inputs, got {linear.inputs}"
        # how many values follow a convolution depends on the side of its images
        read = after.inputs if "conv" in (linear.role, after.role) else linear.outputs
    return ""


def shape_of(
    model: PublishedModelSpec | NetworkSpec, classes: int = 10, sample: tuple[int, ...] = IMAGE
) -> Shape:
    """Return the shape of a model for samples of a shape: (features,), (height, width) or (height, width,
    channels).

    Raises UserError if no machine could train that many parameters, or the family does not fit the samples.
    """
    simplex, learns = "none", False
    if isinstance(model, NetworkSpec):
        simplex, learns = model.simplex, model.activation.learns
    build = _BUILDERS.get(model.family) or _plugin_builder(model.family, FAMILY_PLUGINS.get(model.family))
    shape = _built(build, model.arch, classes, sample, simplex, learns)
    if shape.parameters > MAX_PARAMETERS:
        raise UserError(
            f"arch must have at most {MAX_PARAMETERS:,} parameters, got {shape.parameters:,} of {model.arch}",
            "Choose fewer or narrower layers",
        )
    return shape


@lru_cache(maxsize=1024)  # a plan uses each of its architectures thousands of times
def _built(
    build: BuildShape, arch: Arch, classes: int, sample: tuple[int, ...], simplex: str, learns: bool
) -> Shape:
    shape = build(arch.widths, classes, sample)
    linears = tuple(
        replace(
            linear,
            simplex=simplex == "all" or (simplex == "inner" and linear.role == "enter"),
            threshold=learns and linear.role != "output",
        )
        for linear in shape.linears
    )
    return replace(shape, linears=linears)
