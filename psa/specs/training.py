"""Training: its optimiser, what is kept between epochs, and the ablation between them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    model_validator,
)

from psa.plugins.registry import Registry
from psa.specs.base import Probability, Spec, _positive_zero
from psa.specs.data import IMAGES
from psa.specs.shapes import ChooseUnit

MODES: Final[tuple[str, ...]] = ("none", "decay", "dropout", "full", "hidden", "output")
PLAIN_MODES: Final = frozenset({"none", "decay", "dropout"})  # those that ablate nothing
MODE_PLUGINS: Final = Registry[ChooseUnit]("mode", lambda: MODES)


Mode = Annotated[str, BeforeValidator(lambda value: MODE_PLUGINS.check(value, "mode")), MODE_PLUGINS]


def register_mode(name: str, choose: ChooseUnit) -> None:
    """Register a mode of ablation: the choice of a neuron before each epoch of the ratchet but the first.

    Args:
        name: The name of the mode, of a-z, 0-9, - and _.
        choose: Returns the neuron to ablate, or None for none. It is given the layers of the network and a
            random stream of this seed and loop, and must depend on these two alone, so that a resumed run
            makes the same choices.

    Raises:
        PluginError: The name is invalid, built into psa, or registered already.

    Example:
        >>> from psa.specs.shapes import Unit
        >>> def choose(shape, draws):
        ...     return Unit(0, int(draws.integers(shape.linears[0].outputs)), outgoing=False)
        >>> def register():
        ...     register_mode("input", choose)

    """
    MODE_PLUGINS.add(name, choose)


def mode_rank(mode: str) -> tuple[int, str]:
    """Return a key that sorts the modes of psa in their order, and those of plugins behind them by name."""
    return (MODES.index(mode), "") if mode in MODES else (len(MODES), mode)


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
