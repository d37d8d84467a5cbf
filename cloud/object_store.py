"""A folder tree that all nodes of a cluster can reach: a local or NFS path, or `s3://bucket/prefix`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pyarrow import ArrowException, fs

from cloud.aws.errors import Unreachable, is_transient_in_storage
from cloud.aws.settings import redact
from psa.core.errors import UserError, one_line
from psa.core.files import unique_name

_HINT: Final = (
    "Name a folder that all nodes share, or s3://bucket/prefix (another endpoint than Amazon's: "
    "s3://bucket/prefix?endpoint_override=HOST:PORT&scheme=http)"
)

_NETWORK: Final = "Check the network and that address; run the same command again to resume"
_KEYS: Final = "Leave them out, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_OBJECT_STORES: Final = ("s3", "gcs")  # folders are only prefixes of names
_READS: Final = 3  # attempts, if a file or folder appears to be empty
Content = TypeVar("Content", bound=Sized)


@dataclass(frozen=True)
class ObjectStore:
    """The tree below a URI. Names within it are relative and use `/`."""

    uri: str
    files: fs.FileSystem
    root: str

    @classmethod
    def at(cls, place: str) -> ObjectStore:
        """Open the tree at a path or URI. Raises UserError for an invalid one."""
        uri = place if "://" in place else str(Path(place).expanduser().absolute())
        if "://" in place and "@" in place.partition("://")[2].partition("/")[0]:
            # it is written to logs, messages and Ray's experiment state
            raise UserError("--storage must not contain keys, which would appear in logs", _KEYS)
        try:
            files, root = fs.FileSystem.from_uri(uri)
        except (ArrowException, ValueError, OSError) as error:
            raise _refusal(uri, "is of no use", error) from None
        return cls(uri, files, root.rstrip("/"))

    def check_writable(self) -> None:
        """Check that files can be written, before any work is done. Raises UserError."""
        probe = f"probe-{unique_name()}"
        self.write(probe, b"psa")
        self.remove_file(probe)

    def under(self, name: str) -> str:
        """Return the URI of a folder."""
        if "://" not in self.uri:  # a path may contain a question mark
            return f"{self.uri.rstrip('/')}/{name}"
        place, question, query = self.uri.partition("?")
        return f"{place.rstrip('/')}/{name}{question}{query}"

    def write(self, name: str, content: bytes) -> None:
        """Store a file atomically: a reader never sees a part of it. Raises UserError."""
        path = f"{self.root}/{name}"
        folder, _, file = path.rpartition("/")
        whole = self.files.type_name in _OBJECT_STORES
        written = path if whole else f"{folder}/.{file}.{unique_name()}.tmp"
        try:
            if not whole:
                self.files.create_dir(folder, recursive=True)
            with self.files.open_output_stream(written) as stream:
                stream.write(content)
            if not whole:
                self.files.move(written, path)
        except (ArrowException, OSError) as error:
            raise _refusal(self.uri, f"cannot be written to ({name})", error) from None

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist. Raises UserError."""
        try:
            return self._retry_empty(lambda: self._content(name))
        except FileNotFoundError:
            return None
        except (ArrowException, OSError) as error:
            raise _refusal(self.uri, f"cannot be read ({name})", error) from None

    def read_start(self, name: str, count: int) -> bytes | None:
        """Return the first `count` bytes of a file, or None if it does not exist. Raises UserError."""
        try:
            with self.files.open_input_file(f"{self.root}/{name}") as stream:
                return bytes(stream.read(count))
        except FileNotFoundError:
            return None
        except (ArrowException, OSError) as error:
            raise _refusal(self.uri, f"cannot be read ({name})", error) from None

    def _content(self, name: str) -> bytes:
        with self.files.open_input_file(f"{self.root}/{name}") as stream:
            return bytes(stream.readall())

    def _retry_empty(self, question: Callable[[], Content]) -> Content:
        """Call a function. In an object store an empty result is accepted only if it is repeated: the AWS SDK
        for C++ takes a response with truncated headers for an empty file or folder.
        """
        answer = question()
        for _ in range(_READS - 1):
            if len(answer) or self.files.type_name not in _OBJECT_STORES:
                break
            answer = question()
        return answer

    def folders(self, name: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted; empty if it does not exist. Some S3 servers
        keep a folder whose files are gone. Raises UserError.
        """
        found = self._listed(name, recursive=False)
        return sorted(info.base_name for info in found if info.type == fs.FileType.Directory)

    def tree(self, name: str) -> Iterator[str]:
        """Yield every file below a folder, by its name relative to that folder, sorted. Raises UserError."""
        start = len(f"{self.root}/{name}".rstrip("/")) + 1
        for info in sorted(self._listed(name, recursive=True), key=lambda info: info.path):
            if info.type == fs.FileType.File:
                yield info.path[start:]

    def _listed(self, name: str, recursive: bool) -> list[fs.FileInfo]:
        path = f"{self.root}/{name}".rstrip("/")
        selector = fs.FileSelector(path, recursive=recursive, allow_not_found=True)
        try:
            return self._retry_empty(lambda: list(self.files.get_file_info(selector)))
        except (ArrowException, OSError) as error:
            raise _refusal(self.uri, f"cannot be read ({name})", error) from None

    def remove_file(self, name: str) -> None:
        """Remove a file if it exists."""
        try:
            self.files.delete_file(f"{self.root}/{name}")
        except FileNotFoundError:
            return
        except (ArrowException, OSError) as error:
            raise _refusal(self.uri, f"{name} cannot be removed", error) from None

    def remove(self, name: str) -> None:
        """Remove a folder and its content. Raises UserError."""
        with contextlib.suppress(FileNotFoundError):
            try:
                self.files.delete_dir(f"{self.root}/{name}")
            except FileNotFoundError:
                raise
            except (ArrowException, OSError) as error:
                raise _refusal(self.uri, f"{name} cannot be removed", error) from None


def _refusal(uri: str, what: str, error: Exception) -> UserError:
    reason = one_line(redact(str(error)))[:300]
    message = f"--storage {uri}: {what}: {reason}"
    return Unreachable(message, _NETWORK) if is_transient_in_storage(error) else UserError(message, _HINT)
