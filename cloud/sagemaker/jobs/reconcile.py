"""Reconcile stored lines with the requested trials, so that no trial runs in two paid jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.storage.store import Store


@dataclass
class Reconciliation:
    """The stored lines, sorted by further treatment. No trial is in two lines of `known`, nor in one of them
    and in one with a running job.

    known: hold only requested trials, and continue attempt after attempt. running: hold some of them and have
    a running job, which is watched to its end and gets no successor; doubles: those of them whose trials
    another running job trains as well. past: hold some of them and have no running job; their results are
    downloaded, and the rest is planned again.
    """

    known: list[ManagedJob] = field(default_factory=list)
    running: list[ManagedJob] = field(default_factory=list)
    doubles: list[ManagedJob] = field(default_factory=list)
    past: list[ManagedJob] = field(default_factory=list)

    @property
    def taken(self) -> list[ManagedJob]:
        """All lines that are watched."""
        return [*self.known, *self.running]


def reconcile(
    stored: Iterable[ManagedJob], live: Collection[str], store: Store, wanted: Mapping[str, int]
) -> Reconciliation:
    """Sort the stored lines. live: names of those with a running job; wanted: the horizon of each requested
    trial, by id.
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
    """Return whether a line trains only requested trials, each to the requested horizon."""
    pending = line.pending(store)
    same = all(
        wanted.get(trial.id, pack.horizon) == pack.horizon
        for pack in line.packs.values()
        for trial in pack.trials
    )
    return bool(pending) and all(trial.id in wanted for trial in pending) and same
