"""A data set of a few bytes."""

from __future__ import annotations

import hashlib
from typing import Any

from psa.data.datasets import DATASETS, Dataset, IdxFile

NAMES = tuple(DATASETS["mnist"].files)
TINY = {name: bytes([0, 0, 8, 1 + i]) + bytes(range(200)) * (i + 1) for i, name in enumerate(NAMES)}


def dataset_of(contents: dict[str, bytes], name: str = "tiny", **places: Any) -> Dataset:
    """A data set whose published files are these bytes."""
    files = {
        key: IdxFile(hashlib.md5(data, usedforsecurity=False).hexdigest(), len(data))
        for key, data in contents.items()
    }
    return Dataset(name=name, files=files, torchvision="MNIST", **places)


TINY_SET = dataset_of(TINY)
