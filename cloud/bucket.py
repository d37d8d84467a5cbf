"""The part of an S3 bucket that belongs to psa: files below a prefix, through boto3.

Beside cloud.storage, which Ray needs for folders as well, it can write a file only where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cloud.settings import hidden
from psa.errors import UserError

_NOTHING: Final = frozenset({"NoSuchKey", "404"})
_THERE: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
LATER: Final = frozenset(
    {
        "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequests", "SlowDown",
        "ServiceUnavailable", "InternalFailure", "InternalServerError", "InternalError",
    }
)  # fmt: skip
_AT_ONCE: Final = 1000  # keys that S3 deletes in one request


@dataclass(frozen=True)
class Bucket:
    """The files below s3://name/prefix/. Names are relative to it."""

    client: Any
    name: str
    prefix: str

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{self.name}/{self.prefix}"

    def under(self, name: str) -> str:
        """The address of a folder or file of it."""
        return f"{self.uri}/{name}"

    def check(self) -> None:
        """Raise UserError where the bucket is not there, or not ours to read."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.head_bucket(Bucket=self.name)
        except (ClientError, BotoCoreError) as error:
            raise refusal(error, f"bucket {self.name} cannot be used") from None

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none. Raises UserError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return bytes(self.client.get_object(Bucket=self.name, Key=self._key(name))["Body"].read())
        except (ClientError, BotoCoreError) as error:
            if code_of(error) in _NOTHING:
                return None
            raise refusal(error, f"{self.under(name)} cannot be read") from None

    def write(self, name: str, content: bytes) -> None:
        """Store a file. Raises UserError."""
        self._put(name, content)

    def write_new(self, name: str, content: bytes) -> bool:
        """Store a file unless there is one; whether it was stored. Raises UserError."""
        return self._put(name, content, IfNoneMatch="*")

    def _put(self, name: str, content: bytes, **condition: str) -> bool:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.put_object(Bucket=self.name, Key=self._key(name), Body=content, **condition)
        except (ClientError, BotoCoreError) as error:
            if condition and code_of(error) in _THERE:
                return False
            raise refusal(error, f"{self.under(name)} cannot be written") from None
        return True

    def tree(self, name: str) -> Iterator[str]:
        """Every file below a folder, by its name relative to that folder, sorted. Raises UserError."""
        start = len(self._key(name).rstrip("/")) + 1
        for item in sorted(
            self._listed("list_objects_v2", f"{name}/", "Contents"), key=lambda each: each["Key"]
        ):
            if not item["Key"].endswith("/"):
                yield item["Key"][start:]

    def folders(self, name: str) -> list[str]:
        """The names of the folders in a folder, sorted. Raises UserError."""
        found = self._listed("list_objects_v2", f"{name}/", "CommonPrefixes", Delimiter="/")
        return sorted(item["Prefix"].rstrip("/").rpartition("/")[2] for item in found)

    def remove(self, name: str) -> None:
        """Remove a folder with all that is in it. Raises UserError."""
        from botocore.exceptions import BotoCoreError, ClientError

        keys = [self._key(f"{name}/{file}") for file in self.tree(name)]
        for at in range(0, len(keys), _AT_ONCE):
            objects = [{"Key": key} for key in keys[at : at + _AT_ONCE]]
            try:
                self.client.delete_objects(Bucket=self.name, Delete={"Objects": objects, "Quiet": True})
            except (ClientError, BotoCoreError) as error:
                raise refusal(error, f"{self.under(name)} cannot be removed") from None

    def _listed(self, operation: str, name: str, kind: str, **how: str) -> Iterator[dict[str, Any]]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            for page in self.client.get_paginator(operation).paginate(
                Bucket=self.name, Prefix=self._key(name), **how
            ):
                yield from page.get(kind, [])
        except (ClientError, BotoCoreError) as error:
            raise refusal(error, f"{self.under(name)} cannot be listed") from None

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"


def code_of(error: Exception) -> str:
    """AWS's word for an error, "" where it never answered."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


class Unreachable(UserError):
    """AWS cannot be reached, or asks for patience: the same request may do well later."""


def refusal(error: Exception, what: str) -> UserError:
    """What AWS, or the way there, has against a request, in one line."""
    said = getattr(error, "response", {}).get("Error", {})
    reason = f"{said.get('Code')}: {said.get('Message')}" if said else str(error)
    kind = UserError if said and said.get("Code") not in LATER else Unreachable
    return kind(
        f"{what}: {hidden(' '.join(reason.split()))[:300]}",
        "Check the region, the bucket and the credentials (see .env.example)",
    )
