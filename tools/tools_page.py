"""Write docs/tools.md: the help text of every command.

    python tools/tools_page.py [--check]

A test checks that the page is up to date.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/tools.md"
WIDTH: Final = "100"
INTRODUCTION: Final = """\
# Every command

The help text of each command. `make docs` generates this page, and a test checks that it is up to date.
The [README](../README.md) shows how to use the commands together. `psa --install-completion` enables tab
completion.

Exit codes of all commands; the help text of a command lists further ones:

| code | meaning |
|---|---|
| 0 | finished |
| 1 | finished, but some parts failed; or Ray could not run |
| 2 | the command could not run: one line on standard error names the error and a remedy |
| 130, 143 | stopped by Ctrl-C or SIGTERM; everything that was finished is stored |
"""


def scripts() -> dict[str, str]:
    """Return the entry point of each installed command."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return {str(name): str(where) for name, where in found.items()}


def words() -> Iterator[tuple[str, ...]]:
    """Yield every command with a help text of its own, as its arguments."""
    from psa.cli.app import PSA
    from psa.experiments.study import study_names

    yield ("psa",)
    yield from (("psa", name) for name in PSA if not name.startswith("-"))
    yield from (("train", "--study", study) for study in sorted(study_names() - {"ablation"}))
    yield from ((name,) for name in scripts() if name not in ("psa", "train", "clean"))  # those are psa's


def said(command: tuple[str, ...]) -> str:
    """Return the output of a command with --help, on a terminal of fixed width."""
    module, _, name = scripts()[command[0]].partition(":")
    start: Callable[[], None] = getattr(importlib.import_module(module), name)
    arguments, out = sys.argv, io.StringIO()
    try:
        sys.argv = [*command, "--help"]
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            start()
    finally:
        sys.argv = arguments
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def page() -> str:
    """Return the whole page. COLUMNS must be set before."""
    parts = [f"## {' '.join(command)}\n\n```text\n{said(command)}\n```\n" for command in words()]
    return "\n".join([INTRODUCTION, *parts])


def main(arguments: list[str]) -> int:
    """Write the page. With --check write nothing and return 1 if the page is out of date."""
    os.environ["COLUMNS"] = WIDTH
    if arguments != ["--check"]:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        print(f"{PAGE.relative_to(ROOT)} is not what the commands say; run `make docs`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
