"""Stop signals as a flag that is checked between two steps, in place of an exception at any moment."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Iterator
from typing import Any, Final, Self

# Ctrl-C; a batch system's end; a closed terminal; a used-up share of CPU time; warnings of Slurm and SGE
STOPPING: Final = frozenset(
    {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGUSR1, signal.SIGUSR2}
)


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold back signals that stop, also in processes started meanwhile, until they enter a StopRequest.

    A process that imports torch for seconds could otherwise only be killed by them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Deliver the signals that were held back in this process."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def heeded() -> list[int]:
    """Return the signals that stop this process: `nohup` and batch scripts ignore those not meant for it."""
    return [
        number
        for number in sorted(STOPPING)
        if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN
    ]


class StopRequest:
    """A flag that stop signals set, and that the engine reads between two steps.

    No exception can then interrupt the end of a loop. Only the main thread may handle signals: in another
    one their handling is unchanged, and the flag is never set.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        # not an Event: this is what a signal handler may put into at any moment
        self._woken = queue.SimpleQueue[None]()
        self._before: list[dict[int, Any]] = []  # the handlers before each of the blocks, which may be nested

    def __call__(self) -> bool:
        """Return True once a stop has been requested."""
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """The exit code that shells expect after the signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def wait(self, seconds: float) -> None:
        """Sleep, at most until a stop is requested."""
        if not self():
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=seconds)

    def __enter__(self) -> Self:
        mine = threading.current_thread() is threading.main_thread()
        handlers = {number: signal.signal(number, self._asked) for number in (heeded() if mine else ())}
        self._before.append(handlers)
        if mine:
            let_through()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.pop().items():
            signal.signal(number, handler)

    def _asked(self, number: int, _frame: object) -> None:
        self.signal = number
        self._woken.put(None)
