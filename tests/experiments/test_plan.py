"""What `psa plan` shows: numbers in units that fit, and sentences that are sentences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from psa.cli.app import PSA, run
from psa.execution.cost_model import CostModel, WorkloadKey
from psa.execution.packing import groups_of, packed
from psa.experiments import planning, sweep
from psa.experiments.grid import load_grid
from psa.specs.trial import Pack

GRID = ROOT / "reproduction" / "smoke.toml"
Plan = Callable[..., list[str]]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Plan:
    """The lines of `psa plan` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str, workers: int = 2) -> list[str]:
        assert run(PSA, ["plan", str(GRID), "--device", "cpu", "--workers", str(workers), *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return [" ".join(line.strip("│ ").split()) for line in out.splitlines()]

    return call


def measured(*archs: str) -> None:
    """Let step times of these archs be known in the folder one stands in."""
    costs = CostModel.of_machine(Path("models"), "cpu")
    for arch in archs:
        costs.update(
            WorkloadKey.of(load_grid(GRID, [f"arch={arch}"]).trials[0]), {1: 1e-3, 6: 2e-3, 12: 3e-3}
        )


def test_the_whole_screen(plan: Plan) -> None:
    """Nothing in it is 0.00, and the count of networks and the verb agree."""
    lines = plan()
    assert lines[0] == "smoke: 24 trials of 3 meta-loops"
    assert "trials done │ 0" in lines
    assert "trials pending │ 24" in lines
    assert "packs │ 2: 2 of 12 trials" in lines
    assert "time left here │ less than 1 s with 2 workers" in lines
    assert "peak memory │ 1.7 GB" in lines
    assert any(line.startswith("on disk, all weights kept │ ") and line.endswith(" kB") for line in lines)
    assert lines[-1] == (
        "2 of 2 networks are not measured on this machine yet: their times are estimated from the "
        "arithmetic. `psa sweep` measures them first."
    )


def test_one_is_one(plan: Plan) -> None:
    """One network, one trial, one worker."""
    lines = plan("arch=1*4", "mode=none", "seeds=0", "meta_loops=1", workers=1)
    assert lines[0] == "smoke: 1 trial of 1 meta-loop"
    assert "packs │ 1: 1 of 1 trial" in lines
    assert any(line.endswith(" with 1 worker") for line in lines)
    assert lines[-1].startswith("The network is not measured on this machine yet: its times are ")


def test_networks_that_are_measured_are_not_counted(plan: Plan) -> None:
    """One of two, then none: no more is said of it."""
    measured("1*4")
    assert plan()[-1].startswith("1 of 2 networks is not measured on this machine yet: its times are ")
    measured("1*4", "2*3")
    assert "measured" not in plan()[-1]


def test_packs_are_listed_by_size(plan: Plan) -> None:
    """How many of which size, the largest first."""
    assert "packs │ 6: 4 of 5 trials, 2 of 2" in plan("--pack-size", "5")


def test_the_published_grid_is_some_hundred_packs(tmp_path: Path) -> None:
    """Whatever hands packs out (processes here, trials of Ray Tune) is not asked 5,880 times."""
    trials = load_grid(GRID.with_name("simplemlp.toml")).trials
    packs = packed(groups_of(trials), 100, CostModel(tmp_path / "none.json"))
    assert sum(len(pack.trials) for pack in packs) == len(trials) == 5_880
    assert 98 <= len(packs) <= 900


def test_plans_and_rounds_cut_packs_for_the_same_workers(
    plan: Plan, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this machine; for another backend the limit of four hours counts."""
    asked: list[int | None] = []

    def recorded(*arguments: Any) -> list[Pack]:
        asked.append(arguments[4])
        return packed(*arguments)

    monkeypatch.setattr(planning, "packed", recorded)
    monkeypatch.setattr(sweep, "packed", recorded)
    plan(workers=5)
    assert asked == [5]
    plan("--backend", "ray")
    assert asked == [5, None]
    one = ["arch=1*1", "mode=none", "seeds=0", "meta_loops=1"]
    assert run(PSA, ["sweep", str(GRID), *one, "--workers", "3", "--data-dir", str(data_dir)]) == 0
    assert asked == [5, None, 3, 3, 3]
