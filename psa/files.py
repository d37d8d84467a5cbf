"""Every write to disk: whole or not at all, and an error that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from psa.errors import UserError

_WAYS_OUT = {
    errno.ENOSPC: "Free some space and run the same command again: it goes on from what is stored",
    errno.EDQUOT: "Free some space and run the same command again: it goes on from what is stored",
    errno.EACCES: "Choose a folder you may write to",
    errno.EPERM: "Choose a folder you may write to",
    errno.EROFS: "Choose a folder you may write to",
    errno.ENOTDIR: "A part of that path is a file: choose another folder",
    errno.EEXIST: "A part of that path is a file: choose another folder",
    errno.ENAMETOOLONG: "Choose a shorter path",
}
_RETRY = "What is stored is untouched: mend the cause and run the same command again"


def refusal(error: OSError, what: str) -> UserError:
    """The one line for a failed file operation."""
    reason = error.strerror or str(error)
    return UserError(f"{what}: {reason[:1].lower()}{reason[1:]}", _WAYS_OUT.get(error.errno or 0, _RETRY))


def make_folder(folder: Path) -> None:
    """Create a folder and its parents. Raises UserError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refusal(error, f"cannot create the folder {folder}") from error


def check_writable(folder: Path) -> None:
    """Find out before any work is done whether files can be written to `folder`. Raises UserError."""
    make_folder(folder)
    probe = folder / f".psa-probe.{os.getpid()}.tmp"
    try:
        with _descriptor(probe) as descriptor:
            _write_all(descriptor, b"psa")
    except OSError as error:
        raise refusal(error, f"cannot write to the folder {folder}") from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def read_bytes(path: Path) -> bytes | None:
    """The content of a file, None where there is none. Raises UserError where it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(error, f"cannot read {path}") from error


def write_atomically(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Replace `path` by `content` so that a crash at any moment leaves the old file or the new one.

    With `previous`, the old file stays under that name. Raises UserError; then nothing has changed but,
    at most, that `previous` is already the present file.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _descriptor(temporary) as descriptor:
            _write_all(descriptor, content)
            os.fsync(descriptor)
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise refusal(error, f"cannot write {path}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


@contextlib.contextmanager
def _descriptor(path: Path):  # type: ignore[no-untyped-def]  # a generator behind a context manager
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        written = os.write(descriptor, view)
        view = view[written:]


def _keep(path: Path, previous: Path) -> None:
    """Make `previous` another name of the present file, in one step, without a moment in which either is
    missing."""
    linked = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    try:
        with contextlib.suppress(FileNotFoundError):
            linked.unlink()
        os.link(path, linked)
        os.replace(linked, previous)
    finally:
        with contextlib.suppress(OSError):
            linked.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
