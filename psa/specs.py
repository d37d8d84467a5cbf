"""The parts of a trial: data, network, method and intervention, each a frozen and validated value.

A key that a part does not know is an error, and so is a value that would change nothing.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)

from psa.activation import Activation
from psa.arch import Arch, quoted
from psa.errors import UserError

Mode = Literal["none", "decay", "dropout", "full", "hidden", "output"]
MODES: Final[tuple[str, ...]] = get_args(Mode)
Family = Literal["simplemlp", "resmlp"]

STUDY_NAME: Final = r"^[a-z][a-z0-9_-]{0,39}$"
MAX_PARAMETERS: Final = 1_000_000_000
MAX_SEED: Final = 2**63 - 1


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _arch(value: object) -> Arch:
    try:
        return Arch.coerce(value)
    except UserError as error:  # pydantic reports ValueErrors with the key they belong to
        raise ValueError(str(error)) from error


ArchField = Annotated[Arch, BeforeValidator(_arch), PlainSerializer(str)]


def _activation(value: object) -> Activation:
    try:
        return Activation.coerce(value)
    except UserError as error:
        raise ValueError(str(error)) from error


ActivationField = Annotated[Activation, BeforeValidator(_activation), PlainSerializer(str)]


def _positive_zero(value: float) -> float:
    return value + 0.0  # -0.0 is the same setting, and must not be another digest


# Strict: a truth or a text is no number. A whole number is a rate, too.
Rate = Annotated[float, Field(strict=True, gt=0, le=10, allow_inf_nan=False)]
Decay = Annotated[float, Field(strict=True, ge=0, le=10, allow_inf_nan=False), AfterValidator(_positive_zero)]
Probability = Annotated[
    float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False), AfterValidator(_positive_zero)
]
IMAGES: Final = 60_000  # in the training file of each data set
BatchSize = Annotated[int, Field(strict=True, ge=1, le=IMAGES)]
ValidationSize = Annotated[int, Field(strict=True, ge=1, le=59_999)]
SubsetSize = Annotated[int, Field(strict=True, ge=1, le=IMAGES)]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]
Digits = tuple[Annotated[int, Field(strict=True, ge=0, le=9)], ...]
DatasetName = Literal["mnist", "fashion-mnist"]
Scaling = Literal["standard", "unit", "simplex"]
Optimizer = Literal["adam", "adamw", "sgd"]
# What each optimiser remembers of every parameter.
MOMENTS: Final[dict[Optimizer, tuple[str, ...]]] = {
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}
Wiring = Literal["mlp", "residual", "glonet", "cnn"]
SIDE: Final = 28  # pixels of an image
_CONVOLUTIONS: Final = 4  # after each the side is halved
Initial = Literal["torch", "he", "he-cut"]
Simplex = Literal["none", "all", "inner"]
Temperature = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]
# With its options where it has any: `gradients_online(epochs=1+3,layers=output)`.
ProbeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}(\([a-z0-9_.,=+]{1,200}\))?$")]


class Spec(BaseModel):
    """A frozen value; a key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, ignored_types=(cached_property,)
    )


class DataSpec(Spec):
    """A named data set, how it is split and scaled, which digits stay, and how much of it is used.

    train_size, test_size: so many images of the training split and of the test file, drawn by split_seed;
    all of them where none is named.
    """

    name: DatasetName = "mnist"
    scaling: Scaling = "standard"
    val_size: ValidationSize = 10_000
    split_seed: Seed = 1337
    digits: Digits | None = None
    train_size: SubsetSize | None = None
    test_size: SubsetSize | None = None

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Sizes that are not named are left out, so that no earlier trial becomes another one."""
        body: dict[str, Any] = handler(self)
        return {
            key: value
            for key, value in body.items()
            if value is not None or key not in ("train_size", "test_size")
        }

    @model_validator(mode="after")
    def _digits_are_a_sorted_set(self) -> Self:
        if self.digits is not None and (
            len(self.digits) < 2 or tuple(sorted(set(self.digits))) != self.digits
        ):
            raise ValueError("digits are at least two, each once, in rising order")
        return self

    @property
    def classes(self) -> int:
        """How many outputs a network needs."""
        return 10 if self.digits is None else len(self.digits)


class ModelSpec(Spec):
    """A family of networks, its hidden layers, and the dropout that is really built in."""

    family: Family = "resmlp"
    arch: ArchField = Arch(((1, 1024),))
    dropout: Probability = 0.0

    @property
    def slug(self) -> str:
        """The network in a trial's readable path."""
        return f"{self.family}-{self.arch.slug}"

    @property
    def shape_key(self) -> tuple[Any, ...]:
        """What trials must share to be stacked: all but dropout, which each row draws for itself."""
        return self.family, str(self.arch)


