"""The cost of an account's jobs, summed by status, architecture and mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cloud.aws.job_description import TrainingJob
from cloud.aws.pricing import PriceTable, job_cost

GROUPS: Final[Mapping[str, Callable[[TrainingJob], tuple[str, ...]]]] = {
    "status": lambda job: (job.status,),
    "arch": lambda job: (job.arch,),
    "mode": lambda job: (job.mode,),
    "both": lambda job: (job.arch, job.mode),
}


@dataclass(frozen=True)
class CostTotal:
    """Totals of several jobs. hours: billed instance hours; longest: billed hours of the longest job."""

    jobs: int
    hours: float
    dollars: float
    longest: float

    @property
    def json(self) -> dict[str, Any]:
        """The entry of the report; dollars are rounded to 1/100 of a cent."""
        return {
            "jobs": self.jobs,
            "billable_hours": round(self.hours, 4),
            "dollars": round(self.dollars, 4),
            "longest_job_hours": round(self.longest, 4),
        }


@dataclass(frozen=True)
class Bill:
    """Jobs and their costs. jobs: those with a price; unpriced: names by instance type without a price;
    running: jobs that are not fully billed yet, counted with the present figures.
    """

    table: PriceTable
    jobs: tuple[TrainingJob, ...]
    unpriced: Mapping[str, Sequence[str]]
    running: tuple[str, ...]
    elsewhere: tuple[str, ...]

    @property
    def total(self) -> CostTotal:
        """The totals of all jobs."""
        return self._sum(self.jobs)

    @property
    def longest(self) -> TrainingJob | None:
        """The job that was billed for the longest time."""
        return max(self.jobs, key=lambda job: job.billable_seconds, default=None)

    @property
    def saved(self) -> float | None:
        """The fraction of spot training time that was not billed, the spot saving; None without spot jobs."""
        ran = math.fsum(job.training_seconds * job.count for job in self.jobs if job.spot and job.ended)
        billed = math.fsum(job.billable_seconds * job.count for job in self.jobs if job.spot and job.ended)
        return 1 - billed / ran if ran else None

    def by(self, group: str) -> dict[tuple[str, ...], CostTotal]:
        """Return totals by a key of GROUPS, the most expensive first."""
        parts: dict[tuple[str, ...], list[TrainingJob]] = {}
        for job in self.jobs:
            parts.setdefault(GROUPS[group](job), []).append(job)
        sums = {name: self._sum(jobs) for name, jobs in parts.items()}
        return dict(sorted(sums.items(), key=lambda each: (-each[1].dollars, each[0])))

    def _sum(self, jobs: Sequence[TrainingJob]) -> CostTotal:
        return CostTotal(
            len(jobs),
            math.fsum(job.instance_seconds for job in jobs) / 3600,
            math.fsum(job_cost(job, self.table.instances) for job in jobs),
            max((job.billable_seconds for job in jobs), default=0.0) / 3600,
        )

    @property
    def json(self) -> dict[str, Any]:
        """The complete report: all totals, and every job."""
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
            "dollars": round(job_cost(job, self.table.instances), 4),
        }


def make_bill(jobs: Sequence[TrainingJob], table: PriceTable) -> Bill:
    """Sum up the jobs that have a price, and list those that have none."""
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
