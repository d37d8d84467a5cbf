"""Locks between processes: of a whole file, or of single bytes of one file.

The kernel holds them and releases them when their holder ends, however it ends. Nothing here falls back to
locks that consist in the existence of a file: after a kill those would be waited for without end. That is why
the library filelock is not used, which changes to such locks by itself where a file system has no flock, and
which asks who holds a lock only by opening the file for writing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from psa.core.errors import UserError
from psa.core.files import ensure_dir, file_error

LARGEST_OFFSET: Final = 2**62  # of a byte to lock; file offsets end at 2^63 - 1
_POLL_SECONDS: Final = 0.05
_MODE: Final = 0o666  # less the umask: members of a group that share a folder share its locks
# Answers to a lock request that another holder causes, and those of file systems without locks.
_HELD: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})
_NO_LOCKS: Final = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL})
_MOVE: Final = (
    "Choose a folder on a file system that supports file locks, such as a local disk or NFS version 4"
)
# struct flock of the system.
_LAYOUT, _FIELDS = (
    ("qqihh", ("start", "len", "pid", "type", "whence"))
    if sys.platform == "darwin"
    else ("hhqqi4x", ("type", "whence", "start", "len", "pid"))
)

# How to set and how to query the lock of a byte. Locks of a process end as soon as it closes any descriptor
# of the file. Those of an open file description do not, but macOS and some sandboxes lack them.
_OF_PROCESS: Final = (fcntl.F_SETLK, fcntl.F_GETLK)
_OF_DESCRIPTION: Final = (
    getattr(fcntl, "F_OFD_SETLK", fcntl.F_SETLK),
    getattr(fcntl, "F_OFD_GETLK", fcntl.F_GETLK),
)


class Locked(UserError):
    """Another holder has the lock."""


@contextlib.contextmanager
def locked(path: Path, patience: float = 0.0, what: str = "", hint: str = "") -> Iterator[None]:
    """Hold the lock of a file until the block ends. The file is created where it is missing, and stays.

    Args:
        path: The file.
        patience: Seconds to wait for another holder.
        what: The message where another holder has it; by default it names the file.
        hint: The hint that goes with the message.

    Raises:
        Locked: Another process, or another block of this one, holds the lock.
        UserError: The file cannot be opened or locked.

    """
    ensure_dir(path.parent)
    until = time.monotonic() + patience
    while (descriptor := _locked_whole(path)) is None:
        if time.monotonic() >= until:
            raise Locked(what or f"another process has locked {path}", hint or "Wait until it has ended")
        time.sleep(_POLL_SECONDS)
    try:
        yield
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Return whether any process holds the lock of a file. Needs only the right to read it.

    Raises:
        UserError: The file cannot be opened, or its file system has no locks.

    """
    descriptor = _opened_to_read(path)
    if descriptor is None:
        return False
    try:
        return not _flock(path, descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _locked_whole(path: Path) -> int | None:
    """Return a descriptor that holds the lock of a file, or None where another has it."""
    descriptor = _opened(path)
    try:
        if _flock(path, descriptor, fcntl.LOCK_EX) and _is_at(path, descriptor):
            return descriptor
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def _flock(path: Path, descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise _unlockable(path, error) from error
    return True


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, _MODE)
    except OSError as error:
        raise _unlockable(path, error) from error


def _opened_to_read(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unlockable(path, error) from error


def _is_at(path: Path, descriptor: int) -> bool:
    """Return whether an open file still has its name: one that was removed meanwhile guards nothing."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _unlockable(path: Path, error: OSError) -> UserError:
    refused = file_error(error, f"cannot lock {path}")
    return UserError(refused.message, _MOVE) if error.errno in _NO_LOCKS else refused


# Locks of bytes. Each process opens a file of locks once, however many of its bytes it holds.


class _File:
    """An open file of locks, and the bytes of it that this process holds."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self.descriptor, self.held = path, descriptor, set[int]()
        self._commands = _OF_DESCRIPTION

    def lock(self, offset: int) -> bool:
        """Lock a byte that this process does not hold. Return whether that was granted. Raises UserError."""
        try:
            self._call(0, fcntl.F_WRLCK, offset)
        except OSError as error:
            if error.errno in _HELD:
                return False
            raise _unlockable(self.path, error) from error
        self.held.add(offset)
        return True

    def is_free(self, offset: int, length: int = 1) -> bool:
        """Return whether no process holds a byte or, with length 0, any from it on. Raises UserError."""
        try:
            ours = offset in self.held if length == 1 else bool(self.held)
            return not ours and self._call(1, fcntl.F_WRLCK, offset, length) == fcntl.F_UNLCK
        except OSError as error:
            raise _unlockable(self.path, error) from error

    def unlock(self, offsets: set[int]) -> None:
        """Give bytes back. The file is closed with the last of them, which releases all, and forgotten."""
        self.held -= offsets
        if not self.held:
            for key in [key for key, file in _files.items() if file is self]:
                del _files[key]
                os.close(self.descriptor)
            return
        for offset in offsets:
            with contextlib.suppress(OSError):
                self._call(0, fcntl.F_UNLCK, offset)

    def _call(self, command: int, kind: int, offset: int, length: int = 1) -> int:
        """Make a request of the kernel, and return the kind of lock that it answers with."""
        request = {"type": kind, "whence": os.SEEK_SET, "start": offset, "len": length, "pid": 0}
        packed = struct.pack(_LAYOUT, *(request[field] for field in _FIELDS))
        try:
            answer = fcntl.fcntl(self.descriptor, self._commands[command], packed)
        except OSError as error:
            if error.errno != errno.EINVAL or self._commands == _OF_PROCESS:
                raise
            self._commands = _OF_PROCESS
            answer = fcntl.fcntl(self.descriptor, self._commands[command], packed)
        return int(struct.unpack(_LAYOUT, answer)[_FIELDS.index("type")])


_files: dict[tuple[int, int], _File] = {}  # by device and inode: one file may have many paths
_mutex = threading.RLock()


@contextlib.contextmanager
def locked_bytes(path: Path, offsets: Iterable[int]) -> Iterator[set[int]]:
    """Lock those of these bytes of a file that are free, until the block ends, and yield their offsets.

    Raises:
        UserError: The file cannot be opened or locked.

    """
    ensure_dir(path.parent)
    while (lock := _locked(path, sorted(set(offsets)))) is None:
        pass
    file, taken = lock
    try:
        yield taken
    finally:
        with _mutex:
            file.unlock(taken)


def unlocked_bytes(path: Path, offsets: Iterable[int]) -> set[int]:
    """Return those of these bytes of a file that are free. Locks and writes nothing.

    Raises:
        UserError: The file cannot be read, or its file system has no locks.

    """
    with _to_ask(path) as file:
        return {offset for offset in offsets if file is None or file.is_free(offset)}


def any_locked(path: Path) -> bool:
    """Return whether this process or another holds any byte of a file, like `unlocked_bytes`."""
    with _to_ask(path) as file:
        return file is not None and not file.is_free(0, length=0)


@contextlib.contextmanager
def _to_ask(path: Path) -> Iterator[_File | None]:
    """Open a file of locks to ask for them, None where there is none."""
    with _mutex, contextlib.ExitStack() as opened:
        file = _known(path)
        if file is None and (descriptor := _opened_to_read(path)) is not None:
            opened.callback(os.close, descriptor)
            file = _File(path, descriptor)
        yield file


def _locked(path: Path, offsets: list[int]) -> tuple[_File, set[int]] | None:
    """Return the file and those of the bytes that were granted; None if the file was replaced meanwhile."""
    with _mutex:
        file, taken = _known(path) or _registered(path), set[int]()
        try:
            for offset in offsets:
                if offset not in file.held and file.lock(offset):
                    taken.add(offset)
            if _is_at(path, file.descriptor):
                return file, taken
        except BaseException:
            file.unlock(taken)
            raise
        file.unlock(taken)
        return None


def _known(path: Path) -> _File | None:
    """Return the file if this process has it open. Opening it again would, where locks are of the process,
    release them all when it is closed.
    """
    try:
        found = path.stat()
    except OSError:
        return None
    return _files.get((found.st_dev, found.st_ino))


def _registered(path: Path) -> _File:
    descriptor = _opened(path)
    found = os.fstat(descriptor)
    return _files.setdefault((found.st_dev, found.st_ino), _File(path, descriptor))


def _forget() -> None:
    """Drop what a forked child has of its parent, whose locks it neither holds nor may keep alive."""
    for file in _files.values():
        file.held.clear()
        os.close(file.descriptor)
    _files.clear()
    _mutex.release()


os.register_at_fork(before=_mutex.acquire, after_in_parent=_mutex.release, after_in_child=_forget)
