"""The device, the data and the time of one check, and the trials that it trains."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np
import torch

from psa.core.errors import Interrupted
from psa.core.rng import generator
from psa.data.datasets import DATASETS, locate
from psa.data.splits import Split, Splits, load_splits
from psa.engine import loop
from psa.engine.device_pack import fresh_state
from psa.engine.policies import policy_for
from psa.nn.dense import Dense
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.training import MODES, Ablation, RatchetTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState

ROOT: Final = Path(__file__).parents[2]
FAMILIES: Final = ("simplemlp", "resmlp")
CPU: Final = torch.device("cpu")
CORNER: Final = (600, 300, 200)  # samples of training, validation and test beside the slow twin
MADE_UP: Final = (4_000, 2_000, 500)
PIXELS: Final = 784


@dataclass(frozen=True)
class Deadline:
    """The moment, of time.monotonic, at which work must have ended."""

    at: float

    def left(self) -> float:
        """Return the seconds until then; negative once it has passed."""
        return self.at - time.monotonic()

    def passed(self) -> bool:
        """Return True once the moment has passed."""
        return self.left() <= 0


@dataclass(frozen=True)
class Setting:
    """What the checks work on. splits: on the CPU. data: `mnist` or `made-up`."""

    device: torch.device
    splits: Splits
    data: str
    deadline: Deadline

    @property
    def corner(self) -> Splits:
        """The first few samples of each split, on the CPU."""
        return beginning(self.splits, CORNER)

    @property
    def is_cpu(self) -> bool:
        """True where the device is the CPU: results must then be the same to the bit."""
        return self.device.type == "cpu"


def beginning(splits: Splits, sizes: tuple[int, int, int]) -> Splits:
    """Return the first samples of the three splits, at most `sizes`."""
    train, val, test = sizes
    return dataclasses.replace(
        splits, train=splits.train.first(train), val=splits.val.first(val), test=splits.test.first(test)
    )


def load_data(data_dir: Path) -> tuple[Splits, str]:
    """Return MNIST and `mnist` if its files are in the folder, else made-up samples and `made-up`.

    Nothing is downloaded.
    """
    mnist = DATASETS["mnist"]
    folders = (data_dir / mnist.name, data_dir, data_dir / mnist.torchvision / "raw")
    if all(any(locate(folder, name) for folder in folders) for name in mnist.files):
        return load_splits(DataSpec(), data_dir), "mnist"
    return made_up(), "made-up"


def made_up() -> Splits:
    """Return samples of ten classes, the same on every machine: a pattern for each class, and noise.

    Pixels are scaled as those of MNIST are. Networks of the study learn them in a few hundred steps.
    """
    patterns = generator(0, "projection").random((10, PIXELS), dtype=np.float32)
    parts: list[Split] = []
    for number, size in enumerate(MADE_UP, start=1):
        draws = generator(0, "projection", number)
        labels = torch.from_numpy(draws.integers(10, size=size))
        noise = draws.random((size, PIXELS), dtype=np.float32)
        pixels = torch.from_numpy(0.25 * patterns[labels.numpy()] + 0.75 * noise)
        parts.append(Split((pixels - 0.1307) / 0.3081, labels, labels, torch.arange(size)))
    train, val, test = parts
    return Splits(train, val, test, 10, tuple(range(10)))


def arms(family: str, arch: str, seeds: Sequence[int]) -> list[Trial]:
    """Return trials of every mode and seed, at a rate at which a few steps move the weights."""
    return [
        Trial(
            model=PublishedModelSpec.model_validate(
                {"family": family, "arch": Arch.coerce(arch), "dropout": 0.25 * (mode == "dropout")}
            ),
            method=RatchetTraining(lr=1e-3, batch_size=64, weight_decay=0.1 * (mode == "decay")),
            intervention=Ablation.model_validate({"mode": mode}),
            seed=seed,
        )
        for seed in seeds
        for mode in MODES
    ]


def train(
    trials: Sequence[Trial],
    splits: Splits,
    loops: int,
    setting: Setting,
    *,
    device: torch.device | None = None,
    states: list[TrialState] | None = None,
    killed_after: int | None = None,
) -> tuple[list[TrialState], list[loop.TestResult]]:
    """Train trials as one pack up to `loops`, or continue `states`. Return their states and test results.

    killed_after: a number of training steps after which the run is interrupted; there are no test results
    then. Raises TimeoutError if the time is up.
    """
    device = device or setting.device
    net = Dense(trials[0].model, splits.classes)
    states = states or [fresh_state(trial, net, loops) for trial in trials]
    steps = 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return setting.deadline.passed() or (killed_after is not None and steps > killed_after)

    there = splits.to(device)
    policy = policy_for(trials[0], net, there)
    try:
        tests = loop.run_loops(
            net, there, states, loops, policy, device=device, save=lambda _: None, stop=stop
        )
    except Interrupted:
        if setting.deadline.passed():
            raise TimeoutError("the check must end within its time, and did not") from None
        return states, []
    return states, tests


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that `work` takes, until the device has done it."""
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def slow_twin() -> ModuleType:
    """Return the reference implementation of the tests: one trial, an ordinary module, one step at a time."""
    if "psa_reference" not in sys.modules:
        place = importlib.util.spec_from_file_location("psa_reference", ROOT / "tests/support/reference.py")
        if place is None or place.loader is None:
            raise FileNotFoundError("tests/support/reference.py must be in the checkout")
        module = importlib.util.module_from_spec(place)
        sys.modules["psa_reference"] = module  # its dataclass looks itself up there
        place.loader.exec_module(module)
    return sys.modules["psa_reference"]
