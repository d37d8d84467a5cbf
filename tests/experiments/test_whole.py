"""reproduction/whole.sh: the published grids in parts, from the cheapest to the dearest."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_up import some_record
from paths import ROOT
from processes import PATIENCE_SECONDS, until

from psa.core.parsing import parse_seeds
from psa.execution.cost_model import CostModel
from psa.experiments.grid import load_grid
from psa.specs.trial import Trial
from psa.storage.records.bundle import read_bundle
from psa.storage.records.bundling import add_to_bundle
from psa.storage.store import Store

SCRIPT = ROOT / "reproduction/whole.sh"
Start = Callable[..., "subprocess.Popen[bytes]"]
GROUPS = re.findall(r"^ {4}'(.+)'$", SCRIPT.read_text(), re.MULTILINE)
SWEEPS = len(GROUPS) * 2 * 2  # two families, two parts of the seeds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a stand-in for `psa`: it copies bundles, notes sweeps, and does what `behaviour` says."""
    psa = tmp_path / "bin/psa"
    psa.parent.mkdir()
    psa.write_text(f"""#!/usr/bin/env bash
if [ "$1" = bundle ]; then touch {tmp_path}/bundling; sleep "$(cat {tmp_path}/pause)"; cp "$4" "$2"; exit; fi
printf "%q " "$@" >> {tmp_path}/calls; echo >> {tmp_path}/calls
. {tmp_path}/behaviour
""")
    psa.chmod(0o755)
    (tmp_path / "behaviour").write_text("exit 0\n")
    (tmp_path / "pause").write_text("0")
    return tmp_path


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the script in a folder; whatever is left of it is ended with the test."""
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    scripts: list[subprocess.Popen[bytes]] = []

    def call(*options: str) -> subprocess.Popen[bytes]:
        words = [SCRIPT, folder / "whole", *options]
        scripts.append(
            subprocess.Popen(words, env={**os.environ, "PATH": path}, cwd=folder, start_new_session=True)
        )
        return scripts[-1]

    yield call
    for script in scripts:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(script.pid, signal.SIGKILL)
        script.wait()


def wait_for(path: Path, script: subprocess.Popen[bytes]) -> None:
    """Wait until a file is there, as long as the script runs."""
    until(path.exists, script)


def calls(folder: Path) -> list[list[str]]:
    """The arguments of each sweep so far."""
    path = folder / "calls"
    return [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_architecture_is_in_one_group() -> None:
    """All 98, each once."""
    named = [arch for group in GROUPS for arch in group.split(",")]
    declared = load_grid(ROOT / "reproduction/simplemlp.toml").trials
    assert sorted(named) == sorted({str(trial.model.arch).strip("[]") for trial in declared})


def test_groups_rise_in_cost(tmp_path: Path) -> None:
    """By the estimate of one pack of each architecture where nothing has been measured."""
    costs = CostModel.of_machine(tmp_path)
    only = "seed=0,1 mode=none,dropout,full,hidden,output"
    packs: dict[str, list[Trial]] = {}
    for trial in load_grid(ROOT / "reproduction/simplemlp.toml", (), only).trials:
        packs.setdefault(str(trial.model.arch).strip("[]"), []).append(trial)
    seconds = {arch: costs.loop_seconds(trials) for arch, trials in packs.items()}
    of_group = [[seconds[arch] for arch in group.split(",")] for group in GROUPS]
    for cheaper, dearer in itertools.pairwise(of_group):
        assert max(cheaper) <= min(dearer)


def test_the_lines_are_sweeps_of_parts_of_the_grids(folder: Path, start: Start) -> None:
    """Seeds 0 and 1 of plain and residual networks, then the other seeds; each line can be typed by hand."""
    assert start("--workers", "2").wait(PATIENCE_SECONDS) == 0
    made = calls(folder)
    assert len(made) == SWEEPS
    trained = []
    for words in made:
        assert words[:1] == ["sweep"]
        assert words[-2:] == ["--workers", "2"]
        assert words[4:6] == ["--keep-weights", "none"]
        arch, seeds = (clause.partition("=")[2] for clause in words[3].split(" "))
        parts = ([Path(words[1]).stem], arch.split(","), map(int, parse_seeds(seeds, ROOT, "")))
        trained += itertools.product(*parts)
    # 98 architectures with ten seeds, plain and residual
    assert len(trained) == len(set(trained)) == 98 * 10 * 2
    assert {(grid, seed) for grid, _, seed in trained[: 98 * 4]} == {
        (grid, seed) for grid in ("simplemlp", "resmlp") for seed in (0, 1)
    }
    assert len(load_grid(Path(made[0][1]), (), made[0][3]).trials) == len(GROUPS[0].split(",")) * 6 * 2


def test_it_begins_with_what_is_published(folder: Path, start: Start) -> None:
    """The committed bundles lie in its folder before the first sweep."""
    assert start().wait(PATIENCE_SECONDS) == 0
    published = {path.name: path.read_bytes() for path in (ROOT / "results/published").glob("*.parquet")}
    copied = {path.name: path.read_bytes() for path in (folder / "whole/results").glob("*.parquet")}
    assert copied == published != {}


@pytest.mark.parametrize(("code", "ends"), [(1, False), (2, True), (130, True), (143, True)])
def test_exit_codes(code: int, ends: bool, folder: Path, start: Start) -> None:
    """Failed trials are left for the next start; a mistake or a stop ends the script with its code."""
    (folder / "behaviour").write_text(f"exit {code}\n")
    assert start().wait(PATIENCE_SECONDS) == (code if ends else 0)
    assert len(calls(folder)) == (1 if ends else SWEEPS)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("code", "signals"), [(143, 1), (143, 2), (1, 1), (0, 1)])
def test_a_stop_reaches_the_sweep_and_is_waited_for(
    number: int, code: int, signals: int, folder: Path, start: Start
) -> None:
    """Sent to the script alone, once or twice: the sweep saves what it has, and no further one begins,
    whatever the exit code of the sweep.
    """
    (folder / "behaviour").write_text(
        f"trap 'touch {folder}/asked; sleep 0.5; touch {folder}/saved; exit {code}' TERM\n"
        f"touch {folder}/begun\nwhile :; do sleep 0.05; done\n"
    )
    script = start()
    wait_for(folder / "begun", script)
    script.send_signal(number)
    wait_for(folder / "asked", script)
    for _ in range(signals - 1):
        script.send_signal(number)
    assert script.wait(PATIENCE_SECONDS) == 143
    assert (folder / "saved").exists()
    assert len(calls(folder)) == 1


def test_a_stop_before_the_first_sweep(folder: Path, start: Start) -> None:
    """While the bundles are copied: then no sweep begins."""
    (folder / "pause").write_text("0.5")
    script = start()
    wait_for(folder / "bundling", script)
    script.send_signal(signal.SIGTERM)
    assert script.wait(PATIENCE_SECONDS) == 143
    assert calls(folder) == []


def test_what_was_bundled_in_its_folder_stays(
    folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published records are added to it, by the real `psa bundle`."""
    words = f'exec {shlex.quote(sys.executable)} -c "from psa.cli.app import main; main()" "$@"'
    (folder / "bin/psa").write_text(f'#!/usr/bin/env bash\n[ "$1" = bundle ] || exit 2\n{words}\n')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    name = next((ROOT / "results/published").glob("*.parquet")).name
    trial = load_grid(ROOT / "reproduction/smoke.toml").trials[0]
    own = Store(folder / "models", folder / "own")
    own.write(trial, some_record(3, trial), {})
    add_to_bundle(folder / "whole/results" / name, own.records)
    assert start().wait(PATIENCE_SECONDS) == 2
    bundle = read_bundle(folder / "whole/results" / name)
    assert bundle is not None
    assert bundle.get(trial.id) is not None
    assert len(bundle) == 1 + len(read_bundle(ROOT / "results/published" / name) or ())
