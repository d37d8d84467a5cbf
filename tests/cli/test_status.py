"""`psa status`: exit codes, short counts, running sweeps with age and pace, and --watch."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import TINY, some_record
from processes import PATIENCE_SECONDS, end
from processes import psa as started_psa

from psa.cli import app
from psa.cli.commands import status as command
from psa.cli.output.grid_status import grid_status
from psa.cli.output.schema import StageCounts
from psa.cli.output.status_view import status_lines
from psa.experiments.grid import load_grid
from psa.specs.trial import Trial
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps, register_sweep

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Trial, ...]:
    """The four trials of a grid in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    return load_grid(Path("tiny.toml")).trials


@pytest.fixture
def status(trials: tuple[Trial, ...], capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `psa status`; its exit code and its output."""

    def call(*words: str) -> tuple[int, str]:
        code = app.run(app.PSA, ["status", "tiny.toml", *words])
        return code, capsys.readouterr().out

    return call


def store() -> Store:
    """The trees of the present folder."""
    return Store("models", "results")


def finish(*trials: Trial) -> None:
    """Store the records of trials."""
    for trial in trials:
        store().write(trial, some_record(3, trial), {})


def test_exit_codes(trials: tuple[Trial, ...], status: Run) -> None:
    """3 while trials are missing, 4 once one has failed or a record is damaged, 0 when all are done."""
    assert status()[0] == 3
    finish(*trials[:3])
    assert status()[0] == 3
    store().write_failure(trials[3], "out of memory")
    code, out = status()
    assert code == 4
    assert f"failed {trials[3].id}: out of memory" in out
    finish(trials[3])
    assert status()[0] == 0
    path = store().record_path(trials[0])
    path.write_bytes(path.read_bytes()[:-9])
    assert status()[0] == 4


def test_the_help_and_the_docs_have_the_exit_codes() -> None:
    """As the table of the command has them."""
    assert command.EXIT_CODES == {"complete": 0, "incomplete": 3, "failed": 4}
    text = " ".join((command.status.__doc__ or "").split())
    assert "Exit code 0: the grid is complete; 3: trials are missing; 4: trials have failed" in text


def test_counts_are_short(trials: tuple[Trial, ...], status: Run) -> None:
    """By mode where there are several; complete groups are only counted."""
    finish(*(trial for trial in trials if trial.intervention.mode == "none"))
    assert status()[1].splitlines()[:2] == ["tiny: 2 of 4 trials done", "  mode  hidden 0/2; 1 complete"]


def test_of_many_architectures_the_first_are_named(tmp_path: Path) -> None:
    """Those with a failure come first, then those that have begun."""
    text = TINY.replace('["1*1"]', str([f"1*{width}" for width in range(1, 31)]))
    (tmp_path / "wide.toml").write_text(text)
    grid, kept = load_grid(tmp_path / "wide.toml"), Store(tmp_path / "models", tmp_path / "results")
    kept.write(grid.trials[20], some_record(3, grid.trials[20]), {})
    kept.write_failure(grid.trials[-1], "x")
    found = grid_status(grid, kept, ())
    (line,) = (line for line in status_lines(found) if line.startswith("  arch  "))
    begun = grid.trials[20].model.arch.label
    assert line.startswith(f"  arch  1*30 0/4 (1 failed), {begun} 1/4, 1*1 0/4, ")
    assert line.endswith("and 24 more")
    (stage,) = found.stages
    assert isinstance(stage, StageCounts)
    assert len(stage.archs) == 30


def facts(**changes: Any) -> dict[str, Any]:
    """The progress that a sweep writes, ten seconds after its start."""
    now = time.time()
    pack = {"label": "simplemlp 1*1 none seed 0", "trials": 2, "loop": 3, "horizon": 9, "reached": 1}
    return {
        "grid": "tiny",
        "done": 1,
        "total": 4,
        "left": "8 s left",
        "best": [91.5, "tiny/x"],
        "running": [],
        "started": now - 100,
        "written": now,
        "rate": 2.5,
        "packs": [{**pack, "started": now - 80}],
        **changes,
    }


@pytest.mark.usefixtures("trials")
def test_a_running_sweep_has_age_and_pace(status: Run) -> None:
    """Its rate, its packs with age and time per meta-loop; and a silent one is pointed out."""
    with register_sweep(Path("models")) as tell:
        tell(facts())
        out = status()[1]
        assert "(tiny): 1 of 4 trials done, 8 s left, 2.5 loops/s, started 1 min 40 s ago" in out
        assert (
            "  running  simplemlp 1*1 none seed 0: meta-loop 3/9, 2 trials, for 1 min 20 s, 40 s per loop"
            in out
        )
        assert "  best  91.50 % validation, tiny/x" in out
        assert "no report" not in out
        tell(facts(written=time.time() - 300))
        assert "no report for 5 min 00 s" in status()[1]


def test_a_sweep_of_an_earlier_version_is_shown(trials: tuple[Trial, ...]) -> None:
    """It writes neither times nor packs."""
    old = {key: facts()[key] for key in ("grid", "done", "total", "left", "best", "running")}
    with register_sweep(Path("models")) as tell:
        tell(old)
        (sweep,) = grid_status(load_grid(Path("tiny.toml")), store(), active_sweeps(Path("models"))).sweeps
    assert (sweep.done, sweep.age, sweep.rate, sweep.packs) == (1, None, None, [])
    assert len(trials) == 4


def test_watching_ends_with_the_last_trial(trials: tuple[Trial, ...], status: Run) -> None:
    """Without a terminal, each status is printed below the previous one."""
    thread = threading.Timer(0.5, finish, trials)
    thread.start()
    code, out = status("--watch", "0.1")
    thread.join()
    assert code == 0
    assert out.count("tiny: 0 of 4 trials done") >= 1
    assert out.splitlines()[-2:][0] == "tiny: 4 of 4 trials done"


@pytest.mark.parametrize(
    "words", [["--watch", "tiny.toml"], ["tiny.toml", "--watch"], ["tiny.toml", "--watch=9"]]
)
def test_ctrl_c_ends_watching(words: list[str], tmp_path: Path) -> None:
    """With exit code 130 and one line; the seconds may be left out."""
    (tmp_path / "tiny.toml").write_text(TINY)
    process = started_psa(tmp_path, "status", *words)
    try:
        assert process.stdout is not None
        seen = ""
        while "trials done" not in seen:
            line = process.stdout.readline()
            assert line, process.communicate()
            seen += line
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert process.returncode == 130
    assert err == "stopped; nothing that was stored is lost\n"


def test_a_grid_is_shown_by_the_name_of_its_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`psa report` finds records by that name; a file that is called otherwise stands behind it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.toml").write_text(TINY)
    (tmp_path / "tiny.toml").write_text(TINY)
    for name, code in (("plan", 0), ("status", 3)):
        for file, shown in (("other.toml", "tiny (other.toml): "), ("tiny.toml", "tiny: ")):
            assert app.run(app.PSA, [name, file]) == code
            assert capsys.readouterr().out.startswith(shown)
            assert app.run(app.PSA, [name, file, "--json"]) == code
            assert json.loads(capsys.readouterr().out)["name"] == "tiny"


def test_trackers_group_the_trials_of_a_grid_by_its_file(tmp_path: Path) -> None:
    """As they always have: runs that are stored are found again."""
    (tmp_path / "other.toml").write_text(TINY)
    grid = load_grid(tmp_path / "other.toml")
    assert (grid.name, grid.label, grid.heading) == ("tiny", "other", "tiny (other.toml)")
