"""Ray as a cluster of several nodes on this machine: nodes, workers and drivers are killed in earnest."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from clusters import Cluster, cluster_of
from processes import GRID, LONG, PATIENCE_SECONDS, children, descendants, end, sweep, tree, until
from s3 import s3_server

from cloud.cache import private_temp_folder
from cloud.emulator.s3_server import S3
from cloud.object_store import ObjectStore
from cloud.ray.driver_process import find_cause
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.experiments.grid import load_grid
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps

pytest.importorskip("ray", reason="the extra ray is not installed")

WORDS = (f"meta_loops={LONG}", "--backend", "ray", "--pack-size", "6")


@pytest.fixture(scope="module")
def expected(trained: Callable[[int], dict[str, bytes]]) -> dict[str, bytes]:
    """Return the files of an undisturbed run."""
    return trained(LONG)


@dataclass
class Here:
    """What all tests of this file share: a cluster, its port for those outside of it, and an S3 server."""

    cluster: Cluster
    port: int
    s3: S3


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A head without room for packs, and two nodes with room for one each.

    Nodes know the S3 server; who is to use it says so by --storage.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with s3_server(tmp_path_factory.mktemp("s3")) as s3, pytest.MonkeyPatch.context() as context:
        for name, value in s3.environment.items():
            context.setenv(name, value)
        with cluster_of(num_cpus=0, ray_client_server_port=port) as made:
            for _ in range(2):
                made.add_node()
            context.undo()
            yield Here(made, port, s3)


@pytest.fixture
def cluster(here: Here) -> Cluster:
    """The cluster alone."""
    return here.cluster


def trains(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until packs are being trained."""
    until(lambda: " loop " in "\n".join(map(str, active_sweeps(folder / "models"))), process)


def trainers() -> list[int]:
    """The processes of this file's cluster that train a pack at this moment: others may have one, too."""
    found = []
    for pid in sorted(descendants(os.getpid())):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"ray::ImplicitFunc" in command or b"train_pack" in command:
                found.append(pid)
    return found


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for it; exit code, last line and errors."""
    out, err = process.communicate(timeout=2 * PATIENCE_SECONDS)
    return process.returncode, (out.splitlines() or [""])[-1], err


@pytest.mark.slow
def test_a_node_a_worker_and_the_driver_are_killed(
    cluster: Cluster,
    started: list[subprocess.Popen[str]],
    tmp_path: Path,
    data_dir: Path,
    expected: dict[str, bytes],
) -> None:
    """One after the other, in the middle of one sweep: it ends complete, byte by byte as if undisturbed."""
    words = (*WORDS, "--address", cluster.address)
    process = sweep(tmp_path, data_dir, *words)
    started.append(process)
    trains(tmp_path, process)
    os.kill(trainers()[0], signal.SIGKILL)
    trains(tmp_path, process)
    cluster.lose_node()
    trains(tmp_path, process)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    code, _, error = ended(process)
    assert (code, error.count("\n")) == (1, 1)
    assert "ended with code -9 (killed, most often for lack of memory)" in error
    assert "Run the same command again" in error
    cluster.add_node()
    again = sweep(tmp_path, data_dir, *words)
    started.append(again)
    assert ended(again) == (0, "24 of 24 trials done, 0 failed", "")
    assert tree(tmp_path) == expected


@pytest.mark.slow
def test_a_sweep_from_outside_of_the_cluster(
    here: Here, started: list[subprocess.Popen[str]], tmp_path: Path, data_dir: Path
) -> None:
    """Through Ray's client port: Tune runs on the head, and what it says is heard here."""
    words = ("meta_loops=1", "--pack-size", "12", "--backend", "ray")
    process = sweep(tmp_path, data_dir, *words, "--address", f"ray://127.0.0.1:{here.port}")
    started.append(process)
    assert ended(process) == (0, "24 of 24 trials done, 0 failed", "")
    store = Store(tmp_path / "models", tmp_path / "results")
    assert not store.pending(load_grid(GRID).trials, 1)


