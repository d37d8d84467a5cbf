"""The PSA study: six modes, of which three ablate a neuron and three are the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from psa.experiments.study import DataSettings
from psa.specs.arch import Arch
from psa.specs.base import Probability
from psa.specs.data import DataSpec
from psa.specs.model import ArchField, Family, PublishedModelSpec
from psa.specs.training import (
    LEAST_DECAY,
    Ablation,
    BatchSize,
    LearningRate,
    Mode,
    RatchetTraining,
    WeightDecay,
)
from psa.specs.trial import Trial

STUDY = "ablation"
ALIASES: Final[dict[str, str]] = {}


def trial(
    *,
    arch: Arch,
    mode: Mode,
    family: Family,
    seed: int,
    data: DataSpec,
    lr: float,
    batch_size: int,
    weight_decay: float,
    dropout: float,
    study: str = STUDY,
) -> Trial:
    """Return a trial of the study. Decay and dropout apply only in the mode of the same name.

    Raises pydantic.ValidationError for values out of range.
    """
    return Trial(
        study=study,
        data=data,
        model=PublishedModelSpec(family=family, arch=arch, dropout=dropout if mode == "dropout" else 0.0),
        method=RatchetTraining(
            lr=lr, batch_size=batch_size, weight_decay=weight_decay if mode == "decay" else 0.0
        ),
        intervention=Ablation(mode=mode),
        seed=seed,
    )


class Settings(DataSettings):
    """The settings of a grid of this study. Decay and dropout apply only in the mode of the same name."""

    family: Family = "resmlp"
    arch: ArchField
    mode: Mode = "none"
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: WeightDecay = 1e-4
    dropout: Probability = 0.1


def from_settings(settings: Settings, seed: int, name: str = STUDY) -> Trial:
    """Return the trial of one point of a grid. Raises pydantic.ValidationError."""
    return trial(
        study=name,
        arch=settings.arch,
        mode=settings.mode,
        family=settings.family,
        seed=seed,
        data=settings.data,
        lr=settings.lr,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        dropout=settings.dropout,
    )


def warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about a grid that is valid but may not do what the user expects."""
    products = {
        trial.method.lr * trial.method.weight_decay
        for trial in trials
        if isinstance(trial.method, RatchetTraining) and trial.intervention.mode == "decay"
    }
    if not products or min(products) >= LEAST_DECAY:
        return []
    return [
        f"mode decay: with lr x weight_decay = {min(products):.1e} AdamW changes no float32 weight (that "
        f"takes {LEAST_DECAY:.1e}), so this arm is mode none under another name, and is trained with it"
    ]
