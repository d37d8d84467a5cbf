"""Reconcile stored managed jobs with the requested trials, so that no trial runs in two paid jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.storage.store import Store


@dataclass
class Reconciliation:
    """The stored managed jobs, sorted by further treatment. No trial is in two managed jobs of `known`, nor
    in one of them and in one with a running job.

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
        """All managed jobs that are watched."""
        return [*self.known, *self.running]


def reconcile(
    stored: Iterable[ManagedJob], live: Collection[str], store: Store, horizons: Mapping[str, int]
) -> Reconciliation:
    """Sort the stored jobs. live: names of those running; horizons: horizons of requested trials, by id."""
    reconciled, taken = Reconciliation(), set[str]()
    for managed in sorted(stored, key=lambda managed: (managed.name not in live, managed.name)):
        ids = {trial.id for trial in managed.trials}
        is_live, is_taken = managed.name in live, bool(ids & taken)
        if not ids & horizons.keys() or not (is_live or managed.pending(store)):
            continue
        if not is_taken and matches_request(managed, store, horizons):
            reconciled.known.append(managed)
        elif is_live:
            reconciled.running.append(managed)
            if is_taken:
                reconciled.doubles.append(managed)
        else:
            reconciled.past.append(managed)
            continue
        taken |= ids
    return reconciled


def matches_request(managed: ManagedJob, store: Store, horizons: Mapping[str, int]) -> bool:
    """Return whether a managed job trains only requested trials, each to the requested horizon."""
    pending = managed.pending(store)
    same = all(
        horizons.get(trial.id, pack.horizon) == pack.horizon
        for pack in managed.packs.values()
        for trial in pack.trials
    )
    return bool(pending) and all(trial.id in horizons for trial in pending) and same
