"""The PSA study: six modes, of which three ablate a neuron and three are the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from pydantic import Field

from psa.experiments.study import DataSettings
from psa.specs.arch import Arch
from psa.specs.base import Spec
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
from psa.specs.training.settings import AblationSettings, RatchetSettings, lr_of_rule
from psa.specs.trial import Trial

STUDY = "ablation"
ALIASES: Final[dict[str, str]] = {}


def trial(  # noqa: PLR0913  # the settings of the study, one by one
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
    questions: Mapping[str, Any] | None = None,
) -> Trial:
    """Return a trial of the study. Decay and dropout apply only in the mode of the same name, or as the
    regularizer beside an ablating mode. questions: the settings that are off by default, by name.

    Raises pydantic.ValidationError for values out of range.
    """
    further = questions or {}
    intervention = Ablation(mode=mode, **_fields(AblationSettings, further))
    ratchet = _fields(RatchetSettings, further)
    regularizers = intervention.regularizers
    return Trial(
        study=study,
        data=data,
        model=PublishedModelSpec(
            family=family, arch=arch, dropout=dropout if "dropout" in regularizers else 0.0
        ),
        method=RatchetTraining(
            lr=lr_of_rule(ratchet.get("lr_rule"), lr, arch.widths),
            batch_size=batch_size,
            weight_decay=weight_decay if "decay" in regularizers else 0.0,
            **ratchet,
        ),
        intervention=intervention,
        seed=seed,
    )


def _fields(part: type[Spec], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some values that are fields of a part of a trial."""
    return {name: values[name] for name in part.model_fields if name in values}


class Settings(DataSettings, AblationSettings, RatchetSettings):
    """The settings of a grid of this study. Decay and dropout apply only in the mode of the same name, or as
    the regularizer beside an ablating mode.
    """

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
        questions=settings.model_dump(),
    )


def warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about a grid that is valid but may not do what the user expects."""
    decayed = [trial for trial in trials if "decay" in trial.intervention.regularizers]
    weak = [trial for trial in decayed if effective_weight_decay(trial.method) == 0]
    if not weak:
        return []
    number = "its trials" if len(weak) == len(decayed) else f"{len(weak):,} of its {len(decayed):,} trials"
    return [
        f"mode decay: {number} have lr x weight_decay below {LEAST_DECAY:.1e}, with which AdamW changes no "
        "float32 weight, and equal mode none"
    ]
