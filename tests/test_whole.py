"""reproduction/whole.sh: the published grids in parts, from the cheapest to the dearest."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest

from psa.core.parsing import seeds_of
from psa.execution.cost_model import CostModel
from psa.experiments.grid import load
from psa.specs.trial import Trial

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "reproduction/whole.sh"
GROUPS = re.findall(r"^ {4}'(.+)'$", SCRIPT.read_text(), re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a stand-in for `psa`, which notes its arguments and does what `behaviour` says."""
    psa = tmp_path / "bin/psa"
    psa.parent.mkdir()
    psa.write_text(f'#!/usr/bin/env bash\nprintf "%q " "$@" >> {tmp_path}/calls; echo >> {tmp_path}/calls\n'
                   f". {tmp_path}/behaviour\n")  # fmt: skip
    psa.chmod(0o755)
    (tmp_path / "behaviour").write_text("exit 0\n")
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the script in a folder."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    words = [SCRIPT, folder / "whole", *options]
    return subprocess.Popen(words, env={**os.environ, "PATH": path}, cwd=folder)


def calls(folder: Path) -> list[list[str]]:
    """The arguments of each sweep so far."""
    path = folder / "calls"
    return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_architecture_is_in_one_group() -> None:
    """All 98, each once."""
    named = [arch for group in GROUPS for arch in group.split(",")]
    declared = load(ROOT / "reproduction/simplemlp.toml").trials
    assert sorted(named) == sorted({str(trial.model.arch).strip("[]") for trial in declared})


def test_groups_rise_in_cost(tmp_path: Path) -> None:
    """By the estimate of one pack of each architecture where nothing has been measured."""
    costs = CostModel.of_machine(tmp_path)
    only = "seed=0,1 mode=none,dropout,full,hidden,output"
    packs: dict[str, list[Trial]] = {}
    for trial in load(ROOT / "reproduction/simplemlp.toml", (), only).trials:
        packs.setdefault(str(trial.model.arch).strip("[]"), []).append(trial)
    seconds = {arch: costs.loop_seconds(trials) for arch, trials in packs.items()}
    of_group = [[seconds[arch] for arch in group.split(",")] for group in GROUPS]
    for cheaper, dearer in itertools.pairwise(of_group):
        assert sum(cheaper) / len(cheaper) < sum(dearer) / len(dearer)


def test_the_lines_are_sweeps_of_parts_of_the_grids(folder: Path) -> None:
    """Seeds 0 and 1 of all, then the others, then residual networks; each line can be typed by hand."""
    assert start(folder, "--workers", "2").wait() == 0
    made = calls(folder)
    assert len(made) == 3 * len(GROUPS)
    trained = []
    for words in made:
        assert words[:1] == ["sweep"]
        assert words[-2:] == ["--workers", "2"]
        assert words[4:6] == ["--keep-weights", "none"]
        arch, seeds, modes = (clause.partition("=")[2] for clause in words[3].split(" "))
        parts = [Path(words[1]).stem], arch.split(","), map(int, seeds_of(seeds, ROOT, "")), modes.split(",")
        trained += itertools.product(*parts)
    # 98 architectures in five modes: ten seeds of plain networks, one of residual ones
    assert len(trained) == len(set(trained)) == 98 * 5 * (10 + 1)
    assert {seed for _, _, seed, _ in trained[: 98 * 5 * 2]} == {0, 1}
    assert len(load(Path(made[0][1]), (), made[0][3]).trials) == len(GROUPS[0].split(",")) * 5 * 2


def test_it_begins_with_what_is_published(folder: Path) -> None:
    """The committed bundles lie in its folder before the first sweep."""
    assert start(folder).wait() == 0
    published = {path.name: path.read_bytes() for path in (ROOT / "results/published").glob("*.parquet")}
    copied = {path.name: path.read_bytes() for path in (folder / "whole/results").glob("*.parquet")}
    assert copied == published != {}


@pytest.mark.parametrize(("code", "ends"), [(1, False), (2, True), (130, True), (143, True)])
def test_exit_codes(code: int, ends: bool, folder: Path) -> None:
    """Failed trials are left for the next start; a mistake or a stop ends the script with its code."""
    (folder / "behaviour").write_text(f"exit {code}\n")
    assert start(folder).wait() == (code if ends else 0)
    assert len(calls(folder)) == (1 if ends else 3 * len(GROUPS))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_reaches_the_sweep_and_is_waited_for(number: int, folder: Path) -> None:
    """Sent to the script alone: the sweep saves what it has, then both end, and no further one begins."""
    (folder / "behaviour").write_text(
        f"trap 'sleep 0.3; touch {folder}/saved; exit 143' TERM; touch {folder}/begun\n"
        "while :; do sleep 0.05; done\n"
    )
    script = start(folder)
    while not (folder / "begun").exists():
        assert script.poll() is None
        time.sleep(0.02)
    script.send_signal(number)
    assert script.wait() == 143
    assert (folder / "saved").exists()
    assert len(calls(folder)) == 1
