"""A rehearsal: S3 and a control plane for the duration of a block, and the settings of their clients."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cloud.emulator import http_server
from cloud.emulator.containers.container import Namespaces
from cloud.emulator.containers.image import image_python
from cloud.emulator.control_plane import ROLE_ARN, ControlPlane
from cloud.emulator.faults import Faults
from cloud.emulator.job_runner import Site
from cloud.emulator.jobs import ACCOUNT, JobTable
from cloud.emulator.log_store import LogStore
from cloud.emulator.s3_server import ACCESS_KEY, ROLE_KEY, S3, s3_server
from cloud.emulator.services.batch_queue import BatchQueue
from cloud.emulator.services.catalog import Catalog
from cloud.emulator.services.policies import Authorizer, Principal
from cloud.emulator.services.s3_gate import s3_gate
from psa.core.file_locks import locked
from psa.core.files import check_writable

LOCK_NAME: Final = "lock"  # in the folder of a rehearsal, held while it runs
_LOCK_SECONDS: Final = 1.0  # another rehearsal may be checking whether the lock is held
_LOCAL: Final = "127.0.0.1,localhost"
_TICK: Final = 0.1


@dataclass(frozen=True)
class Emulator:
    """A running emulator. environment: the variables that direct any AWS client to it."""

    s3: S3
    endpoint: str
    plane: ControlPlane
    queue: BatchQueue
    authorizer: Authorizer = field(default_factory=Authorizer)

    @property
    def environment(self) -> dict[str, str]:
        """The variables to set; `inherited` also removes those that would lead elsewhere."""
        return {
            **self.s3.environment,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCOUNT_ID": ACCOUNT,
            "AWS_SAGEMAKER_ROLE": ROLE_ARN,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "S3_BUCKET_NAME": self.s3.bucket,
        }

    def inherited(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return a copy of an environment with `environment` set, and without other AWS variables."""
        kept = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
        proxied = {
            name: ",".join(filter(None, (environment.get(name), _LOCAL))) for name in ("NO_PROXY", "no_proxy")
        }
        return kept | proxied | self.environment

    @property
    def live(self) -> list[str]:
        """The names of the jobs that have not ended, and of those that wait in the queue."""
        return list(dict.fromkeys([*self.plane.live, *self.queue.live]))

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` until all jobs have ended. Return whether they have."""
        deadline = time.monotonic() + seconds
        while self.live:
            if time.monotonic() > deadline:
                return False
            time.sleep(_TICK)
        return True


@contextlib.contextmanager
def rehearsal(
    folder: Path, faults: Faults | None = None, authorizer: Authorizer | None = None
) -> Iterator[Emulator]:
    """Run SageMaker, S3, CloudWatch Logs, STS and IAM on loopback until the block ends; jobs end with it.

    folder: keeps the bucket and the jobs for a later rehearsal; authorizer: enforces policies and records
    calls, also those to S3, which then pass through a gate. The calling thread must live until the end of
    the block. Raises UserError if this machine or its installation lacks something.
    """
    check_writable(folder)
    folder = folder.absolute()
    python = image_python(folder)
    with (
        locked(  # two rehearsals in one folder would write to the same files
            folder / LOCK_NAME,
            patience=_LOCK_SECONDS,
            what=f"another rehearsal is going on in {folder}",
            hint="Wait for its end, or choose another folder",
        ),
        contextlib.closing(Namespaces(folder / "probe")) as namespaces,
        s3_server(folder / "s3", meanwhile=http_server.import_modules) as server,
        _gated(server, authorizer) as s3,
        contextlib.closing(s3.client(ROLE_KEY)) as storage,
        http_server.moto_state(),
    ):
        table, book = JobTable(folder / "jobs"), LogStore()
        for job in table:
            book.recall(job.folder)
        faults, authorizer = faults or Faults(), authorizer or Authorizer()
        site = Site(storage, namespaces.flags, python, book, faults, threading.Event(), authorizer)
        plane = ControlPlane(table, site, http_server.role_exists)
        queue = BatchQueue(plane)
        with (
            http_server.serve_http(plane, queue, Catalog(faults), authorizer) as endpoint,
            contextlib.closing(plane),
            contextlib.closing(queue),
        ):
            yield Emulator(s3, endpoint, plane, queue, authorizer)


@contextlib.contextmanager
def _gated(server: S3, authorizer: Authorizer | None) -> Iterator[S3]:
    """Yield the S3 server, behind a gate if calls are to be checked or recorded."""
    if authorizer is None:
        yield server
        return
    principals: dict[str, Principal] = {ACCESS_KEY: "caller", ROLE_KEY: "role"}
    with s3_gate(server.port, authorizer, principals) as port:
        yield S3(port, server.bucket)
