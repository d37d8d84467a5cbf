"""Modules in the folder where a command is typed are never executed, on Ray as elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import SMALL
from paths import ROOT
from processes import GRID, PATIENCE_SECONDS

from psa.experiments.grid import load_grid
from psa.storage.store import Store

pytest.importorskip("ray", reason="the extra ray is not installed")

# What psa, Ray and the interpreter import first, and what only Ray's own processes do.
NAMES = (
    "abc", "argparse", "asyncio", "aiohttp", "base64", "cloud", "colorama", "filelock", "grpc",
    "json", "logging", "msgpack", "numpy", "optuna", "packaging", "pandas", "platform", "psa",
    "psutil", "pyarrow", "pydantic", "queue", "random", "ray", "requests", "setproctitle", "signal",
    "sitecustomize", "socket", "string", "subprocess", "tempfile", "threading", "torch", "types",
    "typing", "usercustomize", "uuid", "yaml",
)  # fmt: skip
LINE = """import os
with open(os.environ["TRACE"], "a") as file:
    file.write(__file__ + "\\n")
raise ImportError
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Return a folder full of modules that tell of their execution and fail."""
    folder = tmp_path / "typed here"
    folder.mkdir()
    for name in NAMES:
        (folder / f"{name}.py").write_text(LINE)
    return folder


def typed(folder: Path, data_dir: Path, *words: str, started: list[subprocess.Popen[str]]) -> str:
    """Run `psa` in a folder as its console script does: that folder is not on the path of the command."""
    options = ["--data-dir", str(data_dir.absolute()), "--device", "cpu", "--workers", "1"]
    start = "from psa.cli.app import main; main()"
    code = f"import sys; sys.path.append({str(ROOT)!r}); {start}"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *words, *options],
        cwd=folder,
        env={
            **os.environ,
            "TRACE": str(folder.parent / "trace"),
            "PYTHONPATH": str(ROOT),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    started.append(process)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    trace = folder.parent / "trace"
    assert not trace.exists(), sorted(set(trace.read_text().splitlines()))
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.slow
def test_a_sweep_on_ray(hostile: Path, data_dir: Path, started: list[subprocess.Popen[str]]) -> None:
    """Neither its workers nor any process that Ray starts beside them executes one, and all is trained."""
    words = ["arch=1*4", "meta_loops=1", "--pack-size", "12", "--backend", "ray"]
    out = typed(hostile, data_dir, "sweep", str(GRID), *words, started=started)
    assert "12 of 12 trials done, 0 failed" in out
    store = Store(hostile / "models", hostile / "results")
    assert not store.pending(load_grid(GRID, ["arch=1*4"]).trials, 1)


@pytest.mark.slow
@pytest.mark.crash  # the same driver as above; the sweep is tested every time
def test_a_search(hostile: Path, data_dir: Path, started: list[subprocess.Popen[str]]) -> None:
    """The same driver, told to search."""
    shorter = SMALL.replace("meta_loops = 6", "meta_loops = 2").replace("samples = 6", "samples = 2")
    (hostile / "search.toml").write_text(shorter)
    typed(hostile, data_dir, "search", "search.toml", started=started)
    assert list((hostile / "results").rglob("search-*.json"))
