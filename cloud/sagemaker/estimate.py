"""Estimates for training jobs: hours, dollars and bytes, before any of them is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cloud.aws.pricing import Price, PriceTable
from cloud.aws.settings import Settings
from cloud.sagemaker.budget import STARTUP_SECONDS
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.core.errors import UserError
from psa.core.formatting import format_bytes, format_duration, join_names, pluralize
from psa.core.parsing import nearest
from psa.execution.backend import Job, plan_jobs
from psa.execution.cost_model import CostModel, trial_bytes
from psa.execution.eta import loops_left
from psa.specs.trial import Pack
from psa.storage.store import Store


@dataclass(frozen=True)
class CostEstimate:
    """The estimate for a managed job. seconds: of its run; billed_seconds: with those for which its instance
    is kept; dollars: on demand; spot: bounds; bytes: kept in the bucket.
    """

    managed_job: ManagedJob
    seconds: float
    billed_seconds: float
    dollars: float
    spot: tuple[float, float]
    bytes: int


class CostEstimator:
    """Prices of the instances in the settings, and estimates for managed jobs. limit: in USD; only with one
    does every instance type need a price.
    """

    def __init__(
        self, table: PriceTable, settings: Settings, costs: CostModel, store: Store, limit: float | None
    ) -> None:
        self.table, self.settings, self.costs, self.store, self.limit = table, settings, costs, store, limit
        self.prices = [self.price(name) for name in settings.instances]

    def price(self, instance: str) -> Price:
        """Return an instance type and its price. Raises UserError if there is a limit and it has no price."""
        price = self.table.price_of(instance)
        if price.hourly is None and self.limit is not None:
            near = nearest(instance, self.table.instances, likeness=0.6)
            guess = f"Did you mean {near}? " if near else ""
            raise UserError(
                f"--max-cost needs a price of every instance type, got {instance!r}, which has none in the "
                f"{self.table.description}",
                f"{guess}Run `psa prices refresh`, or leave --max-cost out",
            )
        return price

    def estimate(self, managed: ManagedJob) -> CostEstimate:
        """Estimate the rest of a managed job from this machine's speed, assuming equally fast cores."""
        price, jobs = (
            self.prices[0],
            plan_remaining_jobs(list(managed.packs.values()), self.costs, self.store),
        )
        seconds = STARTUP_SECONDS + max(sum(job.seconds for job in jobs) / price.vcpus, jobs[0].seconds)
        stored = sum(
            trial_bytes(trial, pack.horizon) for pack in managed.packs.values() for trial in pack.trials
        )
        billed = seconds + self.settings.jobs.keep_alive
        return CostEstimate(managed, seconds, billed, price.cost(billed), price.spot_cost(billed), stored)

    def describe(self, estimates: Sequence[CostEstimate], code: int) -> Iterator[str]:
        """Yield a line per job, and the totals. code: size of the archive. Raises UserError like `check`."""
        for estimate in estimates:
            managed = estimate.managed_job
            yield (
                f"{managed.job_name(1)}: {pluralize(len(managed.packs), 'pack')}, "
                f"{pluralize(len(managed.trials), 'trial')}, about {format_duration(estimate.seconds)} on "
                f"{self.prices[0].instance}, {self._dollars([estimate])}, {format_bytes(estimate.bytes)}"
            )
        hours = sum(estimate.billed_seconds for estimate in estimates) / 3600
        stored = format_bytes(sum(estimate.bytes for estimate in estimates))
        yield (
            f"{pluralize(len(estimates), 'job')}: {hours:.2f} instance-hours, {self._dollars(estimates)} "
            f"({self.table.description}), {stored} of states and records, {format_bytes(code)} of code; "
            "times are estimated from this machine's"
        )
        yield from filter(None, (self.keep_alive_notice, self.region_notice, self.price_notice))
        self.check(estimates)

    @property
    def region_notice(self) -> str:
        """A remark if the jobs run in another region than that of the prices, else ""."""
        if self.table.region == self.settings.region:
            return ""
        return (
            f"the prices are those of {self.table.region}, and jobs in {self.settings.region} may cost more: "
            f"`psa prices refresh --region {self.settings.region}` reads theirs"
        )

    @property
    def keep_alive_notice(self) -> str:
        """A remark on the time for which instances are kept, or ""."""
        kept = self.settings.jobs.keep_alive
        return f"included: {format_duration(kept)} per job for which its instance is kept" if kept else ""

    @property
    def price_notice(self) -> str:
        """A remark on instance types without a price, or ""."""
        names = [price.instance for price in self.prices if price.hourly is None]
        if not names:
            return ""
        return (
            f"{join_names(names)} {'has' if len(names) == 1 else 'have'} no price in the "
            f"{self.table.description}: run `psa prices refresh`, or set --prices"
        )

    def _dollars(self, estimates: Sequence[CostEstimate]) -> str:
        low, high = (sum(estimate.spot[end] for estimate in estimates) for end in (0, 1))
        demand = sum(estimate.dollars for estimate in estimates)
        if self.prices[0].hourly is None:
            return "without a price"
        return f"${low:.2f} to ${high:.2f} as spot" if self.settings.spot else f"${demand:.2f}"

    def check(self, estimates: Sequence[CostEstimate], spent: float = 0.0) -> None:
        """Raise UserError if the on-demand cost exceeds the limit. spent: by earlier jobs, in USD."""
        dollars = sum(estimate.dollars for estimate in estimates)
        if self.limit is not None and dollars + spent > self.limit:
            before = f" beside the ${spent:.2f} that are spent" if spent else ""
            raise UserError(
                f"--max-cost {self.limit:g}: the jobs are expected to cost ${dollars:.2f} on demand{before}",
                "Allow more, or train a part of the grid with --only",
            )


def plan_remaining_jobs(packs: Sequence[Pack], costs: CostModel, store: Store) -> list[Job]:
    """Return one job per pack, the longest first, with its remaining seconds on one core."""
    jobs = [replace(job, seconds=job.seconds * _left(job.pack, store)) for job in plan_jobs(packs, costs)]
    return sorted(jobs, key=lambda job: -job.seconds)


def _left(pack: Pack, store: Store) -> float:
    return loops_left(store, pack) / (pack.horizon * len(pack.trials))
