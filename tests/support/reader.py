"""A reader of the documentation, who has what the page so far told him to install, and types its lines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from paths import ROOT
from set_up import load_tool

from cloud.emulator.containers.environment import make_environment
from psa.core.extras import DISTRIBUTION

# Of the tests' own variables none reaches the reader's shell.
SHELL = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


class Reader:
    """A shell in a folder, beside the environment that the lines typed so far have made there.

    `make` installs gigabytes: here its environment is linked together from the packages of the tests' own,
    with the extras that the Makefile asks for, once for all readers of `environments`, who only read it.
    `make test`, which a reader may skip, installs nothing.
    """

    def __init__(self, folder: Path, environments: Path) -> None:
        self.folder, self.environments = folder, environments
        self.extras = set[str]()
        self.active = ""
        self.program = ""  # the Python of the page so far

    def type(self, line: str) -> str:
        """Return what a line prints, that must succeed."""
        if line.startswith("make "):
            return self._make(line)
        if line.startswith("source "):
            self.active = f"{line} && "
        done = self.run(line)
        assert done.returncode == 0, f"{line}: {done.stdout[-2000:]}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        """Run a line in the shell."""
        return subprocess.run(
            ["bash", "-c", self.active + line], cwd=self.folder, env=SHELL | {"HOME": str(self.folder)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip

    def python(self, block: str) -> str:
        """Return what a Python program prints, that must succeed."""
        return self.type(f"python -c {shlex.quote(block)}")

    def _make(self, line: str) -> str:
        """Plan the line with the Makefile, and install what it would install."""
        plain = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        planned = subprocess.run(
            ["bash", "-c", f"{line} --dry-run"],
            cwd=ROOT,
            env=plain,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        if line != "make test":
            words = re.findall(r'--extra="([^"]*)"', planned)
            options = load_tool("environment").extras_of(words)
            self.extras |= {option.partition("=")[2] for option in options}
            extras = ",".join(sorted(self.extras))
            environment = self.environments / f"with-{extras}"
            if not environment.exists():
                make_environment(environment, [f"{DISTRIBUTION}[{extras}]"])
            (self.folder / ".venv").unlink(missing_ok=True)
            (self.folder / ".venv").symlink_to(environment)
        return planned
