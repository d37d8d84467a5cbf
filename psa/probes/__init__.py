"""Pure observers of networks, by name; what each sees is part of a trial's record."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from psa.values import check_known

if TYPE_CHECKING:
    from psa.looks import Probe

# name -> where its class is; imported when a trial asks for it
PROBES: Final = {
    "layer_usage": "psa.probes.layers:LayerUsage",
    "early_exit": "psa.probes.layers:EarlyExit",
    "thresholds": "psa.probes.layers:Thresholds",
    "train_accuracy": "psa.probes.fit:TrainAccuracy",
    "distributions": "psa.probes.distributions:Distributions",
    "calibration": "psa.probes.calibration:Calibration",
    "confusion": "psa.probes.calibration:Confusion",
    "embedding_knn": "psa.probes.embeddings:EmbeddingKnn",
    "toggle": "psa.probes.memory:Toggle",
    "retrieval": "psa.probes.memory:Retrieval",
}
# What these observe is the trial's memory.
OF_MEMORY: Final = frozenset({"toggle", "retrieval"})


def probe_named(name: str) -> Probe:
    """A probe. Raises UserError with the nearest name."""
    check_known(name, set(PROBES), "probes", "probe")
    module, _, kind = PROBES[name].partition(":")
    found: Probe = getattr(importlib.import_module(module), kind)()
    return found
