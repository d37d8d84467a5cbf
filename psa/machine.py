"""The machine a pack is trained on: device, threads and folders, none of which touch a trial's identity."""

from __future__ import annotations

import os
import platform
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from psa import __version__
from psa.errors import UserError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda", "mps"]


@dataclass(frozen=True)
class Machine:
    """device: None means the best one there is. threads: of one process; one gives the same bits in any
    pack and is the fastest for small networks. data_dir: where data sets are kept. workers: threads that read and check them."""

    data_dir: Path = Path("dataset")
    device: DeviceName | None = None
    threads: int = 1
    workers: int = 4

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


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """What a record's sidecar says of the machine: differs from run to run and never touches the result."""
    import numpy
    import torch

    return {
        "psa": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "processors": os.cpu_count(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor(),
        "threads": threads,
    }
