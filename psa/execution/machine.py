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
    """Where data sets are kept, and what to train on.

    device: None means the best one there is. threads: of one process; one gives the same bits in any pack
    and is the fastest for small networks. readers: threads that read and check the data files.
    """

    data_dir: Path = Path("dataset")
    device: DeviceName | None = None
    threads: int = 1
    loader_threads: int = 4

    def prepare(self) -> torch.device:
        """Set torch up in this process and return the device. Raises UserError where it is not there."""
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
    if wanted is None:
        return torch.device(next(name for name, found in there.items() if found))
    if not there[wanted]:
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise UserError(f"--device {wanted}: this machine has none", f"Available here: {found}")
    return torch.device(wanted)


def check_memory(parameters: int, trials: int, device: torch.device, kept: int = 0, bank: int = 0) -> None:
    """Find out before any work is done whether a pack fits. Raises UserError.

    parameters: of one trial, 4 bytes each. Counted is the least that training holds at one moment: on the
    device the LKG, its copy, gradients and two moments; on the host the LKG twice more, as it is written.
    kept, bank: bytes of what else a trial keeps on the device while it trains: the gradients of its samples,
    and the entries of its hidden-state memory, whose room is taken at once.
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
    """Return how many processes can compute at once here: the allotted cores, within the cgroup's quota.

    A batch system, `taskset` or a container gives fewer than the machine has. A part of a core counts as one:
    what a quota leaves over would be lost otherwise.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, cgroups.cpu_quota())))


def _host_memory() -> float:
    """Bytes this process may use: of the machine, its cgroup and its own limit; infinity where unknown."""
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
    """What a record's sidecar says of the machine: differs from run to run and never touches the result."""
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
