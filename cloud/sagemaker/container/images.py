"""The table of container images, and their Python and platform."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_FILE: Final = Path(__file__).with_name("images.toml")
_OLDEST_GLIBC: Final = 5  # of glibc 2.x, the first with manylinux tags
_LEGACY: Final = ("manylinux2014", "manylinux2010", "manylinux1", "linux")


@functools.cache
def image_table() -> dict[str, Any]:
    """Return the content of images.toml."""
    return tomllib.loads(_FILE.read_text())


@dataclass(frozen=True)
class WheelTarget:
    """The Python and platform of a container, and the distributions that its image lacks."""

    python: str
    machine: str
    glibc: str
    lacks: tuple[str, ...]

    @property
    def platforms(self) -> list[str]:
        """The platform tags of wheels that it can load, the best first."""
        newest = int(self.glibc.partition(".")[2])
        tags = [f"manylinux_2_{minor}" for minor in range(newest, _OLDEST_GLIBC - 1, -1)]
        return [f"{tag}_{self.machine}" for tag in (*tags, *_LEGACY)]

    def __str__(self) -> str:
        return f"Python {self.python} on Linux {self.machine}"


def container_target() -> WheelTarget:
    """Return the Python and platform of AWS's images."""
    known = image_table()["container"]
    return WheelTarget(known["python"], known["machine"], known["glibc"], tuple(known["lacks"]))
