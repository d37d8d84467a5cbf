"""Records of trials whose training equals that of another trial to the bit: mode `decay` beside mode `none`,
where the decay is too weak to change a float32.

psa.engine.deduplication finds such rows in a pack; here the other trial has been trained before.
"""

from __future__ import annotations

from typing import Final

from psa.specs.base import canonical_json
from psa.specs.training import effective_weight_decay
from psa.specs.trial import Trial
from psa.storage.records.record import Record

_MODES_DIFFERING_IN_DECAY: Final = ("none", "decay")


def equal_training_key(trial: Trial) -> str | None:
    """Return a key that two trials share only if their training is equal to the bit. None for a trial that
    ablates or uses dropout, and for one with earlier settings (legs), a memory or probes.
    """
    spec = trial.model_dump(mode="json")
    differs = spec["intervention"] not in [{"mode": mode} for mode in _MODES_DIFFERING_IN_DECAY]
    if differs or trial.legs or trial.memory is not None or trial.probes:
        return None
    spec["intervention"], spec["method"]["weight_decay"] = {}, effective_weight_decay(trial.method)
    return canonical_json(spec)


def record_of_equal(record: Record, trial: Trial) -> Record | None:
    """Return the record of a trial, given that of one with equal training. None where files belong to it."""
    if "files" in record:
        return None
    modes = [trial.intervention.mode] * len(record["history"]["loop"])
    return record | {
        "id": trial.id,
        "digest": trial.digest,
        "spec": trial.model_dump(mode="json"),
        "history": record["history"] | {"mode": modes},
    }
