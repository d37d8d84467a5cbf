"""A command of the user's at the end of a sweep, for example one that sends a message."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from psa.core.errors import EXIT_USER_ERROR, UserError, one_line

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS: Final = 60.0


def parse_notify(text: str) -> list[str]:
    """Return the words of a command. Raises UserError for one that cannot be run."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise UserError(f"--notify must be a command, got {text} ({error})", "Close its quotes") from None
    if not words or shutil.which(words[0]) is None:
        raise UserError(
            f"--notify must name a program that can be run, got {text or 'nothing'}",
            "Name a script by its path, or a program on PATH",
        )
    return words


@dataclass
class SweepEnd:
    """The end of a sweep: its exit code, and the last lines that it has shown."""

    exit_code: int = EXIT_USER_ERROR
    lines: list[str] = field(default_factory=list)

    def add(self, line: str) -> str:
        """Add a line, and return it."""
        self.lines.append(line)
        return line


@contextlib.contextmanager
def notified(command: str | None, sweep: str) -> Iterator[SweepEnd]:
    """Run the command of `--notify` when the block has ended, however it ends.

    The command receives PSA_SWEEP (the name of the grid), PSA_EXIT_CODE and PSA_SUMMARY (the last lines of
    the sweep, or its error) in its environment, and the summary on its standard input. Its failure is a
    warning.
    """
    end = SweepEnd()
    try:
        yield end
    except UserError as error:
        end.add(f"error: {error}")
        raise
    finally:
        if command is not None:
            _run(parse_notify(command), sweep, end)


def _run(words: Sequence[str], sweep: str, end: SweepEnd) -> None:
    summary = "\n".join(end.lines)
    facts = {"PSA_SWEEP": sweep, "PSA_EXIT_CODE": str(end.exit_code), "PSA_SUMMARY": summary}
    try:
        done = subprocess.run(
            words,
            input=summary + "\n",
            env={**os.environ, **facts},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
        reason = f"exit code {done.returncode}: {one_line(done.stderr)[-300:]}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        reason = f"no end after {_PATIENCE_SECONDS:g} s"
    except (OSError, ValueError) as error:
        reason = str(error)
    if reason:
        logger.warning("the command of --notify failed (%s); the sweep is not affected", reason)
