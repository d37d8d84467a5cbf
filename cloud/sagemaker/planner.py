"""What a sweep asks of SageMaker, and what that costs: settings, prices and requests; pure, for dry runs."""

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

JOB_SECONDS: Final = 4 * 3600.0  # of work in one job, where nobody says how many jobs there shall be
SLACK: Final = 2.0  # times the estimate that a job may take out of a budget


class RequestPlanner:
    """The requests for lines, by the settings and the prices of this machine. Raises UserError where these
    will not do.
    """

    def __init__(self, store: Store, machine: Machine, costs: CostModel, where: BackendOptions) -> None:
        self.store, self.machine, self.where = store, machine, where
        found = settings.read_settings()
        self.settings = found.with_spot(True) if where.spot else found
        self.quotes = CostEstimator(price_table(where.prices), self.settings, costs, store, where.max_cost)

    @cached_property
    def code(self) -> Code:
        """What containers run."""
        return build_archive()

    def said(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Each request, checked against AWS's own model, and what they are expected to take. Raises UserError
        for what AWS or the budget would refuse. Nothing is asked of AWS, and nothing written.
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
        """Raise UserError where lines are expected to cost more than is left. spent: dollars."""
        self.quotes.check([self.quotes.of(line) for line in lines], spent)

    def check_device(self) -> None:
        """Raise UserError for a device that an instance type does not have."""
        device = self.machine.device
        lacking = [price.instance for price in self.quotes.prices if not price.gpus]
        if device == "mps" or (device == "cuda" and lacking):
            where = lacking[0] if device == "cuda" else "SageMaker"
            raise UserError(
                f"--device {device}: {where} has none", "Leave it out, or set INSTANCE_TYPE to one with a GPU"
            )

    def lines(self, home: str, jobs: Sequence[Job]) -> list[ManagedJob]:
        """As many as were asked for, or as hold about four hours of work each, or half of what is allowed."""
        each = min(JOB_SECONDS, self.settings.max_run_seconds / 2) * self.quotes.prices[0].vcpus
        count = self.where.jobs or max(1, round(sum(job.seconds for job in jobs) / each))
        return partition_packs(home, jobs, count)

    def price(self, course: JobState) -> Price:
        """Of the instance type that it is the turn of."""
        return self.quotes.prices[course.choice % len(self.quotes.prices)]

    def longest(self, line: ManagedJob) -> int:
        """After how many seconds a job is stopped; with a budget sooner, so that one cannot eat it all."""
        longest = self.settings.max_run_seconds
        if self.where.max_cost is None:
            return longest
        return min(longest, int(SLACK * self.quotes.of(line).seconds + START_SECONDS))

    def cores(self, lines: int) -> int:
        """Of all instances that are at work at once."""
        return self.quotes.prices[0].vcpus * min(lines, self.where.workers or lines)

    def request(self, course: JobState, seconds: int) -> dict[str, Any]:
        """What CreateTrainingJob is asked for the present job of a course."""
        price = self.price(course)
        # when no type has had spot capacity, the rest is trained on demand
        spot = self.settings.spot and course.choice < len(self.quotes.prices)
        return request_of(
            self.settings.with_spot(spot),
            course.line,
            course.attempt,
            Bucket(None, self.settings.bucket, self.settings.prefix),  # for its addresses alone
            self.code,
            instance=price.instance,
            gpu=price.gpus > 0,
            seconds=seconds,
            device=self.machine.device,
        )
