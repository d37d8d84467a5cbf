"""Arrays of many samples as one safetensors file: written in pieces, read where they lie, never unpickled.

The file holds the arrays and one metadata entry with facts of their writer. The bytes are a function of both
alone, so the SHA-256 of the file proves that every number in it is unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import unreadable, write_parts
from psa.core.stored_files import open_regular
from psa.specs.base import canonical_json

Arrays = dict[str, NDArray[Any]]

ARRAY_SUFFIX: Final = ".arrays.safetensors"
PIECE: Final = 2**24  # bytes written at once
_TYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "F16": np.dtype("<f2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("bool"),
}
_NAMES: Final = {kind: name for name, kind in _TYPES.items()}
_ALIGNED: Final = 8
_LENGTH_BYTES: Final = 8  # before the header, which they say the length of
_LONGEST_HEADER: Final = 100_000_000


@dataclass(frozen=True)
class LazyArray:
    """An array that is made while it is written. pieces: called once, returns its parts along axis 0."""

    shape: tuple[int, ...]
    kind: np.dtype[Any]
    pieces: Callable[[], Iterator[NDArray[Any]]]

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.kind.itemsize


def lazy(array: NDArray[Any]) -> LazyArray:
    """Return an existing array as a LazyArray, in parts."""
    kind = array.dtype.newbyteorder("<")
    if not array.ndim:
        return LazyArray((), kind, lambda: iter((array,)))
    each = max(1, array.nbytes // max(1, len(array)))
    step = max(1, PIECE // each)
    return LazyArray(array.shape, kind, lambda: (array[at : at + step] for at in range(0, len(array), step)))


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any] | LazyArray], facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the file atomically and return its `sha256` and `bytes`. Raises UserError, also for values that
    are not arrays, or arrays of a type that the format does not have.
    """
    for name, array in arrays.items():
        kind = getattr(array, "kind", None) or getattr(array, "dtype", type(array).__name__)
        if not isinstance(kind, np.dtype) or kind.newbyteorder("<") not in _NAMES:
            raise UserError(
                f"{path.name}: {name} must be a NumPy array of numbers or booleans, got {kind}",
                "Convert it with numpy.asarray(..., dtype=...)",
            )
    planned = {name: array if isinstance(array, LazyArray) else lazy(array) for name, array in arrays.items()}
    digest, total = hashlib.sha256(), 0

    def counted() -> Iterator[memoryview]:
        nonlocal total
        for piece in _content(planned, facts):
            digest.update(piece)
            total += piece.nbytes
            yield piece

    write_parts(path, counted())
    return {"sha256": digest.hexdigest(), "bytes": total}


def _content(planned: Mapping[str, LazyArray], facts: Mapping[str, Any]) -> Iterator[memoryview]:
    header: dict[str, Any] = {"__metadata__": {"psa": canonical_json(facts)}}
    at = 0
    # wider types first, so that every array begins where its type wants it
    names = sorted(planned, key=lambda name: (-planned[name].kind.itemsize, name))
    for name in names:
        end = at + planned[name].nbytes
        header[name] = {
            "dtype": _NAMES[planned[name].kind], "shape": list(planned[name].shape), "data_offsets": [at, end]
        }  # fmt: skip
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    yield memoryview(len(text).to_bytes(_LENGTH_BYTES, "little") + text)
    for name in names:
        for piece in planned[name].pieces():
            yield np.ascontiguousarray(piece, planned[name].kind).reshape(-1).view(np.uint8).data


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a file, None if it is missing. Raises UserError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(error, path) from error


@dataclass(frozen=True)
class ArrayFile:
    """A file that was read: its facts, and its arrays as read-only maps of the file."""

    path: Path
    facts: dict[str, Any]
    arrays: Mapping[str, NDArray[Any]]


class MappedArrays(Mapping[str, NDArray[Any]]):
    """The arrays of a file, each mapped anew on every access.

    A map holds a file descriptor as long as it lives. Keeping the maps of many trials would keep a
    descriptor open for each of their arrays.
    """

    def __init__(self, path: Path, begin: int, header: Mapping[str, Any]) -> None:
        self._path, self._begin, self._header = path, begin, header

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return an array. Raises CorruptFileError and UserError, as `read` does."""
        part = self._header[name]
        with _reading(self._path):
            return _mapped(self._path, self._begin, part)

    def __contains__(self, name: object) -> bool:
        return name in self._header

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)


def read_arrays(path: Path, sha256: str | None = None) -> ArrayFile:
    """Open a file; with sha256, only if it is that one.

    Raises CorruptFileError where it is not what was written, UserError where there is none.
    """
    if sha256 is not None and (found := sha256_of(path)) not in (None, sha256):
        raise CorruptFileError(
            f"{path} is not the file that was recorded (its SHA-256 is {found})", DELETE_HINT
        )
    with _reading(path):
        return _opened(path)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a file into CorruptFileError, or UserError if it is missing."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{path} does not exist", "Train the trial again, or bring the file here") from None
    except OSError as error:
        raise unreadable(error, path) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptFileError(f"{path} is damaged ({type(error).__name__})", DELETE_HINT) from error


DELETE_HINT: Final = "Remove it and train its trial again, with another --results-dir"


def read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file that is open at its beginning, and the offset of the arrays.
    Raises ValueError and RecursionError for other bytes.
    """
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    return json.loads(file.read(min(length, _LONGEST_HEADER))), _LENGTH_BYTES + length


def _opened(path: Path) -> ArrayFile:
    with open_regular(path) as file:
        header, begin = read_header(file)
        end = file.seek(0, 2)
    facts: dict[str, Any] = dict(json.loads(header.pop("__metadata__")["psa"]))
    if begin + max((part["data_offsets"][1] for part in header.values()), default=0) != end:
        raise CorruptFileError(f"{path} is damaged (it is cut off)", DELETE_HINT)
    for part in header.values():
        _mapped(path, begin, part)
    return ArrayFile(path, facts, MappedArrays(path, begin, header))


def _mapped(path: Path, start: int, part: Mapping[str, Any]) -> NDArray[Any]:
    """Return an array of a file whose arrays begin at `start`. Raises ValueError if its sizes disagree."""
    kind, shape, (begin, end) = _TYPES[part["dtype"]], tuple(part["shape"]), part["data_offsets"]
    if not all(type(size) is int and size >= 0 for size in (*shape, begin, end)):
        raise ValueError(f"sizes must be numbers from 0, got {(*shape, begin, end)}")
    if end - begin != math.prod(shape) * kind.itemsize:
        raise ValueError(f"an array of shape {shape} must have its size in bytes, got {end - begin}")
    if 0 in shape:  # an empty range cannot be mapped
        return np.empty(shape, kind)
    return np.memmap(path, kind, mode="r", offset=start + begin, shape=shape)
