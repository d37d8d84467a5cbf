"""Activations that normalise, threshold or project, and stochastic layers whose columns sum to 1.

Ordinary training with early stopping on validation loss; the test uses the weights with the lowest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from psa.experiments.study import Probes, TrainingSettings
from psa.specs.activation import Activation
from psa.specs.arch import Arch
from psa.specs.data import ValidationSize
from psa.specs.model import (
    ActivationField,
    ArchField,
    Initial,
    NetworkFamily,
    NetworkSpec,
    Simplex,
    Temperature,
)
from psa.specs.trial import Trial

STUDY: Final = "activations"
ALIASES: Final[dict[str, str]] = {
    "learning_rate": "lr",
    "hidden_dims": "arch",
    "dropout_prob": "dropout",
    "early_stopping_patience": "patience",
}
LEARNED: Final = "thresholds"


class Settings(TrainingSettings):
    """The settings of a grid of this study."""

    val_size: ValidationSize = 6_000
    family: Annotated[NetworkFamily, Field(description="Connections of the layers.")] = "mlp"
    arch: Annotated[ArchField, Field(description="Hidden layers, such as 1*512, 1*256.")] = Arch(
        ((1, 512), (1, 256), (1, 128), (1, 64))
    )
    activation: Annotated[
        ActivationField, Field(description='Activation function, such as "JumpReLU(initial=0.5)".')
    ] = Activation("ReLU")
    simplex: Annotated[
        Simplex, Field(description="Layers with stochastic weights; all needs scaling simplex.")
    ] = "none"
    temperature: Annotated[
        Temperature, Field(description="Temperature of the softmax of stochastic layers.")
    ] = 1.0
    init: Annotated[Initial, Field(description="Distribution of the initial weights.")] = "torch"
    patience: Annotated[
        int | None,
        Field(
            ge=1, le=100_000, description="Epochs without a lower validation loss after which training stops."
        ),
    ] = 5
    probes: Probes = ("train_accuracy", "distributions")


def from_settings(settings: Settings, seed: int, name: str = STUDY) -> Trial:
    """Return the trial of one point of a grid. Learned thresholds are always recorded.

    Raises pydantic.ValidationError.
    """
    learned = settings.activation.learns and LEARNED not in settings.probes
    return Trial(
        study=name,
        kind=STUDY,
        data=settings.data,
        model=NetworkSpec(
            family=settings.family,
            arch=settings.arch,
            dropout=settings.dropout,
            activation=settings.activation,
            init=settings.init,
            simplex=settings.simplex,
            temperature=settings.temperature,
        ),
        method=settings.training(settings.patience),
        probes=(*settings.probes, *((LEARNED,) if learned else ())),
        seed=seed,
    )


def warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about a grid that is valid but may not do what the user expects."""
    flat = [
        trial
        for trial in trials
        if isinstance(trial.model, NetworkSpec)
        and trial.model.simplex == "all"
        and trial.model.temperature >= 1
        and trial.model.activation.name == "Identity"
    ]
    if not flat:
        return []
    return [
        "stochastic layers at temperature 1 begin as near averages: without an activation they learn slowly"
    ]
