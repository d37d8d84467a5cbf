"""The data folder: the four IDX files of a data set, found there in any usual layout or fetched into it.

Each file is looked up and checked alone, so a fetch that was cut off goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import check_writable, read_bytes, write_atomically
from psa.data import sources
from psa.data.datasets import DATASETS, Dataset, SourceFailed, locate, unpacked

DownloadProgress = Callable[[str], None]
_T = TypeVar("_T")

_STALE_SECONDS: Final = 3600.0  # writing one of these files takes seconds


def quiet(_message: str) -> None:
    """Ignore progress messages."""


def download_dataset(
    dataset: Dataset, data_dir: Path, progress: DownloadProgress = quiet, *, workers: int = 4
) -> dict[str, bytes]:
    """Return {canonical name: uncompressed IDX bytes}, every MD5 checked; get and keep what is missing.

    Files that lie unpacked in data_dir are used where they are; all others are written, unpacked, to
    data_dir/<name>/. Several processes may fetch at once: a file appears whole or not at all.
    progress: called with one line for each thing that takes time or goes wrong. workers: threads that read,
    unpack and check the files that are here already; with 0 or 1 that is done without any.
    Raises CorruptFileError for a file in data_dir whose bytes are not the published ones, and UserError when
    no source has the files or data_dir cannot be read or written.
    """
    found = _local_files(dataset, data_dir, progress, workers)
    missing = [name for name in dataset.files if name not in found]
    if not missing:
        return found
    folder = data_dir / dataset.name
    check_writable(folder)  # before the download, not after it
    _sweep(folder)
    tried = [f"{data_dir} ({f'no {_listed(missing)}' if found else 'none of its files'})"]
    for source in sources.sources_of(dataset):
        progress(f"{dataset.name}: getting {len(missing)} of {len(dataset.files)} files from {source.title}")
        try:
            for name, packed in source.get(tuple(missing)):
                found[name] = unpacked(name, dataset.files[name], packed)
                write_atomically(folder / name, found[name])
                missing.remove(name)
        except SourceFailed as failure:
            tried.append(f"{source.title} ({failure})")
            progress(f"{dataset.name}: {source.title} failed: {failure}")
        if not missing:
            progress(f"{dataset.name}: complete in {folder}")
            return found
    raise UserError(
        f"The data set {dataset.name} is not here and could not be fetched; tried {'; '.join(tried)}",
        f"Put {_listed(list(dataset.files))} (.gz or not) into {folder} and run this again",
    )


def _local_files(
    dataset: Dataset, data_dir: Path, progress: DownloadProgress, workers: int
) -> dict[str, bytes]:
    """Return the files that are in data_dir, unpacked and checked. Raises CorruptFileError, UserError.

    Threads only read: copies, messages and errors come in the order of the files.
    """
    found = {}
    looks = _each(lambda name: _local_file(dataset, name, data_dir), list(dataset.files), workers)
    for name, look in zip(dataset.files, looks, strict=True):
        if look is None:
            continue
        found[name], was_packed = look
        if was_packed:
            _keep_if_possible(data_dir / dataset.name / name, found[name], progress)
    return found


def _each(function: Callable[[str], _T], names: Sequence[str], workers: int) -> Iterator[_T]:
    """Return function(name) of every name, in order. Raises the error of the first that failed."""
    if workers < 2:
        yield from map(function, names)
        return
    with ThreadPoolExecutor(min(workers, len(names))) as pool:
        yield from pool.map(function, names)


def _local_file(dataset: Dataset, name: str, data_dir: Path) -> tuple[bytes, bool] | None:
    """Return the unpacked and checked bytes of one file in data_dir, and whether they lay packed there."""
    for folder in (data_dir / dataset.name, data_dir, data_dir / dataset.torchvision / "raw"):
        path = locate(folder, name)
        packed = None if path is None else read_bytes(path)
        if path is None or packed is None:
            continue
        data = _sound(dataset, name, path, packed, loose=folder == data_dir)
        if data is not None:
            return data, data is not packed
    return None


def _sound(dataset: Dataset, name: str, path: Path, packed: bytes, *, loose: bool) -> bytes | None:
    """Return the unpacked bytes, or None for a loose file of another data set. Raises CorruptFileError.

    loose: it lies in data_dir itself, where its name does not tell whose it is: all sets use the same four.
    """
    try:
        return unpacked(name, dataset.files[name], packed)
    except SourceFailed as failure:
        if loose and any(_is_of(other, name, packed) for other in DATASETS.values()):
            return None
        raise CorruptFileError(
            f"{path} is not the published {dataset.name} file: {failure}",
            "Delete it and run this again to get it anew, or put a sound copy in its place",
        ) from failure


def _is_of(dataset: Dataset, name: str, packed: bytes) -> bool:
    try:
        unpacked(name, dataset.files[name], packed)
    except SourceFailed:
        return False
    return True


def _sweep(folder: Path) -> None:
    """Remove what a fetch that was killed left behind, unless it may still be at work."""
    for temp in folder.glob(".*-ubyte.*.tmp"):
        with contextlib.suppress(OSError):  # another process swept it first
            if time.time() - temp.stat().st_mtime > _STALE_SECONDS:
                temp.unlink()


def _keep_if_possible(path: Path, data: bytes, progress: DownloadProgress) -> None:
    """Keep the unpacked copy of a packed file to save the work next time; a read-only data_dir is allowed."""
    try:
        write_atomically(path, data)
    except UserError as error:
        progress(f"{path.name} is unpacked again each time: {error.message}")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
