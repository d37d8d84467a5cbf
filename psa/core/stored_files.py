"""Reading stored files: only regular ones of a bounded size, and each of a folder once, behind links too."""

from __future__ import annotations

import errno
import functools
import heapq
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Final

from psa.core.errors import CorruptFileError
from psa.core.files import unreadable

_KINDS: Final = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_MOVE_AWAY: Final = "Move it away, and run the same command again"
# A FIFO is opened without waiting for a writer. Windows has neither the flag nor such files.
_AT_ONCE: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_TRIES: Final = 3
_PAUSE_SECONDS: Final = 0.05
_COPIES: Final = 3  # of its content, which checking a state holds at one moment
_UNKNOWN_MEMORY: Final = 2**34


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading, and wait for nothing.

    Raises CorruptFileError for anything else of that name (a FIFO, a device, a folder, a link to nothing),
    and OSError as `open` does.
    """
    return os.fdopen(_open(path), "rb")


def read_stored(path: Path, most: int | None = None) -> bytes | None:
    """Return the content of a stored file, None where there is none.

    Args:
        path: The file.
        most: Bytes that it may have; as many as the memory can hold where it is None.

    Raises:
        CorruptFileError: It is not a regular file, is too large, or keeps changing while it is read.
        UserError: It cannot be read.

    """
    limit = most_bytes() if most is None else most
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE_SECONDS)
        try:
            content = _content(path, limit)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(error, path) from error
        if content is not None:
            return content
    raise CorruptFileError(
        f"{path} changes while it is read", "Wait for the program that writes to it, then run it again"
    )


def _content(path: Path, limit: int) -> bytes | None:
    """Return the whole content, None where the file changed meanwhile."""
    descriptor = _open(path)
    try:
        before = os.fstat(descriptor)
        if before.st_size > limit:
            raise CorruptFileError(
                f"{path} must have at most {limit:,} bytes, got {before.st_size:,}", _MOVE_AWAY
            )
        content = _read(descriptor, before.st_size + 1)
        after = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    return content if same and len(content) == before.st_size else None


def _read(descriptor: int, most: int) -> bytes:
    """Read to the end, but no more than `most` bytes."""
    parts = []
    while most > 0 and (part := os.read(descriptor, most)):
        parts.append(part)
        most -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@functools.cache
def most_bytes() -> int:
    """Return the size of the largest file that this machine can check."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _COPIES
    except (AttributeError, ValueError, OSError):
        return _UNKNOWN_MEMORY


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, _AT_ONCE)
    except FileNotFoundError:
        if path.is_symlink():
            raise CorruptFileError(dangling(path), "Restore what it links to, or remove the link") from None
        raise
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.EOPNOTSUPP):
            raise CorruptFileError(f"{path} must be a regular file, got a socket", _MOVE_AWAY) from None
        if error.errno == errno.ELOOP:
            raise CorruptFileError(
                f"{path} must be a regular file, got a link to itself", _MOVE_AWAY
            ) from None
        raise
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise CorruptFileError(
            f"{path} must be a regular file, got {_KINDS.get(kind, 'something else')}", _MOVE_AWAY
        )
    return descriptor


def dangling(link: Path) -> str:
    """Describe a link to nothing."""
    return f"{link} is a link to {link.readlink()}, which does not exist"


def dangling_part(path: Path, root: Path) -> Path | None:
    """Return the link to nothing that `path`, below `root`, leads through, None where there is none."""
    parts = [path, *path.parents]
    below = parts[: parts.index(root) + 1] if root in parts else parts
    return next((part for part in below if part.is_symlink() and not part.exists()), None)


@dataclass
class Listing:
    """The files of a folder, in the order of their paths. faults: what could not be listed, a line each.

    repeated: links to folders that are listed under another name, loops among them, a line each.
    """

    files: list[Path] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def files_below(root: Path, wanted: Callable[[str], bool]) -> Listing:
    """List everything below a folder whose name is wanted. Links to folders are followed.

    A folder that several links lead to, or one in which it lies itself, is listed once: under its own name
    where that is below `root`.
    """
    walk = _Walk(wanted)
    walk.enter(str(root))
    walk.follow(root)
    return Listing(sorted(map(Path, walk.files)), walk.faults, walk.repeated)


class _Walk:
    """One pass through a tree. Links to folders wait until all folders that lie there are known."""

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self.wanted = wanted
        self.files, self.folders, self.links = list[str](), list[str](), list[str]()
        self.faults, self.repeated = list[str](), list[str]()

    def enter(self, folder: str) -> None:
        """List a folder and those in it."""
        waiting = [folder]
        while waiting:
            here = waiting.pop()
            self.folders.append(here)
            try:
                with os.scandir(here) as entries:
                    waiting += [entry.path for entry in entries if self._is_folder(entry)]
            except FileNotFoundError:  # removed meanwhile, or never there
                self.faults += [dangling(Path(here))] if Path(here).is_symlink() else []
            except NotADirectoryError:
                self.files += [here] if self.wanted(Path(here).name) else []
            except OSError as error:
                self.faults.append(unreadable(error, f"the folder {here}").message)

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Sort an entry in; return whether it is a folder that lies there itself."""
        if self.wanted(entry.name):
            self.files.append(entry.path)
        if entry.is_symlink():
            self._sort_in(entry)
            return False
        return entry.is_dir(follow_symlinks=False)

    def _sort_in(self, link: os.DirEntry[str]) -> None:
        try:
            if link.is_dir():
                self.links.append(link.path)
                return
            there = Path(link.path).exists()
        except OSError:  # a link to itself
            there = False
        if not there and not self.wanted(link.name):  # else reading the file says so
            self.faults.append(dangling(Path(link.path)))

    def follow(self, root: Path) -> None:
        """Enter the folders behind links, each once."""
        if not self.links:
            return
        known = {place: str(part) for part in root.absolute().parents for place in _place(str(part))}
        waiting: list[tuple[bool, str]] = []
        while self.links or waiting:
            known |= {place: folder for folder in self.folders for place in _place(folder)}
            for link in self.links:
                heapq.heappush(waiting, _precedence(link))
            self.folders.clear()
            self.links.clear()
            _, link = heapq.heappop(waiting)
            other = next((known[place] for place in _place(link) if place in known), None)
            if other is None:
                self.enter(link)
            else:
                self.repeated.append(f"{link} leads to {other}, and is not followed")


def _precedence(link: str) -> tuple[bool, str]:
    """Return a key by which, of several links to one folder, that of the folder's own name comes first."""
    return Path(link).name != Path(link).resolve().name, link


def _place(folder: str) -> Iterator[tuple[int, int]]:
    """Yield the identity of a folder, which is independent of its name; nothing if it is gone."""
    try:
        facts = Path(folder).stat()
    except OSError:
        return
    yield facts.st_dev, facts.st_ino