class NetSpec(Spec):
    """A dense network of which every part is named. family: how layers are wired (see psa.nets.shapes).

    A cnn has 3 x 3 convolutions, each followed by ReLU and pooling, and one layer; arch: channels and width.
    init: `torch` as nn.Linear draws; `he` a truncated normal of variance 2/inputs with zero biases; `he-cut`
    the same without making up for the variance that cutting off takes (0.774 of it stays). simplex: which
    layers are stochastic ones, whose columns softmax(V / temperature) sum to 1 and which have no bias: none,
    all, or those inside residual blocks (`inner`).
    """

    family: Wiring
    arch: ArchField = Arch(((1, 512), (1, 256), (1, 128), (1, 64)))
    dropout: Probability = 0.0
    activation: ActivationField = Activation("ReLU")
    init: Initial = "torch"
    simplex: Simplex = "none"
    temperature: Temperature = 1.0

    @model_validator(mode="after")
    def _nothing_is_without_effect(self) -> Self:
        if self.simplex == "none" and self.temperature != 1.0:
            raise ValueError("temperature is that of simplex layers, and simplex = 'none'")
        if self.simplex == "inner" and self.family != "residual":
            raise ValueError("simplex = 'inner' means the layers inside residual blocks: family = 'residual'")
        if self.simplex == "all" and self.init != "torch":
            raise ValueError(f"init = {self.init!r} is of linear layers, and simplex = 'all' leaves none")
        if self.family == "cnn" and not (self.activation.is_relu and self.simplex == "none"):
            raise ValueError("family = 'cnn' has linear layers and ReLU")
        if self.family == "cnn" and not 2 <= len(self.arch.widths) <= _CONVOLUTIONS + 1:
            raise ValueError("the arch of family 'cnn' is the channels of 1 to 4 convolutions and one layer")
        if self.family == "glonet" and len(set(self.arch.widths)) > 1:
            raise ValueError("family = 'glonet' sums its hidden layers, which must have one width")
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
        """What trials must share to be stacked."""
        return (
            self.family, str(self.arch), str(self.activation), self.init, self.simplex, self.temperature,
        )  # fmt: skip


def _kind_of_model(value: Any) -> str:
    """Which of the two a model is; without a family it is one of the published study."""
    family = value.get("family") if isinstance(value, dict) else getattr(value, "family", None)
    return "named" if family in get_args(Wiring) else "published"


Model = Annotated[
    Annotated[ModelSpec, Tag("published")] | Annotated[NetSpec, Tag("named")], Discriminator(_kind_of_model)
]


class Ratchet(Spec):
    """Keep a trained copy only where validation accuracy strictly improved; a fresh AdamW every loop."""

    policy: Literal["ratchet"] = "ratchet"
    lr: Rate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: Decay = 0.0


class Keep(Spec):
    """Ordinary training: one optimiser for all epochs. With `patience` the state of least validation loss
    is kept and training stops after that many epochs without a better one; without it, the last state is.
    """

    policy: Literal["keep"] = "keep"
    optimizer: Optimizer = "adamw"
    lr: Rate = 1e-3
    batch_size: BatchSize = 256
    weight_decay: Decay = 0.0
    momentum: Probability = 0.0
    patience: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"momentum is of optimizer 'sgd', not of {self.optimizer!r}")
        return self


Method = Annotated[Ratchet | Keep, Field(discriminator="policy")]


class Ablation(Spec):
    """Which neuron may be damaged in the copy of the LKG before an epoch (see psa.ablation)."""

    mode: Mode = "none"


# By which pydantic tells the members of a union; a user has not written them there.
_TAGS: Final = frozenset({"ratchet", "keep", "published", "named"})

S = TypeVar("S", bound="Spec")


def validated(kind: type[S], values: dict[str, Any], where: str) -> S:
    """Build a Spec, turning the first validation fault into one line that names key, value and place."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {first_fault(error)}", "Correct that value and try again") from None


def first_fault(error: ValidationError) -> str:
    """`method.lr = -1.0: input should be greater than 0` for the first fault of a validation."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"] if part not in _TAGS)
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if not key:
        return message
    return f"{key} = {quoted(fault['input'])}: {message}"
