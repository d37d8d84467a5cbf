"""Estimates for training jobs: hours, dollars and bytes, before any of them is submitted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cloud.aws.pricing import Price, PriceTable
from cloud.aws.settings import Settings
from cloud.sagemaker.budget import START_SECONDS
from cloud.sagemaker.jobs.managed_job import ManagedJob
from psa.core.errors import UserError
from psa.core.formatting import format_bytes, format_duration, pluralize
from psa.execution.backend import Job, plan_jobs
from psa.execution.cost_model import CostModel, trial_bytes
from psa.execution.eta import loops_left
from psa.specs.trial import Pack
from psa.storage.store import Store


@dataclass(frozen=True)
class CostEstimate:
    """The estimate for a line. dollars: on demand; spot: lower and upper bound; bytes: kept in the bucket."""

    line: ManagedJob
    seconds: float
    dollars: float
    spot: tuple[float, float]
    bytes: int


class CostEstimator:
    """Prices of the instances in the settings, and estimates for lines. limit: in USD."""

    def __init__(
        self, table: PriceTable, settings: Settings, costs: CostModel, store: Store, limit: float | None
    ) -> None:
        self.table, self.settings, self.costs, self.store, self.limit = table, settings, costs, store, limit
        self.prices = [self.price(name) for name in settings.instances]

    def price(self, instance: str) -> Price:
        """Return the price of an instance type. Raises UserError if the table has none."""
        if instance not in self.table.instances:
            known = ", ".join(sorted(self.table.instances))
            raise UserError(
                f"INSTANCE_TYPE: there is no price of {instance!r} ({self.table.said} have {known})",
                "Choose one of these, or name a table that has it with --prices",
            )
        return self.table.instances[instance]

    def of(self, line: ManagedJob) -> CostEstimate:
        """Estimate the rest of a line from this machine's speed, assuming equally fast cores."""
        price, jobs = self.prices[0], work_of(list(line.packs.values()), self.costs, self.store)
        seconds = START_SECONDS + max(sum(job.seconds for job in jobs) / price.vcpus, jobs[0].seconds)
        stored = sum(
            trial_bytes(trial, pack.horizon) for pack in line.packs.values() for trial in pack.trials
        )
        return CostEstimate(line, seconds, price.dollars(seconds), price.spot_dollars(seconds), stored)

    def said(self, quotes: Sequence[CostEstimate], code: int) -> Iterator[str]:
        """Yield a line per job, and the totals. code: bytes of the archive. Raises UserError beyond the
        limit.
        """
        for quote in quotes:
            packs, trials = (
                pluralize(len(quote.line.packs), "pack"),
                pluralize(len(quote.line.trials), "trial"),
            )
            yield (
                f"{quote.line.job(1)}: {packs}, {trials}, about {format_duration(quote.seconds)} on "
                f"{self.prices[0].instance}, {self._dollars([quote])}, {format_bytes(quote.bytes)}"
            )
        total = sum(quote.seconds for quote in quotes)
        yield (
            f"{pluralize(len(quotes), 'job')}: {total / 3600:.2f} instance-hours, {self._dollars(quotes)} "
            f"({self.table.said}), {format_bytes(sum(quote.bytes for quote in quotes))} of states and "
            "records, "
            f"{format_bytes(code)} of code; times are estimated from this machine's"
        )
        if self.foreign:
            yield self.foreign
        self.check(quotes)

    @property
    def foreign(self) -> str:
        """A remark if the jobs run in another region than that of the prices, else ""."""
        if self.table.region == self.settings.region:
            return ""
        return (
            f"the prices are those of {self.table.region}, and jobs in {self.settings.region} may cost more: "
            "--prices names a table of your own"
        )

    def _dollars(self, quotes: Sequence[CostEstimate]) -> str:
        low, high = (sum(quote.spot[end] for quote in quotes) for end in (0, 1))
        demand = sum(quote.dollars for quote in quotes)
        return f"${low:.2f} to ${high:.2f} as spot" if self.settings.spot else f"${demand:.2f}"

    def check(self, quotes: Sequence[CostEstimate], spent: float = 0.0) -> None:
        """Raise UserError if the estimated on-demand cost exceeds the limit. spent: by earlier jobs, in
        USD.
        """
        dollars = sum(quote.dollars for quote in quotes)
        if self.limit is not None and dollars + spent > self.limit:
            before = f" beside the ${spent:.2f} that are spent" if spent else ""
            raise UserError(
                f"--max-cost {self.limit:g}: the jobs are expected to cost ${dollars:.2f} on demand{before}",
                "Allow more, or train a part of the grid with --only",
            )


def work_of(packs: Sequence[Pack], costs: CostModel, store: Store) -> list[Job]:
    """Return one job per pack, the longest first, with its remaining seconds on one core."""
    jobs = [replace(job, seconds=job.seconds * _left(job.pack, store)) for job in plan_jobs(packs, costs)]
    return sorted(jobs, key=lambda job: -job.seconds)


def _left(pack: Pack, store: Store) -> float:
    return loops_left(store, pack) / (pack.horizon * len(pack.trials))
