"""Which of the lines that the bucket knows a sweep takes up, so that no trial is in two paid jobs at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.storage.store import Store


@dataclass
class Reconciliation:
    """No trial is in two lines of `known`, nor in one of them and in one that has a job at work.

    known: hold nothing but what is asked for; they go on, attempt after attempt. running: hold something of
    it and have a job at work, which is watched to its end, and then no other; doubles: those of them whose
    trials another job has in hand as well. past: hold something of it and have no job at work; what they
    left is taken home, and the rest is lined up anew.
    """

    known: list[ManagedJob] = field(default_factory=list)
    running: list[ManagedJob] = field(default_factory=list)
    doubles: list[ManagedJob] = field(default_factory=list)
    past: list[ManagedJob] = field(default_factory=list)

    @property
    def taken(self) -> list[ManagedJob]:
        """All that are watched."""
        return [*self.known, *self.running]


def reconcile(
    stored: Iterable[ManagedJob], live: Collection[str], store: Store, wanted: Mapping[str, int]
) -> Reconciliation:
    """Sort out the stored lines. live: names of those that have a job at work; wanted: the horizon of each
    trial that is asked for, by id.
    """
    found, taken = Reconciliation(), set[str]()
    for line in sorted(stored, key=lambda line: (line.name not in live, line.name)):
        ids = {trial.id for trial in line.trials}
        is_live, is_taken = line.name in live, bool(ids & taken)
        if not ids & wanted.keys() or not (is_live or line.pending(store)):
            continue
        if not is_taken and is_wanted(line, store, wanted):
            found.known.append(line)
        elif is_live:
            found.running.append(line)
            if is_taken:
                found.doubles.append(line)
        else:
            found.past.append(line)
            continue
        taken |= ids
    return found


def is_wanted(line: ManagedJob, store: Store, wanted: Mapping[str, int]) -> bool:
    """Whether a line trains nothing but what is asked for, as far as it is asked for."""
    pending = line.pending(store)
    same = all(
        wanted.get(trial.id, pack.horizon) == pack.horizon
        for pack in line.packs.values()
        for trial in pack.trials
    )
    return bool(pending) and all(trial.id in wanted for trial in pending) and same
