"""The benchmark: its sides train the same networks, a failing side stops nothing, and slowness shows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from paths import ROOT
from set_up import load_tool

from psa.data.splits import Split, Splits
from psa.engine.batches import Batches, RowSettings
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import train_epoch
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec

sys.path.append(str(ROOT / "benchmarks"))

import bench
import comparison
import handwritten
import ours
import sides
import vmapped

BATCH, STEPS, SEEDS, MODES = 32, 20, 2, 3
CLOSE = 3e-6  # of the mean loss; 20 steps of training change it by more than fifty times as much
NETWORKS = [("simplemlp", "[3*8]"), ("simplemlp", "[2*8,1*6]"), ("resmlp", "[2*6]"), ("resmlp", "[1*8,2*5]")]


class Study:
    """A small network of each seed, its batches, and its losses as psa trains it."""

    def __init__(self, family: str, arch: str) -> None:
        self.net = Dense(PublishedModelSpec(family=family, arch=Arch.coerce(arch)), 10)
        draws = torch.Generator().manual_seed(1)
        images = torch.randn(BATCH * STEPS, 784, generator=draws)
        labels = torch.randint(2, (len(images),), generator=draws)
        self.split = Split(images, labels, labels, torch.arange(len(images)))
        self.rows = [RowSettings(seed, 1, 0.0, 1e-4, 0.0) for seed in range(SEEDS)]
        self.batches = Batches(self.rows, self.split, BATCH)

    def tensors(self, seed: int) -> list[torch.Tensor]:
        """Return the initial parameters of a seed, in the order of the layers."""
        return list(self.net.unstack(self.net.initial(seed)).values())

    def loaded(self, family: str, seed: int) -> torch.nn.Module:
        """Return the hand-written network with the initial parameters of a seed."""
        net = handwritten.network(family, self.net.arch.widths)
        with torch.no_grad():
            for parameter, value in zip(net.parameters(), self.tensors(seed), strict=True):
                parameter.copy_(value)
        return net

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images [S, B, 784] and labels [S, B] of a step."""
        chosen = self.batches.chosen(step)
        return self.split.images[chosen], self.split.labels[chosen]

    def losses(self) -> torch.Tensor:
        """Return the mean loss of psa's epoch, per seed."""
        active = StackedParams.stacked([self.net.initial(row.seed) for row in self.rows])
        gradients = active.zeros_like()
        optimizer = optimizer_for("adamw", self.rows, active, gradients)
        return train_epoch(self.net, self.rows, active, gradients, optimizer, self.batches)


@pytest.mark.parametrize(("family", "arch"), NETWORKS)
def test_torch_sides_train_what_psa_trains(family: str, arch: str) -> None:
    """The loop and the ensemble: as many parameters, and from the same start the same losses."""
    study = Study(family, arch)
    psa = study.losses()
    nets = [study.loaded(family, seed) for seed in range(SEEDS)]
    assert sum(one.numel() for one in nets[0].parameters()) == study.net.shape.parameters
    ensemble = vmapped.Ensemble([net for net in nets for _ in range(MODES)], SEEDS)
    loops = [handwritten.Loop(net) for net in nets]
    hand, stacked = torch.zeros(SEEDS), torch.zeros(SEEDS, MODES)
    for step in range(STEPS):
        images, labels = study.batch(step)
        hand += torch.stack([loop.step(images[s], labels[s]) for s, loop in enumerate(loops)]) / STEPS
        stacked += ensemble.step(images, labels) / STEPS
    assert torch.allclose(hand.double(), psa, rtol=0, atol=CLOSE)
    assert torch.allclose(stacked.double(), psa[:, None].expand(-1, MODES), rtol=0, atol=CLOSE)
    assert (psa - unmoved(study, family)).abs().min() > 50 * CLOSE


def unmoved(study: Study, family: str) -> torch.Tensor:
    """Return the mean loss of the initial networks over the epoch, per seed."""
    means = []
    for seed in range(SEEDS):
        net = study.loaded(family, seed)
        with torch.no_grad():
            parts = [study.batch(step) for step in range(STEPS)]
            means.append(
                torch.stack(
                    [torch.nn.functional.cross_entropy(net(x[seed]), y[seed]) for x, y in parts]
                ).mean()
            )
    return torch.stack(means).double()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "arch"), [NETWORKS[1], NETWORKS[3]])
