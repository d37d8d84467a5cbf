"""The phases of the set-up: one line each with its time; what pip and Poetry print goes to a log file."""

import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOG = ROOT / ".build" / "set-up.log"
SHOWN = 15  # last lines of the log that are printed after a failure
_SIGNS = "|/-\\"


class SetUpError(Exception):
    """The set-up cannot continue; the message says why and what to do."""


def say(line: str) -> None:
    """Print a line."""
    print(f"set-up: {line}", flush=True)


@contextlib.contextmanager
def phase(text: str) -> Iterator[None]:
    """Print a phase and, at its end, its time: on a terminal with a spinner meanwhile."""
    started, ended = time.monotonic(), threading.Event()
    terminal = sys.stdout.isatty()
    print(f"set-up: {text} ...", end="", flush=True)

    def spin() -> None:
        for sign in itertools.cycle(_SIGNS):
            print(f"\rset-up: {text} ... {sign} {_elapsed(started)} ", end="", flush=True)
            if ended.wait(0.2):
                return

    spinner = threading.Thread(target=spin, daemon=True)
    if terminal:
        spinner.start()
    try:
        yield
    except BaseException:
        outcome = f"failed after {_elapsed(started)}"
        raise
    else:
        outcome = _elapsed(started)
    finally:
        ended.set()
        if terminal:
            spinner.join()
            print(f"\r\033[Kset-up: {text} ... {outcome}", flush=True)
        else:
            print(f" {outcome}", flush=True)


def _elapsed(since: float) -> str:
    """Return the time since a moment, as `12 s` or `2 min 05 s`."""
    seconds = round(time.monotonic() - since)
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"


def run(*command: str | Path) -> None:
    """Run a command in the project's folder, its output in the log. Raises SetUpError that names both."""
    line = " ".join(Path(part).name if isinstance(part, Path) else part for part in command)
    LOG.parent.mkdir(exist_ok=True)
    with LOG.open("ab") as log:
        log.write(f"$ {line}\n".encode())
        log.flush()
        done = subprocess.run(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, close_fds=False, check=False
        )
    if done.returncode:
        raise SetUpError(
            f"`{line}` failed; when that is mended, make goes on from here. The last lines of {LOG}:\n"
            + "\n".join(_last_lines())
        )


def _last_lines() -> list[str]:
    with LOG.open(encoding="utf-8", errors="replace") as log:
        return [f"  {line.rstrip()}" for line in deque(log, SHOWN)]
