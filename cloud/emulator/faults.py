"""What can go wrong with AWS, to be asked for in a rehearsal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

AWS_GRACE: Final = 120.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, kw_only=True)
class Faults:
    """None of them by default.

    quota: jobs at once per instance type, spot and on demand counted apart; one more is refused.
    throttle: requests a second that SageMaker answers; more are refused.
    no_capacity: instance types that are never to be had.
    interrupt_every: seconds of training after which the capacity of a spot job is taken back.
    interruptions: how often per job, None for without end.
    grace: seconds between SIGTERM and SIGKILL.
    no_network: containers reach no network, as in a VPC without a gateway.
    """

    quota: int | None = None
    throttle: float | None = None
    no_capacity: frozenset[str] = frozenset()
    interrupt_every: float | None = None
    interruptions: int | None = None
    grace: float = AWS_GRACE
    no_network: bool = False

    def interrupts(self, spot: bool, so_far: int) -> bool:
        """Whether an attempt of a job is going to be interrupted."""
        left = self.interruptions is None or so_far < self.interruptions
        return spot and self.interrupt_every is not None and left
