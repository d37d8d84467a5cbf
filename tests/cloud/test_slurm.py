"""Sweeps on a real Slurm of this machine: failing nodes and controllers, preemption, time limits, doubles."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from paths import ROOT
from processes import GRID, LONG, PATIENCE_SECONDS, end, psa, sweep, tree, until
from slurm import SlurmCluster

from psa.execution.worker.protocol import parse_event

pytestmark = pytest.mark.slow
WORDS = ("--backend", "slurm", "--pack-size", "6")
PACKS = 4  # of the smoke grid in packs of six
# Runs before a sweep whose tasks find that nothing can be trained on node n1.
BROKEN_NODE = """
from cloud.slurm import request
request._ENTRY = request._ENTRY.replace("sys.exit", '''
import os
from cloud.slurm import array_task
from psa.core.errors import UserError
class Broken:
    def __init__(self, *_):
        pass
    def launch(self, jobs):
        raise UserError("this node is broken", "Repair it")
        yield
if os.environ["SLURMD_NODENAME"] == "n1":
    array_task.LocalBackend = Broken
sys.exit''')
"""


@pytest.fixture(autouse=True)
def cluster(slurm: SlurmCluster) -> SlurmCluster:
    """Return the cluster with both nodes up and nothing in the queue."""
    slurm.clear()
    return slurm


def events(folder: Path) -> list[dict[str, object]]:
    """Everything that tasks have reported, task by task."""
    paths = sorted((folder / "models/.slurm").glob("psa-*/*.jsonl"))
    lines = [line for path in paths for line in path.read_bytes().split(b"\n")]
    return [event for line in lines if (event := parse_event(line)) is not None]


def kinds(folder: Path) -> list[object]:
    """The kinds of those events."""
    return [event["event"] for event in events(folder)]


def arrays(folder: Path) -> list[Path]:
    """The job arrays that have been submitted from a folder."""
    return sorted((folder / "models/.slurm").glob("psa-*"))


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code and the output of a sweep that ends by itself."""
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    return process.returncode, out, err


