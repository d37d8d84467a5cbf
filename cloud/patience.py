"""Retry while a service is unreachable, for example because a laptop sleeps or a network fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from cloud.aws.errors import Unreachable

logger = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 1800.0  # how long a service may be unreachable
AGAIN_SECONDS: Final = 10.0  # between two attempts
NAP: Final = 0.25  # seconds between two ticks
_Result = TypeVar("_Result")
Tick = TypeVar("Tick")


class Patience:
    """The time since a service became unreachable. unharmed: what continues without it, for the warning."""

    def __init__(self, unharmed: str) -> None:
        self._unharmed = unharmed
        self._since: float | None = None

    def lost(self, trouble: Unreachable) -> None:
        """Record a failed request. Warn at the first; raise `trouble` if the failures last too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            logger.warning("%s; the %s go on, and it is tried again", trouble.message, self._unharmed)
        elif now - self._since > PATIENCE_SECONDS:
            raise trouble

    def regained(self) -> None:
        """Record a successful request."""
        self._since = None


def patiently(action: Callable[[], _Result], tick: Tick) -> Generator[Tick, None, _Result]:
    """Retry an action until the storage is reachable; yield `tick` several times a second meanwhile.

    The action must be safe to repeat. Raises Unreachable when that takes too long.
    """
    patience = Patience("packs")
    while True:
        try:
            return action()
        except Unreachable as trouble:
            patience.lost(trouble)
        until = time.monotonic() + AGAIN_SECONDS
        while time.monotonic() < until:
            yield tick
            time.sleep(NAP)


def insist(action: Callable[[], _Result]) -> _Result:
    """Retry an action until the service is reachable, and return its result. Raises Unreachable."""
    waiting = patiently(action, None)
    while True:
        try:
            next(waiting)
        except StopIteration as end:
            result: _Result = end.value
            return result
