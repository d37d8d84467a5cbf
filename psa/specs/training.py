"""Training: its optimiser, what is kept between epochs, and the ablation between them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    model_validator,
)

from psa.specs.base import Probability, Spec, _positive_zero
from psa.specs.data import IMAGES

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
    "adam": ("exp_avg", "exp_avg_sq"),
    "adamw": ("exp_avg", "exp_avg_sq"),
    "sgd": ("momentum_buffer",),
}


# Half the distance between 1 and the float32 below it: a decay that is weaker is rounded away in every step,
# as that of the published settings, 1e-4 x 1e-4.
LEAST_DECAY: Final = 2.0**-25


class RatchetTraining(Spec):
    """Keep a trained copy only where validation accuracy strictly improved; a fresh AdamW every loop."""

    policy: Literal["ratchet"] = "ratchet"
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: WeightDecay = 0.0


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


class Ablation(Spec):
    """The ablation of a neuron in the copy of the LKG before an epoch (see psa.interventions.ablation)."""

    mode: Mode = "none"
