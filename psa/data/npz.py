"""NPZ files of data sets of one's own, and the checks that all kinds of files share."""

from __future__ import annotations

import io
import itertools
import logging
import math
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from psa.core.errors import UserError
from psa.core.stored_files import most_bytes
from psa.data.table import SPLIT_PARTS, AnyArray, SampleTable, checked_table

logger = logging.getLogger(__name__)

MOST_BYTES: Final = 2**33  # of the numbers in a file, unpacked; less where the memory is smaller
_MOST_MEMBERS: Final = 64
_LONGEST_COLUMN: Final = 200  # characters of a name
_MAX_HEADER: Final = 10_000  # bytes of an array's header; NumPy's own limit
_SPLIT_ARRAYS: Final = (("X_train", "y_train"), ("X_validation", "y_validation"), ("X_test", "y_test"))
_OTHER_NAMES: Final = {
    f"{array}_{short}": f"{array}_validation" for array in "Xy" for short in ("val", "valid")
}
_BESIDE: Final = ("classes", "columns")  # arrays that may stand beside samples and labels
_SPLIT_NAMES: Final = {"train": 0, "training": 0, "validation": 1, "val": 1, "valid": 1, "test": 2}


def most_numbers() -> int:
    """Return the bytes that the numbers of a file may take in memory."""
    return min(MOST_BYTES, most_bytes())


def check_size(size: int, where: str) -> None:
    """Raise UserError for more bytes than memory is for, before anything is unpacked."""
    if size > most_numbers():
        raise UserError(
            f"{where} must hold at most {most_numbers():,} bytes once unpacked, got {size:,}",
            "Use a part of it",
        )


def check_columns(columns: tuple[str, ...], where: str) -> tuple[str, ...]:
    """Return the names of columns. Raises UserError for one that cannot be shown."""
    for name in columns:
        if not 1 <= len(name) <= _LONGEST_COLUMN or not name.isprintable():
            raise UserError(
                f"{where}: columns must have names of 1 to {_LONGEST_COLUMN} printable characters, "
                f"got {name[:60]!r}",
                "Write a line of names above the samples",
            )
    return columns


def npz_table(content: bytes, where: str) -> SampleTable:
    """Read X and y, or X_train, y_train and so on; `classes` and `columns` may name classes and features."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        _check_members(members, where)
        arrays = _renamed({name: _member(archive, info, where) for name, info in members.items()}, where)
    names = _name_list(arrays.get("classes"), "classes", where)
    columns = _name_list(arrays.get("columns"), "columns", where)
    parts: npt.NDArray[np.uint8] | None
    if "X_train" in arrays:
        _check_names(arrays, (*itertools.chain(*_SPLIT_ARRAYS), *_BESIDE), where)
        samples, labels, parts = _joined(arrays, where)
    elif missing := [name for name in ("X", "y") if name not in arrays]:
        raise UserError(
            f"{where}: an NPZ file must hold the arrays X and y, or X_train, y_train, X_test and y_test, got "
            f"{', '.join(list(arrays)[:8]) or 'none'}",
            f"Save it with numpy.savez(path, X=..., y=...); {' and '.join(missing)} missing",
        )
    else:
        _check_names(arrays, ("X", "y", "split", *_BESIDE), where)
        samples, labels, parts = arrays["X"], arrays["y"], split_numbers(arrays.get("split"), where)
    if columns and _columns_wrong(columns, samples):
        raise UserError(
            f"{where}: columns must be a name for each feature of X, got {len(columns):,} for shape "
            f"{list(samples.shape)}",
            "Leave it out",
        )
    return checked_table(
        samples, labels, where, names=names, columns=check_columns(columns, where), parts=parts
    )


def _renamed(arrays: Mapping[str, AnyArray], where: str) -> dict[str, AnyArray]:
    """Return the arrays with `X_val` and the like under the name that psa uses. Raises UserError."""
    found: dict[str, AnyArray] = {}
    for name, array in arrays.items():
        usual = _OTHER_NAMES.get(name, name)
        if usual in found:
            raise UserError(f"{where}: {usual} must be there once, got it under two names", "Remove one")
        found[usual] = array
    return found


def _check_names(arrays: Mapping[str, AnyArray], known: Sequence[str], where: str) -> None:
    """Raise UserError for an array that would not be read."""
    if unknown := [name for name in arrays if name not in known]:
        raise UserError(
            f"{where}: an NPZ file with {known[0]} must hold only {', '.join(known)}, got "
            f"{', '.join(unknown[:8])}",
            "Save it without other arrays",
        )


def _columns_wrong(columns: Sequence[str], samples: AnyArray) -> bool:
    """Return True if the names are not one for each feature of [samples, features]."""
    return samples.ndim != 2 or len(columns) != samples.shape[1]


def _check_members(members: Mapping[str, zipfile.ZipInfo], where: str) -> None:
    if len(members) > _MOST_MEMBERS:
        raise UserError(f"{where} must hold at most {_MOST_MEMBERS} arrays, got {len(members):,}", "Split it")
    check_size(sum(info.file_size for info in members.values()), where)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> AnyArray:
    """Return an array of an archive. Its header decides nothing before it agrees with the member's size."""
    with archive.open(info) as file:
        content = file.read(info.file_size + 1)
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, kind = read(stream, max_header_size=_MAX_HEADER)
    if kind.hasobject:
        raise UserError(
            f"{where}: {info.filename} must hold numbers or texts, got pickled objects, which are not loaded",
            "Save arrays of a plain type; texts as numpy.array([...], dtype=str)",
        )
    if kind.itemsize * math.prod(shape) != len(content) - stream.tell() or any(size < 0 for size in shape):
        raise ValueError(f"{info.filename} has other bytes than its header says")
    flat = (
        np.frombuffer(content, kind, offset=stream.tell())
        if kind.itemsize
        else np.zeros(math.prod(shape), kind)
    )
    return flat.reshape(shape, order="F" if by_column else "C")


