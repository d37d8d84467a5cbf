"""The cost of training on this machine (seconds, memory, bytes on disk), and the fastest pack size.

Measured step times per network and pack size are cached in a file per machine (made by
psa.execution.worker.benchmark). Without a measurement they are estimated from the number of operations.
Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.execution import gradient_storage
from psa.specs.base import canonical_json
from psa.specs.memory import footprint_bytes
from psa.specs.memory_sites import position_of, site_widths
from psa.specs.shapes import IMAGE, Shape
from psa.specs.trial import Trial, training_key
from psa.storage.helper_files import STEP_TIMES, read_helper

logger = logging.getLogger(__name__)

_ARM_KEYS: Final = ("CPU implementer", "CPU part")
SIZES: Final = (1, 2, 6, 12, 30, 60)  # in rows; candidate_sizes rounds them down to whole seeds
WORTH_IT: Final = 1.02  # a larger pack has to be faster by this factor
EVALUATION_SHARE: Final = 1.08  # 10,000 forward passes beside 50,000 forward and backward ones
PROBE_SHARE: Final = 0.3  # of the epoch: a pass of the validation split, one trial beside a copy of itself
# Where nothing is measured: a thread's rate, the time of a layer's calls, and of a trial in a layer.
_FLOPS: Final = 6e10
_LAYER_SECONDS: Final = 1.2e-4
_TRIAL_LAYER_SECONDS: Final = 8e-6
_BUFFERS: Final = 7  # LKG, copy, gradients, two moments, and twice as a file is written
_BANKS: Final = 4  # a memory, the copy that learns, one that a probe looks at, and one on its way to a file
_ON_THE_WAY: Final = 2  # copies of one trial's gradients as they are written to a file
_CHOICE_SECONDS: Final = 5e-9  # to find the least of a row of scores, per score; 13 of 20 ms at 128 x 20,000
_MEMORY_SECONDS: Final = 3e-3  # a step's other work on a memory
_STARTUP: Final = "start of workers"  # the entry for the time until they train their first pack
_STARTUP_SECONDS: Final = 6.0  # where it is not measured: torch is loaded and the data are read
_WORKER_BYTES: Final = 850_000_000  # of torch with CUDA, numba and MNIST (measured, 2026-11)
_MNIST_BYTES: Final = 4 * 784 * 70_000
_PACK_BYTES: Final = 2_000_000_000  # of parameters and activations in one pack


@dataclass(frozen=True)
class WorkloadKey:
    """The properties of a pack that determine its speed, apart from its size."""

    network: str
    batch_size: int
    classes: int
    sample: tuple[int, ...] = IMAGE

    @classmethod
    def of(cls, trial: Trial) -> WorkloadKey:
        """Return the key of a trial's packs."""
        network = " ".join(map(str, trial.model.shape_key))
        network += "" if trial.memory is None else f" {trial.memory.slug} {trial.memory.capacity}"
        return cls(network, trial.method.batch_size, trial.data.classes, trial.data.shape)

    @property
    def key(self) -> str:
        """The name of the entry in the cache."""
        shape = "" if self.sample == IMAGE else f" {'x'.join(map(str, self.sample))}"
        return f"{self.network} {self.batch_size} {self.classes}{shape}"


