"""The PSA study: six modes, of which three damage a neuron and three are the controls."""

from __future__ import annotations

from typing import Any

from psa.arch import Arch
from psa.trial import Ablation, DataSpec, Family, Mode, ModelSpec, Ratchet, Trial

STUDY = "ablation"


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
    """A trial of the study. Decay and dropout reach the arm they belong to and no other.

    Raises pydantic.ValidationError for values out of range.
    """
    return Trial(
        study=study,
        data=data,
        model=ModelSpec(family=family, arch=arch, dropout=dropout if mode == "dropout" else 0.0),
        method=Ratchet(lr=lr, batch_size=batch_size, weight_decay=weight_decay if mode == "decay" else 0.0),
        intervention=Ablation(mode=mode),
        seed=seed,
    )


def from_settings(settings: Any, seed: int, study: str = STUDY) -> Trial:
    """The trial of one point of a grid (psa.grid.Settings)."""
    return trial(
        study=study,
        arch=settings.arch,
        mode=settings.mode,
        family=settings.family,
        seed=seed,
        data=DataSpec(
            name=settings.dataset,
            scaling=settings.scaling,
            digits=settings.digits,
            val_size=settings.val_size,
            split_seed=settings.split_seed,
        ),
        lr=settings.lr,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
        dropout=settings.dropout,
    )
