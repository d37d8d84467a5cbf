"""Data sets as tensors: split, scaled, filtered by digit, each image with its place in the original file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psa.core.errors import UserError
from psa.data.datasets import DATASETS
from psa.data.download import DownloadProgress, download_dataset, quiet
from psa.specs.shapes import PIXELS

if TYPE_CHECKING:
    from psa.specs.data import DataSpec

__all__ = [
    "DATASETS",
    "ClassCounts",
    "Split",
    "Splits",
    "class_counts",
    "load_splits",
    "split_indices",
    "zero_r",
]

MEAN: Final = 0.1307  # of MNIST's training pixels; used for every data set, as the published studies did
STD: Final = 0.3081
SIMPLEX_SUM: Final = 100.0
CLASSES: Final = 10
_IMAGES_HEADER: Final = 16  # bytes before the first pixel of an IDX3 file
_LABELS_HEADER: Final = 8

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """N images on one device. Equal rows of the four tensors belong together.

    images: float32 [N, 784], scaled. labels: int64 [N] in 0..classes-1, what a network is trained on.
    digits: int64 [N], the original label. index: int64 [N], the place in the original train or test file.
    """

    images: Tensor
    labels: Tensor
    digits: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """Return the first samples, at most `count`."""
        return Split(self.images[:count], self.labels[:count], self.digits[:count], self.index[:count])

    def to(self, device: torch.device | str) -> Split:
        """Return the same split on another device."""
        return Split(
            images=self.images.to(device),
            labels=self.labels.to(device),
            digits=self.digits.to(device),
            index=self.index.to(device),
        )


@dataclass(frozen=True)
class Splits:
    """Train and validation from the train file, test from the test file.

    classes: the number of labels. digits: the original label of each, in rising order.
    """

    train: Split
    val: Split
    test: Split
    classes: int
    digits: tuple[int, ...]

    def to(self, device: torch.device | str) -> Splits:
        """Return the same splits on another device."""
        train, val, test = (part.to(device) for part in (self.train, self.val, self.test))
        return Splits(train, val, test, self.classes, self.digits)


@dataclass(frozen=True)
class ClassCounts:
    """The class counts of a part of the data. counts: digit -> images, zeros included."""

    title: str
    counts: dict[int, int]
    total: int
    zero_r_class: int

    @property
    def zero_r_percent(self) -> float:
        """The accuracy, in percent, of always answering with the most frequent class."""
        return 100 * self.counts[self.zero_r_class] / self.total


def load_splits(
    spec: DataSpec,
    data_dir: Path,
    device: torch.device | str = "cpu",
    progress: DownloadProgress = quiet,
    *,
    workers: int = 4,
) -> Splits:
    """Return the data set that spec names: split first, then filtered by digit and scaled, on one device.

    All arithmetic is done before the move, so the same spec gives the same bits on every device.
    workers: threads that read and check the files; 0 or 1 for none.
    Raises UserError (no source has the data, data_dir cannot be used, a split is empty) and CorruptFileError.
    """
    train_file, test_file = _files(spec, data_dir, progress, workers)
    train, val, test = _indices(spec, len(train_file.digits), len(test_file.digits))
    digits = _kept_digits(spec)
    return Splits(
        train=_split(train_file, train, digits, spec.scaling).to(device),
        val=_split(train_file, val, digits, spec.scaling).to(device),
        test=_split(test_file, test, digits, spec.scaling).to(device),
        classes=len(digits),
        digits=digits,
    )


def class_counts(
    spec: DataSpec, data_dir: Path, progress: DownloadProgress = quiet, *, workers: int = 4
) -> list[ClassCounts]:
    """Return the class counts of the train file, the test file, the training and the validation split.

    Only the digits that spec keeps are counted. workers and exceptions: as for load_splits.
    """
    train_file, test_file = _files(spec, data_dir, progress, workers)
    train, val, test = _indices(spec, len(train_file.digits), len(test_file.digits))
    digits = _kept_digits(spec)
    parts = [
        _counted("Train file", train_file, np.arange(len(train_file.digits)), digits),
        _counted("Test file", test_file, np.arange(len(test_file.digits)), digits),
        _counted("Training split", train_file, train, digits),
        _counted("Validation split", train_file, val, digits),
    ]
    return parts if spec.test_size is None else [*parts, _counted("Test split", test_file, test, digits)]


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


def _indices(spec: DataSpec, train_images: int, test_images: int) -> tuple[Indices, Indices, Indices]:
    """Return the places of the training and validation splits in the train file, and of the test split in the
    test file.

    Parts of them are the beginnings of permutations: the halves of MNIST's test file are not equally hard.
    Raises UserError.
    """
    train, val = split_indices(train_images, spec.val_size, spec.split_seed)
    if spec.train_size is not None:
        if spec.train_size > len(train):
            raise UserError(
                f"train_size {spec.train_size:,}, and {len(train):,} images are left for training",
                "Choose a smaller train_size or val_size",
            )
        train = train[: spec.train_size]
    if spec.test_size is None:
        return train, val, np.arange(test_images)
    if spec.test_size > test_images:
        raise UserError(
            f"test_size must be at most {test_images:,}, got {spec.test_size:,}", "Choose a smaller test_size"
        )
    return train, val, split_indices(test_images, 0, spec.split_seed)[0][: spec.test_size]


def zero_r(labels: Tensor) -> tuple[int, int, int]:
    """Return (label, count, total) of the majority class, the lowest among equals.

    labels: int64 [N], N > 0. A share of count / total is what a classifier must beat to have learnt anything.
    """
    counts = torch.bincount(labels)
    label = int(counts.argmax())
    return label, int(counts[label]), len(labels)


@dataclass(frozen=True)
class _File:
    """A train or test file: images uint8 [N, 784] and digits int64 [N]."""

    images: Bytes
    digits: Indices


def _files(spec: DataSpec, data_dir: Path, progress: DownloadProgress, workers: int) -> tuple[_File, _File]:
    idx = download_dataset(DATASETS[spec.name], data_dir, progress, workers=workers)
    return _file(idx, "train"), _file(idx, "t10k")


def _file(idx: Mapping[str, bytes], part: str) -> _File:
    # The headers need no reading: the MD5 of every file has been compared.
    pixels = np.frombuffer(idx[f"{part}-images-idx3-ubyte"], np.uint8, offset=_IMAGES_HEADER)
    digits = np.frombuffer(idx[f"{part}-labels-idx1-ubyte"], np.uint8, offset=_LABELS_HEADER)
    return _File(pixels.reshape(-1, PIXELS), digits.astype(np.int64))


def _kept_digits(spec: DataSpec) -> tuple[int, ...]:
    return tuple(range(CLASSES)) if spec.digits is None else tuple(sorted(set(spec.digits)))


def _pixel_values(scaling: str) -> npt.NDArray[np.float32]:
    """Return the scaled value of each byte, float32 [256], as torchvision's ToTensor and Normalize have it.

    A table, because a byte has 256 values: one look-up per pixel in place of three passes over 150 MB.
    """
    values = torch.arange(256, dtype=torch.uint8).to(torch.float32).div(255)
    if scaling == "standard":
        values = values.sub(torch.tensor(MEAN)).div(torch.tensor(STD))
    return values.numpy()


def _scaled(images: npt.NDArray[np.float32], scaling: str) -> npt.NDArray[np.float32]:
    """Scale whole images after the table of pixel values: with `simplex` each becomes non-negative and sums
    to 100; otherwise they are unchanged.
    """
    if scaling != "simplex":
        return images
    raised = images - images.min(axis=1, keepdims=True) + np.float32(1e-8)
    total = raised.sum(axis=1, keepdims=True, dtype=np.float64)
    return np.asarray(raised * (SIMPLEX_SUM / total), dtype=np.float32)


def _split(file: _File, index: Indices, digits: tuple[int, ...], scaling: str) -> Split:
    values = _pixel_values(scaling)
    index = _filtered(file, index, digits)
    original = file.digits[index]
    return Split(
        images=torch.from_numpy(_scaled(values[file.images[index]], scaling)),
        labels=torch.from_numpy(np.searchsorted(digits, original)),
        digits=torch.from_numpy(original),
        index=torch.from_numpy(index.copy()),
    )


def _filtered(file: _File, index: Indices, digits: tuple[int, ...]) -> Indices:
    """Return the places among `index` that show one of the digits. Raises UserError if there is none."""
    kept = index[np.isin(file.digits[index], digits)]
    if not len(kept):
        shown = ", ".join(map(str, digits))
        raise UserError(
            f"each split must hold every digit, got {len(index):,} images without {shown}",
            "Choose another val_size or other digits",
        )
    return kept


def _counted(title: str, file: _File, index: Indices, digits: tuple[int, ...]) -> ClassCounts:
    labels = torch.from_numpy(file.digits[_filtered(file, index, digits)])
    majority, _, total = zero_r(labels)
    counts = torch.bincount(labels, minlength=CLASSES).tolist()
    return ClassCounts(title, {digit: counts[digit] for digit in digits}, total, majority)
