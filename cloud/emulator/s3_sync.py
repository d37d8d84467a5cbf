"""Synchronize a job's folders with S3 prefixes: download before it starts, upload during and after."""

from __future__ import annotations

import contextlib
import logging
import os
import tarfile
import threading
from pathlib import Path, PurePosixPath
from typing import Any, Final

from cloud.aws.bucket import Bucket
from cloud.aws.errors import error_code
from psa.core.errors import UserError
from psa.core.files import ensure_dir, write_atomically

_LOG = logging.getLogger(__name__)
EVERY_SECONDS: Final = 0.5
NO_BUCKET: Final = ("404", "NoSuchBucket")
_Seen = dict[str, tuple[int, int, int]]  # name -> modification time, size, inode


def parse_uri(storage: Any, uri: str) -> tuple[Bucket, str]:
    """Return the bucket and the key of `s3://BUCKET/KEY`. storage: the boto3 client of S3."""
    name, _, key = uri.removeprefix("s3://").partition("/")
    return Bucket(storage, name, prefix=""), key


def has_objects(storage: Any, uri: str) -> bool:
    """Return whether any key starts with the URI's key."""
    bucket, prefix = parse_uri(storage, uri)
    return bool(bucket.objects(prefix))


def has_bucket(storage: Any, uri: str) -> bool:
    """Return whether the bucket of a URI exists."""
    from botocore.exceptions import ClientError

    bucket, _ = parse_uri(storage, uri)
    try:
        storage.head_bucket(Bucket=bucket.name)
    except ClientError as error:
        if error_code(error) in NO_BUCKET:
            return False
        raise
    return True


def download_prefix(storage: Any, uri: str, folder: Path) -> None:
    """Download all objects of a prefix into a folder, or the one object that the URI names."""
    bucket, prefix = parse_uri(storage, uri)
    ensure_dir(folder)
    for key in (found.name for found in bucket.objects(prefix)):
        if key == prefix and key.endswith("/"):  # a console's placeholder for an empty folder
            continue
        target = folder / _name(key, prefix)
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"the key {key!r} leads out of the folder")
        if key.endswith("/"):
            ensure_dir(target)
            continue
        content = bucket.read(key)
        if content is not None:  # None: it has been removed since the listing
            write_atomically(target, content)


def _name(key: str, prefix: str) -> str:
    """Return an object's local name, relative to the prefix (its parent if it ends within a name)."""
    rest = key.removeprefix(prefix)
    if rest and (rest.startswith("/") or prefix.endswith("/") or not prefix):
        return rest.lstrip("/")
    return key[len(prefix) - len(PurePosixPath(prefix).name) :]


def upload_tree(storage: Any, folder: Path, uri: str) -> None:
    """Upload every file of a folder to a prefix."""
    bucket, prefix = parse_uri(storage, uri)
    for name in _scan(folder):
        bucket.write(_key(prefix, name), (folder / name).read_bytes())


def upload_archive(storage: Any, folder: Path, uri: str, scratch: Path) -> None:
    """Upload a folder as one tar.gz. scratch: a path for the temporary archive."""
    bucket, key = parse_uri(storage, uri)
    with tarfile.open(scratch, "w:gz") as archive:
        for entry in sorted(folder.iterdir()):
            archive.add(entry, arcname=entry.name)
    bucket.write(key, scratch.read_bytes())
    scratch.unlink()


class S3Mirror:
    """A mirror of a folder at a prefix for the duration of a block: new, changed and deleted files.

    The initial content of the folder must come from the prefix.
    """

    def __init__(self, storage: Any, folder: Path, uri: str) -> None:
        self._folder = folder
        self._bucket, self._prefix = parse_uri(storage, uri)
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
        while not self._over.wait(EVERY_SECONDS):
            try:
                self._sync()
            except (UserError, OSError) as error:
                _LOG.warning("checkpoints of %s were not synced: %s", self._prefix, error)

    def _sync(self) -> None:
        now = _scan(self._folder)
        for name, state in now.items():
            if self._seen.get(name) != state:
                self._put(name, state)
        for name in self._seen.keys() - now.keys():
            self._bucket.remove_files([_key(self._prefix, name)])
            del self._seen[name]

    def _put(self, name: str, state: tuple[int, int, int]) -> None:
        try:
            body = (self._folder / name).read_bytes()
        except FileNotFoundError:  # a temporary file that has been renamed meanwhile
            return
        self._bucket.write(_key(self._prefix, name), body)
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
