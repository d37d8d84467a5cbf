"""Who is at work on a folder: known by a lock, which a kill gives back, and never a reason to stop."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from processes import GRID, PATIENCE_SECONDS, end, psa, sweep, until

from psa.storage.sweep_registry import active_sweeps, register_sweep

FACTS = {
    "grid": "smoke",
    "done": 3,
    "total": 24,
    "left": "4 s left",
    "best": [98.5, "smoke/x"],
    "running": ["simplemlp 1*4 seed 0 loop 2/3"],
}
KILLED = """
import json, os, pathlib, sys
from psa.storage.sweep_registry import register_sweep
with register_sweep(pathlib.Path(sys.argv[1])) as tell:
    tell(json.load(sys.stdin))
    os.kill(os.getpid(), 9)
"""


def status(folder: Path) -> str:
    """What `psa status` says."""
    out, err = psa(folder, "status", str(GRID)).communicate(timeout=PATIENCE_SECONDS)
    assert err == ""
    return out


def files_of(models: Path) -> list[str]:
    """The files that sweeps have put down."""
    return sorted(path.name for path in (models / ".sweeps").iterdir())


def test_a_sweep_is_known_as_long_as_it_lives(tmp_path: Path) -> None:
    """What it said last is shown, and afterwards nothing is left."""
    with register_sweep(tmp_path) as tell:
        (one,) = active_sweeps(tmp_path)
        assert str(one) == f"sweep {os.getpid()}: at work"
        tell(FACTS)
        (one,) = active_sweeps(tmp_path)
        assert "(smoke): 3 of 24 trials done, 4 s left; running simplemlp 1*4 seed 0 loop 2/3, best" in str(
            one
        )
        with register_sweep(tmp_path):
            assert len(active_sweeps(tmp_path)) == 2
    assert active_sweeps(tmp_path) == []
    assert files_of(tmp_path) == []


def test_a_killed_sweep_is_gone_though_its_process_id_lives(tmp_path: Path) -> None:
    """The id of this very process on the files of a killed one: not shown, and swept by the next sweep."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], input=json.dumps(FACTS), text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    folder = tmp_path / ".sweeps"
    for path in list(folder.iterdir()):
        path.rename(folder / f"{os.getpid()}-{path.name.partition('-')[2]}")
    (half,) = (path for path in folder.glob("*.json"))
    (folder / f".{half.name}.7-00ff.tmp").write_text("{")
    assert len(files_of(tmp_path)) == 3
    assert active_sweeps(tmp_path) == []
    with register_sweep(tmp_path):
        assert len(active_sweeps(tmp_path)) == 1
        assert len(files_of(tmp_path)) == 1
    assert files_of(tmp_path) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"best":3}', json.dumps(FACTS | {"best": None})])
def test_what_cannot_be_read_of_a_living_sweep_hides_nothing(content: str, tmp_path: Path) -> None:
    """It is still shown as being at work."""
    with register_sweep(tmp_path) as tell:
        tell(FACTS)
        (path,) = (tmp_path / ".sweeps").glob("*.json")
        path.write_text(content)
        assert [str(one) for one in active_sweeps(tmp_path)] == [f"sweep {os.getpid()}: at work"]


def test_failing_to_say_how_far_it_is_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file in the place of the folder, before or after the start: nothing is raised, one line is logged."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".sweeps").write_text("in the way")
    for models in (tmp_path / "a", tmp_path / "b"):
        caplog.clear()
        with caplog.at_level(logging.WARNING), register_sweep(models) as tell:
            if models.name == "b":
                shutil.rmtree(models / ".sweeps")
                (models / ".sweeps").write_text("in the way")
            for _ in range(3):
                tell(FACTS)
            assert active_sweeps(models) == []
        assert len(caplog.messages) == 1
        assert caplog.messages[0].endswith("the sweep goes on, but `psa status` may not show it")


@pytest.mark.slow
def test_a_sweep_that_cannot_say_how_far_it_is_ends_well(tmp_path: Path, data_dir: Path) -> None:
    """The real command: it trains all the same, with one line on standard error."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / ".sweeps").write_text("in the way")
    process = sweep(tmp_path, data_dir, "meta_loops=1", "arch=1*4", "--pack-size", "12", "--workers", "1")
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out + err
    assert err.count("\n") == 1
    assert "the sweep goes on" in err


@pytest.mark.slow
def test_status_and_clean_go_by_what_lives(
    tmp_path: Path, data_dir: Path, request: pytest.FixtureRequest
) -> None:
    """A living sweep is shown and its folder not cleaned; a killed one is not shown and holds nobody up."""
    process = sweep(tmp_path, data_dir, "meta_loops=1000000", "--workers", "1", "--pack-size", "12")
    request.addfinalizer(partial(end, process))
    until(lambda: any("loop" in str(one) for one in active_sweeps(tmp_path / "models")), process)
    assert f"sweep {process.pid} on " in status(tmp_path)
    refused = psa(tmp_path, "clean", "--all")
    assert "a sweep is at work in models" in refused.communicate(timeout=PATIENCE_SECONDS)[1]
    assert refused.returncode == 2
    process.kill()
    process.communicate()
    assert "sweep " not in status(tmp_path)
    assert files_of(tmp_path / "models") != []
    clean = psa(tmp_path, "clean", "--all", "--yes")
    clean.communicate(timeout=PATIENCE_SECONDS)
    assert clean.returncode == 0
    assert not (tmp_path / "models" / ".sweeps").exists()
