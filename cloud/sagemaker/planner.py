"""The requests of a sweep to SageMaker and their cost, computed without side effects, for dry runs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from cloud.aws.bucket import Bucket
from cloud.aws.pricing import Price, price_table
from cloud.aws.settings import Settings
from cloud.aws.settings.job_settings import check_place_in_queue
from cloud.sagemaker.budget import STARTUP_SECONDS, Budget
from cloud.sagemaker.container.code import CodeArchive, build_archive
from cloud.sagemaker.estimate import CostEstimator
from cloud.sagemaker.jobs.job_state import JobState
from cloud.sagemaker.jobs.managed_job import ManagedJob, partition_jobs
from cloud.sagemaker.request import build_request, check_request
from cloud.workspace import NO_ID, read_workspace_id
from psa.core.errors import UserError
from psa.core.formatting import join_names
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.storage.store import Store

JOB_SECONDS: Final = 4 * 3600.0  # of work in one job, unless the number of jobs is given
SLACK: Final = 2.0  # multiple of the estimate that a job may take from a budget


class RequestPlanner:
    """A planner of jobs and requests. found: the settings, which must be complete to submit anything.

    Raises UserError if the settings, the options or the prices are invalid.
    """

    def __init__(
        self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions, found: Settings
    ) -> None:
        self.store, self.machine, self.options = store, machine, options
        jobs = found.jobs.overridden(vars(options))
        check_place_in_queue(jobs)
        self.settings = dataclasses.replace(found, spot=found.spot or options.spot, jobs=jobs)
        table = price_table(options.prices, found.region)
        self.estimator = CostEstimator(table, self.settings, costs, store, options.max_cost)
        self.budget = Budget(options.max_cost, self.settings.jobs.keep_alive)

    @cached_property
    def code(self) -> CodeArchive:
        """The code archive for the containers."""
        return build_archive()

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield each request, validated by AWS's own model, and the estimated totals. Nothing is sent or
        written. Raises UserError for what AWS or the budget would refuse.
        """
        workspace = read_workspace_id(self.store.models)
        for request in self._requests(workspace, jobs):
            yield json.dumps(request)
        if workspace == NO_ID:
            yield f"{NO_ID} in the names stands for the name that this folder gets with its first sweep"
        yield from self._placeholders()
        yield from self._estimates(workspace, jobs)

    def summary(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield the estimates of `preview` without the requests, which are validated all the same."""
        workspace = read_workspace_id(self.store.models)
        for _ in self._requests(workspace, jobs):
            pass
        yield from self._placeholders()
        yield from self._estimates(workspace, jobs)

    def _requests(self, workspace: str, jobs: Sequence[Job]) -> Iterator[dict[str, Any]]:
        self.check_device()
        for managed in self.managed_jobs(workspace, jobs):
            request = self.request(JobState(managed, attempt=1), self.max_seconds(managed))
            check_request(request)
            yield request

    def _placeholders(self) -> Iterator[str]:
        if self.settings.missing:
            yield (
                f"placeholders stand for {join_names(self.settings.missing)}: set them in .env or the "
                "environment before a submission, and run `psa check aws`"
            )

    def _estimates(self, workspace: str, jobs: Sequence[Job]) -> Iterator[str]:
        estimates = [self.estimator.estimate(managed) for managed in self.managed_jobs(workspace, jobs)]
        yield from self.estimator.describe(estimates, self.code.size)

    def check(self, managed_jobs: Sequence[ManagedJob], spent: float) -> None:
        """Raise UserError if the estimated cost exceeds the budget. spent: by earlier jobs, in USD."""
        self.estimator.check([self.estimator.estimate(managed) for managed in managed_jobs], spent)

    def check_device(self) -> None:
        """Raise UserError if an instance type does not have the device."""
        device = self.machine.device
        lacking = [price.instance for price in self.estimator.prices if not price.gpus]
        if device == "mps" or (device == "cuda" and lacking):
            where = lacking[0] if device == "cuda" else "SageMaker"
            raise UserError(
                f"--device must be available, got {device}: {where} has none",
                "Leave it out, or set INSTANCE_TYPE to one with a GPU",
            )

    def managed_jobs(self, workspace: str, jobs: Sequence[Job]) -> list[ManagedJob]:
        """Return managed jobs: the requested number, else of about four hours each."""
        each = min(JOB_SECONDS, self.settings.max_run_seconds / 2) * self.estimator.prices[0].vcpus
        count = self.options.jobs or max(1, round(sum(job.seconds for job in jobs) / each))
        return partition_jobs(workspace, jobs, count)

    def price(self, state: JobState) -> Price:
        """Return the price of the present instance type of a managed job."""
        return self.estimator.prices[state.choice % len(self.estimator.prices)]

    def max_seconds(self, managed: ManagedJob) -> int:
        """Return the maximum run time in seconds, shorter with a budget, so that no job spends it all."""
        longest = self.settings.max_run_seconds
        if self.options.max_cost is None:
            return longest
        return min(longest, int(SLACK * self.estimator.estimate(managed).seconds + STARTUP_SECONDS))

    def cores(self, managed_jobs: int) -> int:
        """Return the number of cores of all instances that run at once."""
        return self.estimator.prices[0].vcpus * min(managed_jobs, self.options.workers or managed_jobs)

    def request(self, state: JobState, seconds: int) -> dict[str, Any]:
        """Return the CreateTrainingJob request for the present job of a managed job."""
        price = self.price(state)
        # after no type had spot capacity, the rest is trained on demand
        spot = self.settings.spot and state.choice < len(self.estimator.prices)
        return build_request(
            dataclasses.replace(self.settings, spot=spot),
            state.managed_job,
            state.attempt,
            Bucket(None, self.settings.bucket, self.settings.prefix),  # only its URIs are used
            self.code,
            instance=price.instance,
            gpu=price.gpus > 0,
            seconds=seconds,
            device=self.machine.device,
        )
