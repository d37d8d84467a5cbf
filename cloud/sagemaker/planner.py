"""The requests of a sweep to SageMaker and their cost, computed without side effects, for dry runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from cloud.aws import settings
from cloud.aws.bucket import Bucket
from cloud.aws.pricing import Price, price_table
from cloud.sagemaker.budget import START_SECONDS
from cloud.sagemaker.container.code import Code, build_archive
from cloud.sagemaker.estimate import CostEstimator
from cloud.sagemaker.jobs.course import JobState
from cloud.sagemaker.jobs.managed_job import ManagedJob, partition_packs
from cloud.sagemaker.request import check_request, request_of
from cloud.workspace import NO_ID, read_workspace_id
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.storage.store import Store

JOB_SECONDS: Final = 4 * 3600.0  # of work in one job, unless the number of jobs is given
SLACK: Final = 2.0  # multiple of the estimate that a job may take from a budget


class RequestPlanner:
    """A planner of lines and requests from the settings and prices of this machine. Raises UserError if these
    are invalid.
    """

    def __init__(self, store: Store, machine: Machine, costs: CostModel, where: BackendOptions) -> None:
        self.store, self.machine, self.where = store, machine, where
        found = settings.read_settings()
        self.settings = found.with_spot(True) if where.spot else found
        self.quotes = CostEstimator(price_table(where.prices), self.settings, costs, store, where.max_cost)

    @cached_property
    def code(self) -> Code:
        """The code archive for the containers."""
        return build_archive()

    def said(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield each request, validated by AWS's own model, and the estimated totals. Nothing is sent or
        written. Raises UserError for what AWS or the budget would refuse.
        """
        self.check_device()
        home = read_workspace_id(self.store.models)
        lines = self.lines(home, jobs)
        for line in lines:
            request = self.request(JobState(line, attempt=1), self.longest(line))
            check_request(request)
            yield json.dumps(request)
        if home == NO_ID:
            yield f"{NO_ID} in the names stands for the name that this folder gets with its first sweep"
        yield from self.quotes.said([self.quotes.of(line) for line in lines], self.code.size)

    def check(self, lines: Sequence[ManagedJob], spent: float) -> None:
        """Raise UserError if the estimated cost of lines exceeds the rest of the budget. spent: in USD."""
        self.quotes.check([self.quotes.of(line) for line in lines], spent)

    def check_device(self) -> None:
        """Raise UserError if an instance type does not have the device."""
        device = self.machine.device
        lacking = [price.instance for price in self.quotes.prices if not price.gpus]
        if device == "mps" or (device == "cuda" and lacking):
            where = lacking[0] if device == "cuda" else "SageMaker"
            raise UserError(
                f"--device {device}: {where} has none", "Leave it out, or set INSTANCE_TYPE to one with a GPU"
            )

    def lines(self, home: str, jobs: Sequence[Job]) -> list[ManagedJob]:
        """Return lines: as many as requested, else of about four hours each (at most half the run time
        limit).
        """
        each = min(JOB_SECONDS, self.settings.max_run_seconds / 2) * self.quotes.prices[0].vcpus
        count = self.where.jobs or max(1, round(sum(job.seconds for job in jobs) / each))
        return partition_packs(home, jobs, count)

    def price(self, course: JobState) -> Price:
        """Return the price of the present instance type of a line."""
        return self.quotes.prices[course.choice % len(self.quotes.prices)]

    def longest(self, line: ManagedJob) -> int:
        """Return the maximum run time in seconds, shorter with a budget, so that no job spends it all."""
        longest = self.settings.max_run_seconds
        if self.where.max_cost is None:
            return longest
        return min(longest, int(SLACK * self.quotes.of(line).seconds + START_SECONDS))

    def cores(self, lines: int) -> int:
        """Return the number of cores of all instances that run at once."""
        return self.quotes.prices[0].vcpus * min(lines, self.where.workers or lines)

    def request(self, course: JobState, seconds: int) -> dict[str, Any]:
        """Return the CreateTrainingJob request for the present job of a line."""
        price = self.price(course)
        # after no type had spot capacity, the rest is trained on demand
        spot = self.settings.spot and course.choice < len(self.quotes.prices)
        return request_of(
            self.settings.with_spot(spot),
            course.line,
            course.attempt,
            Bucket(None, self.settings.bucket, self.settings.prefix),  # only its URIs are used
            self.code,
            instance=price.instance,
            gpu=price.gpus > 0,
            seconds=seconds,
            device=self.machine.device,
        )
