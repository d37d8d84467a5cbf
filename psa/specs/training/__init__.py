"""Training: its optimiser, what is kept between epochs, and the ablation between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from psa.core.plugins.registry import Registry
from psa.specs.base import Probability, Spec, _positive_zero, without_defaults
from psa.specs.data import IMAGES
from psa.specs.shapes import ChooseUnit
from psa.specs.training.settings import (
    ABLATIVE,
    ADAM_MOMENTS,
    CHANGES_BY_AMOUNT,
    SETTING_DEFAULTS,
    AblationSettings,
    RatchetSettings,
)

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
        PluginError: The name is invalid, built into psa, or registered already, or `choose` cannot be called.

    Example:
        >>> from psa.specs.shapes import Unit
        >>> def choose(shape, draws):
        ...     return Unit(0, int(draws.integers(shape.linears[0].outputs)), outgoing=False)
        >>> def register():
        ...     register_mode("input", choose)

    """
    MODE_PLUGINS.add(name, choose, function=True)


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
BatchSize = Annotated[int, Field(strict=True, ge=1, le=IMAGES, description="Samples per training step.")]
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
    """Train a copy of the LKG in every loop, and keep it where its validation accuracy strictly improved.

    With `patience`, a worse copy becomes the LKG after that many rejected loops in a row. The optimizer is a
    fresh AdamW in every loop, or continues with the moments of the LKG (`optimizer_state` persistent).
    """

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
        if given and (not {*self.modes} & {*ABLATIVE} or self.mode not in ("none", *ABLATIVE)):
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


def check_contamination(method: Method, model: Spec, ablation: Ablation) -> None:
    """Raise ValueError for decay, dropout or ablation that the name of the arm does not say."""
    mode, regularizers, dropout = ablation.mode, ablation.regularizers, getattr(model, "dropout", 0.0)
    if not isinstance(method, RatchetTraining):
        if mode not in PLAIN_MODES:
            raise ValueError(f"policy must be ratchet in mode {mode}, which ablates a copy of the LKG")
        return
    if method.weight_decay and "decay" not in regularizers:
        raise ValueError(f"weight_decay must be 0 outside mode decay, got it in mode {mode}")
    if dropout and "dropout" not in regularizers:
        raise ValueError(f"dropout must be 0 outside mode dropout, got it in mode {mode}")
    if "decay" in regularizers and not method.weight_decay:
        raise ValueError("weight_decay must be above 0 in mode decay, got 0. Use mode none")
    if "dropout" in regularizers and not dropout:
        raise ValueError("dropout must be above 0 in mode dropout, got 0. Use mode none")
