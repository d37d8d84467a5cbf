"""A real S3 server on this machine, for as long as a test needs it: that of the rehearsal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cloud.emulator import s3_server as emulated
from cloud.emulator.s3_server import S3

BUCKET = "psa-test"


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Start it in a folder, with an empty bucket; it ends with the block."""
    with emulated.s3_server(folder, BUCKET) as server:
        yield server
