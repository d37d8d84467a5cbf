"""Planning: the trials that remain to be trained on this machine, their packs and their slots, and those that
need no training because a finished trial has their result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psa.execution.cost_model import CostModel, memory_bytes
from psa.execution.devices import DeviceSlot, device_slots
from psa.execution.machine import DeviceName
from psa.execution.packing import groups_of, packed
from psa.specs.trial import Pack, Trial
from psa.storage.locks import lock_trials
from psa.storage.records.equal_training import equal_training_key, record_of_equal
from psa.storage.store import Store

_OF_TRAINING: Final = ("pack_", "train_samples_per_second")  # facts of a sidecar that a copied result lacks


@dataclass(frozen=True)
class Plan:
    """The remaining work of a set of trials on this machine: pending trials, packs, and worker slots.

    workers: those that the packs are cut for, see psa.execution.packing.packed.
    """

    trials: Sequence[Trial]
    horizon: int
    pending: list[Trial]
    damaged: dict[str, str]
    packs: list[Pack]
    places: list[DeviceSlot]
    workers: int | None

    @property
    def done(self) -> int:
        """The number of trials that are done."""
        return len(self.trials) - len(self.pending) - len(self.damaged)


@dataclass(frozen=True)
class PlanOptions:
    """Options of a plan: the place of the workers, and the size of packs.

    device: of this machine; workers: their number, and pack_size: trials per pack, None for automatic ones;
    elsewhere: The packs are for another machine.
    """

    device: DeviceName | None = None
    workers: int | None = None
    pack_size: int | None = None
    elsewhere: bool = False


def planned_for(
    trials: Sequence[Trial], horizon: int, store: Store, costs: CostModel, options: PlanOptions
) -> Plan:
    """Return the plan that trains a set of trials up to a horizon."""
    survey = store.progress(trials, horizon)
    device, workers = options.device, options.workers
    cut_for = None if options.elsewhere else _sharing(device_slots(device, 1, workers))
    packs = packed(groups_of(survey.pending), horizon, costs, options.pack_size, cut_for)
    need = max((memory_bytes(pack.trials) for pack in packs), default=1)
    places = device_slots(device, need, workers)
    return Plan(trials, horizon, survey.pending, survey.damaged, packs, places, cut_for)


def _sharing(places: Sequence[DeviceSlot]) -> int:
    """Return the workers for which packs are cut: those of a GPU share its arithmetic, and count as one."""
    return len(set(places)) if any(places) else len(places)


def take_equal_results(trials: Sequence[Trial], horizon: int, store: Store) -> int:
    """Store the results of finished trials for pending ones with equal training; return how many.

    Only records are stored, no states. A trial that has a record of fewer loops is left to continue.
    """
    survey = store.progress(trials, horizon)
    finished = {equal_training_key(trial): trial for trial in survey.done}
    finished.pop(None, None)
    pairs = [(trial, finished.get(equal_training_key(trial))) for trial in survey.pending]
    return sum(_taken(trial, source, store) for trial, source in pairs if source is not None)


def _taken(trial: Trial, source: Trial, store: Store) -> bool:
    """Store the result of another trial for a trial. Return False if it is held or has a record, or if the
    other one has no record that can serve it.
    """
    with lock_trials(store, [trial]) as free:
        stored = store.read(source)
        record = None if stored is None else record_of_equal(stored, trial)
        if not free or record is None or store.read(trial) is not None:
            return False
        machine = store.sidecar(source.id) or {}
        facts = {name: fact for name, fact in machine.items() if not name.startswith(_OF_TRAINING)}
        store.write(trial, record, facts | {"copied_from": source.id})
        return True
