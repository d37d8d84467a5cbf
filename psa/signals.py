"""Signals as a question that is asked between two steps, in place of an exception at any moment."""

from __future__ import annotations

import signal


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the engine reads between two steps.

    No exception can then fall between two halves of a finished loop.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    def __enter__(self) -> StopRequest:
        self._before = {
            number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _frame: object) -> None:
        self.signal = number
