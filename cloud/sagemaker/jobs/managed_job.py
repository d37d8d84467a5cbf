"""Managed jobs: the packs of one training job and of its next attempts, and their place in the bucket.

Messages, and the folder `lines/` of the bucket, call a managed job a line.

lines/<name>/inputs/packs.json: the definition; inputs/models/...: the states before it; checkpoints/...: the
present states and records; output/<job>/...: the artifact of each attempt.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cloud.aws.bucket import Bucket
from cloud.aws.job_names import job_parts
from cloud.sagemaker.container.entry import PACKS_FILE, packs_in
from psa.core.errors import UserError
from psa.core.stored_files import read_stored
from psa.execution.backend import Job
from psa.specs.base import canonical_json
from psa.specs.trial import Pack, Trial
from psa.storage.store import STATE_NAME, Store

logger = logging.getLogger(__name__)

LINES: Final = "lines"
MOST_TRIALS: Final = 5_000  # per line: its records, sidecars and states must fit into one artifact


@dataclass(frozen=True)
class ManagedJob:
    """A managed job: its packs, by name. home: the id of their workspace, 8 hexadecimal digits."""

    home: str
    packs: dict[str, Pack]

    @property
    def name(self) -> str:
        """A digest of the packs and the workspace, 12 hexadecimal digits."""
        body = [[pack.horizon, [trial.digest for trial in pack.trials]] for pack in self.packs.values()]
        return hashlib.sha256(canonical_json([self.home, body]).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """The folder of the line in the bucket."""
        return f"{LINES}/{self.home}-{self.name}"

    def job(self, attempt: int) -> str:
        """Return the name of a job. It is deterministic, so that no job is submitted twice."""
        return f"psa-{self.home}-{self.name}-{attempt:02d}"

    @property
    def trials(self) -> list[Trial]:
        """The trials of all of its packs."""
        return [trial for pack in self.packs.values() for trial in pack.trials]

    def pending(self, store: Store) -> list[Trial]:
        """Return the trials that are not finished here. A trial with a damaged local record is logged and
        left out: no result from elsewhere could replace it.
        """
        surveys = [store.progress(pack.trials, pack.horizon) for pack in self.packs.values()]
        for survey in surveys:
            for reason in survey.damaged.values():
                _warn(reason)
        return [trial for survey in surveys for trial in survey.pending]


@functools.lru_cache(maxsize=10_000)
def _warn(reason: str) -> None:
    """Log a reason once, however often the record is read."""
    logger.warning("%s; left out", reason)


def last_attempts(jobs: Collection[str]) -> dict[str, int]:
    """Return the number of the last attempt of each line, by the line's name."""
    last: dict[str, int] = {}
    for name in jobs:
        parts = job_parts(name)
        if parts is not None:
            last[parts[1]] = max(last.get(parts[1], 0), parts[2])
    return last


def partition_packs(home: str, jobs: Sequence[Job], count: int) -> list[ManagedJob]:
    """Partition the packs into `count` lines of about equal work, the longest packs first; into more lines if
    one would hold too many trials.
    """
    shares: list[tuple[float, int, list[Pack]]] = [
        (0.0, number, []) for number in range(min(count, len(jobs)))
    ]
    filled: list[tuple[float, int, list[Pack]]] = []
    for job in sorted(jobs, key=lambda job: -job.seconds):
        while shares and shares[0][2] and _trials([*shares[0][2], job.pack]) > MOST_TRIALS:
            filled.append(heapq.heappop(shares))
        if not shares:
            shares.append((0.0, len(filled), []))
        seconds, number, packs = heapq.heappop(shares)
        heapq.heappush(shares, (seconds + job.seconds, number, [*packs, job.pack]))
    return [
        ManagedJob(home, {f"p{at:04d}": pack for at, pack in enumerate(packs)})
        for _, _, packs in sorted([*filled, *shares], key=lambda share: share[1])
    ]


def _trials(packs: Sequence[Pack]) -> int:
    return sum(len(pack.trials) for pack in packs)


def list_managed_jobs(bucket: Bucket, home: str) -> Iterator[ManagedJob]:
    """Yield the lines of a workspace that the bucket holds."""
    for folder in bucket.folders(LINES):
        if not folder.startswith(f"{home}-"):
            continue
        where = f"{LINES}/{folder}/inputs/{PACKS_FILE}"
        content = bucket.read(where)
        if content is None:
            continue
        try:
            yield ManagedJob(home, packs_in(content, bucket.under(where)))
        except UserError as error:
            logger.warning("%s; left out", error.message)


def upload_inputs(line: ManagedJob, bucket: Bucket, store: Store) -> Iterator[str]:
    """Upload the inputs of a line. Yield the name of each file. The definition comes last and marks the line
    complete.
    """
    for trial in line.trials:
        content = read_stored(store.state_file(trial).path)
        if content is not None:
            name = f"{line.folder}/inputs/models/{trial.id}/{STATE_NAME}"
            bucket.write(name, content)
            yield name
    bodies = {name: pack.model_dump(mode="json") for name, pack in line.packs.items()}
    name = f"{line.folder}/inputs/{PACKS_FILE}"
    bucket.write(name, canonical_json(bodies).encode())
    yield name


def without(jobs: Sequence[Job], known: Sequence[ManagedJob]) -> list[Job]:
    """Return the jobs without the trials of these lines."""
    there = {trial.id for line in known for trial in line.trials}
    return _kept(jobs, lambda pack: [trial for trial in pack.trials if trial.id not in there])


def unfinished(jobs: Sequence[Job], store: Store, failed: Collection[str] = ()) -> list[Job]:
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
