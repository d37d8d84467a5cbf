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

_WITHOUT_ABLATION: Final = ("none", "decay")  # they differ in the weight decay alone


def training_of(trial: Trial) -> str | None:
    """Return a text that only trials with equal training share, None for a trial that is on its own: with
    another mode, and with a memory or probes, which may observe it.
    """
    spec = trial.model_dump(mode="json")
    plain = spec["intervention"] in [{"mode": mode} for mode in _WITHOUT_ABLATION]
    if not plain or trial.memory is not None or trial.probes:
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