@pytest.fixture
def going(tmp_path: Path, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep of which every task has trained some loops and has far to go."""
    process = sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS)
    until(lambda: kinds(tmp_path).count("loop") >= PACKS, process)
    yield process
    end(process)


def test_a_lost_node_costs_what_was_not_saved(
    going: subprocess.Popen[str],
    cluster: SlurmCluster,
    tmp_path: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """Slurm puts the tasks of a dead node back into the queue; the bytes are those of a quiet sweep."""
    (*_, first) = (event for event in events(tmp_path) if event["event"] == "begun")
    node = str(first["node"])
    cluster.lose_node(node)
    cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=power")
    code, out, err = ended(going)
    assert (code, err) == (0, ""), out
    assert re.search(r"Slurm has put job \d+_\d back into the queue .*; retrying its pack", out)
    assert tree(tmp_path) == trained(LONG)


def test_a_preempted_task_saves_and_returns_to_the_queue(
    going: subprocess.Popen[str],
    cluster: SlurmCluster,
    tmp_path: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """A job of a higher partition takes both nodes; SIGTERM saves, and nothing is submitted anew."""
    urgent = ("--partition=urgent", "--nodes=2", "--exclusive", "--chdir=/", "--output=/dev/null")
    cluster.run("sbatch", *urgent, "--wrap=sleep 3")
    code, out, err = ended(going)
    assert (code, err) == (0, ""), out
    assert "stopped" in kinds(tmp_path)
    assert len(arrays(tmp_path)) == 1
    assert tree(tmp_path) == trained(LONG)


def test_a_restarted_controller_is_waited_for(
    going: subprocess.Popen[str],
    cluster: SlurmCluster,
    tmp_path: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """Tasks train on without it, one warning says so, and nothing is submitted twice."""
    cluster.kill("slurmctld")
    cluster.until(lambda: "DOWN" in cluster.run("scontrol", "ping"))
    until(lambda: kinds(tmp_path).count("loop") >= 4 * PACKS, going)
    cluster.start("slurmctld")
    code, out, err = ended(going)
    assert code == 0, out + err
    assert err.count("\n") <= 1  # none if squeue was not called meanwhile
    assert len(arrays(tmp_path)) == 1
    assert tree(tmp_path) == trained(LONG)


def test_a_time_limit_saves_and_returns_to_the_queue(
    tmp_path: Path, data_dir: Path, cluster: SlurmCluster
) -> None:
    """The limit is lowered while the task trains; the next run has exactly the loops that are left."""
    settings = ("meta_loops=5000", "seeds=0", "arch=1*4")
    process = sweep(tmp_path, data_dir, *settings, *WORDS, "--time", "30")
    try:
        until(lambda: kinds(tmp_path).count("loop") > 1, process)
        task = str(events(tmp_path)[0]["task"])
        cluster.run("scontrol", "update", f"jobid={task}", "timelimit=1")
        until(lambda: "stopped" in kinds(tmp_path), process)
        cluster.run("scontrol", "update", f"jobid={task}", "timelimit=30")
        until(lambda: kinds(tmp_path).count("begun") > 1, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert (process.returncode, err) == (130, "")
    assert "SIGUSR2 of Slurm (time limit or preemption): saved and put back into the queue" in out
    assert len(arrays(tmp_path)) == 1
    first, second, *_ = (event["left"] for event in events(tmp_path) if event["event"] == "begun")
    saved = next(event["trained"] for event in events(tmp_path) if event["event"] == "stopped")
    assert isinstance(first, int)
    assert isinstance(saved, int)
    assert second == first - saved


def test_the_same_sweep_typed_twice_submits_once(
    tmp_path: Path, data_dir: Path, trained: Callable[[int], dict[str, bytes]]
) -> None:
    """At the same moment, in the same folder: both end with all trials, and one array was submitted."""
    both = [sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS) for _ in range(2)]
    for code, out, err in map(ended, both):
        assert (code, err) == (0, ""), out
        assert out.splitlines()[-1] == "24 of 24 trials done, 0 failed"
    assert len(arrays(tmp_path)) == 1
    assert kinds(tmp_path).count("begun") == PACKS
    assert tree(tmp_path) == trained(LONG)


def test_a_detached_sweep_is_watched_later(
    tmp_path: Path, data_dir: Path, cluster: SlurmCluster, trained: Callable[[int], dict[str, bytes]]
) -> None:
    """--detach submits and leaves; status lists the tasks; the same command takes them up."""
    code, out, err = ended(
        sweep(tmp_path, data_dir, "meta_loops=3", *WORDS, "--detach", "--array-parallelism", "1")
    )
    assert (code, err) == (0, "")
    assert re.search(r"^4 tasks left to Slurm \(job \d+\)", out, re.MULTILINE)
    until(lambda: kinds(tmp_path))
    code, out, err = ended(psa(tmp_path, "status", str(GRID), "meta_loops=3", "--backend", "slurm"))
    assert (code, err) == (3, "")
    assert re.search(r"^job \d+: 1 of 4 tasks running, [123] pending \(JobArrayTaskLimit", out, re.MULTILINE)
    assert re.search(r"^job \d+_\d on n[12]: RUNNING, pack of 6 trials, ", out, re.MULTILINE)
    code, out, err = ended(sweep(tmp_path, data_dir, "meta_loops=3", *WORDS))
    assert (code, err) == (0, "")
    assert len(arrays(tmp_path)) == 1
    assert tree(tmp_path) == trained(3)


def test_tasks_outlive_a_killed_sweep(
    going: subprocess.Popen[str],
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """The login node crashes: the tasks train on, and the same command submits nothing anew."""
    going.send_signal(signal.SIGKILL)
    going.wait()
    code, out, err = ended(sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS))
    assert (code, err) == (0, ""), out
    assert len(arrays(tmp_path)) == 1
    assert tree(tmp_path) == trained(LONG)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_tasks_outlive_a_stopped_watch(
    number: signal.Signals,
    going: subprocess.Popen[str],
    cluster: SlurmCluster,
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """A lost connection or the reboot of a login node: one line, the signal's code, and no task ends."""
    before = cluster.queue()
    going.send_signal(number)
    out, err = going.communicate(timeout=PATIENCE_SECONDS)
    assert (going.returncode, err) == (128 + number, "")
    assert re.fullmatch(
        r"Stopped; [1-4] tasks? left to Slurm \(job \d+\)\. Run the same command again to resume\.",
        out.splitlines()[-1],
    )
    assert len(before) == PACKS
    code, out, err = ended(sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS))
    assert (code, err) == (0, ""), out
    assert len(arrays(tmp_path)) == 1
    assert "stopped" not in kinds(tmp_path)
    assert tree(tmp_path) == trained(LONG)


