"""Data sets as tensors: split, scaled, filtered by digit, each image with its place in the original file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psa.core.errors import UserError
from psa.data.datasets import DATASETS
from psa.data.download import DownloadProgress, quiet
from psa.data.parts import DataParts, Indices, SampleFile, by_channel, load_parts, split_indices
from psa.data.scaling import PixelScaling, SampleScaling, fitted, of_bytes, pixel_scaling

if TYPE_CHECKING:
    from psa.specs.data import DataSpec

__all__ = [
    "DATASETS",
    "ClassCounts",
    "Split",
    "Splits",
    "class_counts",
    "load_scaling",
    "load_splits",
    "split_indices",
    "zero_r",
]


@dataclass(frozen=True)
class Pixels:
    """Images before they were scaled, uint8 [N, features], and their scaling: a quarter of their memory."""

    values: Tensor
    scaling: PixelScaling


@dataclass(frozen=True)
class Split:
    """N samples on one device. Equal rows of the tensors belong together.

    images: float32 [N, features], scaled; of images with channels one channel after the other. labels: int64
    [N] in 0..classes-1, what a network is trained on. digits: int64 [N], the original class: of digits the
    digit. index: int64 [N], the place in the original train or test file. pixels: the bytes that a constant
    scaling turned into `images`, of a training split on the CPU, which is gathered from them; otherwise None.
    """

    images: Tensor
    labels: Tensor
    digits: Tensor
    index: Tensor
    pixels: Pixels | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Split:
        """Return some of the samples."""
        return Split(
            images=self.images[rows],
            labels=self.labels[rows],
            digits=self.digits[rows],
            index=self.index[rows],
            pixels=self.pixels and Pixels(self.pixels.values[rows], self.pixels.scaling),
        )

    def first(self, count: int) -> Split:
        """Return the first samples, at most `count`."""
        return self[:count]

    def to(self, device: torch.device | str) -> Split:
        """Return the same split on another device."""
        return Split(
            images=self.images.to(device),
            labels=self.labels.to(device),
            digits=self.digits.to(device),
            index=self.index.to(device),
            pixels=self.pixels if torch.device(device).type == "cpu" else None,
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
    """The class counts of a part of the data. counts: number of the class (of digits, the digit) -> samples,
    zeros included. names: of all classes of the data set.
    """

    title: str
    counts: dict[int, int]
    total: int
    zero_r_class: int
    names: tuple[str, ...]

    @property
    def zero_r_percent(self) -> float:
        """The accuracy, in percent, of always predicting the most frequent class."""
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
    parts, digits = load_parts(spec, data_dir, progress, workers), _kept_digits(spec)
    scale = _scaling(spec, parts, digits)
    constants = pixel_scaling(spec.scaling) if _is_published(spec) else None
    return Splits(
        train=_split(parts.train_file, parts.train, digits, scale, constants).to(device),
        val=_split(parts.train_file, parts.val, digits, scale).to(device),
        test=_split(parts.test_file, parts.test, digits, scale).to(device),
        classes=len(digits),
        digits=digits,
    )


def load_scaling(
    spec: DataSpec, data_dir: Path, progress: DownloadProgress = quiet
) -> Callable[[npt.NDArray[Any]], Tensor]:
    """Return the function that prepares new samples for a network trained on this data.

    It takes numbers [N, *shape] of the shape of a sample of the data set, such as [N, features] or
    [N, height, width], in the units of the data set (pixels of MNIST as bytes), and returns float32
    [N, features], scaled like the splits. Raises UserError and CorruptFileError; the function raises
    UserError for another shape or type.
    """
    if _is_published(spec):  # scaled by constants
        scale = of_bytes(spec.scaling)
    else:
        scale = _scaling(spec, load_parts(spec, data_dir, progress, workers=0), _kept_digits(spec))
    shape = spec.facts.shape

    def scaled(samples: npt.NDArray[Any]) -> Tensor:
        found = np.asarray(samples)
        if found.shape[1:] != shape:
            wanted = ", ".join(map(str, shape))
            raise UserError(f"samples must have the shape [N, {wanted}], got {list(found.shape)}")
        if not _is_published(spec):
            return torch.from_numpy(scale(by_channel(found)))
        if found.dtype != np.uint8:
            raise UserError(f"pixels must be bytes (uint8), got {found.dtype}")
        return torch.from_numpy(scale(found.reshape(len(found), -1)))

    return scaled


def _is_published(spec: DataSpec) -> bool:
    return spec.name in DATASETS and spec.content is None


def _scaling(spec: DataSpec, parts: DataParts, digits: tuple[int, ...]) -> SampleScaling:
    if _is_published(spec):
        return of_bytes(spec.scaling)
    return fitted(parts.train_file.samples[_filtered(parts.train_file, parts.train, digits)], spec.scaling)


def class_counts(
    spec: DataSpec, data_dir: Path, progress: DownloadProgress = quiet, *, workers: int = 4
) -> list[ClassCounts]:
    """Return the class counts of each file and split: of MNIST the train file, the test file, the training
    and the validation split; of a set without a test split all samples and the three splits.

    Only the digits that spec keeps are counted. workers and exceptions: as for load_splits.
    """
    parts, digits = load_parts(spec, data_dir, progress, workers), _kept_digits(spec)

    def counted(title: str, file: SampleFile, index: Indices) -> ClassCounts:
        return _counted(title, file, index, digits, spec.facts.classes)

    if parts.train_file is parts.test_file:
        whole = [counted("All samples", parts.train_file, np.arange(len(parts.train_file)))]
    else:
        files = {"Train file": parts.train_file, "Test file": parts.test_file}
        whole = [counted(title, file, np.arange(len(file))) for title, file in files.items()]
    test = [counted("Test split", parts.test_file, parts.test)]
    return [
        *whole,
        counted("Training split", parts.train_file, parts.train),
        counted("Validation split", parts.train_file, parts.val),
        *(test if len(whole) == 1 or spec.test_size is not None else []),
    ]


def zero_r(labels: Tensor) -> tuple[int, int, int]:
    """Return (label, count, total) of the majority class, the lowest among equals.

    labels: int64 [N], N > 0. A share of count / total is what a classifier must beat to have learnt anything.
    """
    counts = torch.bincount(labels)
    label = int(counts.argmax())
    return label, int(counts[label]), len(labels)


def _kept_digits(spec: DataSpec) -> tuple[int, ...]:
    return tuple(range(len(spec.facts.classes))) if spec.digits is None else tuple(sorted(set(spec.digits)))


def _split(
    file: SampleFile,
    index: Indices,
    digits: tuple[int, ...],
    scale: SampleScaling,
    constants: PixelScaling | None = None,
) -> Split:
    index = _filtered(file, index, digits)
    original, samples = file.classes[index], file.samples[index]
    return Split(
        images=torch.from_numpy(scale(samples)),
        labels=torch.from_numpy(np.searchsorted(digits, original)),
        digits=torch.from_numpy(original),
        index=torch.from_numpy(index.copy()),
        pixels=None if constants is None else Pixels(torch.from_numpy(samples), constants),
    )


def _filtered(file: SampleFile, index: Indices, digits: tuple[int, ...]) -> Indices:
    """Return the places among `index` that show one of the digits. Raises UserError if there is none."""
    kept = index[np.isin(file.classes[index], digits)]
    if not len(kept):
        shown = ", ".join(map(str, digits))
        raise UserError(
            f"each split must hold every digit, got {len(index):,} images without {shown}",
            "Choose another val_size or other digits",
        )
    return kept


def _counted(
    title: str, file: SampleFile, index: Indices, digits: tuple[int, ...], names: tuple[str, ...]
) -> ClassCounts:
    labels = torch.from_numpy(file.classes[_filtered(file, index, digits)])
    majority, _, total = zero_r(labels)
    counts = torch.bincount(labels, minlength=len(names)).tolist()
    return ClassCounts(title, {digit: counts[digit] for digit in digits}, total, majority, names)
