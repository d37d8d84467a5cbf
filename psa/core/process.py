"""The process of a command: its standard streams, and whether psa owns the process."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Final, TextIO

from psa.core.errors import printable

_STREAMS: Final = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))
# On one or two columns the help of a command never ends (cyclopts 5, 2026-11-30); its lines are padded to the
# width, so that very wide ones fill the memory.
_NARROWEST: Final = 20
_WIDEST: Final = 1_000
_owned = False
_document_stream: TextIO | None = None


def take_over() -> None:
    """Prepare the standard streams of a process that runs a command and nothing else."""
    global _owned  # noqa: PLW0603 - a fact of the process
    _owned = True
    _limit_width()
    for descriptor, (name, flags, mode) in enumerate(_STREAMS):
        _open_closed(descriptor, flags)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        escape_unencodable(stream)


def _limit_width() -> None:
    """Set COLUMNS, which rich and cyclopts read, if the terminal or COLUMNS is too narrow or too wide."""
    width, given = shutil.get_terminal_size().columns, os.environ.get("COLUMNS", "")
    usable = min(max(width, _NARROWEST), _WIDEST)
    if usable != width or (given and given != str(width)):
        os.environ["COLUMNS"] = str(usable)


def is_owned() -> bool:
    """Return whether this process runs a command of psa, and not a notebook or a program of the user's."""
    return _owned


def escape_unencodable(stream: TextIO) -> None:
    """Write what a terminal cannot encode as an escape, in place of an error half-way."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def reserved_stdout() -> Iterator[None]:
    """Keep standard output free for documents within the block: all else printed goes to standard error."""
    global _document_stream  # noqa: PLW0603 - a fact of the process, as standard output is
    _document_stream = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        _document_stream = None


def document_stream() -> TextIO:
    """Return the stream for documents: standard output, also where it is reserved."""
    return _document_stream or sys.stdout


class _Printable(logging.Formatter):
    """A log formatter that escapes control characters of terminals."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return printable(super().format(record))


def log_to_stderr(debug: bool) -> None:
    """Write the logs of psa to standard error, from warnings and notes on; with `debug` all of them."""
    handler = logging.StreamHandler()  # a new one: standard error may be another than at the last command
    handler.setFormatter(_Printable("%(levelname)s: %(message)s"))
    for package in ("psa", "cloud"):
        logger = logging.getLogger(package)
        logger.setLevel(logging.DEBUG if debug else logging.INFO)
        logger.handlers = [handler]


def _open_closed(descriptor: int, flags: int) -> None:
    """Open a closed descriptor on /dev/null: the next file opened would take its number, and a record would
    receive what a library prints.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, flags)  # the lowest that is free, and so this one
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def discard_output() -> None:
    """Discard standard output: otherwise the interpreter would fail once again at its exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def run_captured(command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Run a command without input and capture what it prints; bytes that are not text are replaced.

    Raises OSError if it cannot be run, subprocess.TimeoutExpired after `timeout` seconds.
    """
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
