"""A limit in USD on the cost of jobs: what has been billed, plus the maximum cost of running jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cloud.aws.job_description import ENDED_STATUSES
from cloud.aws.job_queue import ATTEMPTS_LEFT
from psa.core.errors import UserError

STARTUP_SECONDS: Final = 120.0  # billed before training starts: the container and the data
MIN_JOB_SECONDS: Final = 300  # shortest job worth starting: a shorter one only pays for start-up


class Budget:
    """A budget. limit: in USD, None for no limit. A running job counts with its maximum cost.

    keep_alive: seconds for which an instance is kept after a job, and billed.
    """

    def __init__(self, limit: float | None, keep_alive: int = 0) -> None:
        self.limit, self.keep_alive = limit, keep_alive
        self.spent: dict[str, float] = {}
        self.reserved: dict[str, float] = {}

    def allowed_seconds(self, hourly: float, wanted: int) -> int:
        """Return how many seconds a job may run: `wanted`, or what the rest of the budget pays for; 0 while
        running jobs reserve all of it. Raises UserError if the budget is spent.
        """
        if self.limit is None or not hourly:
            return wanted
        left = self.limit - sum(self.spent.values()) - sum(self.reserved.values())
        paid = int(3600 * left / hourly) - self.keep_alive
        if paid >= min(wanted, MIN_JOB_SECONDS):
            return min(wanted, paid)
        if self.reserved:
            return 0
        raise UserError(
            f"--max-cost {self.limit:g}: ${sum(self.spent.values()):.2f} spent, with unfinished trials",
            "Finished trials are downloaded; run the same command with a larger --max-cost to resume",
        )

    def reserve(self, job: str, dollars: float) -> None:
        """Reserve the maximum cost of a submitted job."""
        self.spent.pop(job, None)
        self.reserved[job] = dollars

    def spend(self, job: str, dollars: float) -> None:
        """Record the cost of a finished job."""
        self.reserved.pop(job, None)
        self.spent[job] = dollars

    def charge(self, description: Mapping[str, Any], hourly: float, watched: bool) -> None:
        """Charge a job of an earlier sweep by its description: the billed cost, or the maximum cost of a
        running one. watched: the controller will report its end; the cost of another running job counts as
        spent.
        """
        job, is_over = description["TrainingJobName"], description["TrainingJobStatus"] in ENDED_STATUSES
        kept = description.get("ResourceConfig", {}).get("KeepAlivePeriodInSeconds", 0)
        if is_over:
            pool = description.get("WarmPoolStatus", {})
            if pool.get("Status") != "Available":  # it has ended, and its bill is final
                kept = pool.get("ResourceRetainedBillableTimeInSeconds", 0)
            self.spend(job, (description.get("BillableTimeInSeconds", 0) + kept) / 3600 * hourly)
            return
        seconds = description["StoppingCondition"]["MaxRuntimeInSeconds"] + kept
        if ATTEMPTS_LEFT in description:  # of a queue, which may have started some
            seconds = description.get("BillableTimeInSeconds", 0) + description[ATTEMPTS_LEFT] * seconds
        most = seconds / 3600 * hourly
        if watched:
            self.reserve(job, most)
        else:
            self.spend(job, most)
