"""Download a managed job's results from the bucket, and delete them there when they are complete here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final

from cloud.aws import artifact
from cloud.aws.bucket import Bucket
from cloud.results_sync import import_records, sync_results
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.core.errors import CorruptFileError, UserError
from psa.core.formatting import join_names, pluralize
from psa.specs.trial import Trial
from psa.storage import locks
from psa.storage.store import Store

logger = logging.getLogger(__name__)

_HELD: Final = ("inputs/models", "output", "checkpoints")  # checkpoints last: they mark an incomplete removal
_SHOWN: Final = 5


def download_results(
    managed: ManagedJob, bucket: Bucket, store: Store, only: Collection[str] | None = None
) -> dict[str, str]:
    """Download the results of a managed job's jobs: from its checkpoints, or from the artifacts if those are
    missing.

    only: ids of trials, by default all of the managed job's; those done here with weights are left out.
    Returns, by trial id, why some records contradict the local ones. Raises UserError.
    """
    open_trials = _ids(managed.pending(store)) | _ids(missing_weights(managed, store))
    mine = open_trials if only is None else open_trials & set(only)
    refused = sync_results(bucket, f"{managed.folder}/checkpoints", store, mine)
    artifacts = _artifacts(managed, bucket)
    while _ids(managed.pending(store)) & mine - refused.keys():
        found = next(artifacts, None)
        if found is None:
            break
        refused |= import_records(found[1], found[0], store, mine)
    return refused


def fetch_results(
    stored: Iterable[ManagedJob], bucket: Bucket, store: Store, live: Callable[[], Collection[str]]
) -> None:
    """Download the results of managed jobs so far, except of locked trials; delete complete ones from the
    bucket. live: returns the names of those with a running job. Raises UserError.
    """
    for managed in stored:
        pending = managed.pending(store)
        with locks.lock_trials(store, pending) as leased:
            if pending and len(leased) == len(pending):
                download_results(managed, bucket, store)
                pending = managed.pending(store)
        if not pending and managed.name not in live():
            delete_if_complete(managed, bucket, store)


def delete_if_complete(managed: ManagedJob, bucket: Bucket, store: Store) -> bool:
    """Delete a managed job's files from the bucket if all of its results are here, weights included. Return
    whether the bucket holds none any more. The managed job's definition is kept for cost reports. Raises
    UserError.
    """
    if not _holds_anything(managed, bucket):
        return True
    missing = missing_weights(managed, store)
    if missing:
        ids = _ids(missing)
        sync_results(bucket, f"{managed.folder}/checkpoints", store, ids)
        for where, files in _artifacts(managed, bucket):
            import_records(files, where, store, ids)
        missing = missing_weights(managed, store)
    if missing:
        logger.warning(
            "of %s the record or the last weights are neither here nor sound in %s, which is kept: %s",
            pluralize(len(missing), "trial"),
            bucket.under(managed.folder),
            join_names([trial.id for trial in missing], _SHOWN),
        )
        return False
    for part in _HELD:
        bucket.remove(f"{managed.folder}/{part}")
    return True


def _holds_anything(managed: ManagedJob, bucket: Bucket) -> bool:
    """Return whether a managed job has files. Folders do not count: some S3 servers keep empty ones."""
    there = set(bucket.folders(managed.folder)) - {"inputs"}
    return any(True for part in there for _ in bucket.tree(f"{managed.folder}/{part}"))


def missing_weights(managed: ManagedJob, store: Store) -> list[Trial]:
    """Return the trials without an intact record, or without an intact state that is as far trained."""
    return [trial for trial in managed.trials if not _has_weights(trial, store)]


def _has_weights(trial: Trial, store: Store) -> bool:
    try:
        record, state = store.read(trial), store.load_state(trial)
    except CorruptFileError:
        return False
    return record is not None and state is not None and state.loops >= record["loops"]


def _artifacts(managed: ManagedJob, bucket: Bucket) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """Yield URI and files of each artifact, the latest first; log and skip refused ones."""
    for job in reversed(bucket.folders(f"{managed.folder}/output")):
        name = f"{managed.folder}/output/{job}/output/model.tar.gz"
        content = bucket.read(name)
        if content is None:
            continue
        try:
            where = bucket.under(name)
            yield where, artifact.read_artifact(content, artifact.SWEEP_LIMITS, name=where)
        except UserError as error:
            logger.warning("%s", error.message)


def _ids(trials: Collection[Trial]) -> set[str]:
    return {trial.id for trial in trials}
