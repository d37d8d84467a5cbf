"""The samples of a data set before they are scaled, and the places of its splits among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from psa.core.errors import UserError
from psa.data.datasets import DATASETS
from psa.data.download import DownloadProgress, download_dataset
from psa.data.named import named_table
from psa.data.own import own_table
from psa.data.table import SPLIT_PARTS, SampleTable
from psa.specs.data import DataSpec

_IMAGES_HEADER: Final = 16  # bytes before the first pixel of an IDX3 file
_LABELS_HEADER: Final = 8
_HEIGHT_AND_WIDTH: Final = 2

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleFile:
    """The samples of a file: [N, features], or images [N, channels, pixels], and their classes int64 [N]."""

    samples: npt.NDArray[Any]
    classes: Indices

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True)
class DataParts:
    """A data set and its splits: training and validation are places in train_file, test in test_file.

    Both are the same file where the data set has but one.
    """

    train_file: SampleFile
    test_file: SampleFile
    train: Indices
    val: Indices
    test: Indices


def load_parts(spec: DataSpec, data_dir: Path, progress: DownloadProgress, workers: int) -> DataParts:
    """Return the data that spec names and the places of its splits. Raises UserError and CorruptFileError."""
    if spec.name in DATASETS and spec.content is None:
        idx = download_dataset(DATASETS[spec.name], data_dir, progress, workers=workers)
        train, test = _idx_file(idx, "train"), _idx_file(idx, "t10k")
        return DataParts(train, test, *_indices(spec, train, test))
    table = named_table(spec.name, data_dir, progress) if spec.content is None else own_table(spec, data_dir)
    file = SampleFile(by_channel(table.samples), table.labels)
    return DataParts(file, file, *_table_indices(spec, table))


def split_indices(total: int, val_size: int, seed: int) -> tuple[Indices, Indices]:
    """Return (train, val): places in the train file, int64 [total - val_size] and [val_size].

    The order is that of torch.utils.data.random_split with a generator of that seed.
    Raises UserError if val_size is not within 0..total.
    """
    if not 0 <= val_size <= total:
        raise UserError(
            f"val_size must be between 0 and {total:,}, got {val_size:,}", "Choose a smaller val_size"
        )
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).numpy()
    return order[: total - val_size], order[total - val_size :]


def _idx_file(idx: Mapping[str, bytes], part: str) -> SampleFile:
    # The headers need no reading: the MD5 of every file has been compared.
    pixels = np.frombuffer(idx[f"{part}-images-idx3-ubyte"], np.uint8, offset=_IMAGES_HEADER)
    digits = np.frombuffer(idx[f"{part}-labels-idx1-ubyte"], np.uint8, offset=_LABELS_HEADER)
    return SampleFile(pixels.reshape(len(digits), -1), digits.astype(np.int64))


def by_channel(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return features as they are, and images as [N, channels, pixels], as a network reads them."""
    if samples.ndim <= _HEIGHT_AND_WIDTH:
        return samples
    channels = samples.shape[3] if samples.ndim > 1 + _HEIGHT_AND_WIDTH else 1
    return np.ascontiguousarray(samples.reshape(len(samples), -1, channels).transpose(0, 2, 1))


def _drawn(places: Indices, classes: Indices, spec: DataSpec) -> Indices:
    """Return places in the order of the split seed; stratified, each part of it has the classes' shares."""
    order = places[split_indices(len(places), 0, spec.split_seed)[0]]
    return _spread(order, classes) if spec.stratified else order


def _spread(order: Indices, classes: Indices) -> Indices:
    """Return the places so that every class is spread evenly, each in its order: sample i of n of a class
    goes to the share (i + 1/2) / n of the whole.
    """
    mine, key = classes[order], np.empty(len(order))
    for number in np.unique(mine):
        there = np.flatnonzero(mine == number)
        key[there] = (np.arange(len(there)) + 0.5) / len(there)
    return order[np.argsort(key, kind="stable")]


def _cut(order: Indices, spec: DataSpec) -> tuple[Indices, Indices]:
    """Return the places of the training and of the validation split in an order of both. Raises UserError."""
    if not 0 <= spec.val_size <= len(order):
        raise UserError(
            f"val_size must be between 0 and {len(order):,}, got {spec.val_size:,}",
            "Choose a smaller val_size",
        )
    at = len(order) - spec.val_size
    return _first(order[:at], spec), order[at:]


def _first(train: Indices, spec: DataSpec) -> Indices:
    """Return the first train_size places of a training split. Raises UserError."""
    if spec.train_size is None:
        return train
    if spec.train_size > len(train):
        raise UserError(
            f"train_size {spec.train_size:,}, and {len(train):,} images are left for training",
            "Choose a smaller train_size or val_size",
        )
    return train[: spec.train_size]


def _tested(places: Indices, classes: Indices, spec: DataSpec) -> Indices:
    """Return the places of the test split among those of a test file: all, or test_size of them.

    A part of them is the beginning of a permutation: the halves of MNIST's test file are not equally hard.
    Raises UserError.
    """
    if spec.test_size is None:
        return places
    if spec.test_size > len(places):
        raise UserError(
            f"test_size must be at most {len(places):,}, got {spec.test_size:,}", "Choose a smaller test_size"
        )
    return _drawn(places, classes, spec)[: spec.test_size]


def _indices(spec: DataSpec, train: SampleFile, test: SampleFile) -> tuple[Indices, Indices, Indices]:
    """Return the places of the three splits of a set with a train and a test file. Raises UserError."""
    order = _drawn(np.arange(len(train)), train.classes, spec)
    return *_cut(order, spec), _tested(np.arange(len(test)), test.classes, spec)


def _table_indices(spec: DataSpec, table: SampleTable) -> tuple[Indices, Indices, Indices]:
    """Return the places of the three splits in a table: as it gives them, or drawn. Raises UserError."""
    given = np.zeros(len(table), np.uint8) if table.parts is None else table.parts
    train, val, test = (np.flatnonzero(given == number) for number in range(len(SPLIT_PARTS)))
    if len(test):
        test, order = _tested(test, table.labels, spec), _drawn(train, table.labels, spec)
    else:
        # a given validation split stays as it is; all else is drawn from the other samples
        size = spec.test_size or 0
        order = _drawn(train, table.labels, spec)
        test, order = order[:size], order[size:]
    if len(val):
        return _first(order, spec), val, test
    return *_cut(order, spec), test
