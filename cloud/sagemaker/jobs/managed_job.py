"""A line: the packs of one training job and of its next attempts, and where they lie in the bucket.

lines/<name>/inputs/packs.json, what is trained; inputs/models/..., what was trained of it before;
checkpoints/..., what has become of it; output/<job>/..., what each attempt left at its end.
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
MOST_TRIALS: Final = 5_000  # of one line: its records, sidecars and states have to fit into one artifact


@dataclass(frozen=True)
class ManagedJob:
    """Packs by name. home: the folder of states they belong to, 8 hexadecimal digits."""

    home: str
    packs: dict[str, Pack]

    @property
    def name(self) -> str:
        """12 hexadecimal digits, of what is trained for whom."""
        body = [[pack.horizon, [trial.digest for trial in pack.trials]] for pack in self.packs.values()]
        return hashlib.sha256(canonical_json([self.home, body]).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Its part of the bucket."""
        return f"{LINES}/{self.home}-{self.name}"

    def job(self, attempt: int) -> str:
        """The name of its job: the same for whoever asks, so that none is submitted twice."""
        return f"psa-{self.home}-{self.name}-{attempt:02d}"

    @property
    def trials(self) -> list[Trial]:
        """Of all of its packs."""
        return [trial for pack in self.packs.values() for trial in pack.trials]

    def pending(self, store: Store) -> list[Trial]:
        """Those that are not at home yet. One whose record here is damaged is named, and is not among them:
        nothing that is trained elsewhere could take its place.
        """
        surveys = [store.progress(pack.trials, pack.horizon) for pack in self.packs.values()]
        for survey in surveys:
            for reason in survey.damaged.values():
                _warn(reason)
        return [trial for survey in surveys for trial in survey.pending]


@functools.lru_cache(maxsize=10_000)
def _warn(reason: str) -> None:
    """Say it once, however often the record is looked at."""
    logger.warning("%s; left out", reason)


def last_attempts(jobs: Collection[str]) -> dict[str, int]:
    """The number of the last job of each line, by the line's name."""
    last: dict[str, int] = {}
    for name in jobs:
        parts = job_parts(name)
        if parts is not None:
            last[parts[1]] = max(last.get(parts[1], 0), parts[2])
    return last


def partition_packs(home: str, jobs: Sequence[Job], count: int) -> list[ManagedJob]:
    """The jobs' packs dealt out to so many lines of about equal work, the longest packs first; to more lines
    where one would hold too many trials.
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
    """The lines of a home that the bucket knows."""
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
    """Put into the bucket what a line needs, a file for each step; what it is comes last, and then it is
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
    """The jobs less the trials that lines have already."""
    there = {trial.id for line in known for trial in line.trials}
    return _kept(jobs, lambda pack: [trial for trial in pack.trials if trial.id not in there])


def unfinished(jobs: Sequence[Job], store: Store, failed: Collection[str] = ()) -> list[Job]:
    """The jobs less the trials that are done by now, have failed, or have a damaged record."""

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
