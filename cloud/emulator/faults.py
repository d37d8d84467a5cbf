"""Failures of AWS that a rehearsal can simulate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

AWS_GRACE: Final = 120.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Simulated failures; none by default.

    quota: concurrent jobs per instance type, with spot and on-demand counted separately; more are refused.
    throttle: requests per second that SageMaker answers; more are refused.
    no_capacity: instance types that are never available.
    interrupt_every: seconds of training after which the capacity of a spot job is reclaimed.
    interruptions: maximum number per job, None for no limit.
    grace: seconds between SIGTERM and SIGKILL.
    no_network: containers cannot reach the network, as in a VPC without a gateway.
    """

    quota: int | None = None
    throttle: float | None = None
    no_capacity: frozenset[str] = frozenset()
    interrupt_every: float | None = None
    interruptions: int | None = None
    grace: float = AWS_GRACE
    no_network: bool = False

    def interrupts(self, spot: bool, so_far: int) -> bool:
        """Return whether the present attempt of a job will be interrupted."""
        left = self.interruptions is None or so_far < self.interruptions
        return spot and self.interrupt_every is not None and left
