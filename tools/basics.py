"""Small parts of the set-up: digests, versions, and a folder for temporary files."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def digest(*parts: bytes) -> str:
    """Return one digest of all parts together."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def dotted(version: tuple[int, ...]) -> str:
    """Format (3, 11) as 3.11."""
    return ".".join(str(part) for part in version)


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """Put temporary files into `folder`, as /tmp may be small; the next call clears a kill's leftovers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
