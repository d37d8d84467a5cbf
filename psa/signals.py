"""Signals as a question that is asked between two steps, in place of an exception at any moment."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading


class StopRequest:
    """Turns SIGINT and SIGTERM into a flag that the engine reads between two steps.

    No exception can then fall between two halves of a finished loop. Only the main thread may handle signals:
    in another one they stay as they are, and nothing asks for a stop.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        # not an Event: this is what a signal handler may put into at any moment
        self._woken = queue.SimpleQueue[None]()

    def __call__(self) -> bool:
        """Whether a stop was asked for."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """What the shell expects of a process that a signal has ended: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until a stop is asked for."""
        if not self():
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=seconds)

    def __enter__(self) -> StopRequest:
        mine = threading.current_thread() is threading.main_thread()
        self._before = {
            number: signal.signal(number, self._asked) for number in (signal.SIGINT, signal.SIGTERM) if mine
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _frame: object) -> None:
        self.signal = number
        self._woken.put(None)
