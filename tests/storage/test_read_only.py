"""Commands of a user who may read a study and not write to it, or not even read it: they work, or say so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_up import TINY, some_record, some_state
from processes import PATIENCE_SECONDS, ROOT

from psa.experiments.grid import load_grid
from psa.storage.store import Store

NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
START = [sys.executable, "-c", "from psa.cli.app import main; main()"]
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes on another user's rights"
)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that everybody may enter: pytest closes those above its own to others whenever it starts."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A folder with four done trials of a grid, which everybody may read and its owner alone may change."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "grid.toml").write_text(TINY)
    store = Store(folder / "models", folder / "results")
    for trial in load_grid(folder / "grid.toml").trials:
        store.write(trial, some_record(3, trial), {"host": "here"})
        store.state_file(trial).save(some_state(3, trial=trial))
    return folder


def as_nobody(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run `psa` as a user who owns nothing, has no home, and belongs to no group."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("SAGEMAKER_")}
    variables |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"}
    return subprocess.run(
        [*AS_NOBODY, *START, *command.split()], cwd=folder, env=variables, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


def one_line(text: str) -> bool:
    """Return whether a text is one message, without a traceback and without `unexpected`."""
    return text.count("\n") == 1 and text.startswith("error: ") and "unexpected" not in text


WORKS = ("plan grid.toml", "status grid.toml", "verify")
WRITES = (
    "report tiny",
    "sweep grid.toml meta_loops=4",
    "sweep grid.toml --dry-run",
    "clean --all --yes",
    "train --meta-loops 1",
)


@pytest.mark.slow
@pytest.mark.parametrize("command", WORKS)
def test_what_only_reads_works_without_write_access(command: str, study: Path) -> None:
    """The same as its owner sees."""
    done = as_nobody(study, command)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert re.search("4 of 4 trials done|damaged: 0|trials done +│ 4", done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("command", WRITES)
def test_what_writes_is_refused_in_one_line(command: str, study: Path) -> None:
    """Before any work is done."""
    done = as_nobody(study, command)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert one_line(done.stderr), done.stderr


CLOSED = (
    ("results", "plan grid.toml"), ("results", "status grid.toml"), ("results", "verify"),
    ("models", "verify"), ("models", "status grid.toml"),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("closed", "command"), CLOSED)
def test_folders_that_cannot_be_read_are_named(closed: str, command: str, study: Path) -> None:
    """In one line: none is taken for an empty folder."""
    (study / closed).chmod(0o700)
    done = as_nobody(study, command)
    assert done.returncode == 2
    assert f"{closed}" in done.stderr + done.stdout
    assert "permission denied" in done.stderr + done.stdout
    assert done.stderr == "" or one_line(done.stderr)


@pytest.mark.crash  # to draw every figure takes half a minute
def test_a_reader_may_have_the_report_elsewhere(study: Path, tmp_path: Path) -> None:
    """In a folder of its own."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o777)
    done = as_nobody(study, f"report tiny --output-dir {tmp_path / 'own'}")
    assert done.returncode == 0, done.stderr
    assert next((tmp_path / "own").glob("*.html")).is_file()
