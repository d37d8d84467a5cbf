"""tools/gpu_check.py: the script that checks psa on a GPU, here by its path for the CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from paths import ROOT
from set_up import load_tool

from psa.nn.dropout import Dropout

if str(ROOT / "tools") not in sys.path:
    sys.path.append(str(ROOT / "tools"))

from gpu import correctness, pack_speed, setting, study, work
from gpu.benchmark import Speeds, measure
from gpu.checks import CheckFailure, run_checks
from gpu.recorded import recorded_steps

NEEDED = ("torch", "numpy", "pydantic", "safetensors")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with the quickest of its checks."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script adds its folders
    tool = load_tool("gpu_check")
    monkeypatch.setattr(tool, "CHECKS", (("dropout masks", correctness.dropout_masks),))
    monkeypatch.setattr(tool, "STARTED", time.monotonic())
    return tool


@pytest.fixture
def here() -> setting.Setting:
    """Made-up data on the CPU, and time enough."""
    return setting.Setting(setting.CPU, setting.made_up(), "made-up", setting.Deadline(math.inf))


def words(folder: Path) -> list[str]:
    """The arguments of a small run on the CPU without MNIST."""
    options = ["--device", "cpu", "--seconds", "500", "--architectures", "2"]
    return [*options, "--data-dir", str(folder / "nothing"), "--output", str(folder / "out")]


def written(folder: Path) -> dict[str, Any]:
    """Return the content of gpu.json. Constants that are not JSON are refused."""

    def refused(constant: str) -> None:
        raise ValueError(constant)

    body: dict[str, Any] = json.loads((folder / "out/gpu.json").read_text(), parse_constant=refused)
    return body


def packages(folder: Path) -> Path:
    """A folder of links to what NEEDED and their requirements installed, and nothing else."""
    folder.mkdir()
    waiting, done = list(NEEDED), set[str]()
    while waiting:
        name = waiting.pop()
        found = distribution(name)
        if name in done:
            continue
        done.add(name)
        for top in {Path(str(file)).parts[0] for file in found.files or ()} - {".."}:
            link, target = folder / top, Path(str(found.locate_file(top)))
            if target.exists() and not link.exists():
                link.symlink_to(target)
        waiting += required(found.requires or [])
    return folder


def required(lines: list[str]) -> list[str]:
    """The names in requirements that are installed, without those of extras."""
    from importlib.metadata import PackageNotFoundError

    from packaging.requirements import Requirement

    names = []
    for line in lines:
        needed = Requirement(line)
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            try:
                distribution(needed.name)
            except PackageNotFoundError:
                continue
            names.append(needed.name)
    return names


@pytest.mark.slow
def test_the_script_runs_with_five_packages_alone(tmp_path: Path) -> None:
    """No other package is installed, and there is no MNIST: every check passes, and the JSON says so."""
    there = packages(tmp_path / "packages")
    environment = {"PYTHONPATH": str(there), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    probe = [
        sys.executable,
        "-S",
        "-c",
        "import importlib.util as u; print(u.find_spec('rich'), u.find_spec('torch') is None)",
    ]
    seen = subprocess.run(probe, env=environment, capture_output=True, text=True, check=True).stdout
    assert seen == "None False\n"
    command = [sys.executable, "-S", str(ROOT / "tools/gpu_check.py"), *words(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    body = written(tmp_path)
    assert body["passed"] is True
    assert body["machine"]["data"] == "made-up"
    assert {check["name"]: check["status"] for check in body["checks"]} == {
        "dropout masks": "ok",
        "engine and reference": "ok",
        "resume": "ok",
        "packs": "ok",
        "recorded steps": "skipped",
        "closeness to the CPU": "ok",
        "hidden-state memory": "ok",
    }


def test_a_run_writes_what_it_measured(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, the documented keys in gpu.json, and the same table on the terminal and in Markdown."""
    assert script.main(words(tmp_path)) == 0
    body = written(tmp_path)
    assert list(body) == ["machine", "passed", "checks", "benchmark"]
    benchmark = body["benchmark"]
    assert (benchmark["measured"], benchmark["of"], benchmark["study"]) == (2, 196, None)
    for row in benchmark["architectures"]:
        assert row["seconds"] == row["sizes"][str(row["pack_size"])] > 0
        assert row["arithmetic_share"] == pytest.approx(row["flop"] / row["seconds"] / benchmark["matmul"])
        assert row["bandwidth_share"] == pytest.approx(row["bytes"] / row["seconds"] / benchmark["bandwidth"])
    markdown, shown = (tmp_path / "out/gpu.md").read_text(), capsys.readouterr().out
    for line in ("18 masks equal the reference to the bit", "Measured: 2 of 196 architectures"):
        assert line in markdown
        assert line in shown
    page = (ROOT / "docs/reproduction.md").read_text()
    keys = {*body, *benchmark, *benchmark["architectures"][0], *body["checks"][0]}
    assert {key for key in keys if f"`{key}`" not in page} == set()


