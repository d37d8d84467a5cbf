"""Models: a published architecture with a mode of wiring, or a network of declared widths and activation."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)

from psa.core.errors import UserError
from psa.core.plugins.registry import Registry
from psa.specs.activation import Activation
from psa.specs.arch import Arch
from psa.specs.base import Probability, Spec

Family = Literal["simplemlp", "resmlp"]
MAX_PARAMETERS: Final = 1_000_000_000


def _arch(value: object) -> Arch:
    try:
        return Arch.coerce(value)
    except UserError as error:  # pydantic reports a ValueError with its key
        raise ValueError(str(error)) from error


ArchField = Annotated[Arch, BeforeValidator(_arch), PlainSerializer(str)]


def _activation(value: object) -> Activation:
    try:
        return Activation.coerce(value)
    except UserError as error:
        raise ValueError(str(error)) from error


ActivationField = Annotated[Activation, BeforeValidator(_activation), PlainSerializer(str)]
FAMILIES: Final = ("mlp", "residual", "glonet", "cnn")
FAMILY_PLUGINS: Final = Registry[Any]("family", lambda: FAMILIES, get_args(Family))  # see psa.specs.shapes
NetworkFamily = Annotated[
    str, BeforeValidator(lambda value: FAMILY_PLUGINS.check(value, "family")), FAMILY_PLUGINS
]
_CONVOLUTIONS: Final = 4  # after each the side is halved
Initial = Literal["torch", "he", "he-cut"]
Simplex = Literal["none", "all", "inner"]
Temperature = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]


class PublishedModelSpec(Spec):
    """A family of networks, its hidden layers, and its dropout as built."""

    family: Family = "resmlp"
    arch: ArchField = Arch(((1, 1024),))
    dropout: Probability = 0.0

    @property
    def slug(self) -> str:
        """The network in a trial's readable path."""
        return f"{self.family}-{self.arch.slug}"

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """The values that stacked trials must share: all but dropout, which each row draws for itself."""
        return self.family, str(self.arch)


class NetworkSpec(Spec):
    """A dense network of which every part is named. family: how layers are wired (see psa.specs.shapes).

    A cnn has 3 x 3 convolutions, each followed by ReLU and pooling, and one layer; arch: channels and width.
    init: `torch` as nn.Linear draws; `he` a truncated normal of variance 2/inputs with zero biases; `he-cut`
    the same without making up for the variance that cutting off takes (0.774 of it stays). simplex: which
    layers are stochastic ones, whose columns softmax(V / temperature) sum to 1 and which have no bias: none,
    all, or those inside residual blocks (`inner`).
    """

    family: NetworkFamily
    arch: ArchField = Arch(((1, 512), (1, 256), (1, 128), (1, 64)))
    dropout: Probability = 0.0
    activation: ActivationField = Activation("ReLU")
    init: Initial = "torch"
    simplex: Simplex = "none"
    temperature: Temperature = 1.0

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> Self:
        if self.simplex == "none" and self.temperature != 1.0:
            raise ValueError(f"temperature must be left out with simplex none, got {self.temperature}")
        if self.simplex == "inner" and self.family != "residual":
            raise ValueError(f"simplex inner must have family residual, got {self.family}")
        if self.simplex == "all" and self.init != "torch":
            raise ValueError(
                f"init must be left out with simplex all, which has no linear layers, got {self.init}"
            )
        if self.family == "cnn" and not (self.activation.is_relu and self.simplex == "none"):
            raise ValueError("family cnn must have activation ReLU and simplex none")
        if self.family == "cnn" and not 2 <= len(self.arch.widths) <= _CONVOLUTIONS + 1:
            raise ValueError(
                f"arch must be channels of 1 to 4 convolutions and a width with family cnn, got {self.arch}"
            )
        if self.family == "glonet" and len(set(self.arch.widths)) > 1:
            raise ValueError(
                f"arch must have one width with family glonet, which sums the layers, got {self.arch}"
            )
        return self

    @property
    def slug(self) -> str:
        """The network in a trial's readable path."""
        parts = [self.family, self.arch.slug]
        parts += [] if self.activation.is_relu else [self.activation.slug]
        parts += [] if self.simplex == "none" else [f"simplex-{self.simplex}-t{self.temperature:g}"]
        parts += [f"dropout{self.dropout:g}"] if self.dropout else []
        return "-".join(parts)

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """The values that stacked trials must share."""
        return (
            self.family, str(self.arch), str(self.activation), self.init, self.simplex, self.temperature,
        )  # fmt: skip


def _kind_of_model(value: Any) -> str:
    """Return the kind of a model; one without a family is of the published study."""
    if isinstance(value, NetworkSpec):  # its family may be that of a plugin that is not loaded
        return "named"
    family = value.get("family") if isinstance(value, dict) else getattr(value, "family", None)
    if isinstance(family, str) and family in get_args(Family):
        return "published"
    return "named" if FAMILY_PLUGINS.accepts(family) else "published"


Model = Annotated[
    Annotated[PublishedModelSpec, Tag("published")] | Annotated[NetworkSpec, Tag("named")],
    Discriminator(_kind_of_model),
]