@pytest.mark.slow
def test_a_sweep_is_killed_with_everything_on_s3(
    here: Here,
    started: list[subprocess.Popen[str]],
    tmp_path: Path,
    data_dir: Path,
    expected: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A real S3 server is all that the nodes share; when all is at home, nothing is left there."""
    for name, value in here.s3.environment.items():
        monkeypatch.setenv(name, value)
    words = (*WORDS, "--address", here.cluster.address, "--storage", here.s3.uri("runs"))
    process = sweep(tmp_path, data_dir, *words)
    started.append(process)
    trains(tmp_path, process)
    process.kill()
    again = sweep(tmp_path, data_dir, *words)
    started.append(again)
    assert ended(again) == (0, "24 of 24 trials done, 0 failed", "")
    assert list(ObjectStore.at(here.s3.uri("runs")).tree("")) == []
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.crash  # a minute each; the kills of the other tests leave such files by chance
@pytest.mark.parametrize("damaged", ["tuner.pkl", "experiment_state-*.json", "inputs/packs.json"])
def test_what_a_kill_has_left_half_written_is_gone_on_from(
    damaged: str,
    started: list[subprocess.Popen[str]],
    tmp_path: Path,
    data_dir: Path,
    expected: dict[str, bytes],
) -> None:
    """Whatever Tune cannot restore any more: the checkpoints come home, and the rest is trained anew."""
    words = (f"meta_loops={LONG}", "--backend", "ray", "--pack-size", "12")  # a Ray of their own
    process = sweep(tmp_path, data_dir, *words)
    started.append(process)
    trains(tmp_path, process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE_SECONDS)
    for path in (tmp_path / "models/.ray").glob(f"psa-*/{damaged}"):
        path.write_bytes(path.read_bytes()[:100])
    again = sweep(tmp_path, data_dir, *words)
    started.append(again)
    code, last, _ = ended(again)
    assert (code, last) == (0, "24 of 24 trials done, 0 failed")
    assert tree(tmp_path) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers ("),
        (["--gpus-per-pack", "-1"], "--gpus-per-pack must be 0 to 1, or a whole number, got -1"),
        (["--storage", "s3://nowhere/x?endpoint_override=127.0.0.1:1&scheme=http"], "--storage s3://nowhere"),
        (["--storage", "/proc/psa"], "--storage"),
        (["--storage", "gopher://x"], "--storage gopher://x"),
    ],
)
def test_mistakes_are_said_before_anything_starts(
    words: list[str], said: str, tmp_path: Path, data_dir: Path
) -> None:
    """One line, exit code 2, and nothing was trained."""
    assert_refused(sweep(tmp_path, data_dir, "--backend", "ray", *words, RAY_ADDRESS=""), said, tmp_path)


@pytest.mark.slow
def test_a_pack_that_no_node_has_room_for_is_a_mistake(
    cluster: Cluster, tmp_path: Path, data_dir: Path
) -> None:
    """No node of the cluster has a GPU."""
    words = ("--backend", "ray", "--gpus-per-pack", "1", "--address", cluster.address)
    assert_refused(sweep(tmp_path, data_dir, *words), "a pack needs 1 CPU and 1 GPU on one node", tmp_path)


def assert_refused(process: subprocess.Popen[str], said: str, tmp_path: Path) -> None:
    """Check that a sweep ends with one line, that says so, and leaves nothing."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert process.returncode == 2, (out, err)
    assert said in err
    assert err.count("\n") == 1
    assert not list((tmp_path / "results").rglob("*.json"))
    assert not list((tmp_path / "models").glob(".ray/psa-*"))


@pytest.mark.slow
def test_without_ray_the_extra_is_named(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it is not installed, a line says how to get it."""
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'ray' else find(name, package)\n"
    )
    monkeypatch.chdir(tmp_path)
    process = sweep(tmp_path, data_dir, "--backend", "ray", PYTHONPATH=str(tmp_path))
    said = f"error: --backend ray: Ray is not installed. {how_to_install('ray')}\n"
    assert_refused(process, said, tmp_path)


def test_a_shared_folder_that_another_made_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name can be guessed: somebody else may have put a link there before."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = private_temp_folder("data")
    assert private_temp_folder("data") == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.with_name(f"link-{os.getuid()}").symlink_to(folder)
    with pytest.raises(UserError, match="must be a folder of this user"):
        private_temp_folder("link")


def test_a_pack_that_was_removed_from_the_storage_is_one_line(tmp_path: Path) -> None:
    """In place of a page of pydantic's."""
    from cloud.ray.protocol import read_pack

    storage = ObjectStore.at(str(tmp_path))
    with pytest.raises(UserError, match=r"p0000\.json has been removed"):
        read_pack(storage, "p0000")
    storage.write("p0000.json", b"{}")
    with pytest.raises(UserError) as caught:
        read_pack(storage, "p0000")
    assert "http" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", ""),
        ("Traceback\n  File x\nray.exceptions.RpcError: gone\n", "ray.exceptions.RpcError: gone"),
        (
            "Task was killed due to the node running low on memory.\nTop 10\nRefer to the documentation\n",
            "Ray's memory guard ended it: Task was killed due to the node running low on memory.",
        ),
        (
            "Ray killed 1 worker(s) based on the killing policy\nRefer to https://docs.ray.io\n",
            "Ray's memory guard ended it: Ray killed 1 worker(s) based on the killing policy",
        ),
    ],
)
def test_the_cause_in_what_ray_says(text: str, cause: str) -> None:
    """Not the advice that follows it."""
    assert find_cause(text) == cause
