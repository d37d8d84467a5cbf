"""The build of PyTorch that is installed: that of poetry.lock, with CUDA, or PyTorch's CPU build.

The CPU build is a fifth of the size (about 1 GB instead of 6 GB), and the package index has none for Linux:
PyTorch has an index of its own for it. Wheels from there are not in poetry.lock, so pip checks no hash of
theirs, only the version.
"""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from phases import LOG, SetUpError, say

INDEX = "https://download.pytorch.org/whl/cpu"  # TORCH_INDEX replaces it, e.g. by a mirror
CPU = "--torch=cpu"  # in the extent of an environment
_FROM_INDEX = ("torch", "torchvision")
_CUDA = re.compile(r"(nvidia-|cuda-|triton(?![\w-])).*")
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/proc/driver/nvidia/version")  # dxg: under WSL


class Installer(Protocol):
    """An environment that pip installs into."""

    def install(self, *requirements: str | Path) -> None:
        """Install requirements (options of pip) without their dependencies. Raises SetUpError."""


def index() -> str:
    """Return the index of CPU builds."""
    return os.environ.get("TORCH_INDEX") or INDEX


def has_gpu() -> bool:
    """Return whether the machine has an NVIDIA device, or its driver."""
    return any(Path(path).exists() for path in _DEVICES)


def wants_cpu(setting: str, before: set[str], available: Callable[[], bool]) -> bool:
    """Return whether to install the CPU build.

    setting: CPU of make, "1", "0" or "" for the default. before: the extent of the environment as it is,
    which keeps its build by default. available: asks the index for the wheels; it takes seconds, so it is
    called last, and only for a new environment on Linux without an NVIDIA device.
    """
    if setting:
        return setting != "0"
    if before:
        return CPU in before
    return sys.platform == "linux" and not has_gpu() and available()


def split(requirements: str) -> tuple[str, list[str]]:
    """Split exported requirements into those of the package index and the CPU builds of PyTorch.

    What only CUDA needs is left out of both.
    """
    kept, wheels = [], []
    # a requirement goes on over lines that begin with blanks, its hashes
    for block in re.findall(r"^\S.*\n(?:[ \t]+.*\n)*", requirements, re.MULTILINE):
        name, _, rest = block.partition("==")
        version = re.split(r"[\s;\\]", rest, maxsplit=1)[0]
        if name in _FROM_INDEX:
            wheels.append(f"{name}=={version}+cpu")
        elif not _CUDA.fullmatch(name):
            kept.append(block)
    return "".join(kept), wheels


def install(venv: Installer, locked: str, *options: str) -> None:
    """Install the CPU build of PyTorch in the versions of the locked requirements. Raises SetUpError."""
    venv.install(*options, "--index-url", index(), *split(locked)[1])


def is_available(venv: Installer, locked: str) -> bool:
    """Return whether the index of CPU builds is reached and has the locked versions; install nothing."""
    if not split(locked)[1]:
        return False
    try:
        install(venv, locked, "--dry-run", "--retries", "0", "--timeout", "5")
    except SetUpError:
        say(f"no CPU build of PyTorch at {index()}; see {LOG}")
        return False
    return True


def check(venv: Installer, locked: str) -> None:
    """Raise SetUpError if there is no CPU build, before an environment is removed for it."""
    if not is_available(venv, locked):
        raise SetUpError(
            f"CPU=1 needs PyTorch's CPU build from {index()}, and pip found none there."
            " Name a mirror with TORCH_INDEX=URL, or leave CPU=1 out"
        )