def test_jax_trains_what_psa_trains(family: str, arch: str) -> None:
    """As many parameters, and from the same start the same losses; correct answers as psa's networks give."""
    pytest.importorskip("jax")
    import jax
    import jax.numpy as jnp
    import jaxed

    study = Study(family, arch)
    widths = study.net.arch.widths
    assert sum(map(np.prod, jaxed.shapes(family, widths))) == study.net.shape.parameters
    starts = [[one.numpy() for one in study.tensors(seed)] for seed in range(SEEDS)]
    assert [one.shape for one in starts[0]] == jaxed.shapes(family, widths)
    each = [jaxed.from_tensors(family, widths, start) for start in starts for _ in range(MODES)]
    stacked = jax.tree.map(lambda *one: np.stack(one).reshape(SEEDS, MODES, *one[0].shape), *each)
    program = jaxed.Program(family)
    images, labels = study.split.images.numpy(), study.split.labels.numpy().astype(np.int32)
    order = np.stack([study.batches.chosen(step).numpy() for step in range(STEPS)]).astype(np.int32)
    correct = program.correct(stacked, images, labels)
    for seed in range(SEEDS):
        answers = study.loaded(family, seed)(study.split.images).argmax(dim=1)
        assert np.asarray(correct)[seed].tolist() == [int((answers == study.split.labels).sum())] * MODES
    data = jnp.asarray(images), jnp.asarray(labels), jnp.asarray(order)
    _, total = program.train(program.start(stacked), *data, STEPS)
    psa = study.losses().numpy()
    assert np.allclose(np.asarray(total) / STEPS, psa[:, None].repeat(MODES, 1), rtol=0, atol=CLOSE)


def test_equal_trials_are_trained_once() -> None:
    """Modes none and decay are equal at the published rates, and only the first is trained."""
    trials = ours.trials_of("simplemlp", "1*2", seeds=2)
    kept = ours.trained_once(trials)
    assert (len(trials), len(kept)) == (12, 10)
    assert [each for each in trials if each.intervention.mode != "decay"] == kept


