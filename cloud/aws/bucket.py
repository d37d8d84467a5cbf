"""psa's part of an S3 bucket: files below a prefix, accessed through boto3.

Unlike cloud.object_store, which Ray needs for folders as well, it can create a file only if it does not
exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cloud.aws.errors import (
    NOT_FOUND,
    MalformedAnswer,
    aws_errors,
    error_code,
    is_transient,
    required,
    retry_malformed,
)
from psa.core.errors import UserError

_THERE: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_READS: Final = 3  # attempts to read an object: botocore retries a request, but not a body that breaks off
_AT_ONCE: Final = 1000  # keys that S3 deletes in one request


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
        return f"{self.uri}/{name}"

    def check(self) -> None:
        """Raise UserError unless the bucket exists and can be read."""
        with aws_errors(f"bucket {self.name} cannot be used"):
            self.client.head_bucket(Bucket=self.name)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist. Raises UserError."""
        return object_bytes(self.client, self.name, self._key(name))

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

    def tree(self, name: str) -> Iterator[str]:
        """Yield every file below a folder, by its name relative to that folder, sorted. Raises UserError."""
        start = len(self._key(name).rstrip("/")) + 1
        for item in sorted(
            self._listed("list_objects_v2", f"{name}/", "Contents"), key=lambda each: each["Key"]
        ):
            if not item["Key"].endswith("/"):
                yield item["Key"][start:]

    def folders(self, name: str) -> list[str]:
        """Return the names of the folders in a folder, sorted. Raises UserError."""
        found = self._listed("list_objects_v2", f"{name}/", "CommonPrefixes", Delimiter="/")
        return sorted(item["Prefix"].rstrip("/").rpartition("/")[2] for item in found)

    def remove(self, name: str) -> None:
        """Remove a folder and its content. Raises UserError."""
        keys = [self._key(f"{name}/{file}") for file in self.tree(name)]
        for at in range(0, len(keys), _AT_ONCE):
            objects = [{"Key": key} for key in keys[at : at + _AT_ONCE]]
            with aws_errors(f"{self.under(name)} cannot be removed"):
                answer = self.client.delete_objects(
                    Bucket=self.name, Delete={"Objects": objects, "Quiet": True}
                )
            kept = (answer or {}).get("Errors")  # one object each; the request itself is a success
            if kept:
                raise UserError(
                    f"{self.under(name)} cannot be removed: {kept[0].get('Code')}: {kept[0].get('Message')}",
                    "The role or user needs s3:DeleteObject below the prefix",
                )

    def _listed(self, operation: str, name: str, kind: str, **how: str) -> list[dict[str, Any]]:
        with aws_errors(f"{self.under(name)} cannot be listed"):
            return retry_malformed(lambda: self._pages(operation, name, kind, **how))

    def _pages(self, operation: str, name: str, kind: str, **how: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for page in self.client.get_paginator(operation).paginate(
            Bucket=self.name, Prefix=self._key(name), **how
        ):
            required(page, "IsTruncated")  # a response with truncated headers looks like an empty list
            found += page.get(kind, [])
        return found

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"


def object_bytes(client: Any, bucket: str, key: str, most: int | None = None) -> bytes | None:
    """Return the content of an object, or None if it does not exist. A body that breaks off is read again.

    Raises UserError, also if the object has more than `most` bytes.
    """
    where = f"s3://{bucket}/{key}"
    with aws_errors(f"{where} cannot be read"):
        for left in reversed(range(_READS)):
            answer = _opened(client, bucket, key)
            if answer is None:
                return None
            try:
                # a response with truncated headers has no length, and looks like an empty file
                _check_length(where, required(answer, "ContentLength"), most)
                return bytes(answer["Body"].read())
            except Exception as error:
                if not (left and is_transient(error)):
                    raise
    raise MalformedAnswer(where)  # unreachable: the last attempt returns or raises


def _check_length(where: str, length: int, most: int | None) -> None:
    if most is not None and length > most:
        raise UserError(
            f"{where} must have at most {most:,} bytes, got {length:,}", "Remove it if psa did not write it"
        )


def _opened(client: Any, bucket: str, key: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        found: dict[str, Any] = client.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error_code(error) in NOT_FOUND:
            return None
        raise
    return found
