"""Data sets by name: read by torchvision's own classes, stored once, and compared with the catalogue."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision  # type: ignore[import-untyped]

from psa.core.errors import UserError
from psa.data.named import named_table
from psa.data.splits import load_splits
from psa.specs.data import DataSpec
from psa.specs.data.catalogue import CATALOGUE

CLASSES = 10


def write_idx(path: Path, values: np.ndarray[Any, Any]) -> None:
    """Write bytes in the format of MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        struct.pack(f">{1 + values.ndim}i", 0x800 + values.ndim, *values.shape) + values.tobytes()
    )


@pytest.fixture
def kmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with 40 and 20 images where torchvision would unpack KMNIST."""
    monkeypatch.setitem(CATALOGUE, "kmnist", replace(CATALOGUE["kmnist"], train=40, test=20))
    raw = tmp_path / "kmnist" / "KMNIST" / "raw"
    for name, count in (("train", 40), ("t10k", 20)):
        images = np.arange(count * 784, dtype=np.uint64).reshape(count, 28, 28).astype(np.uint8)
        write_idx(raw / f"{name}-images-idx3-ubyte", images)
        write_idx(raw / f"{name}-labels-idx1-ubyte", (np.arange(count) % CLASSES).astype(np.uint8))
    return tmp_path


def test_a_set_of_torchvision_is_read_once_and_then_from_the_data_folder(
    kmnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its own splits and class names; workers elsewhere need the stored file alone."""
    said: list[str] = []
    first = named_table("kmnist", kmnist, said.append)
    assert said == [f"kmnist: reading it by torchvision, which downloads what {kmnist / 'kmnist'} lacks"]
    assert first.classes[0] == "o"
    monkeypatch.delattr(torchvision.datasets, "KMNIST")
    again = named_table("kmnist", kmnist, said.append)
    assert (again.sha256, len(said)) == (first.sha256, 1)
    splits = load_splits(DataSpec(name="kmnist", val_size=10), kmnist)
    assert [len(part) for part in (splits.train, splits.val, splits.test)] == [30, 10, 20]
    assert splits.test.index.tolist() == list(range(40, 60))


def test_a_set_without_its_files_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever torchvision raises without a network."""

    def unreachable(**_: object) -> None:
        raise RuntimeError("Error downloading train.gz")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    with pytest.raises(
        UserError, match=r"could not be fetched by torchvision \(Error downloading train.gz\)"
    ):
        named_table("cifar10", tmp_path, lambda _: None)


def test_a_set_of_other_sizes_is_refused(kmnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planning relies on the catalogue."""
    monkeypatch.setitem(CATALOGUE, "kmnist", replace(CATALOGUE["kmnist"], train=41))
    with pytest.raises(UserError, match="the data set kmnist must have 41 and 20 samples of shape"):
        named_table("kmnist", kmnist, lambda _: None)


@pytest.mark.parametrize("name", [name for name, facts in CATALOGUE.items() if facts.origin == "torchvision"])
def test_the_catalogue_names_a_class_of_torchvision(name: str) -> None:
    """And as many classes as it says; of EMNIST those that torchvision lists."""
    from psa.data.named import _CLASSES

    kind = getattr(torchvision.datasets, _CLASSES[name][0])
    assert len(set(CATALOGUE[name].classes)) == len(CATALOGUE[name].classes)
    if name.startswith("emnist"):
        split = name.removeprefix("emnist-")
        listed = [each for each in kind.classes_split_dict[split] if each != "N/A"]
        assert tuple(listed) == CATALOGUE[name].classes
