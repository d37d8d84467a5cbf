"""Atomic writes to disk, and file errors with a hint."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from psa.core.errors import UserError

_NO_SPACE: Final = "Free some space and run the same command again: it goes on from what is stored"
_NOT_YOURS: Final = "Choose a folder you may write to"
_NOT_READABLE: Final = "Ask its owner for the right to read it, or name another folder"
_A_FILE: Final = "A part of that path is a file: choose another folder"
_WAYS_OUT: Final = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EACCES: _NOT_YOURS,
    errno.EPERM: _NOT_YOURS,
    errno.EROFS: _NOT_YOURS,
    errno.ENOTDIR: _A_FILE,
    errno.EEXIST: _A_FILE,
    errno.EISDIR: "There is a folder of that name: move it away, or choose another folder",
    errno.ENAMETOOLONG: "Choose a shorter path",
}
_RETRY: Final = "What is stored is untouched: mend the cause and run the same command again"
_TEMPORARY: Final = ".tmp"
_LONGEST_STEM: Final = (
    220  # bytes; file systems allow 255, of which unique_name() and the suffix take up to 30
)
# What file systems answer that have no second names (FAT, many network and cloud mounts).
_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EACCES}
)
# What they answer where a folder cannot be flushed by itself.
_NO_FOLDER_SYNC: Final = frozenset(
    {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}
)


def file_error(error: OSError, what: str) -> UserError:
    """Return the one-line error for a failed file operation."""
    reason = error.strerror or str(error)
    return UserError(f"{what}: {reason[:1].lower()}{reason[1:]}", _WAYS_OUT.get(error.errno or 0, _RETRY))


def unreadable(error: OSError, path: Path | str) -> UserError:
    """Return the one line for a file or folder that cannot be read."""
    refused = file_error(error, f"cannot read {path}")
    is_forbidden = error.errno in (errno.EACCES, errno.EPERM)
    return UserError(refused.message, _NOT_READABLE) if is_forbidden else refused


def ensure_dir(folder: Path, mode: int = 0o777) -> None:
    """Create a folder and its parents, durably. Raises UserError."""
    try:
        _make_folder(folder, mode)
    except OSError as error:
        raise file_error(error, f"cannot create the folder {folder}") from error


def _make_folder(folder: Path, mode: int) -> None:
    if folder.is_dir():
        return
    if folder.parent != folder:
        _make_folder(folder.parent, 0o777)
    try:
        folder.mkdir(mode)
    except FileExistsError:  # another process was faster, or it is a file
        if not folder.is_dir():
            raise
    _sync_folder(folder.parent)


def check_writable(folder: Path) -> None:
    """Find out before any work is done whether files can be written to `folder`. Raises UserError."""
    ensure_dir(folder)
    probe = temp_path(folder / "psa-probe")
    try:
        with _opened(probe) as descriptor:
            _write_all(descriptor, b"psa")
    except OSError as error:
        raise file_error(error, f"cannot write to the folder {folder}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def read_bytes(path: Path) -> bytes | None:
    """Return the content of a file, None if it is missing. Raises UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(error, path) from error


def write_atomically(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Replace `path` by `content` so that a crash at any moment leaves the old file or the new one.

    With `previous`, the old file stays under that name. Raises UserError; then nothing has changed but,
    at most, that `previous` is already the present file.
    """
    write_parts(path, [content], previous)


def write_parts(path: Path, parts: Iterable[bytes | memoryview], previous: Path | None = None) -> None:
    """Do the same as write_atomically for content in pieces, which need not fit in memory as a whole."""
    if _is_device(path):
        _write_to_device(path, parts)
        return
    ensure_dir(path.parent)
    temporary = temp_path(path)
    try:
        with _opened(temporary) as descriptor:
            for part in parts:
                _write_all(descriptor, part)
            os.fsync(descriptor)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise file_error(error, f"cannot write {path}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temp_path(path: Path) -> Path:
    """Return a hidden name to prepare a new `path` under, another each time; a kill may leave it behind."""
    return path.with_name(f"{_hidden(path.name)}{unique_name()}{_TEMPORARY}")


def leftovers(folder: Path, begin: str) -> list[Path]:
    """Return the temporary files in a folder of all files whose names begin like this.

    Removing them is safe only under a lock that excludes other writers of such files.
    """
    names = folder.iterdir() if folder.is_dir() else ()
    return [path for path in names if path.name.startswith(f".{begin}") and path.name.endswith(_TEMPORARY)]


def remove_leftovers(folder: Path, begin: str, but: str | None = None) -> None:
    """Remove the files that `leftovers` returns, except those with `but` in their name. Raises UserError."""
    try:
        for path in leftovers(folder, begin):
            if but is None or but not in path.name:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise file_error(error, f"cannot remove the temporary files in {folder}") from error


def _hidden(name: str) -> str:
    """Return the beginning of the names of temporary files for `name`, cut to what file systems allow."""
    if len(name.encode()) > _LONGEST_STEM:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name.encode()[: _LONGEST_STEM - 17].decode(errors='ignore')}-{digest}"
    return f".{name}."


def unique_name() -> str:
    """Return a unique `<pid>-<random>`: containers that share a folder may also share process ids."""
    return f"{os.getpid()}-{secrets.token_hex(4)}"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_device(path: Path) -> bool:
    """Return True for what must be written to and not replaced: /dev/stdout, /dev/null, a pipe, a socket."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return path.parent == Path("/dev") or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _write_to_device(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    try:
        # a pipe without a reader is an error at once, not a wait without end
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        os.set_blocking(descriptor, True)
        try:
            for part in parts:
                _write_all(descriptor, part)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise file_error(error, f"cannot write {path}") from error


def _write_all(descriptor: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        written = os.write(descriptor, view)
        view = view[written:]


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` another name of the present file, without a moment in which either is missing."""
    linked = temp_path(previous)
    try:
        os.link(path, linked)
        os.replace(linked, previous)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        write_atomically(previous, path.read_bytes())
    finally:
        with contextlib.suppress(OSError):
            linked.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it may be written to, but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
