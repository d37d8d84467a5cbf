"""Sweeps over a network that tears, resets and delays answers all the time: complete, the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import LONG, PATIENCE_SECONDS, sweep, tree
from proxy import Fault, Proxy, proxy
from s3 import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.crash]  # minutes: each delay is waited for until it times out

DONE = "24 of 24 trials done, 0 failed"
FAULTS = (
    *(Fault(kind, after) for kind in ("torn", "reset") for after in (0, 20, 300, 5_000, 30_000)),
    Fault("slow", 100),
)  # fmt: skip
LOOK_SECONDS = 0.02


@contextlib.contextmanager
def failing(port: int, lasting: int) -> Iterator[tuple[Proxy, list[Fault]]]:
    """Stand in front of a port with a network that ends each connection, every other one after so many bytes.
    Yield it, and the faults that it was given.
    """
    used: list[Fault] = []
    over = threading.Event()
    with proxy(port) as network:

        def spoil() -> None:
            for fault in itertools.cycle(FAULTS):
                for each in (fault, Fault("reset", lasting)):
                    while network.faults:
                        if over.wait(LOOK_SECONDS):
                            return
                    used.append(each)
                    network.faults.append(each)

        feeder = threading.Thread(target=spoil, daemon=True)
        feeder.start()
        try:
            yield network, used
        finally:
            over.set()
            feeder.join()


def test_a_sweep_on_sagemaker(
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
    started: list[subprocess.Popen[str]],
) -> None:
    """Both S3 and SageMaker answer through it."""
    pytest.importorskip("moto", reason="the extra rehearse is not installed")
    from cloud.emulator import rehearsal

    with (
        rehearsal(tmp_path / "stage") as stage,
        failing(stage.s3.port, 25_000) as (storage, of_storage),
        failing(int(stage.endpoint.rpartition(":")[2]), 8_000) as (plane, of_plane),
    ):
        environment = {"AWS_ENDPOINT_URL_S3": storage.endpoint, "AWS_ENDPOINT_URL": plane.endpoint}
        words = ("--backend", "sagemaker", f"meta_loops={LONG}", "--pack-size", "2", "--jobs", "6")
        process = sweep(tmp_path, data_dir, *words, **{**stage.environment, **environment})
        started.append(process)
        out, err = process.communicate(timeout=5 * PATIENCE_SECONDS)
        assert (process.returncode, out.splitlines()[-1:]) == (0, [DONE]), err
        assert not [line for line in err.splitlines() if "retrying, the" not in line]
        assert len(of_storage) > 10
        assert len(of_plane) > 5
    assert tree(tmp_path) == trained(LONG)


def test_a_sweep_on_ray(
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
    started: list[subprocess.Popen[str]],
) -> None:
    """Everything that packs and sweep exchange goes through it."""
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with s3_server(tmp_path / "s3") as server, failing(server.port, 300_000) as (network, used):
        uri = f"s3://{server.bucket}/runs?endpoint_override=127.0.0.1:{network.port}&scheme=http"
        words = ("--backend", "ray", f"meta_loops={LONG}", "--pack-size", "6", "--storage", uri)
        process = sweep(tmp_path, data_dir, *words, **server.environment)
        started.append(process)
        out, err = process.communicate(timeout=5 * PATIENCE_SECONDS)
        assert (process.returncode, out.splitlines()[-1:]) == (0, [DONE]), err
        assert len(used) > 10
    assert tree(tmp_path) == trained(LONG)