def test_a_refused_resubmission_waits(
    cluster: SlurmCluster,
    tmp_path: Path,
    data_dir: Path,
    started: list[subprocess.Popen[str]],
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """A task dies while its partition takes no jobs: the others go on, and it is submitted again later."""
    soon = "from cloud.slurm import watch; watch.RESUBMIT_SECONDS = 2.0"
    process = sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS, before=soon)
    started.append(process)
    until(lambda: kinds(tmp_path).count("loop") >= PACKS, process)
    cluster.run("scontrol", "update", "partitionname=debug", "state=drain")
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        (array,) = arrays(tmp_path)
        cluster.kill_task(array, "0")
        lines = iter(process.stdout.readline, "")
        assert any("1 task to be submitted again later, the other tasks continue" in line for line in lines)
    finally:
        cluster.run("scontrol", "update", "partitionname=debug", "state=up")
    rest, err = process.stdout.read(), process.stderr.read()
    assert (process.wait(PATIENCE_SECONDS), err) == (0, ""), rest
    assert rest.splitlines()[-1] == "24 of 24 trials done, 0 failed"
    assert len(arrays(tmp_path)) == 2
    assert tree(tmp_path) == trained(LONG)


def test_a_node_without_its_gpu_is_avoided(
    cluster: SlurmCluster,
    tmp_path: Path,
    data_dir: Path,
    started: list[subprocess.Popen[str]],
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """Tasks that cannot train on n1 are submitted again for n2, and no other task is cancelled."""
    process = sweep(tmp_path, data_dir, f"meta_loops={LONG}", *WORDS, before=BROKEN_NODE)
    started.append(process)
    code, out, err = ended(process)
    assert (code, err) == (0, ""), out
    assert re.search(r"ended as FAILED on n1, exit code 2: this node is broken", out)
    nodes = {str(event["node"]) for event in events(tmp_path) if event["event"] == "begun"}
    assert nodes == {"n2"}
    assert tree(tmp_path) == trained(LONG)


def test_the_page_on_slurm_can_be_followed(tmp_path: Path, data_dir: Path) -> None:
    """Every line of its shell blocks, in their order, on a cluster with a partition of that name."""
    for name, target in (("dataset", data_dir.resolve()), ("reproduction", ROOT / "reproduction")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/psa").write_text(f'#!/bin/sh\nexec {sys.executable} -m psa "$@"\n')
    (tmp_path / "bin/psa").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/slurm.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for line in "".join(blocks).splitlines():
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
    assert list((tmp_path / "results/reports").iterdir())


def test_a_cancelled_task_is_not_submitted_again(
    going: subprocess.Popen[str], cluster: SlurmCluster, tmp_path: Path
) -> None:
    """What the user cancels has failed in this sweep; the other packs are trained."""
    (task, *_) = next(row for row in cluster.queue() if row[0].endswith("_0"))
    cluster.run("scancel", task)
    code, out, err = ended(going)
    assert (code, err) == (1, ""), out
    assert re.search(rf"FAILED .*: job {task} ended as CANCELLED on n[12]", out)
    assert out.splitlines()[-1] == "18 of 24 trials done, 6 failed"
    code, out, err = ended(psa(tmp_path, "status", str(GRID), f"meta_loops={LONG}"))
    assert out.count("ended as CANCELLED") == 6
