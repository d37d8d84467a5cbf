"""A limit in dollars that jobs are kept within: what has been billed, and what those at work may cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cloud.aws.job_description import ENDED
from psa.core.errors import UserError

START_SECONDS: Final = 120.0  # billed before training begins: the container and the data
LEAST_SECONDS: Final = 300  # that a job is worth starting for: one that can only start up is money lost


class Budget:
    """limit: None is none. A job that is at work counts with the most that it may cost."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.spent: dict[str, float] = {}
        self.reserved: dict[str, float] = {}

    def seconds(self, hourly: float, wanted: int) -> int:
        """For how long a job may run: as long as it wants, or as what is left pays for; 0 while others have
        it all. Raises UserError where everything is spent.
        """
        if self.limit is None or not hourly:
            return wanted
        left = self.limit - sum(self.spent.values()) - sum(self.reserved.values())
        paid = int(3600 * left / hourly)
        if paid >= min(wanted, LEAST_SECONDS):
            return min(wanted, paid)
        if self.reserved:
            return 0
        raise UserError(
            f"--max-cost {self.limit:g}: ${sum(self.spent.values()):.2f} are spent and not all is trained",
            "What is finished is at home; the same command with a larger --max-cost goes on",
        )

    def begun(self, job: str, dollars: float) -> None:
        """A job was submitted that costs no more than so much."""
        self.spent.pop(job, None)
        self.reserved[job] = dollars

    def ended(self, job: str, dollars: float) -> None:
        """A job has cost so much."""
        self.reserved.pop(job, None)
        self.spent[job] = dollars

    def charge(self, said: Mapping[str, Any], hourly: float, watched: bool) -> None:
        """Count a job of an earlier time, by its description: with what it was billed, or with the most that
        it may be. watched: whether its end will be told; of another one at work the most counts as spent.
        """
        job, is_over = said["TrainingJobName"], said["TrainingJobStatus"] in ENDED
        if is_over:
            self.ended(job, said.get("BillableTimeInSeconds", 0) / 3600 * hourly)
            return
        most = said["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600 * hourly
        if watched:
            self.begun(job, most)
        else:
            self.ended(job, most)
