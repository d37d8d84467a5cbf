"""The machine a pack is trained on: device, threads and folders, none of which touch a trial's identity."""

from __future__ import annotations

import math
import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psa
from psa import __version__
from psa.core.errors import UserError
from psa.execution import cgroups
from psa.execution.cost_model import processor_name

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Machine:
    """The data folder and the device to train on.

    device: None selects a CUDA GPU if there is one, else the CPU. threads: per process; one gives the same
    bits in any pack and is the fastest for small networks. loader_threads: threads that read and verify the
    data files.
    """

    data_dir: Path = Path("dataset")
    device: DeviceName | None = None
    threads: int = 1
    loader_threads: int = 4

    def prepare(self) -> torch.device:
        """Set torch up in this process and return the device. Raises UserError if it is not available."""
        import torch

        torch.set_num_threads(self.threads)
        # Deep narrow networks underflow; denormal numbers would make them tens of times slower.
        torch.set_flush_denormal(True)
        return _device(self.device)


def _device(wanted: DeviceName | None) -> torch.device:
    import torch

    there: dict[DeviceName, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted is None:  # an Apple GPU only if asked for: no one has measured that it is faster
        return torch.device("cuda" if there["cuda"] else "cpu")
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(
            f"--device must be available on this machine, got {wanted}", f"Available here: {found}"
        )
    return torch.device(wanted)


def check_memory(parameters: int, trials: int, device: torch.device, kept: int = 0, bank: int = 0) -> None:
    """Raise UserError if a pack does not fit into memory, before any work is done.

    parameters: of one trial, 4 bytes each. The check counts the least that training holds at one moment: on
    the device the LKG, its copy, gradients and two moments; on the host two more LKGs while it is written.
    kept, bank: bytes that a trial also keeps on the device while it trains: the gradients of its samples, and
    the entries of its hidden-state memory, which are allocated at the start.
    """
    row = 4 * parameters * trials
    on_device = 5 * row + (kept + bank) * trials
    wants = [("memory", 2 * row + (on_device if device.type == "cpu" else 0), _host_memory())]
    if device.type == "cuda":
        import torch

        wants.append(("GPU memory", on_device, torch.cuda.get_device_properties(device).total_memory))
    for kind, least, there in wants:
        if least > there:
            less = "a smaller memory_size" if bank else "fewer or narrower layers"
            what = f"{trials:,} trial{'s' * (trials > 1)} of {parameters:,} parameters"
            what += " and the gradients of their samples" if kept else ""
            what += " with their hidden-state memories" if bank else ""
            raise UserError(
                f"arch: {what} need at least {least / 1e9:,.1f} GB of {kind}, "
                f"this machine has {there / 1e9:,.1f} GB",
                f"Choose {less}, or fewer trials at once",
            )


def usable_cores() -> int:
    """Return the number of processes that can compute at once: the allotted cores within the cgroup's quota.

    A batch system, `taskset` or a container gives fewer than the machine has. A part of a core counts as one:
    what a quota leaves over would be lost otherwise.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, cgroups.cpu_quota())))


def _host_memory() -> float:
    """Return the bytes this process may use: the least of machine, cgroup and own limit; inf if unknown."""
    try:
        there = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError):
        there = float("inf")
    return min(there, cgroups.memory_limit(), _address_space())


def _address_space() -> float:
    """Return the bytes that `ulimit -v` allows; infinity where it does not."""
    try:
        import resource
    except ImportError:
        return float("inf")
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else float(limit)


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Return the facts on the machine for a record's sidecar, which differ by run and affect no result."""
    import numpy as np
    import torch

    return {
        "psa": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "host": socket.gethostname(),
        "processors": os.cpu_count(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "code": str(Path(str(psa.__file__)).parent),
    }
