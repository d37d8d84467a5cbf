"""The interval between saves of a running trial: short enough to lose little, long enough to cost little."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class SaveInterval:
    """The interval between saves of a running trial, adapted to the measured time of a write.

    The interval is Young's and Daly's sqrt(2 w M) for a write of w seconds and a failure every M seconds,
    but never so short that writing takes more than `share` of the time.
    """

    def __init__(self, failure_every: float = 3600.0, share: float = 0.02) -> None:
        self.failure_every, self.share = failure_every, share
        self.interval = 0.0
        self.saved_at = time.monotonic()

    def should_save(self) -> bool:
        """Return True if the next save is due."""
        return time.monotonic() - self.saved_at >= self.interval

    def timed_save(self, save: Callable[[], None]) -> None:
        """Save, and adapt the interval to the time that it took."""
        begun = time.monotonic()
        save()
        self.saved_at = time.monotonic()
        write = self.saved_at - begun
        self.interval = max(math.sqrt(2 * write * self.failure_every), write / self.share)
