"""A real S3 server on this machine, for as long as a test needs it: SeaweedFS with one key."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

KEY, SECRET = "test-key", "test-secret"
BUCKET = "psa-test"
READY_SECONDS = 60.0


@dataclass(frozen=True)
class S3:
    """Where it listens, and what a client's environment has to hold."""

    port: int
    environment: dict[str, str]

    def uri(self, prefix: str) -> str:
        """A prefix of the bucket, for pyarrow and Ray."""
        return f"s3://{BUCKET}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http"


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """Start it in a folder, with an empty bucket; it ends with the block."""
    ports = _free_ports(5)
    identity = {
        "name": "test",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    names = ("master", "volume", "filer", "admin", "s3")
    listening = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=True)]
    quiet = [
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false",
        "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64",
        "-volume.max=20", "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false",
    ]  # fmt: skip
    command = [str(Path(sys.executable).with_name("weed")), "mini", f"-dir={folder / 'data'}"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *listening, *quiet, f"-s3.config={config}"],
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "WEED_S3_SSE_KEK": "ab" * 32},
        )
    try:
        _wait(ports[-1], process, folder / "weed.log")
        _make_bucket(ports[-1])
        yield S3(
            ports[-1],
            {
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
        )
    finally:
        process.kill()
        process.wait()


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, nor on those 10,000 above, which SeaweedFS takes as well."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            if port + 10_000 > 65_535 or port in found:
                continue
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + 10_000))
                found.append(port)
    return found


def _make_bucket(port: int) -> None:
    client = fs.S3FileSystem(
        access_key=KEY,
        secret_key=SECRET,
        endpoint_override=f"127.0.0.1:{port}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    client.create_dir(BUCKET)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.1)
    raise AssertionError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")
