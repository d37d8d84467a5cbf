"""The size on disk of per-sample gradients and details, computed before any is stored. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from psa.specs.probes import CHECKPOINT, DETAILS, GRADIENT_COLUMNS, ONLINE, parse_probe
from psa.specs.trial import Trial

# Bytes per sample of psa.probes.sample_details: four integers and two floats; what a memory adds to them.
_DETAIL_BYTES: Final = 4 * 8 + 2 * 4
_MEMORY_BYTES: Final = 8 + 8 * 4


def keeps_gradients(trial: Trial) -> bool:
    """Return True if a trial stores per-sample gradients."""
    return bool(_files(trial))


def epoch_bytes(trial: Trial) -> int:
    """Return the bytes of one epoch's gradients as factors; 0 without a probe that keeps them."""
    return max((_file_bytes(trial, probe) for probe in _files(trial)), default=0)


def gradient_bytes(trial: Trial, epochs: int) -> int:
    """Return the bytes of all gradient files of a trial: one per requested epoch, and one after the last."""
    return sum(_file_bytes(trial, probe) * _count(probe, epochs) for probe in _files(trial))


def detail_bytes(trial: Trial) -> int:
    """Return the bytes of the file of the probe sample_details, 0 for a trial without it."""
    if DETAILS not in trial.probes:
        return 0
    data = trial.data
    samples = data.val_size + (data.test_size or data.facts.test)
    each = _DETAIL_BYTES + (_MEMORY_BYTES if trial.memory is not None else 0)
    return round(samples * data.classes / len(data.facts.classes)) * each


def unreached(trials: Iterable[Trial], horizons: Mapping[str, int]) -> list[str]:
    """Return a line for each probe none of whose epochs is trained. horizons: meta-loops by trial id."""
    found = {
        f"{probe} keeps nothing: training ends at epoch {horizons[trial.id]:,}": None
        for trial in trials
        for probe in _files(trial)
        if not _count(probe, horizons[trial.id])
    }
    return list(found)


def train_samples(trial: Trial) -> int:
    """Return the approximate number of training samples of a trial, as if all digits were equally common."""
    data = trial.data
    return round((data.train_size or data.pool - data.val_size) * data.classes / len(data.facts.classes))


def _files(trial: Trial) -> list[str]:
    return [probe for probe in trial.probes if parse_probe(probe)[0] in (ONLINE, CHECKPOINT)]


def _count(probe: str, epochs: int) -> int:
    name, options = parse_probe(probe)
    if name == CHECKPOINT:
        return 1
    return sum(int(epoch) <= epochs for epoch in set(options["epochs"])) if "epochs" in options else epochs


def _file_bytes(trial: Trial, probe: str) -> int:
    """Return the bytes of a file: both factors of each layer per sample, without the images (first layer)."""
    linears = trial.shape.linears
    layers = parse_probe(probe)[1].get("layers", tuple(linear.name for linear in linears))
    numbers = sum(
        linear.outputs + linear.inputs * (place > 0)
        for place, linear in enumerate(linears)
        if linear.name in layers
    )
    return train_samples(trial) * (4 * numbers + 8 * len(GRADIENT_COLUMNS))