def _name_list(names: AnyArray | None, what: str, where: str) -> tuple[str, ...]:
    if names is None:
        return ()
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise UserError(
            f"{where}: {what} must be a list of texts, got {names.dtype} of shape {list(names.shape)}"
        )
    return tuple(
        name.decode("utf-8", "replace") if isinstance(name, bytes) else name for name in names.tolist()
    )


def _joined(arrays: Mapping[str, AnyArray], where: str) -> tuple[AnyArray, AnyArray, npt.NDArray[np.uint8]]:
    """Return the samples and labels of all splits in one, and the split of each."""
    there = [
        (number, pair) for number, pair in enumerate(_SPLIT_ARRAYS) if pair[0] in arrays or pair[1] in arrays
    ]
    for _, pair in there:
        for name in pair:
            if name not in arrays:
                raise UserError(
                    f"{where}: {name} must be there beside {', '.join(set(pair) - {name})}", "Add it"
                )
    if any(len({arrays[pair[at]].shape[1:] for _, pair in there}) > 1 for at in (0, 1)):
        raise UserError(f"{where}: all splits must have samples of one shape", "Reshape them")
    if any(
        arrays[pair[0]].shape[:1] != arrays[pair[1]].shape[:1] or not arrays[pair[0]].ndim
        for _, pair in there
    ):
        raise UserError(f"{where}: y must be one label per sample in each split", "Write class numbers")
    parts = [np.full(len(arrays[pair[1]]), number, np.uint8) for number, pair in there]
    samples = np.concatenate([arrays[pair[0]] for _, pair in there])
    return samples, np.concatenate([arrays[pair[1]] for _, pair in there]), np.concatenate(parts)


def split_numbers(values: Any, where: str) -> npt.NDArray[np.uint8] | None:
    """Return the split of each sample from its name. Raises UserError for another name."""
    if values is None:
        return None
    texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    unknown = sorted({text for text in texts if text.strip().lower() not in _SPLIT_NAMES})
    if unknown:
        raise UserError(
            f"{where}: the split of a sample must be {', '.join(SPLIT_PARTS[:2])} or {SPLIT_PARTS[2]}, "
            f"got {unknown[0]!r}",
            "Leave the split out to have it drawn by a seed",
        )
    parts = np.array([_SPLIT_NAMES[text.strip().lower()] for text in texts], np.uint8)
    if not (parts == 0).any():
        raise UserError(f"{where}: a training split must have samples, got none", "Name some rows train")
    if not parts.any():
        logger.warning(
            "%s: all samples are named train; validation and test splits are drawn from them", where
        )
    return parts
