"""The gradient of every training sample, to find samples that require similar changes.

One hidden layer and one epoch, as in the original. Unlike there, a validation split is held out, the test
split is used once, and every gradient is stored with the digit and the prediction of its sample.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from psa.core.formatting import format_bytes
from psa.execution.gradient_storage import epoch_bytes, keeps_gradients
from psa.experiments.study import DataSettings, Probes
from psa.specs.arch import Arch
from psa.specs.model import ArchField, NetworkSpec
from psa.specs.training import (
    BatchSize,
    DropoutRate,
    LearningRate,
    OptimizerName,
    StandardTraining,
    WeightDecay,
)
from psa.specs.trial import Trial

STUDY: Final = "gradients"
# Further names of options of `train --study gradients`: those of the original.
ALIASES: Final[dict[str, str]] = {
    "hidden_sizes": "arch",
    "filter_digits": "digits",
    "learning_rate": "lr",
    "dropout_rate": "dropout",
}
EPOCHS: Final = 1
LARGE: Final = 4_000_000_000  # bytes of gradients above which a warning is given
_SIZES: Final = re.compile(r"\s*\[?\s*([0-9]+(?:\s*,\s*[0-9]+)*)\s*\]?\s*", re.ASCII)


def _of_sizes(value: Any) -> Any:
    """Convert hidden sizes as the original writes them, `512,256`, to `1*512, 1*256`."""
    match = _SIZES.fullmatch(value) if isinstance(value, str) else None
    return ", ".join(f"1*{width.strip()}" for width in match[1].split(",")) if match else value


class Settings(DataSettings):
    """The settings of a grid of this study."""

    arch: Annotated[
        ArchField, BeforeValidator(_of_sizes), Field(description="Hidden layers, such as 1*512 or 512.")
    ] = Arch(((1, 512),))
    dropout: DropoutRate = 0.0
    optimizer: OptimizerName = "adam"
    lr: LearningRate = 1e-3
    batch_size: BatchSize = 64
    weight_decay: WeightDecay = 1e-4
    probes: Probes = ("gradients_online",)


def from_settings(settings: Settings, seed: int, name: str = STUDY) -> Trial:
    """Return the trial of one point of a grid. Raises pydantic.ValidationError."""
    return Trial(
        study=name,
        kind=STUDY,
        data=settings.data,
        model=NetworkSpec(family="mlp", arch=settings.arch, dropout=settings.dropout),
        method=StandardTraining(
            optimizer=settings.optimizer,
            lr=settings.lr,
            batch_size=settings.batch_size,
            weight_decay=settings.weight_decay,
        ),
        probes=settings.probes,
        seed=seed,
    )


def warnings(trials: Sequence[Trial]) -> list[str]:
    """Return warnings about a grid that is valid but may not do what the user expects."""
    found = []
    if not all(map(keeps_gradients, trials)):
        found.append(
            "without probe gradients_online or gradients no gradient is kept, and little can be said"
        )
    each = max(map(epoch_bytes, trials), default=0)
    total = sum(map(epoch_bytes, trials))
    if total > LARGE:
        found.append(
            f"gradients take up to {format_bytes(each)} per trial and epoch, {format_bytes(total)} for one "
            "epoch of all"
        )
    return found
