"""Read a job's `model.tar.gz` as a mapping from file names to bytes. The archive is untrusted: anyone who can
write to the bucket may have made it.

Nothing is written to disk and nothing is unpickled: a file named as a pickle is refused, and the content is
only parsed as JSON, safetensors or text. The rules are stricter than the `data` filter of Python's tarfile:
only folders and plain files under relative names, within limits that are checked during decompression.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import re
import tarfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from psa.core.errors import UserError, one_line
from psa.core.files import unreadable
from psa.core.formatting import quote

_HINT: Final = "Do not unpack it by hand either; delete it, or look at what wrote it"
_CUT: Final = "Fetch it again; if it stays so, the job did not finish writing it"
_BLOCK: Final = 512  # bytes per block of a tar file, which ends in at least one block of zeros
_MAX_NAME: Final = 1_000
_PICKLE_NAMES: Final = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
# Raised by tarfile and gzip for malformed bytes; RecursionError, because each extended header reads
# the next one.
_BROKEN: Final = (
    tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, LookupError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """Limits of an archive: members, expanded bytes, and the ratio of expanded to packed bytes.

    The ratio applies above `small` expanded bytes: a log of equal lines packs very well and is harmless.
    """

    files: int = 10_000
    bytes: int = 512 * 2**20
    ratio: float = 200.0
    small: int = 10 * 2**20

    def max_expanded_bytes(self, packed: int) -> int:
        """Return the most bytes that an archive of `packed` bytes may expand to."""
        return min(self.bytes, max(self.small, int(self.ratio * packed)))


DEFAULT_LIMITS: Final = Limits()
SWEEP_LIMITS: Final = Limits(files=50_000)  # a record, its sidecar and a state per trial, and their folders


def read_artifact(
    source: bytes | Path,
    limits: Limits = DEFAULT_LIMITS,
    *,
    name: str = "",
    wanted: Collection[str] | None = None,
) -> dict[str, bytes]:
    """Return the plain files of a gzipped tar archive by their names.

    name: used in errors, by default the path. wanted: base names of the files to read; all others are
    skipped, and only then may the archive hold a file named as a pickle. Raises UserError with the archive
    and the member: for a member other than a plain file or folder, an absolute, escaping or repeated name, a
    pickle, an archive beyond the limits, and a damaged or truncated archive.
    """
    called = name or (str(source) if isinstance(source, Path) else "the archive")
    with _opened(source, called) as (stream, packed):
        expanded = _Expanded(stream, limits.max_expanded_bytes(packed), called, packed)
        try:
            found = _read(expanded, limits, called, wanted)
            expanded.to_the_end()
        except _BROKEN as error:
            raise _damaged(called, error) from None
    if not expanded.closed_by_zeros:
        raise UserError(f"{called} is cut off: it lacks the end of a tar archive", _CUT)
    return found


@contextlib.contextmanager
def _opened(source: bytes | Path, called: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open an archive. Yield the packed bytes as a stream, and their number. Raises UserError."""
    if isinstance(source, bytes):
        yield io.BytesIO(source), len(source)
        return
    try:
        stream, packed = source.open("rb"), source.stat().st_size
    except OSError as error:
        raise unreadable(error, called) from error
    with stream:
        yield stream, packed


class _Expanded(io.RawIOBase):
    """The tar archive inside the gzip. Reading raises an error once it exceeds its limit."""

    def __init__(self, stream: BinaryIO, room: int, called: str, packed: int) -> None:
        super().__init__()
        self.inner = gzip.GzipFile(fileobj=stream, mode="rb")
        self.room, self.called, self.packed = room, called, packed
        self.count = 0
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        """Read at most `size` bytes; b"" at the end. Raises UserError beyond the limit."""
        left = self.room - self.count
        data = self.inner.read(min(max(size, 1), left + 1))
        self.count += len(data)
        if self.count > self.room:
            raise UserError(
                f"{self.called} is refused: its {self.packed:,} bytes expand to more than {self.room:,}",
                _HINT,
            )
        self._last = (self._last + data)[-_BLOCK:]
        return data

    def to_the_end(self) -> None:
        """Read the rest, so that the checksum at the end is verified."""
        while self.read(2**16):
            pass

    @property
    def closed_by_zeros(self) -> bool:
        """True if the last block read is the block of zeros that ends a complete archive."""
        return len(self._last) == _BLOCK and not any(self._last)


def _read(
    expanded: _Expanded, limits: Limits, called: str, wanted: Collection[str] | None
) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    seen: set[str] = set()
    # As a stream: tarfile then only reads forward, so that no header can make it seek back or loop.
    with tarfile.open(fileobj=expanded, mode="r|") as archive:
        for count, member in enumerate(archive, 1):
            if count > limits.files:
                raise UserError(f"{called} is refused: it holds more than {limits.files:,} files", _HINT)
            place = _place(member, called, expanded.room)
            if place in seen and not member.isdir():
                raise _refused(called, member, "stands there twice")
            seen.add(place)
            if member.isreg() and (wanted is None or place.rpartition("/")[2] in wanted):
                found[place] = _content(archive, member, called)
    return found


def _place(member: tarfile.TarInfo, called: str, room: int) -> str:
    """Return the plain relative name of a member. Raises UserError unless it is a plain file or a folder."""
    name = member.name
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise _refused(called, member, "has no name that can be used")
    if name.startswith(("/", "\\", "~")) or _DRIVE.match(name):
        raise _refused(called, member, "has an absolute name")
    if "\\" in name or ".." in name.split("/"):
        raise _refused(called, member, "leads out of the archive")
    if member.issym() or member.islnk():
        raise _refused(called, member, f"is a link to {quote(member.linkname)}")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise _refused(called, member, "must be a plain file or a folder")
    if not 0 <= member.size <= room:
        raise _refused(called, member, f"says that it holds {member.size:,} bytes")
    place = "/".join(part for part in name.split("/") if part not in ("", "."))
    if not place and not member.isdir():
        raise _refused(called, member, "has no name that can be used")
    return place


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, called: str) -> bytes:
    if member.name.lower().endswith(_PICKLE_NAMES):
        raise _refused(
            called, member, "is a pickle by its name, which could run any code; it is never loaded"
        )
    stream = archive.extractfile(member)
    content = b"" if stream is None else stream.read()
    if len(content) != member.size:
        raise EOFError("unexpected end of data")
    return content


def _refused(called: str, member: tarfile.TarInfo, what: str) -> UserError:
    return UserError(f"{called} is refused: its member {quote(member.name)} {what}", _HINT)


def _damaged(called: str, error: BaseException) -> UserError:
    reason = one_line(str(error))[:120] or type(error).__name__
    if isinstance(error, EOFError):
        return UserError(f"{called} is cut off ({reason})", _CUT)
    return UserError(f"{called} must be a gzipped tar archive, and cannot be read ({reason})", _CUT)
