"""A real Slurm on this machine: a controller and two nodes in a folder of their own, while tests last.

Needs Debian's packages slurm-wlm and munge, and root or a user of one's own; no accounting database.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

NODES = ("n1", "n2")
NEEDED = ("setpriv", "slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol", "scancel")
PATIENCE_SECONDS = 60.0
CONFIGURATION = """
ClusterName=psa
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,batch_sched_delay=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
SlurmdTimeout=5
MinJobAge=300
MaxArraySize=1001
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[2]}] CPUs=2
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=10
"""


def missing() -> list[str]:
    """The programs that a Slurm of this machine needs and that are not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return [name for name in NEEDED if shutil.which(name, path=path) is None]


@dataclass
class SlurmCluster:
    """A controller and two nodes of two cores each; partitions debug and urgent, which preempts debug."""

    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def configuration(self) -> Path:
        """For SLURM_CONF."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Of who uses the cluster."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        return {**os.environ, "PATH": path, "SLURM_CONF": str(self.configuration)}

    def start(self, name: str) -> None:
        """Start a daemon: munged, slurmctld or a node."""
        command = {
            "munged": ["munged", "--force", "--foreground", *self._munge()],
            "slurmctld": ["slurmctld", "-D"],
        }.get(name, ["slurmd", "-D", "-N", name])
        # so that none outlives a test run that is killed
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        with (self.folder / f"{name}.out").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )

    def _jobs_on(self, node: str) -> set[int]:
        """The processes of the jobs on a node, and the slurmstepd of each. Linux only."""
        found = set()
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError, ValueError, IndexError):
                variables = path.read_bytes().decode(errors="replace").split("\0")
                if {f"SLURM_CONF={self.configuration}", f"SLURMD_NODENAME={node}"} <= set(variables):
                    parent = int((path.parent / "stat").read_text().rsplit(")", 1)[1].split()[1])
                    found |= {int(path.parent.name), parent}
        return found - {1, os.getpid(), self.processes[node].pid}

    def _munge(self) -> Iterator[str]:
        files = {"socket": "munge.socket", "key-file": "munge.key", "pid-file": "munge.pid"}
        files |= {"seed-file": "munge.seed", "log-file": "munge.log"}
        yield from (f"--{option}={self.folder / name}" for option, name in files.items())

    def kill(self, name: str) -> None:
        """Kill a daemon as a crash does."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def lose_node(self, name: str) -> None:
        """Kill a node and all that runs on it, as a power failure does."""
        victims = self._jobs_on(name)
        self.kill(name)
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill_task(self, array: Path, index: str) -> None:
        """Kill the program of a task, and with it its worker, which notices the end of its input."""
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                variables = (path.parent / "environ").read_bytes().decode(errors="replace").split("\0")
                if str(array) in words and f"SLURM_ARRAY_TASK_ID={index}" in variables:
                    os.kill(int(path.parent.name), signal.SIGKILL)

    def run(self, *command: str) -> str:
        """Run one of Slurm's commands; what it prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def queue(self) -> list[tuple[str, ...]]:
        """Task, state and node of everything in the queue."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%N|%j").splitlines()
        return [tuple(line.split("|")) for line in lines]

    def ready(self) -> None:
        """Wait until both nodes are idle or at work, and the queue is empty of nothing in particular."""
        self.until(lambda: re.findall(r"^n[12] (idle|mix|alloc)", self._nodes(), re.MULTILINE), 2)

    def until(self, found: object, count: int = 1) -> None:
        """Wait until a function returns something, or so many things."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            got = found() if callable(found) else found
            if (len(got) if isinstance(got, list) else int(bool(got))) >= count:
                return
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.2)

    def _nodes(self) -> str:
        return self.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T")

    def clear(self) -> None:
        """Cancel everything, start what was killed, and wait until all is idle."""
        for name in ("munged", "slurmctld", *NODES):
            if name not in self.processes:
                self.start(name)
        self.until(lambda: "UP" in self.run("scontrol", "ping"))
        self.run("scancel", "--user=" + str(os.getuid()))
        for name in NODES:
            self.run("scontrol", "update", f"nodename={name}", "state=resume")
        self.until(lambda: [] if self.queue() else ["empty"])
        self.ready()

    def said(self) -> str:
        """The last lines of each daemon."""
        tails = [
            f"{path.name}: {path.read_text(errors='replace')[-600:]}" for path in self.folder.glob("*.out")
        ]
        return "\n".join([self._nodes(), *tails])

    def end(self) -> None:
        """End everything."""
        with contextlib.suppress(OSError):
            self.run("scancel", "--user=" + str(os.getuid()))
        for name in (*NODES, "slurmctld", "munged"):
            process = self.processes.pop(name, None)
            if process is not None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


@contextlib.contextmanager
def slurm_cluster() -> Iterator[SlurmCluster]:
    """A cluster that is up. Its folder has a short name: paths of sockets end at 108 characters."""
    with tempfile.TemporaryDirectory(prefix="psa-slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cluster = SlurmCluster(folder)
        (folder / "state").mkdir()
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
        key = folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(1024))
        folder.chmod(0o755)
        host = socket.gethostname().partition(".")[0]
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        text = CONFIGURATION.format(host=host, folder=folder, user=user, ports=_free_ports())
        cluster.configuration.write_text(text)
        try:
            cluster.start("munged")
            cluster.until((folder / "munge.socket").exists)
            for daemon in ("slurmctld", *NODES):
                cluster.start(daemon)
            cluster.ready()
            yield cluster
        finally:
            cluster.end()


def _free_ports() -> tuple[int, int, int]:
    """A free port for the controller, and two in a row for the nodes."""
    for first in range(20_000 + 7 * (os.getpid() % 1000), 60_000, 17):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + 3):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return first, first + 1, first + 2
    raise AssertionError("no free ports")
