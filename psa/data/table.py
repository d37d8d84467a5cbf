"""A data set of one's own as a table: checked samples and labels, their digest, and their one stored form.

Whatever a table was read from (NPZ, CSV, Parquet, arrays), equal samples, labels and names have one digest,
by which trials know it, and one file, `own/<sha256>.safetensors` in the data folder, which workers read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from psa.core.errors import CorruptFileError, UserError
from psa.specs.base import canonical_json
from psa.specs.data import LONGEST_NAME, MAX_CLASSES, MAX_FEATURES, MAX_SAMPLES, DataContent

AnyArray = npt.NDArray[Any]
ClassNumbers = npt.NDArray[np.int64]
SPLIT_PARTS: Final = ("train", "validation", "test")  # numbered 0, 1, 2 in `parts`
_KINDS: Final = ("|u1", "<f4", "<f8")
_LENGTH_BYTES: Final = 8  # of a safetensors file, before its header
_EXACT: Final = 2**53  # whole numbers up to this one are exact in float64
_WHOLE_NUMBER: Final = re.compile("-?[0-9]{1,18}", re.ASCII)  # as texts; below 2**63
_MOST_NAMED: Final = 5  # columns or classes that a message names


@dataclass(frozen=True, eq=False)
class SampleTable:
    """N samples with their labels.

    samples: uint8, float32 or float64 [N, features], [N, height, width] or [N, height, width, channels], all
    finite. labels: int64 [N], 0..classes-1. classes: the name of each label. columns: names of the features
    of samples [N, features], else empty. parts: uint8 [N], for each sample the number of its split in
    SPLIT_PARTS; None where the file gives none.
    """

    samples: AnyArray
    labels: ClassNumbers
    classes: tuple[str, ...]
    columns: tuple[str, ...] = ()
    parts: npt.NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def arrays(self) -> dict[str, AnyArray]:
        """The arrays by name, as stored."""
        parts = {} if self.parts is None else {"parts": self.parts}
        return {"samples": self.samples, "labels": self.labels, **parts}

    @cached_property
    def sha256(self) -> str:
        """The digest of names, shapes and all numbers, as hexadecimal."""
        shapes = {name: [array.dtype.str, *array.shape] for name, array in self.arrays.items()}
        facts = {"classes": self.classes, "columns": self.columns, "arrays": shapes}
        digest = hashlib.sha256(canonical_json(facts).encode())
        for name in sorted(self.arrays):
            digest.update(np.ascontiguousarray(self.arrays[name]).data)
        return digest.hexdigest()

    def content(self, name: str = "") -> DataContent:
        """Return the content by which trials know the table. name: a name for it, by default its digest's."""
        sizes = [len(self), 0, 0]
        if self.parts is not None:
            sizes = np.bincount(self.parts, minlength=len(SPLIT_PARTS)).tolist()
        return DataContent(
            name=name or f"file-{self.sha256[:8]}",
            sha256=self.sha256,
            shape=self.samples.shape[1:],
            classes=self.classes,
            **dict(zip(SPLIT_PARTS, sizes, strict=True)),
        )

    def encoded(self) -> bytes:
        """Return the bytes of the stored file."""
        facts = canonical_json({"classes": self.classes, "columns": self.columns})
        return bytes(save({name: np.ascontiguousarray(a) for name, a in self.arrays.items()}, {"psa": facts}))


def decode_table(content: bytes, where: str, sha256: str = "") -> SampleTable:
    """Return the table in the bytes of a stored file; with sha256, only if its digest is that.

    Raises CorruptFileError.
    """
    hint = "Remove it, and name the file it was made of again"
    try:
        arrays = load(content)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])
        facts = json.loads(header["__metadata__"]["psa"])
        table = SampleTable(
            arrays["samples"],
            arrays["labels"],
            tuple(facts["classes"]),
            tuple(facts["columns"]),
            arrays.get("parts"),
        )
        found = table.sha256
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"{where} is damaged ({type(error).__name__})", hint) from error
    if sha256 and found != sha256:
        raise CorruptFileError(f"{where} must hold the data with SHA-256 {sha256}, got {found}", hint)
    return table


