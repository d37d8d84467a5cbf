"""Planning: the trials that remain to be trained on this machine, their packs and their slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psa.execution.cost_model import CostModel, memory_bytes
from psa.execution.devices import DeviceSlot, device_slots
from psa.execution.machine import DeviceName
from psa.execution.packing import groups_of, packed
from psa.specs.trial import Pack, Trial
from psa.storage.store import Store


@dataclass(frozen=True)
class Plan:
    """The remaining work of a set of trials on this machine: pending trials, packs, and worker slots."""

    trials: Sequence[Trial]
    horizon: int
    pending: list[Trial]
    damaged: dict[str, str]
    packs: list[Pack]
    places: list[DeviceSlot]

    @property
    def done(self) -> int:
        """The number of trials that are done."""
        return len(self.trials) - len(self.pending) - len(self.damaged)


def planned_for(
    trials: Sequence[Trial],
    horizon: int,
    store: Store,
    costs: CostModel,
    device: DeviceName | None,
    workers: int | None,
    pack_size: int | None,
) -> Plan:
    """Return the plan that trains a set of trials up to a horizon."""
    survey = store.progress(trials, horizon)
    packs = packed(groups_of(survey.pending), horizon, costs, pack_size)
    need = max((memory_bytes(pack.trials) for pack in packs), default=1)
    return Plan(trials, horizon, survey.pending, survey.damaged, packs, device_slots(device, need, workers))
