"""What the jobs of an account have cost, added up by status, architecture and mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloud.aws.job_description import TrainingJob
from cloud.aws.pricing import PriceTable, dollars

GROUPS: Final[Mapping[str, Callable[[TrainingJob], tuple[str, ...]]]] = {
    "status": lambda job: (job.status,),
    "arch": lambda job: (job.arch,),
    "mode": lambda job: (job.mode,),
    "both": lambda job: (job.arch, job.mode),
}


@dataclass(frozen=True)
class Sum:
    """Several jobs together. hours: billed hours of instances; longest: of one job, billed hours."""

    jobs: int
    hours: float
    dollars: float
    longest: float

    @property
    def json(self) -> dict[str, Any]:
        """For the report; dollars to the hundredth of a cent."""
        return {
            "jobs": self.jobs,
            "billable_hours": round(self.hours, 4),
            "dollars": round(self.dollars, 4),
            "longest_job_hours": round(self.longest, 4),
        }


@dataclass(frozen=True)
class Bill:
    """jobs: those that have a price. unpriced: by instance type, without one; running: not billed yet, and
    counted with what is known so far.
    """

    table: PriceTable
    jobs: tuple[TrainingJob, ...]
    unpriced: Mapping[str, Sequence[str]]
    running: tuple[str, ...]
    elsewhere: tuple[str, ...]

    @property
    def total(self) -> Sum:
        """Of all jobs."""
        return self._sum(self.jobs)

    @property
    def longest(self) -> TrainingJob | None:
        """The job that was billed for the longest time."""
        return max(self.jobs, key=lambda job: job.billable_seconds, default=None)

    @property
    def saved(self) -> float | None:
        """The share of spot jobs' time that was not billed, which is what they saved; None without any."""
        ran = math.fsum(job.training_seconds * job.count for job in self.jobs if job.spot and job.ended)
        billed = math.fsum(job.billable_seconds * job.count for job in self.jobs if job.spot and job.ended)
        return 1 - billed / ran if ran else None

    def by(self, group: str) -> dict[tuple[str, ...], Sum]:
        """Sums by what GROUPS says, the dearest first."""
        parts: dict[tuple[str, ...], list[TrainingJob]] = {}
        for job in self.jobs:
            parts.setdefault(GROUPS[group](job), []).append(job)
        sums = {name: self._sum(jobs) for name, jobs in parts.items()}
        return dict(sorted(sums.items(), key=lambda each: (-each[1].dollars, each[0])))

    def _sum(self, jobs: Sequence[TrainingJob]) -> Sum:
        return Sum(
            len(jobs),
            math.fsum(job.instance_seconds for job in jobs) / 3600,
            math.fsum(dollars(job, self.table.instances) for job in jobs),
            max((job.billable_seconds for job in jobs), default=0.0) / 3600,
        )

    @property
    def json(self) -> dict[str, Any]:
        """The report: everything that can be shown, and every job."""
        longest = self.longest
        return {
            "prices": {"dated": self.table.dated.isoformat(), "region": self.table.region},
            "total": self.total.json,
            "longest_job": None if longest is None else longest.name,
            "spot_saved": None if self.saved is None else round(self.saved, 4),
            **{
                f"by_{'arch_and_mode' if group == 'both' else group}": [
                    {"name": list(name) if len(name) > 1 else name[0], **each.json}
                    for name, each in self.by(group).items()
                ]
                for group in GROUPS
            },
            "not_ended": list(self.running),
            "without_price": {kind: list(names) for kind, names in self.unpriced.items()},
            "of_other_regions": list(self.elsewhere),
            "details": [self._detail(job) for job in self.jobs],
        }

    def _detail(self, job: TrainingJob) -> dict[str, Any]:
        return {
            "job": job.name,
            "status": job.status,
            "instances": [list(each) for each in job.instances],
            "spot": job.spot,
            "billable_seconds": job.billable_seconds,
            "dollars": round(dollars(job, self.table.instances), 4),
        }


def bill_of(jobs: Sequence[TrainingJob], table: PriceTable) -> Bill:
    """Add up what has a price, and name what has none."""
    unpriced: dict[str, list[str]] = {}
    priced = []
    for job in jobs:
        kinds = [kind for kind, _ in job.instances if kind not in table.instances]
        for kind in kinds:
            unpriced.setdefault(kind, []).append(job.name)
        if not kinds:
            priced.append(job)
    return Bill(
        table,
        tuple(priced),
        unpriced,
        tuple(job.name for job in jobs if not job.ended),
        tuple(job.name for job in priced if job.region not in ("", table.region)),
    )