class CostModel:
    """Step times of one machine, measured or estimated, and the costs derived from them.

    steps: key of a workload -> pack size -> seconds of one training step of the whole pack, on one thread.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._refused = path, False
        table = read_helper(path, STEP_TIMES, "step times are measured again") or {}
        self.startup_seconds = table.pop(_STARTUP, {}).get(1, _STARTUP_SECONDS)
        self.steps: dict[str, dict[int, float]] = table

    @classmethod
    def of_machine(cls, models: Path, device: str | None = None) -> CostModel:
        """Return the cached costs of this machine (and device, if one is named), stored beside the states."""
        return cls(models / ".machines" / f"{machine_key()}-{device or 'best'}.json")

    def measured(self, kind: WorkloadKey) -> bool:
        """Return True if step times of a kind have been measured."""
        return kind.key in self.steps

    def update(self, kind: WorkloadKey, seconds: dict[int, float]) -> None:
        """Store measured step times; if the file cannot be written, keep them for this process only."""
        self._store({kind.key: seconds})

    def update_startup(self, seconds: float) -> None:
        """Store the measured time from the start of the workers to their first pack."""
        self.startup_seconds = max(seconds, 1e-3)
        self._store({})

    def _store(self, measured: dict[str, dict[int, float]]) -> None:
        stored = read_helper(self.path, STEP_TIMES) or {}  # another sweep may have measured meanwhile
        stored.pop(_STARTUP, None)
        self.steps = stored | self.steps | measured
        if self._refused:
            return
        table = self.steps | {_STARTUP: {1: self.startup_seconds}}
        body = {key: {str(size): value for size, value in sizes.items()} for key, sizes in table.items()}
        try:
            write_atomically(self.path, canonical_json(body).encode() + b"\n")
        except UserError as error:
            self._refused = True
            logger.warning("%s; the next sweep measures step times again", error.message)

    def step(self, trial: Trial, size: int) -> float:
        """Return the seconds of one step of a pack of `size` such rows."""
        known = self.steps.get(WorkloadKey.of(trial).key, {})
        if not known:
            plain = _estimate(trial.shape, trial.method.batch_size, size)
            return plain + _search_seconds(trial) * size
        nearest = min(known, key=lambda measured: abs(measured - size))
        return (
            known[nearest] * size / nearest
            if size > nearest
            else known[nearest] * max(size / nearest, min(1.0, known[min(known)] / known[nearest]))
        )

    def best_size(self, group: Sequence[Trial]) -> int:
        """Return the number of rows in the fastest packs of a group, among those that fit into memory."""
        return fastest({size: self.step(group[0], size) for size in candidate_sizes(group)})

    def loop_seconds(self, trials: Sequence[Trial]) -> float:
        """Return the seconds of one meta-loop of a pack, evaluation included, on one thread."""
        trial = trials[0]
        steps = -(-gradient_storage.train_samples(trial) // trial.method.batch_size)
        share = EVALUATION_SHARE + PROBE_SHARE * len(trial.probes)
        return self.step(trial, trained_rows(trials)) * steps * share


def candidate_sizes(group: Sequence[Trial]) -> list[int]:
    """Return the pack sizes worth trying for a group, in trained rows: those of SIZES, but whole seeds
    where they exceed one seed, and at most all rows. Sizes above 1 fit in a worker's share of the memory.
    """
    trial, rows = group[0], trained_rows(group)
    of_seed = -(-rows // len({each.seed for each in group}))  # rows of a seed read the same samples
    row = 4 * trial.shape.parameters * _BUFFERS + _BANKS * bank_bytes(trial)
    row += gradient_storage.epoch_bytes(trial)
    sizes = sorted({min(size - size % of_seed if size > of_seed else size, rows) for size in SIZES})
    return [size for size in sizes if size == 1 or size * row <= _PACK_BYTES]


def trained_rows(group: Sequence[Trial]) -> int:
    """Return how many rows a pack of these trials trains: trials that are trained alike share one."""
    return len({training_key(each) for each in group})


def fastest(steps: Mapping[int, float]) -> int:
    """Return the smallest pack size whose time per row is within 2 % of the least.

    steps: seconds of a step by pack size. Smaller packs lose less when one fails.
    """
    each = {size: seconds / size for size, seconds in steps.items()}
    return next(size for size in sorted(each) if each[size] <= WORTH_IT * min(each.values()))


def _estimate(shape: Shape, batch_size: int, size: int) -> float:
    arithmetic = 6 * shape.multiplications * batch_size * size / _FLOPS
    layers = len(shape.linears)
    return arithmetic + layers * (_LAYER_SECONDS + _TRIAL_LAYER_SECONDS * size) + 5e-4


def _dims(trial: Trial) -> tuple[int, int]:
    """Return the maximum lengths of keys and values in a trial's memory; (0, 0) without a memory."""
    widths = site_widths(trial.model, trial.data.shape[0])
    if trial.memory is None:
        return 0, 0
    width = widths[position_of(trial.memory.site, len(widths)).layer]
    return width, min(width, trial.memory.affected.dims)


def bank_bytes(trial: Trial) -> int:
    """Return the bytes of a full hidden-state memory, 0 without one."""
    return 0 if trial.memory is None else footprint_bytes(trial.memory.capacity, *_dims(trial))


def _search_seconds(trial: Trial) -> float:
    """Return the seconds to search a full memory in a step: batch times keys, and the minimum of each row."""
    if trial.memory is None:
        return 0.0
    scores = trial.method.batch_size * trial.memory.capacity
    return scores * (2 * _dims(trial)[0] / _FLOPS + _CHOICE_SECONDS) + _MEMORY_SECONDS


def memory_bytes(trials: Sequence[Trial]) -> int:
    """Return the peak bytes of a worker that trains this pack: torch, data, parameters and activations."""
    shape = trials[0].shape
    parameters = 4 * shape.parameters * _BUFFERS * len(trials)
    widths = sum(linear.outputs for linear in shape.linears)
    activations = 4 * 3 * max(trials[0].method.batch_size, 500) * widths * len(trials)
    banks = _BANKS * bank_bytes(trials[0]) * len(trials)
    gradients = gradient_storage.epoch_bytes(trials[0]) * (len(trials) + _ON_THE_WAY)
    data = trials[0].data.facts
    samples = 4 * math.prod(data.shape) * (data.train + data.validation + data.test)
    return _WORKER_BYTES + max(0, samples - _MNIST_BYTES) + parameters + activations + banks + gradients


def trial_bytes(trial: Trial, meta_loops: int) -> int:
    """Return the bytes on disk of one finished trial: two states, record, sidecar, gradients and details."""
    parameters = trial.shape.parameters
    copies = 1 + len(trial.method.carried)
    state = 4 * copies * parameters + bank_bytes(trial) + 3_000 + 80 * meta_loops
    arrays = gradient_storage.gradient_bytes(trial, meta_loops) + gradient_storage.detail_bytes(trial)
    return 2 * state + 1_500 + 75 * meta_loops + arrays


def machine_key() -> str:
    """Return a name for what step times depend on: processor, number of cores, torch."""
    facts = [processor(), os.cpu_count(), platform.machine(), version("torch")]
    return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:12]


def processor() -> str:
    """Return the line of /proc/cpuinfo that names the processor; elsewhere what the system calls it.

    Step times are stored under a digest of it, so it keeps its form; `processor_name` is for people.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return _brand() or platform.processor()
    named = next((line for line in lines if line.startswith("model name")), "")
    # on ARM a core has numbers in place of a name
    numbers = [line.partition(":")[2].strip() for line in lines if line.startswith(_ARM_KEYS)][:2]
    return named or " ".join(["ARM", *numbers] if numbers else []) or platform.processor()


def processor_name() -> str:
    """Return the name of the processor, on which the last bits of a result may depend."""
    return processor().rpartition(":")[2].strip() or platform.machine()


def _brand() -> str:
    """Return the name of the processor on macOS, where Python knows no more than `arm`; "" elsewhere."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    return ""
