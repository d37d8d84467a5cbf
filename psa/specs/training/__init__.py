"""Training: its optimiser, what is kept between epochs, and the ablation between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from psa.specs.base import Probability, Spec, _positive_zero, without_defaults
from psa.specs.data import IMAGES
from psa.specs.training.settings import (
    ABLATING,
    ADAM_MOMENTS,
    CHANGES_BY_AMOUNT,
    SETTING_DEFAULTS,
    AblationSettings,
    RatchetSettings,
)

Mode = Literal["none", "decay", "dropout", "full", "hidden", "output"]
MODES: Final[tuple[str, ...]] = get_args(Mode)

# Strict: booleans and strings are refused. An integer is accepted as a rate.
LearningRate = Annotated[
    float, Field(strict=True, gt=0, le=10, allow_inf_nan=False, description="Learning rate.")
]
WeightDecay = Annotated[
    float,
    Field(strict=True, ge=0, le=10, allow_inf_nan=False, description="Weight decay."),
    AfterValidator(_positive_zero),
]
DropoutRate = Annotated[Probability, Field(description="Dropout rate of the hidden layers.")]
BatchSize = Annotated[int, Field(strict=True, ge=1, le=IMAGES, description="Images per training step.")]
OptimizerName = Annotated[Literal["adam", "adamw", "sgd"], Field(description="Optimizer.")]

# What each optimiser remembers of every parameter.
MOMENTS: Final[dict[OptimizerName, tuple[str, ...]]] = {
    "adam": ADAM_MOMENTS,
    "adamw": ADAM_MOMENTS,
    "sgd": ("momentum_buffer",),
}


# Half the distance between 1 and the float32 below it: a decay that is weaker is rounded away in every step,
# as that of the published settings, 1e-4 x 1e-4.
LEAST_DECAY: Final = 2.0**-25


class RatchetTraining(RatchetSettings):
    """Keep a trained copy only where validation accuracy strictly improved; a fresh AdamW every loop."""

    policy: Literal["ratchet"] = "ratchet"
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: WeightDecay = 0.0

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler(self), RatchetSettings)


class StandardTraining(Spec):
    """Ordinary training: one optimiser for all epochs. With `patience` the state of least validation loss
    is kept and training stops after that many epochs without a better one; without it, the last state is.
    """

    policy: Literal["keep"] = "keep"
    optimizer: OptimizerName = "adamw"
    lr: LearningRate = 1e-3
    batch_size: BatchSize = 256
    weight_decay: WeightDecay = 0.0
    momentum: Probability = 0.0
    patience: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @property
    def carried(self) -> tuple[str, ...]:
        """The buffers in the state beside the best weights: the present ones, and their moments."""
        return "active", *MOMENTS[self.optimizer]

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum must be left out unless optimizer is sgd, got optimizer {self.optimizer}"
            )
        return self


Method = Annotated[RatchetTraining | StandardTraining, Field(discriminator="policy")]


def effective_weight_decay(method: Method) -> float:
    """Return the weight decay of a method, 0 where AdamW's is too weak to change a weight.

    AdamW multiplies every weight by 1 - lr x decay; below 2**-25 that rounds to 1 in float32, whatever the
    weight.
    """
    decoupled = isinstance(method, RatchetTraining) or method.optimizer == "adamw"
    return 0.0 if decoupled and method.lr * method.weight_decay < LEAST_DECAY else method.weight_decay


class Ablation(AblationSettings):
    """The ablation of a neuron in the copy of the LKG before an epoch (see psa.interventions.ablation)."""

    mode: Mode = "none"

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return without_defaults(self, handler(self), AblationSettings)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes in the order in which they come."""
        return self.mode, *(each.partition(":")[2] for each in self.switch)

    def mode_at(self, loop: int) -> str:
        """Return the mode of a loop, counted from 1."""
        begun = [mode for at, _, mode in (each.partition(":") for each in self.switch) if int(at) <= loop]
        return begun[-1] if begun else self.mode

    @property
    def regularizers(self) -> set[str]:
        """The regularizers that act: that of a control arm, or the one beside an ablating mode."""
        return {str(self.mode), self.regularizer} & {"decay", "dropout"}

    @model_validator(mode="after")
    def _every_setting_has_an_effect(self) -> Self:
        given = [
            name for name in AblationSettings.model_fields if getattr(self, name) != SETTING_DEFAULTS[name]
        ]
        if given and (not {*self.modes} & {*ABLATING} or self.mode not in ("none", *ABLATING)):
            first = "mode must be" + (" none," if self.switch else "")
            raise ValueError(f"{first} full, hidden or output with {given[0]}, got {self.mode}")
        loops = [int(each.partition(":")[0]) for each in self.switch]
        if loops != sorted(set(loops)) or any(a == b for a, b in pairwise(self.modes)) or 1 in loops:
            raise ValueError(
                f"switch must name another mode at rising loops from 2 on, got {', '.join(self.switch)}"
            )
        if self.share is not None and self.units != 1:
            raise ValueError(f"units must be left out with share, got {self.units}")
        if (self.amount is None) == (self.change in CHANGES_BY_AMOUNT):
            must = "be given" if self.amount is None else "be left out"
            raise ValueError(f"amount must {must} with change {self.change}, got {self.amount}")
        if self.change == "scale" and self.amount == 1:
            raise ValueError("amount must differ from 1 with change scale, got 1.0, which changes nothing")
        if (self.schedule_loops is None) == (self.schedule != "constant"):
            must = "be given" if self.schedule_loops is None else "be left out"
            raise ValueError(
                f"schedule_loops must {must} with schedule {self.schedule}, got {self.schedule_loops}"
            )
        if self.end_rate and (self.schedule == "constant" or self.end_rate == self.rate):
            raise ValueError(f"end_rate must be that of a schedule and differ from rate, got {self.end_rate}")
        return self
