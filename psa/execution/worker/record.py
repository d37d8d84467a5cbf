"""The immutable record of a trained trial, and its probes."""

from __future__ import annotations

from psa.core.errors import UserError
from psa.data.splits import Splits, zero_r
from psa.engine import loop
from psa.engine.probing import Probe
from psa.nn.dense import Dense
from psa.probes import probe_named
from psa.specs.probes import CHECKPOINT, MEMORY_PROBES, ONLINE, parse_probe
from psa.specs.trial import Trial
from psa.storage.records.record import Record
from psa.storage.trial_state import TrialState, model_now


def probes_for(trial: Trial) -> list[Probe]:
    """Return the probes that a trial names. Raises UserError for one that is unknown or cannot observe it."""
    for name in MEMORY_PROBES.intersection(trial.probes):
        if trial.memory is None:
            raise UserError(f"probe {name!r} observes a memory, and {trial.id} has none", "Leave it out")
    if trial.memory is not None and any(parse_probe(probe)[0] == CHECKPOINT for probe in trial.probes):
        raise UserError(
            f"probe {CHECKPOINT!r} sees a network without its memory, and {trial.id} has one",
            f"Those of training are seen with it: probe {ONLINE}",
        )
    return [probe_named(name) for name in trial.probes]


def build_record(state: TrialState, net: Dense, splits: Splits, test: loop.TestResult) -> Record:
    """Return the immutable record of a trial: counts, not percentages, and a description of its model."""
    trial, final = state.trial, Dense(model_now(state), net.classes, net.sample)
    _, majority, _ = zero_r(splits.val.labels)
    record: Record = {
        "id": trial.id,
        "digest": trial.digest,
        "spec": trial.model_dump(mode="json"),
        "built": final.described() if trial.growth is None else _grown(net, final),
        "device": ", ".join(state.devices),
        "samples": {
            "train": len(splits.train),
            "validation": len(splits.val),
            "test": len(splits.test),
            "zero_r_validation": majority,
        },
        "loops": state.loops,
        "history": state.history,
        "events": state.events,
        "finals": {
            "bounty": {"correct": state.best_correct, "loop": state.lkg_loop},
            "test": {"correct": test.correct, "loss": loop.finite_or_none(test.loss)},
            "stopped_early": state.stopped,
        },
    }
    if state.trial.probes:
        record["probes"] = {
            probe.name: {
                "places": probe.places(final),
                "loops": state.observed[probe.name],
                "last": test.probes[probe.name],
            }
            for probe in probes_for(trial)
        }
    if files := state.files | test.files:
        record["files"] = files
    return record


def _grown(initial: Dense, final: Dense) -> Record:
    """Return the description of the final network, and that of the initial one as `initial`."""
    return final.described() | {"initial": initial.described()}
