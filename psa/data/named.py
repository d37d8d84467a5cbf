"""Data sets by name beside MNIST and Fashion-MNIST: those of torchvision, and those scikit-learn carries."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from psa.core.errors import CorruptFileError, UserError, one_line
from psa.core.files import write_atomically
from psa.core.stored_files import read_stored
from psa.data.table import AnyArray, SampleTable, checked_table, decode_table
from psa.specs.data.catalogue import CATALOGUE, NamedDataset

_BUNDLED: Final = {"digits": "digits", "wine": "wine", "breast-cancer": "breast_cancer", "iris": "iris"}
# Of each set: its class in torchvision.datasets, and the arguments that select training and test split.
_CLASSES: Final[dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]]] = {
    "kmnist": ("KMNIST", {"train": True}, {"train": False}),
    "qmnist": ("QMNIST", {"what": "train"}, {"what": "test"}),
    **{
        f"emnist-{split}": ("EMNIST", {"split": split, "train": True}, {"split": split, "train": False})
        for split in ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")
    },
    "cifar10": ("CIFAR10", {"train": True}, {"train": False}),
    "cifar100": ("CIFAR100", {"train": True}, {"train": False}),
    "svhn": ("SVHN", {"split": "train"}, {"split": "test"}),
    "usps": ("USPS", {"train": True}, {"train": False}),
}


def named_table(name: str, data_dir: Path, progress: Callable[[str], None]) -> SampleTable:
    """Return the table of a named data set: from the data folder, else made and stored there.

    Raises UserError if a set of torchvision cannot be fetched or differs from what the catalogue says, and
    CorruptFileError for a damaged file.
    """
    facts = CATALOGUE[name]
    path = data_dir / name / stored_name(name)
    stored = read_stored(path)
    if stored is not None:
        return _checked(decode_table(stored, str(path), facts.sha256), facts, name)
    if facts.origin == "sklearn":
        return _checked(_bundled(name, facts), facts, name)
    table = _checked(_fetched(name, data_dir, facts, progress), facts, name)
    write_atomically(path, table.encoded())
    return table


def stored_name(name: str) -> str:
    """Return the name of the file of a named set, in a folder of that name."""
    return f"{name}.safetensors"


def _bundled(name: str, facts: NamedDataset) -> SampleTable:
    found = getattr(importlib.import_module("sklearn.datasets"), f"load_{_BUNDLED[name]}")()
    samples = np.asarray(found.data, np.float32 if len(facts.shape) > 1 else np.float64)
    columns = () if len(facts.shape) > 1 else tuple(map(str, found.feature_names))
    return checked_table(
        samples.reshape(-1, *facts.shape), found.target, name, names=facts.classes, columns=columns
    )


def _fetched(name: str, data_dir: Path, facts: NamedDataset, progress: Callable[[str], None]) -> SampleTable:
    """Return the splits as torchvision reads them; it downloads what is missing and compares its MD5s."""
    kind, *splits = _CLASSES[name]
    progress(f"{name}: reading it by torchvision, which downloads what {data_dir / name} lacks")
    try:
        source = getattr(importlib.import_module("torchvision.datasets"), kind)
        parts = [source(root=str(data_dir / name), download=True, **which) for which in splits]
        arrays = [_arrays(part, name) for part in parts]
    except (OSError, RuntimeError, ImportError, ValueError, EOFError) as error:
        reason = one_line(str(getattr(error, "reason", "") or error))[:300]
        raise UserError(
            f"the data set {name} is not in {data_dir / name} and could not be fetched by torchvision "
            f"({reason})",
            "Run it once on a machine with a network, and copy that folder here",
        ) from error
    except (LookupError, TypeError, AttributeError) as error:
        raise CorruptFileError(
            f"{data_dir / name} holds other files than those of {name} ({type(error).__name__})", "Remove it"
        ) from error
    numbers = np.repeat(np.array([0, 2], np.uint8), [len(labels) for _, labels in arrays])
    samples, labels = (np.concatenate(each) for each in zip(*arrays, strict=True))
    return checked_table(samples, labels, name, names=facts.classes, parts=numbers)


def _arrays(part: Any, name: str) -> tuple[AnyArray, AnyArray]:
    """Return images uint8 [N, H, W] or [N, H, W, C] and labels [N] of a set of torchvision."""
    images = np.asarray(part.data, np.uint8)
    labels = np.asarray(part.labels if hasattr(part, "labels") else part.targets, np.int64)
    if labels.ndim == 2:  # QMNIST keeps facts about the writers beside the label
        labels = labels[:, 0]
    if name == "svhn":
        images = images.transpose(0, 2, 3, 1)
    return images, labels - (name == "emnist-letters")  # its labels begin at 1


def _checked(table: SampleTable, facts: NamedDataset, name: str) -> SampleTable:
    """Return the table if it is the one that trials know by this name. Raises UserError."""
    content = table.content()
    found = (content.shape, content.classes, content.train, content.test)
    if found != (facts.shape, facts.classes, facts.train, facts.test):
        raise UserError(
            f"the data set {name} must have {facts.train:,} and {facts.test:,} samples of shape "
            f"{facts.shape}, got {content.train:,} and {content.test:,} of {content.shape}",
            "Install the versions of torchvision and scikit-learn that psa names",
        )
    if facts.sha256 not in ("", table.sha256):
        raise UserError(
            f"the data set {name} must have SHA-256 {facts.sha256}, got {table.sha256}",
            "This scikit-learn carries another version of it; install the one that psa names",
        )
    return table
