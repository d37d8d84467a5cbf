"""Managed jobs: the packs of one training job and of its next attempts, and their place in the bucket.

lines/<name>/inputs/packs.json: the definition; inputs/models/...: the states before it; checkpoints/...: the
present states and records; output/<job>/...: the artifact of each attempt.
"""

from __future__ import annotations

import hashlib
import heapq
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.aws.bucket import Bucket
from cloud.aws.job_names import parse_job_name
from cloud.results_sync import pending_trials
from cloud.sagemaker.container.entry import PACKS_FILE, parse_packs
from psa.core.errors import UserError
from psa.core.stored_files import read_stored
from psa.execution.backend import Job
from psa.execution.worker.protocol import pack_body
from psa.specs.base import canonical_json
from psa.specs.trial import Pack, Trial
from psa.storage.store import STATE_NAME, Store

logger = logging.getLogger(__name__)

JOBS_FOLDER: Final = "lines"
MAX_TRIALS_PER_JOB: Final = (
    5_000  # per managed job: its records, sidecars and states must fit into one artifact
)


@dataclass(frozen=True)
class ManagedJob:
    """A managed job: its packs, by name. workspace: the id of their workspace, 8 hexadecimal digits."""

    workspace: str
    packs: dict[str, Pack]

    @property
    def name(self) -> str:
        """A digest of the packs and the workspace, 12 hexadecimal digits."""
        body = [[pack.horizon, [trial.digest for trial in pack.trials]] for pack in self.packs.values()]
        return hashlib.sha256(canonical_json([self.workspace, body]).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """The folder of the managed job in the bucket."""
        return f"{JOBS_FOLDER}/{self.workspace}-{self.name}"

    def job_name(self, attempt: int) -> str:
        """Return the name of a job. It is deterministic, so that no job is submitted twice."""
        return f"psa-{self.workspace}-{self.name}-{attempt:02d}"

    @property
    def trials(self) -> list[Trial]:
        """The trials of all of its packs."""
        return [trial for pack in self.packs.values() for trial in pack.trials]

    def pending(self, store: Store) -> list[Trial]:
        """Return the trials that are not finished here, without those with a damaged local record."""
        return pending_trials(store, self.packs.values())


def last_attempts(jobs: Collection[str]) -> dict[str, int]:
    """Return the number of the last attempt of each managed job, by the managed job's name."""
    last: dict[str, int] = {}
    for name in jobs:
        parts = parse_job_name(name)
        if parts is not None:
            last[parts.managed_job] = max(last.get(parts.managed_job, 0), parts.attempt)
    return last


def partition_jobs(workspace: str, jobs: Sequence[Job], count: int) -> list[ManagedJob]:
    """Partition the packs into `count` jobs of about equal work; into more if one had too many trials."""
    shares: list[tuple[float, int, list[Pack]]] = [
        (0.0, number, []) for number in range(min(count, len(jobs)))
    ]
    filled: list[tuple[float, int, list[Pack]]] = []
    for job in sorted(jobs, key=lambda job: -job.seconds):
        while shares and shares[0][2] and _trials([*shares[0][2], job.pack]) > MAX_TRIALS_PER_JOB:
            filled.append(heapq.heappop(shares))
        if not shares:
            shares.append((0.0, len(filled), []))
        seconds, number, packs = heapq.heappop(shares)
        heapq.heappush(shares, (seconds + job.seconds, number, [*packs, job.pack]))
    return [
        ManagedJob(workspace, {f"p{at:04d}": pack for at, pack in enumerate(packs)})
        for _, _, packs in sorted([*filled, *shares], key=lambda share: share[1])
    ]


def _trials(packs: Sequence[Pack]) -> int:
    return sum(len(pack.trials) for pack in packs)


def list_managed_jobs(bucket: Bucket, workspace: str) -> Iterator[ManagedJob]:
    """Yield the managed jobs of a workspace that the bucket holds."""
    for folder in bucket.folders(JOBS_FOLDER):
        if not folder.startswith(f"{workspace}-"):
            continue
        where = f"{JOBS_FOLDER}/{folder}/inputs/{PACKS_FILE}"
        content = bucket.read(where)
        if content is None:
            continue
        try:
            yield ManagedJob(workspace, parse_packs(content, bucket.under(where)))
        except UserError as error:
            logger.warning("%s; left out", error.message)


def upload_inputs(managed: ManagedJob, bucket: Bucket, store: Store) -> Iterator[str]:
    """Upload the inputs of a managed job, its definition last. Yield the name of each file."""
    for trial in managed.trials:
        content = read_stored(store.state_file(trial).path)
        if content is not None:
            name = f"{managed.folder}/inputs/models/{trial.id}/{STATE_NAME}"
            bucket.write(name, content)
            yield name
    bodies = {name: pack_body(pack) for name, pack in managed.packs.items()}
    name = f"{managed.folder}/inputs/{PACKS_FILE}"
    bucket.write(name, canonical_json(bodies).encode())
    yield name


def without_trials_of(jobs: Sequence[Job], known: Sequence[ManagedJob]) -> list[Job]:
    """Return the jobs without the trials of these managed jobs."""
    there = {trial.id for managed in known for trial in managed.trials}
    return _kept(jobs, lambda pack: [trial for trial in pack.trials if trial.id not in there])


def unfinished_jobs(jobs: Sequence[Job], store: Store, failed: Collection[str] = ()) -> list[Job]:
    """Return the jobs without the trials that are done, have failed, or have a damaged record."""

    def open_still(pack: Pack) -> list[Trial]:
        pending = store.progress(pack.trials, pack.horizon).pending
        return [trial for trial in pending if trial.id not in failed]

    return _kept(jobs, open_still)


def _kept(jobs: Sequence[Job], choose: Callable[[Pack], Sequence[Trial]]) -> list[Job]:
    left = []
    for job in jobs:
        trials = tuple(choose(job.pack))
        if trials:
            share = len(trials) / len(job.pack.trials)
            left.append(Job(job.pack.model_copy(update={"trials": trials}), job.seconds * share))
    return left
