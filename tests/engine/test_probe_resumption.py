"""Probes of trials that begin at different loops, or that store arrays of training and of the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from plugin_files import loaded

from psa.core.errors import Interrupted
from psa.core.stop import StopRequest
from psa.data.own import content_of_arrays, keep_tables
from psa.execution.machine import Machine
from psa.execution.worker.run import RunHooks, run_unlocked
from psa.specs.data import DataSpec
from psa.specs.growth import Growth
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Pack, Trial
from psa.storage.array_file import read_arrays
from psa.storage.store import Store

BOTH = """
import numpy as np
from psa import register_probe

class Steps:
    def __init__(self): self.count = 0
    def step(self, number, chosen, logits): self.count += 1
    def layer(self, number, x, delta): pass
    def arrays(self, row): return {"followed": np.array([self.count])}

class Both:
    name = "both"
    def places(self, net): return {}
    def on_loop_end(self, probe_input): return [{"loops": [float(loop)]} for loop in probe_input.loops]
    on_finish = on_loop_end
    def follow(self, net, splits, batches, loops): return Steps()
    def arrays(self, probe_input, row): return {"final": np.array([True])}

def register():
    register_probe(Both)
"""


class StopAt(StopRequest):
    """A request to stop that is made at the Nth question."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    """Two classes that one of three features tells apart."""
    samples = np.random.default_rng(0).normal(size=(60, 3))
    content = content_of_arrays(samples, (samples[:, 0] > 0).astype(int))
    return DataSpec(name=content.name, content=content)


def store(folder: Path) -> Store:
    """Return the store of a folder, as a new process opens it."""
    return Store(folder / "models", folder / "results")


def train(trials: Sequence[Trial], loops: int, folder: Path, stop: StopRequest | None = None) -> list[bytes]:
    """Train in a folder; the bytes of each trial's record and of the states."""
    machine, found = Machine(folder / "data", "cpu", 1, 0), store(folder)
    keep_tables(trials, machine.data_dir)
    run_unlocked(
        Pack(trials=tuple(trials), horizon=loops), found, machine, RunHooks(stop=stop) if stop else None
    )
    paths = [*map(found.record_path, trials), *sorted(found.state_paths())]
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("probe", ["train_accuracy", "distributions", "layer_usage"])
def test_trials_of_a_pack_that_begin_at_different_loops(data: DataSpec, probe: str, tmp_path: Path) -> None:
    """One has grown when another joins; stopped after any step, both end as without a stop."""
    method, growth = StandardTraining(batch_size=16), Growth(interval=2, width=2)
    model = NetworkSpec(family="mlp", arch="1*4")
    first = Trial(data=data, model=model, method=method, growth=growth, probes=(probe,), study="growth")
    trials = [first, first.changed(seed=1)]
    train(trials[:1], 3, tmp_path / "expected")
    expected = train(trials, 5, tmp_path / "expected")
    for step in range(1, 10, 2):
        folder = tmp_path / str(step)
        train(trials[:1], 3, folder)
        with pytest.raises(Interrupted):
            train(trials, 5, folder, StopAt(step))
        assert [each.problem for each in store(folder).verify() if each.problem] == []
        assert train(trials, 5, folder) == expected


def test_a_probe_may_store_arrays_of_training_and_of_the_end(data: DataSpec, tmp_path: Path) -> None:
    """Every file that a record or a state names is there with its digest, also after longer training."""
    plugin = tmp_path / "both.py"
    plugin.write_text(BOTH)
    with loaded(plugin):
        one = Trial(data=data, model=NetworkSpec(family="mlp", arch="1*4"), probes=("both",))
        for loops in (3, 5):
            train([one], loops, tmp_path / "run")
            found = store(tmp_path / "run")
            assert [each.problem for each in found.verify() if each.problem] == []
            files = {
                path.name.split(".")[1]: list(read_arrays(path).arrays)
                for path in (tmp_path / "run").rglob("*.arrays.safetensors")
            }
            assert files[f"both-{loops}"] == ["followed"]
            assert files[f"both-final-{loops}"] == ["final"]
