"""PID 1 of a training container: run the entry point, forward signals, and write the reason of a failure.

SageMaker shows the content of /opt/ml/output/failure. The entry point cannot write it if it is killed or an
import fails, so its parent does; the parent imports neither psa nor torch.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Final

ENTRY: Final = (sys.executable, "-P", "-m", "cloud.sagemaker.container.entry")
FAILURE: Final = Path("/opt/ml/output/failure")
EXIT_RETRY: Final = 75  # psa.execution.worker.protocol.EXIT_INTERRUPTED
_MOST_LINES: Final = 20
_MOST_CHARACTERS: Final = 960  # SageMaker keeps 1,024, with a prefix and the exit code
_LONGEST_LINE: Final = 2**16
_REST_SECONDS: Final = 5.0  # for output that workers still write after the entry point has exited


class Supervisor:
    """A command whose standard error is forwarded and partly kept."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.tail: deque[str] = deque(maxlen=_MOST_LINES)
        self._signals: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Run the command to its end. Return its exit code, -N after signal N."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)
        self._process = subprocess.Popen(self.command, stderr=subprocess.PIPE)
        self._hand_on()
        assert self._process.stderr is not None  # noqa: S101 -- for the type checker: it is a pipe
        reader = threading.Thread(target=self._read, args=(self._process.stderr,), daemon=True)
        reader.start()
        code = self._process.wait()
        reader.join(_REST_SECONDS)
        return code

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._signals.append(number)
        self._hand_on()

    def _hand_on(self) -> None:
        """Forward the signals that have arrived, once the process exists."""
        with contextlib.suppress(IndexError):  # a signal handler may run between two lines and empty the list
            while self._process is not None:
                self._process.send_signal(self._signals.pop(0))

    def _read(self, errors: IO[bytes]) -> None:
        while line := errors.readline(_LONGEST_LINE):
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
            if text := line.decode(errors="replace").rstrip():
                self.tail.append(text)


def failure_reason(code: int, tail: Sequence[str]) -> str:
    """Return why a command failed, in at most 960 characters: its signal and the last lines of its errors."""
    head = ""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        cause = ", most often for lack of memory" if -code == signal.SIGKILL else ""
        head = f"the training process was killed by signal {name}{cause}"
    lines: list[str] = []
    room = _MOST_CHARACTERS - len(head) - 1
    for line in reversed(tail):
        if len(line) >= room:
            if not lines:  # the end of a long line is better than nothing
                lines.append(line[-room:])
            break
        room -= len(line) + 1
        lines.append(line)
    return "\n".join([*filter(None, [head]), *reversed(lines)])


def main(command: Sequence[str] = ENTRY, failure: Path = FAILURE) -> int:
    """Run the entry point. Return its exit code, 128 + N after signal N."""
    supervisor = Supervisor(command)
    code = supervisor.run()
    if code not in (0, EXIT_RETRY):
        _leave(failure, failure_reason(code, list(supervisor.tail)))
    return code if code >= 0 else 128 - code


def _leave(failure: Path, text: str) -> None:
    """Write the reason, unless the entry point has written its own."""
    with contextlib.suppress(OSError):
        failure.parent.mkdir(parents=True, exist_ok=True)
        if not failure.exists() or not failure.read_text(errors="replace").strip():
            failure.write_text(text)


if __name__ == "__main__":
    sys.exit(main())
