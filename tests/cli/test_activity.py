"""The present step of a command: on a terminal at once, elsewhere now and then on standard error."""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from psa.cli.output import activity as module
from psa.cli.output.activity import activity


def until(true: object) -> None:
    """Wait until a function returns something true."""
    deadline = time.monotonic() + 60
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_steps_are_lines_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the clock and the time so far; standard output keeps what belongs to it."""
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.02)
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    with activity(Console(file=io.StringIO()), "reading the records") as show:
        until(err.getvalue)
        show("figure 1 \x1b[31m")
        until(lambda: "figure" in err.getvalue())
    lines = err.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \| reading the records \| .+ s", lines[0])
    assert " | figure 1 \\x1b[31m | " in lines[-1]
    assert capsys.readouterr().out == ""


def test_a_fast_command_prints_no_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Its standard error stays empty, as scripts expect."""
    with activity(Console(file=io.StringIO()), "reading") as show:
        show("writing")
    assert capsys.readouterr().err == ""


def test_a_terminal_shows_the_step_and_removes_it(tmp_path: Path) -> None:
    """A spinner, on the console of the command; lines printed meanwhile stay."""
    out = Console(file=io.StringIO(), force_terminal=True, width=80)
    with activity(out, f"writing {tmp_path.name}") as show:
        show("figure 2")
        out.print("a line")
    assert isinstance(out.file, io.StringIO)
    text = out.file.getvalue()
    assert "figure 2" in text
    assert "a line" in text
    assert text.rindex("\x1b[") > text.rindex("figure 2")


def test_an_error_ends_the_display(capsys: pytest.CaptureFixture[str]) -> None:
    """It passes through, and the thread of the lines has ended."""
    with pytest.raises(ValueError, match="x"), activity(Console(file=io.StringIO()), "reading"):
        raise ValueError("x")
    assert capsys.readouterr().err == ""
