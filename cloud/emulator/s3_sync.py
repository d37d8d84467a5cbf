"""Synchronize a job's folders with S3 prefixes: download before it starts, upload during and after."""

from __future__ import annotations

import contextlib
import logging
import os
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Final

from psa.core.files import ensure_dir, write_parts

_LOG = logging.getLogger(__name__)
EVERY_SECONDS: Final = 0.5
_Seen = dict[str, tuple[int, int, int]]  # name -> modification time, size, inode


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://BUCKET/KEY` into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_keys(storage: Any, uri: str) -> Iterator[str]:
    """Yield every key that starts with the URI's key."""
    bucket, prefix = split_uri(uri)
    for page in storage.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (each["Key"] for each in page.get("Contents", []))


def has_objects(storage: Any, uri: str) -> bool:
    """Return whether any key starts with the URI's key."""
    bucket, prefix = split_uri(uri)
    return bool(storage.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("KeyCount"))


def has_bucket(storage: Any, uri: str) -> bool:
    """Return whether the bucket of a URI exists."""
    return split_uri(uri)[0] in {each["Name"] for each in storage.list_buckets()["Buckets"]}


def download_prefix(storage: Any, uri: str, folder: Path) -> None:
    """Download all objects of a prefix into a folder, or the one object that the URI names."""
    bucket, prefix = split_uri(uri)
    ensure_dir(folder)
    for key in list_keys(storage, uri):
        if key == prefix and key.endswith("/"):  # a console's placeholder for an empty folder
            continue
        target = folder / _name(key, prefix)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"the key {key!r} leads out of the folder")
        if key.endswith("/"):
            ensure_dir(target)
            continue
        _get(storage, bucket, key, target)


def _get(storage: Any, bucket: str, key: str, target: Path) -> None:
    body = storage.get_object(Bucket=bucket, Key=key)["Body"]
    with contextlib.closing(body):
        write_parts(target, body.iter_chunks(1 << 20))


def _name(key: str, prefix: str) -> str:
    """Return an object's local name, relative to the prefix (its parent if it ends within a name)."""
    rest = key.removeprefix(prefix)
    if rest and (rest.startswith("/") or prefix.endswith("/") or not prefix):
        return rest.lstrip("/")
    return key[len(prefix) - len(PurePosixPath(prefix).name) :]


def upload_tree(storage: Any, folder: Path, uri: str) -> None:
    """Upload every file of a folder to a prefix."""
    bucket, prefix = split_uri(uri)
    for name in _scan(folder):
        storage.put_object(Bucket=bucket, Key=_key(prefix, name), Body=(folder / name).read_bytes())


def upload_archive(storage: Any, folder: Path, uri: str, scratch: Path) -> None:
    """Upload a folder as one tar.gz. scratch: a path for the temporary archive."""
    bucket, key = split_uri(uri)
    with tarfile.open(scratch, "w:gz") as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, arcname=entry.name)
    storage.put_object(Bucket=bucket, Key=key, Body=scratch.read_bytes())
    scratch.unlink()


class S3Mirror:
    """A mirror of a folder at a prefix for the duration of a block: new, changed and deleted files.

    The initial content of the folder must come from the prefix.
    """

    def __init__(self, storage: Any, folder: Path, uri: str) -> None:
        self._storage, self._folder = storage, folder
        self._bucket, self._prefix = split_uri(uri)
        self._seen = _scan(folder)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> S3Mirror:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sync()  # changes since the last pass

    def _follow(self) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        while not self._over.wait(EVERY_SECONDS):
            try:
                self._sync()
            except (BotoCoreError, ClientError, OSError) as error:
                _LOG.warning("checkpoints of %s were not synced: %s", self._prefix, error)

    def _sync(self) -> None:
        now = _scan(self._folder)
        for name, state in now.items():
            if self._seen.get(name) != state:
                self._put(name, state)
        for name in self._seen.keys() - now.keys():
            self._storage.delete_object(Bucket=self._bucket, Key=_key(self._prefix, name))
            del self._seen[name]

    def _put(self, name: str, state: tuple[int, int, int]) -> None:
        try:
            body = (self._folder / name).read_bytes()
        except FileNotFoundError:  # a temporary file that has been renamed meanwhile
            return
        self._storage.put_object(Bucket=self._bucket, Key=_key(self._prefix, name), Body=body)
        self._seen[name] = state


def _key(prefix: str, name: str) -> str:
    return f"{prefix.rstrip('/')}/{name}" if prefix else name


def _scan(folder: Path) -> _Seen:
    found: _Seen = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                found[str(path.relative_to(folder))] = (state.st_mtime_ns, state.st_size, state.st_ino)
    return found
