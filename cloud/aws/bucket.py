"""psa's part of an S3 bucket: files below a prefix, accessed through boto3.

Unlike cloud.object_store, which Ray needs for folders as well, it can create a file only if it does not
exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cloud.aws.errors import (
    NOT_FOUND,
    MalformedResponse,
    aws_errors,
    error_code,
    is_transient,
    require_member,
    retry_malformed,
)
from psa.core.errors import UserError

_THERE: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_EMPTY: Final = "InvalidRange"  # of an object without content
_READS: Final = 3  # attempts to read an object: botocore retries a request, but not a body that breaks off
_AT_ONCE: Final = 1000  # keys that S3 deletes in one request
ProgressCallback = Callable[[str], None]


class StoredObject(NamedTuple):
    """An object of a listing. name: relative to the prefix of the bucket; size: in bytes."""

    name: str
    size: int
    storage_class: str


@dataclass(frozen=True)
class Bucket:
    """The files below s3://name/prefix/. Names are relative to it."""

    client: Any
    name: str
    prefix: str

    @property
    def uri(self) -> str:
        """The URI of the prefix."""
        return f"s3://{self.name}/{self.prefix}"

    def under(self, name: str) -> str:
        """Return the URI of a folder or file."""
        return f"s3://{self.name}/{self._key(name)}"

    def check(self) -> None:
        """Raise UserError unless the bucket exists and can be read."""
        with aws_errors(f"bucket {self.name} cannot be used"):
            self.client.head_bucket(Bucket=self.name)

    def read_start(self, name: str, count: int) -> bytes | None:
        """Return the first `count` bytes of a file, or None if it does not exist. Raises UserError."""
        return self._read(name, None, Range=f"bytes=0-{count - 1}")

    def read(self, name: str, max_bytes: int | None = None) -> bytes | None:
        """Return the content of a file, or None if it does not exist. A body that breaks off is read again.

        Raises UserError, also if the file has more than `max_bytes` bytes.
        """
        return self._read(name, max_bytes)

    def _read(self, name: str, max_bytes: int | None, **part: str) -> bytes | None:
        uri = self.under(name)
        with aws_errors(f"{uri} cannot be read"):
            for left in reversed(range(_READS)):
                response = self._get(name, **part)
                if response is None:
                    return None
                try:
                    # a response with truncated headers has no length, and looks like an empty file
                    _check_length(uri, require_member(response, "ContentLength"), max_bytes)
                    return bytes(response["Body"].read())
                except Exception as error:
                    if not (left and is_transient(error)):
                        raise
        raise MalformedResponse(uri)  # unreachable: the last attempt returns or raises

    def _get(self, name: str, **part: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            response: dict[str, Any] = self.client.get_object(Bucket=self.name, Key=self._key(name), **part)
        except ClientError as error:
            if error_code(error) in NOT_FOUND or (part and error_code(error) == _EMPTY):
                return None
            raise
        return response

    def write(self, name: str, content: bytes) -> None:
        """Store a file. Raises UserError."""
        self._put(name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Store a file unless it exists. Return whether it was stored. Raises UserError."""
        return self._put(name, content, IfNoneMatch="*")

    def _put(self, name: str, content: bytes, **condition: str) -> bool:
        from botocore.exceptions import ClientError

        with aws_errors(f"{self.under(name)} cannot be written"):
            try:
                self.client.put_object(Bucket=self.name, Key=self._key(name), Body=content, **condition)
            except ClientError as error:
                if condition and error_code(error) in _THERE:
                    return False
                raise
        return True

    def objects(self, start: str = "", progress: ProgressCallback | None = None) -> list[StoredObject]:
        """Return every object whose name starts with `start`. progress: called per page. Raises UserError."""
        skipped = len(self._key(""))
        return [
            StoredObject(item["Key"][skipped:], int(item["Size"]), item.get("StorageClass", "STANDARD"))
            for item in self._listed(start, "Contents", progress)
        ]

    def tree(self, name: str) -> Iterator[str]:
        """Yield every file below a folder, by its name relative to that folder, sorted. Raises UserError."""
        folder = f"{name.rstrip('/')}/"
        for stored in sorted(self.objects(folder)):
            if not stored.name.endswith("/"):
                yield stored.name[len(folder) :]

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders in a folder, sorted. Raises UserError."""
        folders = self._listed(f"{name}/", "CommonPrefixes", Delimiter="/")
        return sorted(item["Prefix"].rstrip("/").rpartition("/")[2] for item in folders)

    def remove(self, name: str) -> None:
        """Remove a folder and its content. Raises UserError."""
        self.remove_files([f"{name}/{file}" for file in self.tree(name)])

    def remove_files(self, names: Sequence[str]) -> None:
        """Remove files. Raises UserError."""
        for at in range(0, len(names), _AT_ONCE):
            chunk = names[at : at + _AT_ONCE]
            objects = [{"Key": self._key(name)} for name in chunk]
            with aws_errors(f"{self.under(chunk[0])} cannot be removed"):
                response = self.client.delete_objects(
                    Bucket=self.name, Delete={"Objects": objects, "Quiet": True}
                )
            kept = (response or {}).get("Errors")  # one object each; the request itself is a success
            if kept:
                raise UserError(
                    f"s3://{self.name}/{kept[0].get('Key')} cannot be removed: {kept[0].get('Code')}: "
                    f"{kept[0].get('Message')}",
                    "The role or user needs s3:DeleteObject below the prefix",
                )

    def _listed(
        self, start: str, member: str, progress: ProgressCallback | None = None, **options: str
    ) -> list[dict[str, Any]]:
        def pages() -> list[dict[str, Any]]:
            items: list[dict[str, Any]] = []
            paginator = self.client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self.name, Prefix=self._key(start), **options):
                # a response with truncated headers looks like an empty list
                require_member(page, "IsTruncated")
                items += page.get(member, [])
                if progress is not None:
                    progress(f"{len(items):,} files listed")
            return items

        with aws_errors(f"{self.under(start)} cannot be listed"):
            return retry_malformed(pages)

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name


def _check_length(where: str, length: int, max_bytes: int | None) -> None:
    if max_bytes is not None and length > max_bytes:
        raise UserError(
            f"{where} must have at most {max_bytes:,} bytes, got {length:,}",
            "Remove it if psa did not write it",
        )
