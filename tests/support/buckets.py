"""A bucket in memory, behind the client that boto3 would make; cloud.aws.bucket.Bucket is under test."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from cloud.aws.bucket import Bucket


class Memory:
    """The few operations of S3 that a Bucket uses."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []  # keys of stored objects, whenever one arrives
        self.taken: list[tuple[str, int]] = []  # keys of read objects, and the bytes read

    def put_object(self, *, Key: str, Body: bytes, **condition: str) -> None:
        """Store an object, with IfNoneMatch only where there is none."""
        if "IfNoneMatch" in condition and Key in self.files:
            raise ClientError({"Error": {"Code": "PreconditionFailed"}}, "PutObject")
        self.files[Key] = Body
        self.sent.append(Key)

    def get_object(self, *, Key: str, Range: str = "", **_: str) -> dict[str, Any]:
        """Read an object, or its first bytes."""
        if Key not in self.files:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        content = self.files[Key]
        if Range:
            content = content[: int(Range.rpartition("-")[2]) + 1]
        self.taken.append((Key, len(content)))
        return {"Body": io.BytesIO(content), "ContentLength": len(content)}

    def delete_objects(self, *, Delete: dict[str, Any], **_: str) -> None:
        """Remove objects."""
        for item in Delete["Objects"]:
            self.files.pop(item["Key"], None)

    def head_bucket(self, **_: str) -> None:
        """It is there."""

    def get_paginator(self, _operation: str) -> Memory:
        """Of list_objects_v2."""
        return self

    def paginate(self, *, Prefix: str, Delimiter: str = "", **_: str) -> Iterator[dict[str, Any]]:
        """One page of all."""
        names = sorted(name for name in self.files if name.startswith(Prefix))
        if not Delimiter:
            yield {
                "IsTruncated": False,
                "Contents": [{"Key": name, "Size": len(self.files[name])} for name in names],
            }
            return
        folders = {name[len(Prefix) :].partition("/")[0] for name in names if "/" in name[len(Prefix) :]}
        yield {
            "IsTruncated": False,
            "CommonPrefixes": [{"Prefix": f"{Prefix}{folder}/"} for folder in sorted(folders)],
        }


def bucket() -> Bucket:
    """An empty one."""
    return Bucket(Memory(), "a-bucket", "psa")
