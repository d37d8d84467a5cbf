"""A real S3 server on this machine: SeaweedFS on loopback, with one key and one bucket."""

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.emulator.containers.processes import end_with_parent
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.core.files import ensure_dir, write_atomically

REGION: Final = "us-east-1"
ACCESS_KEY: Final = "rehearsal"
SECRET_KEY: Final = "rehearsal-secret"  # noqa: S105 -- of a server that listens only on loopback
ROLE_KEY: Final = "rehearsal-role"  # of jobs, with the same secret
_READY_SECONDS: Final = 60.0
_GRPC: Final = 10_000  # SeaweedFS uses a second port at this offset from each
_QUIET: Final = [
    "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-admin.ui=false", "-webdav=false",
    "-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64", "-volume.max=20",
    "-s3.allowDeleteBucketNotEmpty=false", "-s3.autoCreateBucket=false",
]  # fmt: skip


@dataclass(frozen=True)
class S3:
    """A running S3 server with one bucket."""

    port: int
    bucket: str

    @property
    def endpoint(self) -> str:
        """The URL of the server, for boto3."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that S3 clients in any language need."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, key: str = ACCESS_KEY) -> Any:
        """Return a boto3 client that ignores the user's variables and files. key: of caller or role."""
        return loopback_client("s3", self.endpoint, key)

    def uri(self, prefix: str) -> str:
        """Return the URI of a prefix of the bucket, for pyarrow and Ray."""
        return f"s3://{self.bucket}/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http"


def loopback_client(service: str, endpoint: str, key: str = ACCESS_KEY) -> Any:
    """Return a boto3 client of the rehearsal for any service.

    Profiles, proxies and certificates of the user must not affect a loopback connection.
    """
    from botocore.config import Config
    from botocore.session import Session

    nothing = (None, None, None, None)
    no_file = (None, None, os.devnull, None)
    session = Session(
        session_vars={
            "profile": nothing,
            "ca_bundle": nothing,
            "config_file": no_file,
            "credentials_file": no_file,
        }
    )
    return session.create_client(
        service,
        REGION,
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=SECRET_KEY,
        config=Config(proxies={}, s3={"addressing_style": "path"}, max_pool_connections=50),
    )


@contextlib.contextmanager
def s3_server(
    folder: Path, bucket: str = "psa-rehearsal", meanwhile: Callable[[], None] = lambda: None
) -> Iterator[S3]:
    """Start the server on a folder, which keeps its objects; stop it at the end of the block.

    meanwhile: called while the server starts, which takes 0.8 s. Raises UserError if SeaweedFS is not
    installed or does not start.
    """
    ensure_dir(folder / "data")
    ports = _free_ports(5)
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            end_with_parent(_command(folder, ports)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**os.environ, "WEED_S3_SSE_KEK": "ab" * 32},
            start_new_session=True,  # a Ctrl-C is for its clients; the server stops last
        )
    try:
        meanwhile()
        _wait(ports[-1], process, folder / "weed.log")
        server = S3(ports[-1], bucket)
        _make_bucket(server)
        yield server
    finally:
        # Acknowledged writes are on disk, so SIGKILL loses nothing; an orderly stop takes 2 s.
        process.kill()
        process.wait()
        _remove_sockets(ports)


def _remove_sockets(ports: list[int]) -> None:
    """Remove SeaweedFS's extra sockets in /tmp; most of them have no option that moves them."""
    for port in ports:
        for name in (port, port + _GRPC):
            for path in Path("/tmp").glob(f"seaweedfs-*-{name}.sock"):  # noqa: S108
                path.unlink(missing_ok=True)


def _command(folder: Path, ports: list[int]) -> list[str]:
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        raise UserError(
            "SeaweedFS is not installed, the S3 server of a rehearsal",
            how_to_install("rehearse"),
        )
    identity = {
        "name": "rehearsal",
        "credentials": [{"accessKey": key, "secretKey": SECRET_KEY} for key in (ACCESS_KEY, ROLE_KEY)],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    config = folder / "s3.json"
    write_atomically(config, json.dumps({"identities": [identity]}).encode())
    names = ("master", "volume", "filer", "admin", "s3")
    listening = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=True)]
    # else it also writes its log to the system's temporary folder
    return [
        str(weed),
        "-logtostderr",
        "mini",
        f"-dir={folder / 'data'}",
        *listening,
        *_QUIET,
        f"-s3.config={config}",
    ]


def _free_ports(count: int) -> list[int]:
    """Return ports that are free, along with the second ports that SeaweedFS takes beside them."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            # no port may be the second port of another
            taken = {each + offset for each in found for offset in (-_GRPC, 0, _GRPC)}
            if port + _GRPC > 65_535 or port in taken:
                continue
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", port + _GRPC))
                found.append(port)
    return found


def _make_bucket(server: S3) -> None:
    with contextlib.closing(server.client()) as storage:
        if server.bucket not in {each["Name"] for each in storage.list_buckets()["Buckets"]}:
            storage.create_bucket(Bucket=server.bucket)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            opener.open(f"http://127.0.0.1:{port}/status", timeout=1) as answer,
        ):
            if answer.status == 200:
                return
        time.sleep(0.05)
    last = " ".join(log.read_text(errors="replace").splitlines()[-1:])[:300]
    raise UserError(f"SeaweedFS did not start: {last or 'no output'}", f"Its output is in {log}")