def as_array(values: Any, name: str, where: str) -> AnyArray:
    """Return values as an array. Raises UserError for rows of different lengths and the like."""
    try:
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"{where}: {name} must be an array, got {type(values).__name__} ({str(error)[:100]})",
            "Give all samples the same length",
        ) from None


def checked_table(
    samples: Any,
    labels: Any,
    where: str,
    *,
    names: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    parts: npt.NDArray[np.uint8] | None = None,
) -> SampleTable:
    """Return a table of checked samples and labels. Raises UserError that begins with `where`.

    samples: numbers or booleans; bytes stay bytes, float32 stays float32 in either byte order, all others
    become float64. labels:
    whole numbers, booleans or texts. Classes are the values that occur, in their order, unless `names` gives
    them: then labels are places among these.
    """
    samples, given = as_array(samples, "X", where), labels
    labels = as_array(given, "y", where)
    if labels.dtype.kind == "U" and labels.ndim == 1 and isinstance(given, list | tuple):
        labels = np.array(given, object)  # as texts, a missing label would be the class "nan" or "None"
    if parts is not None and len(parts) != len(samples):
        raise UserError(
            f"{where}: the split must be one name per sample, {len(samples):,}, got {len(parts):,}"
        )
    if samples.ndim not in (2, 3, 4) or 0 in samples.shape:
        raise UserError(
            f"{where}: X must be [samples, features], [samples, height, width] or [samples, height, width, "
            f"channels], got shape {list(samples.shape)}",
            "Flatten or reshape it",
        )
    if labels.shape != samples.shape[:1]:
        raise UserError(
            f"{where}: y must be one label per sample, {len(samples):,}, got shape {list(labels.shape)}",
            "Write class numbers, not one-hot vectors",
        )
    _check_sizes(samples, where)
    numbers, classes = _classes(labels, names, where)
    return SampleTable(_numbers(samples, columns, where), numbers, classes, columns, parts)


def _check_sizes(samples: AnyArray, where: str) -> None:
    features = math.prod(samples.shape[1:])
    if len(samples) > MAX_SAMPLES or features > MAX_FEATURES:
        raise UserError(
            f"{where}: X must have at most {MAX_SAMPLES:,} samples of {MAX_FEATURES:,} features, got "
            f"{len(samples):,} of {features:,}",
            "Use a part of it",
        )


def _numbers(samples: AnyArray, columns: tuple[str, ...], where: str) -> AnyArray:
    """Return samples of a kind that is stored. Raises UserError for text, complex or missing values."""
    if samples.dtype.kind not in "biuf":
        raise UserError(
            f"{where}: X must hold numbers, got values of type {samples.dtype}",
            "Encode categories as numbers, for example one column per value",
        )
    kind = samples.dtype.newbyteorder("<")
    found = np.ascontiguousarray(samples, kind if kind.str in _KINDS[:2] else np.dtype("<f8"))
    if found.dtype.kind == "f" and not (finite := np.isfinite(found)).all():
        raise UserError(
            f"{where}: X must be finite, got {int((~finite).sum()):,} missing or infinite values in "
            f"{_bad(finite, columns)}",
            "Fill them in or leave these samples or columns out",
        )
    return found


def _bad(finite: npt.NDArray[np.bool_], columns: tuple[str, ...]) -> str:
    """Name the columns with values that are not finite, or count the samples."""
    if finite.ndim > 2:
        return f"{int((~finite.all(axis=tuple(range(1, finite.ndim)))).sum()):,} samples"
    places = np.flatnonzero(~finite.all(axis=0))
    names = [columns[at] if columns else str(at) for at in places[:_MOST_NAMED]]
    more = f" and {len(places) - _MOST_NAMED:,} more" if len(places) > _MOST_NAMED else ""
    return f"column{'s' * (len(places) > 1)} {', '.join(names)}{more}"


