"""The GPUs of this machine (from `nvidia-smi`) and the workers that share each. Imports no torch."""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psa.core.process import run_captured
from psa.execution.machine import DeviceName, usable_cores

WORKERS_PER_GPU: Final = 4  # one prepares a loop or saves while others compute
ASKING_SECONDS: Final = 10.0  # the first query wakes the driver, which takes seconds
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
_MIB: Final = 2**20
_QUESTION: Final = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """A GPU: the environment that makes it the only one a process sees, and its memory in bytes."""

    environment: tuple[tuple[str, str], ...]
    memory: float


DeviceSlot = Gpu | None  # one GPU of several; None: the CPU or the only device


def device_slots(device: DeviceName | None, need: int, asked: int | None = None) -> list[DeviceSlot]:
    """Return one slot for each worker: `asked`, or the default for this machine.

    The default is one per core; with GPUs at most 4 per GPU, and no more than its memory holds at `need`
    bytes each (but at least one, which then reports the lack of memory).
    """
    gpus = found() if device in (None, "cuda") else []
    cores = usable_cores()
    if not gpus:
        return [None] * (asked or cores)
    fits = [max(1, min(WORKERS_PER_GPU, gpu.memory / need)) for gpu in gpus]
    # first one on each GPU, then a second: few workers spread over all
    turns = range(1, WORKERS_PER_GPU + 1)
    shares = [gpu for turn in turns for gpu, most in zip(gpus, fits, strict=True) if turn <= most]
    return list(itertools.islice(itertools.cycle(shares), asked or min(cores, len(shares))))


def found() -> list[Gpu]:
    """Return the GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES if it is set."""
    memory = _asked()
    visible = os.environ.get(_VISIBLE)
    if not memory:
        return []
    if visible is None:
        order = ("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the order of nvidia-smi; the default of CUDA differs
        return [Gpu((order, (_VISIBLE, str(number))), there) for number, there in enumerate(memory)]
    return [Gpu(((_VISIBLE, name),), _memory_of(name, memory)) for name in _named(visible, len(memory))]


def _named(visible: str, count: int) -> list[str]:
    """Return the entries of CUDA_VISIBLE_DEVICES before the first invalid one; CUDA ignores the rest, too."""
    names = [name.strip() for name in visible.split(",")]

    def names_one(name: str) -> bool:
        return int(name) < count if name.isdecimal() else name.startswith(("GPU-", "MIG-"))

    return list(itertools.takewhile(names_one, names))


def _memory_of(name: str, memory: Sequence[float]) -> float:
    """Return the bytes of a GPU given by number; by UUID the least of all GPUs, for a MIG slice 1/8 of it."""
    if name.isdecimal():
        return memory[int(name)]
    return min(memory) / (8 if name.startswith("MIG-") else 1)


def _asked() -> list[float]:
    """Return the bytes of each GPU in the order of nvidia-smi; [] if that is missing, fails or is slow."""
    try:
        done = run_captured(_QUESTION, ASKING_SECONDS)
        done.check_returncode()
    except (OSError, subprocess.SubprocessError):
        return []
    output = done.stdout
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # "[N/A]" where GPU and processor share their memory: no limit of its own
    sizes = [float(line) * _MIB if line.isdecimal() else float("inf") for line in lines]
    return sizes if all(line.isdecimal() or line.startswith("[") for line in lines) else []
