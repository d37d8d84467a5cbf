"""The status of a grid as a document: counts by stage, variant, mode and architecture, sweeps, disk use."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from psa.cli.output.schema import (
    DiskUse,
    GroupCounts,
    RunningPack,
    RunningSweep,
    StageCounts,
    StatusDocument,
    TrialReason,
)
from psa.experiments.grid import Grid, GridPoint
from psa.experiments.promotion import StageStatus, stage_statuses
from psa.storage.helper_files import PackStatus
from psa.storage.store import Store, StoreProgress
from psa.storage.sweep_registry import ActiveSweep


def grid_status(
    grid: Grid, store: Store, sweeps: Iterable[ActiveSweep], jobs: Sequence[str] = ()
) -> StatusDocument:
    """Return the status of a grid. Each record is read once. Raises UserError."""
    store.check_folders()
    stages: list[StageCounts] = []
    failed: dict[str, str] = {}
    damaged: dict[str, str] = {}
    for stage in stage_statuses(grid, store):
        if not stage.stage.points:
            continue
        survey = store.progress(stage.trials, stage.meta_loops)
        errors = {trial.id: store.failure(trial) for trial in survey.pending}
        reasons = {name: error for name, error in errors.items() if error is not None}
        failed, damaged = failed | reasons, damaged | survey.damaged
        stages.append(_stage_counts(stage, survey, reasons))
    complete = all(each.done == each.trials and not each.waiting for each in stages)
    return StatusDocument(
        name=grid.name,
        state="failed" if failed or damaged else "complete" if complete else "incomplete",
        stages=stages,
        failed=trial_reasons(failed),
        damaged=trial_reasons(damaged),
        sweeps=[_running_sweep(sweep, time.time()) for sweep in sweeps],
        jobs=list(jobs),
        disk=_disk_use(store, sorted({trial.study for trial in grid.trials})),
    )


def trial_reasons(reasons: Mapping[str, str]) -> list[TrialReason]:
    """Return reasons by trial id as entries of a document."""
    return [TrialReason(trial=trial, reason=reason) for trial, reason in reasons.items()]


def _stage_counts(stage: StageStatus, survey: StoreProgress, failed: Mapping[str, str]) -> StageCounts:
    waiting = stage.points is None
    points = stage.points or ()
    count = _Counter(survey, failed)
    counts = count(point.trial.id for point in points)
    variants = count.by(points, lambda point: point.variant)
    return StageCounts(
        name=stage.stage.name,
        meta_loops=stage.meta_loops,
        waiting=waiting,
        left_out=stage.left_out,
        stored_loops=survey.loops,
        variants=[each for each in variants if each.value],
        modes=count.by(points, lambda point: point.trial.intervention.mode),
        archs=count.by(points, lambda point: point.trial.model.arch.label),
        **(counts | ({"trials": stage.seats} if waiting else {})),
    )


class _Counter:
    """The conditions of the trials of a stage, by id, and their numbers in any part of it."""

    def __init__(self, survey: StoreProgress, failed: Mapping[str, str]) -> None:
        self.conditions = {
            "done": {trial.id for trial in survey.done},
            "diverged": {trial.id for trial in survey.diverged},
            "pending": {trial.id for trial in survey.pending},
            "failed": set(failed),
            "damaged": set(survey.damaged),
        }

    def __call__(self, trials: Iterable[str]) -> dict[str, int]:
        """Return the number of some trials in each condition."""
        ids = list(trials)
        counts = {name: sum(each in those for each in ids) for name, those in self.conditions.items()}
        return {"trials": len(ids), **counts}

    def by(self, points: Iterable[GridPoint], key: Callable[[GridPoint], str]) -> list[GroupCounts]:
        """Return the counts by a key of the points, in the order of the grid."""
        groups: dict[str, list[str]] = {}
        for point in points:
            groups.setdefault(key(point), []).append(point.trial.id)
        return [GroupCounts(value=value, **self(ids)) for value, ids in groups.items()]


def _running_sweep(sweep: ActiveSweep, now: float) -> RunningSweep:
    """Return the entry of an active sweep. A sweep of an earlier psa writes no times."""
    last = sweep.progress
    if last is None:
        return RunningSweep(
            process=sweep.pid, host="", grid="", done=None, trials=None, left="", age=None, silent=None,
            rate=None, best=None, best_trial="", packs=[],
        )  # fmt: skip
    accuracy, trial = last["best"]
    started, written = last.get("started"), last.get("written")
    return RunningSweep(
        process=sweep.pid,
        host=last["host"],
        grid=last["grid"],
        done=last["done"],
        trials=last["total"],
        left=last["left"],
        age=None if started is None else max(0.0, now - started),
        silent=None if written is None else max(0.0, now - written),
        rate=last.get("rate") or None,
        best=accuracy / 100 if trial else None,
        best_trial=trial,
        packs=[_running_pack(pack, written or now, now) for pack in last.get("packs", [])],
    )


def _running_pack(pack: PackStatus, written: float, now: float) -> RunningPack:
    trained = pack["loop"] - pack["reached"]
    pace = max(0.0, written - pack["started"]) / trained if trained > 0 else None
    return RunningPack(
        label=pack["label"],
        trials=pack["trials"],
        loop=pack["loop"],
        meta_loops=pack["horizon"],
        age=max(0.0, now - pack["started"]),
        loop_seconds=pace,
    )


def _disk_use(store: Store, studies: Iterable[str]) -> DiskUse:
    """Return the size of the folders of some studies. Bundles hold records of any study: not counted."""
    names = list(studies)
    return DiskUse(
        checkpoint_bytes=sum(_folder_bytes(store.models / name) for name in names),
        record_bytes=sum(_folder_bytes(store.results / name) for name in names),
    )


def _folder_bytes(folder: Path) -> int:
    return sum(size for size in _sizes(str(folder)))


def _sizes(folder: str) -> Iterator[int]:
    """Yield the sizes of the files below a folder. Links are not followed; what is gone or closed is 0."""
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                yield from _sizes(entry.path)
            else:
                yield entry.stat(follow_symlinks=False).st_size
        except OSError:  # removed meanwhile
            continue
