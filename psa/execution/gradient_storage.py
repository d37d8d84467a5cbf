"""What kept gradients of samples take, before any is kept. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from psa.specs.data import IMAGES
from psa.specs.probes import CHECKPOINT, GRADIENT_COLUMNS, ONLINE, parse_probe
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial


def keeps_gradients(trial: Trial) -> bool:
    """Whether a trial keeps any."""
    return bool(_files(trial))


def epoch_bytes(trial: Trial) -> int:
    """Bytes of the gradients of one epoch as factors (see psa.analysis.gradients.factored), of the probe that
    keeps most of them; 0 without such a probe.
    """
    return max((_file_bytes(trial, probe) for probe in _files(trial)), default=0)


def gradient_bytes(trial: Trial, epochs: int) -> int:
    """Bytes of all its files of gradients: one for every epoch that is asked for, and one after the last."""
    return sum(_file_bytes(trial, probe) * _count(probe, epochs) for probe in _files(trial))


def unreached(trials: Iterable[Trial], horizons: Mapping[str, int]) -> list[str]:
    """A line for each probe that would keep nothing: none of its epochs is trained. horizons: by trial id."""
    found = {
        f"{probe} keeps nothing: training ends at epoch {horizons[trial.id]:,}": None
        for trial in trials
        for probe in _files(trial)
        if not _count(probe, horizons[trial.id])
    }
    return list(found)


def train_samples(trial: Trial) -> int:
    """About how many samples a trial trains on, as if all digits were equally frequent."""
    images = trial.data.train_size or IMAGES - trial.data.val_size
    return round(images * trial.data.classes / 10)


def _files(trial: Trial) -> list[str]:
    return [probe for probe in trial.probes if parse_probe(probe)[0] in (ONLINE, CHECKPOINT)]


def _count(probe: str, epochs: int) -> int:
    name, options = parse_probe(probe)
    if name == CHECKPOINT:
        return 1
    return sum(int(epoch) <= epochs for epoch in set(options["epochs"])) if "epochs" in options else epochs


def _file_bytes(trial: Trial, probe: str) -> int:
    """Of every sample both factors of each layer, but not the image, which is the second one of the first."""
    linears = shape_of(trial.model, trial.data.classes).linears
    layers = parse_probe(probe)[1].get("layers", tuple(linear.name for linear in linears))
    numbers = sum(
        linear.outputs + linear.inputs * (place > 0)
        for place, linear in enumerate(linears)
        if linear.name in layers
    )
    return train_samples(trial) * (4 * numbers + 8 * len(GRADIENT_COLUMNS))
