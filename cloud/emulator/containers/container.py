"""A training container without Docker: a process in its own namespaces, with its own /opt/ml."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from cloud.emulator.containers.processes import end_with_parent
from psa.core.errors import UserError, one_line
from psa.core.files import ensure_dir

HOST: Final = "algo-1"
_KILLED: Final = 128 + signal.SIGKILL
_MARK: Final = "psa-container"
SYSTEM_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_AS_USER: Final = ("--user", "--map-root-user")
NO_NETWORK: Final = "--net"
_LONGEST_LINE: Final = 250_000  # CloudWatch takes 256 KB

# Runs as PID 1 of its namespaces until the last line replaces it with the command. $1: the job's folder.
# Without an /opt/ml to mount on, /opt is recreated with everything in it bind-mounted again, since
# the interpreter may be installed there.
_SETUP: Final = """set -e
mount -t proc proc /proc
if [ ! -d /opt/ml ]; then
  mkdir -p /opt "$1/opt"
  mount --rbind /opt "$1/opt"
  mount -t tmpfs -o size=1m,mode=755 tmpfs /opt
  for entry in "$1"/opt/*; do
    name="/opt/${entry##*/}"
    if [ -L "$entry" ]; then cp -P "$entry" "$name"
    elif [ -d "$entry" ]; then mkdir "$name"; mount --rbind "$entry" "$name"
    elif [ -f "$entry" ]; then : > "$name"; mount --bind "$entry" "$name"
    fi
  done
  mkdir /opt/ml
fi
mount --bind "$1/ml" /opt/ml
echo algo-1 > /proc/sys/kernel/hostname || true
cd /
shift
exec "$@" 2>&1
"""


class Namespaces:
    """The options that create namespaces on this machine: as root, or through a user namespace.

    Both are tried at once in the background; `flags` returns the first that works.
    """

    def __init__(self, folder: Path) -> None:
        ensure_dir(folder / "ml")
        ways = [(), _AS_USER] if os.geteuid() == 0 else [_AS_USER]
        self._tried = [(way, _probe(way, folder)) for way in ways]

    @property
    def flags(self) -> Sequence[str]:
        """The options of `unshare`. Raises UserError if namespaces cannot be created."""
        errors = ""
        try:
            for way, process in self._tried:
                _, errors = process.communicate() if process else ("", "`unshare` is not installed")
                if process and process.returncode == 0:
                    return way
        finally:
            self.close()
        raise UserError(
            f"the rehearsal needs user namespaces, which this machine refuses: {one_line(errors)[:200]}",
            "Use Linux with util-linux, as root or with user namespaces enabled for all users",
        )

    def close(self) -> None:
        """End attempts that are still running."""
        for _, process in self._tried:
            if process:
                process.kill()
                process.wait()
                process.stderr.close()  # type: ignore[union-attr]  # it is a pipe


def _probe(way: Sequence[str], folder: Path) -> subprocess.Popen[str] | None:
    with contextlib.suppress(FileNotFoundError):
        return subprocess.Popen(
            _unshared(way, folder, ["true"]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": SYSTEM_PATH},
            start_new_session=True,  # a Ctrl-C at this moment must not look like a refusal
        )
    return None


def _unshared(way: Sequence[str], folder: Path, command: Sequence[str]) -> list[str]:
    kinds = ["--mount", "--pid", "--uts", "--fork", "--kill-child", "--propagation", "private"]
    return end_with_parent(
        ["unshare", *way, *kinds, "sh", "-c", _SETUP, _MARK, str(folder.absolute()), *command]
    )


class Container:
    """A command that runs as PID 1. The thread that creates it must live as long as the container.

    folder: of the job; its `ml` is /opt/ml inside. say: called with every line of output, from a thread.
    flags: of `unshare`.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        environment: Mapping[str, str],
        say: Callable[[str], None],
        flags: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            _unshared(flags, folder, command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,  # of the set-up; the command's own goes to the output
            env=_environment(environment),
            start_new_session=True,  # a Ctrl-C reaches jobs on AWS as little
        )
        self.trouble = ""  # the error message of a failed set-up
        self._killed = False
        self._reader = threading.Thread(target=self._read, args=(say,), daemon=True)
        self._reader.start()

    def _read(self, say: Callable[[str], None]) -> None:
        assert self._process.stdout is not None  # noqa: S101 -- for the type checker: it is a pipe
        with self._process.stdout as output:
            for line in output:
                text = line.decode(errors="replace").rstrip("\r\n")
                for start in range(0, max(len(text), 1), _LONGEST_LINE):
                    say(text[start : start + _LONGEST_LINE])

    def wait(self, seconds: float) -> int | None:
        """Return the exit code (128 + N after signal N), or None if it still runs after `seconds`."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join()
        with contextlib.suppress(OSError):  # where /opt was seen from inside; out here it is empty
            (self._folder / "opt").rmdir()
        if self._process.stderr and not self._process.stderr.closed:
            with self._process.stderr as errors:
                self.trouble = errors.read().decode(errors="replace").strip()
        # unshare ends as its child has ended, but cannot be killed by the same signal if that is SIGKILL
        if "sigprocmask" in self.trouble:
            self.trouble, self._killed = "", True
        return _KILLED if self._killed else code if code >= 0 else 128 - code

    def terminate(self) -> None:
        """Send SIGTERM to PID 1."""
        self._signal(signal.SIGTERM)

    def kill(self) -> int:
        """Send SIGKILL to PID 1, which ends all other processes in the container. Return the exit code."""
        self._signal(signal.SIGKILL)
        code = self.wait(10)
        if code is None:  # killing the parent also ends the namespaces
            self._process.kill()
            code = self.wait(10)
        return _KILLED if code is None else code

    def _signal(self, number: int) -> None:
        """Send a signal once the command runs: before that, PID 1 would ignore it."""
        deadline = time.monotonic() + 10
        while self._process.poll() is None and time.monotonic() < deadline:
            init = self._init()
            if init is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(init, number)
                return
            time.sleep(0.01)

    def _init(self) -> int | None:
        """Return the process that is PID 1 inside, or None until it is the command."""
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            if not children or _MARK.encode() in Path(f"/proc/{children[0]}/cmdline").read_bytes():
                return None
        except OSError:  # it has just exited
            return None
        return int(children[0])


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a container's process; nothing is inherited from this process."""
    # /tmp is the one folder that any user may write to
    home = {"HOME": "/tmp", "LANG": "C.UTF-8", "HOSTNAME": HOST}  # noqa: S108
    return {"PATH": SYSTEM_PATH, **home, **own}