@pytest.mark.parametrize("size", [1, 2, 6, 60])
def test_a_pack_of_any_size_saves_the_equal_trials(
    size: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack of two rows was timed as modes none and decay, that is one row for two trials. What an epoch
    takes before its first step counts once.
    """
    monkeypatch.setattr(ours, "step_times", lambda _: (1e7, [1e6 * size]))
    found = ours.measure({"family": "simplemlp", "arch": "1*2", "size": size, "seconds": 0.0}, small)
    steps = -(-len(small.train) // ours.BATCH)
    rows = min(size, 50)
    assert found["trained"] == 5 / 6
    assert found["epoch"] == pytest.approx((1e7 + 1e6 * steps * size) / rows * 5 / 6, rel=1e-3)


SCRIPT = """
import sys, time
sys.path.insert(0, {folder!r})
import serving
def measure(task):
    {before}
    epoch = serving.seconds_per_step(lambda: time.sleep({delay}), 0.01)
    return {{"epoch": epoch, "checkpoint": 0.0, "trained": 1.0}}
calibrate = lambda task: {{"steps": {{"6": 1.0}}, "calibration": 0.0}}
serving.serve({{"try": measure, "measure": measure, "calibrate": calibrate}}, {{"loading": 0.5}})
"""


def row(folder: Path, delays: dict[str, float], **before: str) -> dict[str, Any]:
    """Return the row of sides that sleep for some seconds in each step."""
    made = {}
    for name, delay in delays.items():
        script = folder / f"{name}.py"
        text = SCRIPT.format(folder=str(ROOT / "benchmarks"), delay=delay, before=before.get(name, "pass"))
        script.write_text(text)
        made[name] = sides.Processes(str(script), folder, 1, 1)
    psa = bench.Ours(made.pop("ours"), 60)
    others = [
        sides.Side(name, [sides.Arrangement("one process", one, 1, 1)], limit=2 if before else 60)
        for name, one in made.items()
    ]
    try:
        return bench.Turns(psa, others, "simplemlp", "1*2", 0.01).run()
    finally:
        for side in [*others, psa.processes]:
            side.close()


def test_planted_slowness_changes_the_ratio(tmp_path: Path) -> None:
    """Seconds of psa or of an alternative show in the ratios, and the fastest alternative is the best."""
    fast = row(tmp_path, {"hand": 0.12, "vmap": 0.08, "jax": 0.04, "ours": 0.004})
    slow = row(tmp_path, {"hand": 0.12, "vmap": 0.008, "jax": 0.04, "ours": 0.16})
    assert fast["best"] == "jax"
    assert slow["best"] == "vmap"
    assert fast["ratio"] > 1 > slow["ratio"]
    assert slow["ours"] > fast["ours"]
    assert all(fast["ratios"][name] > slow["ratios"][name] for name in ("hand", "vmap", "jax"))


def test_a_missing_library_is_the_note_of_every_row(tmp_path: Path) -> None:
    """A side that cannot start is asked once, and says why in each row."""
    script = tmp_path / "missing.py"
    started = "open('started', 'a').write('x'); print('{\"error\": \"it is not installed\"}')"
    script.write_text(f"import os, sys; os.chdir(sys.argv[1]); {started}")
    side = sides.Side(
        "jax", [sides.Arrangement("", sides.Processes(str(script), tmp_path, 1, 1), 1, 1, (1, 2))]
    )
    for arch in ("1*2", "1*4"):
        with pytest.raises(sides.SideError, match="it is not installed"):
            side.prepare("simplemlp", arch, 0.1)
    assert (tmp_path / "started").read_text() == "x"


def test_a_failing_side_stops_nothing(tmp_path: Path) -> None:
    """A side that hangs, dies or raises has the reason in its cell; the others are measured."""
    bad = {"hand": "time.sleep(60)", "vmap": "sys.exit(1)", "jax": "raise ValueError('too deep')"}
    found = row(tmp_path, dict.fromkeys(("hand", "vmap", "jax", "ours"), 0.01), **bad)
    assert found["hand"] is found["vmap"] is found["jax"] is found["ratio"] is found["best"] is None
    assert found["notes"]["hand"] == "over 2 s"
    assert found["notes"]["vmap"] == "a process has ended"
    assert "too deep" in found["notes"]["jax"]
    assert found["ours"] > 0
    total = comparison.totals([found], 0.0, 1e9)
    assert total["geometric_mean"] is total["hand_hours"] is total["slowest"] is None
    assert "too deep" in comparison.line(found, 1e9)


@pytest.mark.slow
def test_a_run_writes_what_is_documented_and_goes_on(tmp_path: Path, data_dir: Path) -> None:
    """Every key stands in the documentation; the second start measures nothing again."""
    command = [sys.executable, ROOT / "benchmarks/bench.py", "--arch", "1*2", "--family", "simplemlp"]
    command += [
        "--seconds",
        "0.01",
        "--limit",
        "300",
        "--output",
        tmp_path,
        "--data-dir",
        data_dir,
    ]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path) for _ in range(2)
    )
    body = json.loads((tmp_path / "bench.json").read_text())
    (measured,) = body["rows"]
    documented = (comparison.__doc__ or "").split("`")[1::2]
    assert {*body, *measured} - {"family", "arch", "ratios"} <= {*documented}
    assert measured["hand"] > 0
    assert measured["vmap"] > 0
    assert measured["ours"] > 0
    assert measured["ratio"] == min(one for one in measured["ratios"].values() if one)
    assert (tmp_path / "bench.png").stat().st_size > 0
    assert "--fresh" not in first.stdout
    assert "1 rows are stored" in second.stdout


def test_a_group_that_cannot_be_installed_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a line, with success, and without a trace in the stamp that later set-ups read."""
    tool = load_tool("optional_group")
    environment = sys.modules["environment"]
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(environment, "BUILD", tmp_path / ".build")
    venv = environment.Environment(tmp_path / ".venv")
    venv.folder.mkdir()
    venv.seal("a digest", {"plain"})
    asked: list[set[str]] = []

    def failing(venv: Any, wanted: set[str], *, same_python: bool) -> None:
        asked.append(wanted)
        venv.seal("unfinished", wanted)
        raise environment.SetUpError("pip failed")

    monkeypatch.setattr(tool, "lay_venv", failing)
    monkeypatch.setattr(sys, "argv", ["optional_group.py", "bench"])
    assert tool.main() == 0
    assert asked == [{"plain", "--with=bench"}]
    assert venv.extent("a digest") == {"plain"}
    assert "going on without the dependency group bench: pip failed" in capsys.readouterr().out
