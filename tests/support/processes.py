"""Real `psa` processes for tests that stop, kill or watch them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from paths import ROOT

from psa.execution.machine import Machine
from psa.execution.packing import groups_of
from psa.execution.worker.run import run_pack
from psa.experiments.grid import load_grid
from psa.specs.trial import Pack
from psa.storage.store import Store

GRID = ROOT / "reproduction" / "smoke.toml"
LONG = 40  # meta-loops of the smoke grid: enough seconds of training to be killed within
PATIENCE_SECONDS = 600.0  # of waiting for what takes seconds: enough where a machine is ten times as slow


def psa(folder: Path, *words: str, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """Start `psa` in a folder, in a session of its own; `before`: a program that runs first in its
    process.
    """
    paths = [environment.pop("PYTHONPATH", ""), str(ROOT)]
    variables = {key: value for key, value in os.environ.items() if key != "SAGEMAKER_MODEL_DIR"}
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}\nfrom psa.cli.app import main; main()", *words],
        cwd=folder,
        env={**variables, **environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def sweep(
    folder: Path, data_dir: Path, *words: str, grid: Path = GRID, **environment: str
) -> subprocess.Popen[str]:
    """Start a sweep of a grid, the smoke grid where none is named, on this machine's processor."""
    options = ["--data-dir", str(data_dir.absolute()), "--device", "cpu"]
    return psa(folder, "sweep", str(grid), *options, *words, **environment)


def train_in_process(
    folder: Path, data_dir: Path, meta_loops: int, grid: Path = GRID, overrides: Sequence[str] = ()
) -> None:
    """Train a grid without any sweep, backend or process: what all of those must leave as well."""
    store = Store(folder / "models", folder / "results")
    for group in groups_of(load_grid(grid, overrides).trials):
        run_pack(Pack(trials=tuple(group), horizon=meta_loops), store, Machine(data_dir, "cpu"))


def end(process: subprocess.Popen[str]) -> None:
    """Kill it, whatever became of it, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def ending() -> Iterator[list[subprocess.Popen[str]]]:
    """Yield a list for processes, all of which end with the block, whatever becomes of it."""
    processes: list[subprocess.Popen[str]] = []
    try:
        yield processes
    finally:
        for process in processes:
            end(process)


def until(true: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Wait for something to come true, while a process lives."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """The processes that `pid` has started. Linux only."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def descendants(pid: int) -> set[int]:
    """The processes that `pid` has started, and those that they have. Linux only."""
    found: set[int] = set()
    for child in children(pid):
        found |= {child} | descendants(child)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    """Every record, every present state and every file of arrays beside one, by path."""
    records = (path for path in (folder / "results").rglob("s*.json") if ".machine." not in path.name)
    states = (folder / "models").rglob("lkg.safetensors")
    arrays = (folder / "models").rglob("lkg.*.arrays.safetensors")
    return {str(path.relative_to(folder)): path.read_bytes() for path in (*records, *states, *arrays)}