def _classes(labels: AnyArray, names: tuple[str, ...], where: str) -> tuple[ClassNumbers, tuple[str, ...]]:
    """Return the number of each label among the classes, and their names. Raises UserError."""
    if labels.dtype.kind == "O" or labels.dtype.kind in "US":
        labels = _texts(labels, where)
    elif labels.dtype.kind not in "biuf":
        raise UserError(f"{where}: y must hold class labels, got values of type {labels.dtype}")
    if labels.dtype.kind == "f":
        labels = _whole(labels, where)
    values, numbers = np.unique(labels, return_inverse=True)
    if names:
        return _placed(values, numbers, names, where)
    if not 2 <= len(values) <= MAX_CLASSES:
        shown = f"{len(values):,}" + f" ({values[0]})" * (len(values) == 1)
        raise UserError(
            f"{where}: y must have 2 to {MAX_CLASSES:,} classes, got {shown}",
            "Name the column of the classes",
        )
    order = list(range(len(values)))
    found = [str(value) for value in values.tolist()]
    if labels.dtype.kind == "U" and all(map(_WHOLE_NUMBER.fullmatch, found)):
        order.sort(key=lambda at: (int(found[at]), found[at]))  # "10" comes after "9"
    place = np.argsort(np.array(order))
    return place[numbers.reshape(-1)].astype("<i8"), _check_names(tuple(found[at] for at in order), where)


def _texts(labels: AnyArray, where: str) -> AnyArray:
    """Return labels as texts; numbers and booleans among objects stay. Raises UserError for a missing one."""
    import pandas as pd

    values: list[Any] = labels.tolist()
    if labels.dtype.kind == "S":
        values = [value.decode("utf-8", "replace") for value in values]
    gone = pd.isna(labels)
    missing = [value for value, none in zip(values, gone, strict=True) if none or not str(value).strip()]
    if missing or not values:
        shown = repr(missing[0]) if missing else "none"
        raise UserError(f"{where}: y must have a label for each sample, got {shown}", "Fill it in")
    if all(isinstance(value, bool | np.bool_) for value in values):
        return np.array(values, bool)
    if all(isinstance(value, int | np.integer) and abs(int(value)) < 2**63 for value in values):
        return np.array(values, np.int64)
    if all(isinstance(value, int | float | np.number) for value in values):
        return np.array(values, np.float64)
    return np.array([str(value).strip() for value in values], dtype=str)


def _whole(labels: AnyArray, where: str) -> ClassNumbers:
    if gone := int((~np.isfinite(labels)).sum()):
        raise UserError(
            f"{where}: y must have a label for each sample, got {gone:,} without",
            "Fill it in, or leave these samples out",
        )
    odd = labels[(labels != np.rint(labels)) | (np.abs(labels) >= _EXACT)]
    if len(odd):
        raise UserError(
            f"{where}: y must hold class labels, got numbers such as {odd[0]:g}",
            "psa classifies and has no regression; cut the values into classes",
        )
    return labels.astype(np.int64)


def _placed(
    values: AnyArray, numbers: ClassNumbers, names: tuple[str, ...], where: str
) -> tuple[ClassNumbers, tuple[str, ...]]:
    """Return labels that are places among names. Raises UserError for others, and for a class without one."""
    if values.dtype.kind not in "iu" or values[0] < 0 or values[-1] >= len(names):
        shown = ", ".join(map(str, values[:_MOST_NAMED].tolist()))
        raise UserError(
            f"{where}: y must be places among the {len(names):,} classes, from 0, got {shown}, ...",
            "Leave the names of the classes out, or number the labels",
        )
    missing = [name for at, name in enumerate(names) if at not in set(values.tolist())]
    if missing or len(names) < 2:
        raise UserError(
            f"{where}: classes must be at least two with a sample each, got none of "
            f"{', '.join(missing[:_MOST_NAMED]) or 'a second one'}",
            "Leave classes without samples out",
        )
    return values[numbers.reshape(-1)].astype("<i8"), _check_names(names, where)


def _check_names(names: tuple[str, ...], where: str) -> tuple[str, ...]:
    for name in names:
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            raise UserError(
                f"{where}: classes must have names of 1 to {LONGEST_NAME} printable characters, got {name!r}",
                "Shorten it",
            )
    if len(set(names)) < len(names):
        raise UserError(
            f"{where}: classes must differ in name, got {', '.join(names[:_MOST_NAMED])}", "Rename one"
        )
    return names
