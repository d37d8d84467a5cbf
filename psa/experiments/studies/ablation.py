"""The PSA study: six modes, of which three ablate a neuron and three are the controls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import Field

from psa.experiments.study import DataSettings
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import ArchField, Family, PublishedModelSpec
from psa.specs.training import (
    LEAST_DECAY,
    Ablation,
    BatchSize,
    DropoutRate,
    LearningRate,
    Mode,
    RatchetTraining,
    WeightDecay,
    effective_weight_decay,
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

    family: Annotated[Family, Field(description="Connections of the layers.")] = "resmlp"
    arch: Annotated[ArchField, Field(description="Hidden layers, such as 4*8.")]
    mode: Annotated[Mode, Field(description="Ablation, or the regularizer of a control arm.")] = "none"
    lr: LearningRate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: WeightDecay = 1e-4
    dropout: DropoutRate = 0.1


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
    decayed = [trial for trial in trials if trial.intervention.mode == "decay"]
    weak = [trial for trial in decayed if effective_weight_decay(trial.method) == 0]
    if not weak:
        return []
    number = "its trials" if len(weak) == len(decayed) else f"{len(weak):,} of its {len(decayed):,} trials"
    return [
        f"mode decay: {number} have lr x weight_decay below {LEAST_DECAY:.1e}, with which AdamW changes no "
        "float32 weight, and equal mode none"
    ]