def test_a_planted_fault_is_reported(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One element of a dropout mask is wrong: the line says failed, and the exit code is 1."""
    true_masks = Dropout._masks

    def masks(self: Dropout, chosen: tuple[int, ...], width: int, batch: int) -> torch.Tensor:
        drawn = true_masks(self, chosen, width, batch)
        drawn[0, 0, 0, 0] = 1 - drawn[0, 0, 0, 0]
        return drawn

    monkeypatch.setattr(Dropout, "_masks", masks)
    assert script.main(words(tmp_path)) == 1
    body = written(tmp_path)
    assert body["passed"] is False
    assert [check["status"] for check in body["checks"]] == ["failed"]
    assert "dropout masks must equal the reference to the bit; " in capsys.readouterr().out


def test_a_device_that_is_not_there_is_a_user_error(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one line."""
    if torch.backends.mps.is_available():
        pytest.skip("this machine has the device")
    assert script.main([*words(tmp_path), "--device", "mps"]) == 2
    assert capsys.readouterr().err.startswith(
        "gpu_check: error: --device must be available on this machine, got mps"
    )


def test_resume_packs_and_memory_pass_and_are_checked(here: setting.Setting) -> None:
    """The other quick checks pass on the CPU; recorded steps need CUDA."""
    checks = [
        ("resume", correctness.resume),
        ("packs", correctness.packs),
        ("recorded steps", recorded_steps),
        ("closeness", correctness.closeness),
        ("memory", correctness.hidden_memory),
    ]
    results = run_checks(here, checks)
    assert [result.status for result in results] == ["ok", "ok", "skipped", "ok", "ok"], results
    late = setting.Setting(here.device, here.splits, here.data, setting.Deadline(time.monotonic()))
    assert {result.status for result in run_checks(late, checks)} == {"failed", "skipped"}


def test_a_wrong_step_is_far_from_the_reference(
    here: setting.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of the engine are close to those of the twin in float64; a rate 1 % off is not."""
    pack = setting.arms("simplemlp", "2*16", [3])[:2]
    assert 0 < correctness._close_to_exact(pack, here) < correctness.CLOSE / 10
    from dataclasses import replace

    from psa.engine import loop

    true_row = loop.row_of
    monkeypatch.setattr(loop, "row_of", lambda state: replace(true_row(state), lr=1.01e-3))
    with pytest.raises(CheckFailure, match="must be within"):
        correctness._close_to_exact(pack, here)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, 60),
        ({60: 1.0}, 120),
        ({60: 1.0, 120: 0.5}, 300),
        ({60: 1.0, 120: 0.99}, 30),
        ({60: math.inf}, 30),
        ({60: 1.0, 120: math.inf}, 30),
        ({30: 2.0, 60: 1.0, 120: 0.99}, None),
        ({6: 1.0, 12: 1.0, 30: 1.0, 60: 1.0, 120: 1.0}, None),
        ({60: 1.0, 120: 0.5, 300: 0.3, 600: 0.2}, None),
    ],
)
def test_the_search_for_a_pack_size(found: dict[int, float], expected: int | None) -> None:
    """Up while a larger pack is worth it, then down while a smaller one is as fast."""
    assert pack_speed.next_size(found, (6, 12, 30, 60, 120, 300, 600), 60) == expected


@pytest.mark.parametrize(("start", "step"), [(1.0, 0.01), (0.02, 2e-4), (0.5, 2.0), (0.0, 0.0)])
def test_a_step_is_told_from_the_start_of_an_epoch(start: float, step: float) -> None:
    """Recording takes 1 s, a step 10 ms, and each part is off by 10 ms: the step is found within 10 %."""
    parts: list[int] = []

    def part(batches: int) -> float:
        parts.append(batches)
        return start + batches * step + start / 100 * (-1) ** len(parts)

    short, found = pack_speed.step_seconds(part, 0.01)
    assert found == pytest.approx(step, rel=0.1)
    assert short == pytest.approx(start + pack_speed.FEW * step, rel=0.02)
    assert len(parts) <= 5
    assert max(parts) <= pack_speed.FULL


def test_on_mps_only_the_checks_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No benchmark: gpu.json has null there, and a check that cannot run on the device has failed."""
    monkeypatch.setattr(script.Machine, "prepare", lambda self: torch.device("mps"))

    def lacks_float64(_: setting.Setting) -> None:
        raise TypeError("no float64")

    monkeypatch.setattr(script, "CHECKS", (("resume", lacks_float64), ("packs", lambda _: ("fine", {}))))
    assert script.main(words(tmp_path)) == 1
    body = written(tmp_path)
    assert body["benchmark"] is None
    found = [(check["status"], check["detail"]) for check in body["checks"]]
    assert found == [("failed", "TypeError: no float64"), ("ok", "fine")]


@pytest.mark.parametrize("count", [1, 7, 196])
def test_every_beginning_of_the_order_is_even(count: int) -> None:
    """All places occur once; of the first k, each of k equal parts holds at most two."""
    order = work.even_order(count)
    assert sorted(order) == list(range(count))
    for first in range(1, count):
        parts = [place * first // count for place in order[:first]]
        assert max(map(parts.count, parts)) <= 2


def test_nothing_begins_after_the_deadline() -> None:
    """A benchmark without time measures nothing, and one that is interrupted keeps what it has."""
    everyone = work.workloads()
    samples = pack_speed.samples_for(setting.made_up(), setting.CPU)
    assert (
        measure(everyone, setting.CPU, samples, setting.Deadline(time.monotonic())).best(everyone[0]) is None
    )
    speeds = Speeds({everyone[0]: {6: 1.0, 12: 0.5, 30: math.inf}})
    assert speeds.best(everyone[0]) == (12, 0.5)


def test_the_study_is_the_sum_of_what_was_measured_and_estimated() -> None:
    """Seconds that follow arithmetic and layers are found from every tenth architecture; a T4 has a price."""
    everyone = work.workloads()
    true = {each: 1e-12 * each.flop + 1e-4 * each.layers + 0.02 for each in everyone}
    whole = study.study_estimate(everyone, true, "Tesla T4")
    assert whole is not None
    hours = sum(true.values()) * 60 * 100 / 3600
    assert whole["hours"]["both"] == pytest.approx(hours)
    assert whole["hours"]["simplemlp"] + whole["hours"]["resmlp"] == pytest.approx(hours)
    offer = whole["dollars"][0]
    assert (offer["instance"], offer["dollars"]) == ("ml.g4dn.xlarge", pytest.approx(hours * 0.7364))
    part = study.study_estimate(everyone, {each: true[each] for each in everyone[::10]}, "NVIDIA H200")
    assert part is not None
    assert part["hours"]["both"] == pytest.approx(hours, rel=1e-6)
    assert part["dollars"] == []
    assert study.study_estimate(everyone, {everyone[0]: 1.0}, "Tesla T4") is None


def test_the_rows_of_a_pack_are_the_published_grid() -> None:
    """Sixty rows are the six modes of ten seeds, with the settings of reproduction/simplemlp.toml."""
    from psa.engine.batches import batch_order
    from psa.engine.loop import row_of
    from psa.experiments.grid import load_grid
    from psa.storage.trial_state import TrialState

    grid = load_grid(ROOT / "reproduction/simplemlp.toml", ["arch=1*4"])
    rows = [row_of(TrialState(trial, 100, {}, loops=1)) for trial in grid.trials]
    assert sorted(map(repr, pack_speed.training_rows(60))) == sorted(
        repr(rows[at]) for at in batch_order(rows)
    )
