"""Retry while a service is unreachable, for example because a laptop sleeps or a network fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from cloud.aws.errors import Unreachable

logger = logging.getLogger(__name__)

MAX_OUTAGE_SECONDS: Final = 1800.0  # how long a service may be unreachable
RETRY_SECONDS: Final = 10.0  # between two attempts
WAIT_TICK_SECONDS: Final = 0.25  # seconds between two ticks
_Result = TypeVar("_Result")
Tick = TypeVar("Tick")


class OutageTimer:
    """The time since a service became unreachable. unaffected: what continues without it, for the warning."""

    def __init__(self, unaffected: str) -> None:
        self._unaffected = unaffected
        self._since: float | None = None

    def record_failure(self, trouble: Unreachable) -> None:
        """Record a failed request. Warn at the first; raise `trouble` if the failures last too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning("%s; retrying, the %s continue", trouble.message, self._unaffected)
        elif now - self._since > MAX_OUTAGE_SECONDS:
            raise trouble

    def record_success(self) -> None:
        """Record a successful request."""
        self._since = None


def retry_with_ticks(action: Callable[[], _Result], tick: Tick) -> Generator[Tick, None, _Result]:
    """Retry an action until the storage is reachable; yield `tick` several times a second meanwhile.

    The action must be safe to repeat. Raises Unreachable when that takes too long.
    """
    outage = OutageTimer("packs")
    while True:
        try:
            return action()
        except Unreachable as trouble:
            outage.record_failure(trouble)
        until = time.monotonic() + RETRY_SECONDS
        while time.monotonic() < until:
            yield tick
            time.sleep(WAIT_TICK_SECONDS)


def retry_until_reachable(action: Callable[[], _Result]) -> _Result:
    """Retry an action until the service is reachable, and return its result. Raises Unreachable."""
    waiting = retry_with_ticks(action, None)
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            result: _Result = end.value
            return result
