"""Locks hold across processes, threads and forks, and a file system without them is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from processes import GRID, PATIENCE_SECONDS, ROOT, psa

from psa.core import file_locks
from psa.core.errors import UserError
from psa.core.file_locks import Locked, any_locked, is_locked, locked, locked_bytes, unlocked_bytes
from psa.experiments.grid import load_grid
from psa.specs.trial import Trial
from psa.storage import locks
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps, register_sweep

WAY_OUT = "Choose a folder on a file system that supports file locks"
# Takes what a command holds until its input ends.
HOLDER = """
import fcntl, os, pathlib, sys
from psa.core import file_locks as locks
path = pathlib.Path(sys.argv[2])
if sys.argv[1] == "bytes":
    holding = locks.locked_bytes(path, map(int, sys.argv[3:]))
else:
    holding = locks.locked(path)
with holding as got:
    print(sorted(got or ()), flush=True)
    sys.stdin.read()
"""
MANY = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from psa.storage import locks as leases
from psa.experiments.grid import load_grid
from psa.storage.store import Store
trials = load_grid(pathlib.Path(sys.argv[1]), ()).trials
store = Store(pathlib.Path(sys.argv[2]), pathlib.Path("none"))
with leases.lock_trials(store, trials) as got:
    print(len(trials), len(got), len(leases.unlocked_trials(store, trials)))
print(len(leases.unlocked_trials(store, trials)))
"""
# Loaded by every process of a test: file locks fail as on a file system without them.
WITHOUT_LOCKS = """
import fcntl, os
real = fcntl.fcntl
def refuse(*arguments):
    number = int(os.environ["LOCK_ERRNO"])
    raise OSError(number, os.strerror(number))
def partly(descriptor, command, *arguments):
    return real(descriptor, command, *arguments) if command not in LOCKS else refuse()
LOCKS = {fcntl.F_SETLK, fcntl.F_GETLK, getattr(fcntl, "F_OFD_SETLK", -1), getattr(fcntl, "F_OFD_GETLK", -1)}
fcntl.flock, fcntl.lockf, fcntl.fcntl = refuse, refuse, partly
"""


@contextmanager
def holder(kind: str, path: Path, *offsets: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that holds a lock: the process, and the bytes that it was granted."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind, str(path), *map(str, offsets)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(params=["of the open file", "of the process", "of the process, noticed late"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux has locks of open file descriptions; elsewhere those of the process must do as well."""
    if request.param == "of the process":
        monkeypatch.setattr(file_locks, "_OF_DESCRIPTION", file_locks._OF_PROCESS)
    elif request.param != "of the open file":
        real = fcntl.fcntl

        def call(descriptor: int, command: int, packed: Any) -> Any:
            if command in file_locks._OF_DESCRIPTION and command not in file_locks._OF_PROCESS:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return real(descriptor, command, packed)

        monkeypatch.setattr(fcntl, "fcntl", call)


@pytest.mark.usefixtures("ways")
def test_bytes_are_held_against_other_processes(tmp_path: Path) -> None:
    """A process gets what another does not hold, sees what is free, and gets the rest when that is killed."""
    path = tmp_path / "new" / "locks"
    assert unlocked_bytes(path, [1, 2]) == {1, 2}
    assert not any_locked(path)
    assert not path.parent.exists()
    with holder("bytes", path, 1, 2**61) as (process, got):
        assert got == f"[1, {2**61}]"
        with locked_bytes(path, [1, 2, 2**61, file_locks.LARGEST_OFFSET]) as taken:
            assert taken == {2, file_locks.LARGEST_OFFSET}
            assert unlocked_bytes(path, [1, 2, 3, 2**61]) == {3}
            with holder("bytes", path, 1, 2, 3) as (_, third):
                assert third == "[3]"
        assert unlocked_bytes(path, [1, 2, 2**61]) == {2}
        assert any_locked(path)
        os.kill(process.pid, signal.SIGSTOP)
        assert unlocked_bytes(path, [1]) == set()
        process.kill()
        process.wait()
        assert unlocked_bytes(path, [1, 2, 2**61]) == {1, 2, 2**61}
        assert not any_locked(path)
        with locked_bytes(path, [7]):
            assert any_locked(path)
    assert file_locks._files == {}


@pytest.mark.usefixtures("ways")
def test_blocks_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    """Also in threads, also by another path to the file, and the end of one block ends no other's locks."""
    path, link = tmp_path / "locks", tmp_path / "linked"
    link.symlink_to(tmp_path, target_is_directory=True)
    results: list[set[int]] = []
    with locked_bytes(path, [1, 2]) as first:
        with locked_bytes(link / "locks", [2, 3]) as second:
            assert (first, second) == ({1, 2}, {3})
            assert unlocked_bytes(link / "locks", [1, 2, 3, 4]) == {4}

        def other() -> None:
            with locked_bytes(path, [1, 3]) as taken:
                results.append(taken)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        with holder("bytes", path, 1, 2, 3) as (_, got):
            assert got == "[3]"
    assert results == [{3}]


@pytest.mark.usefixtures("ways")
def test_a_forked_child_neither_holds_nor_releases(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A forked child may lock what is free, but not what its parent has.

    The end of its block releases nothing of the parent, and it keeps nothing locked after the parent's block.
    """
    path, (reading, writing) = tmp_path / "locks", os.pipe()
    with locked_bytes(path, [1]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12, where there are threads
            child = os.fork()
        if child == 0:
            with locked_bytes(path, [1, 2]) as taken:
                pass
            os.write(writing, repr(taken).encode())
            signal.pause()
            os._exit(0)
        request.addfinalizer(lambda: (os.kill(child, signal.SIGKILL), os.waitpid(child, 0)))
        assert os.read(reading, 99) == b"{2}"
        assert unlocked_bytes(path, [1, 2]) == {2}
        with holder("bytes", path, 1) as (_, got):
            assert got == "[]"
    with holder("bytes", path, 1) as (_, got):
        assert got == "[1]"
    os.close(reading)
    os.close(writing)


def test_a_file_of_locks_that_was_removed_guards_nothing(tmp_path: Path) -> None:
    """Blocks that begin after its removal lock bytes of the new file of that name."""
    path = tmp_path / "locks"
    with locked_bytes(path, [1]):
        path.unlink()
        with locked_bytes(path, [1, 2]) as taken:
            assert taken == {1, 2}
            with holder("bytes", path, 1, 2, 3) as (_, got):
                assert got == "[3]"
    assert file_locks._files == {}


def test_the_lock_of_a_file_is_known_by_reading(tmp_path: Path) -> None:
    """Held against others and the own process, gone with its holder; readers do not hinder each other."""
    path = tmp_path / "x.lock"
    assert not is_locked(path)
    with holder("file", path) as (process, _):
        assert is_locked(path)
        with pytest.raises(Locked, match="another process has locked"), locked(path, 0.1):
            pass
        process.kill()
        process.wait()
        assert not is_locked(path)
    with locked(path), pytest.raises(Locked), locked(path):
        pass
    path.chmod(0o444)
    assert not is_locked(path)


def trials() -> tuple[Trial, ...]:
    """Twelve, of one arch."""
    return load_grid(GRID, ("arch=1*4", "meta_loops=1")).trials


@pytest.mark.slow
def test_the_published_grid_is_leased_with_256_open_files(tmp_path: Path) -> None:
    """5,880 trials, all leased, none free meanwhile, all free afterwards."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(ROOT / "reproduction/simplemlp.toml"), str(tmp_path / "models")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("5880 5880 0\n5880\n", 0), done.stderr


def test_trials_that_share_a_byte_are_leased_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is lost, and none is waited for by the process that holds the other."""
    monkeypatch.setattr(locks, "_place", lambda store, trial: 7)
    store = Store(tmp_path / "models", tmp_path / "results")
    with locks.lock_trials(store, trials()) as got:
        assert got == list(trials())
        assert locks.unlocked_trials(store, trials()) == []
        with locks.lock_trials(store, trials()[:1]) as again:
            assert again == []
    assert locks.unlocked_trials(store, trials()) == list(trials())


def test_a_sweep_of_an_older_psa_keeps_its_trials(tmp_path: Path) -> None:
    """It locks a file beside each state: that trial is neither free nor leased until it ends."""
    store, mine = Store(tmp_path / "models", tmp_path / "results"), trials()[0]
    with holder("file", store.state_file(mine).path.parent / ".lease"):
        assert locks.unlocked_trials(store, trials()) == list(trials()[1:])
        with locks.lock_trials(store, trials()) as got:
            assert got == list(trials()[1:])
    with locks.lock_trials(store, trials()) as got:
        assert got == list(trials())


ERRNOS = [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK]


@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", ["flock", "fcntl"])
def test_a_file_system_without_locks_is_refused(
    kind: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line with a way out, and nothing is left that others would take for a lock."""

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, kind, refuse)
    path = tmp_path / "x.lock"
    path.touch()
    asking: list[Callable[[], Any]] = [lambda: is_locked(path), lambda: locked(path).__enter__()]
    if kind == "fcntl":
        store = Store(tmp_path, tmp_path)
        asking = [lambda: locks.check_lockable(store), lambda: locks.lock_trials(store, trials()).__enter__()]
        asking += [lambda: unlocked_bytes(path, [1]), lambda: locked_bytes(path, [1]).__enter__()]
    for ask in asking:
        with pytest.raises(UserError, match=f"cannot lock .*{os.strerror(number)[1:]}. {WAY_OUT}"):
            ask()
    monkeypatch.undo()
    with locked(path), locked_bytes(path, [1]) as taken:
        assert taken == {1}


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK], ids=errno.errorcode.get)
def test_a_sweep_without_locks_trains_nothing(number: int, tmp_path: Path, data_dir: Path) -> None:
    """One line and exit code 2, before any worker is started; `train` says the same."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_LOCKS)
    environment = {"PYTHONPATH": str(tmp_path), "LOCK_ERRNO": str(number)}
    for words in (["sweep", str(GRID)], ["train", "--arch", "[1*1]", "--meta-loops", "1"]):
        process = psa(tmp_path, *words, "--data-dir", str(data_dir.absolute()), **environment)
        _, err = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 2
        assert err.splitlines()[-1].startswith("error: cannot lock models/.")
        assert WAY_OUT in err
    assert list((tmp_path / "models").rglob("*.safetensors")) == []


NOBODY = 65534
AS_NOBODY = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
KILLED = """
import os, pathlib
from psa.storage.sweep_registry import register_sweep
with register_sweep(pathlib.Path("models")) as tell:
    os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="takes on another user's rights")
def test_a_reader_without_write_access_sees_who_lives(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """A killed sweep is not shown as one at work, a living one is, and leases can be asked after."""
    for folder in (tmp_path, *tmp_path.parents):  # pytest keeps its folders to their owner
        mode = folder.stat().st_mode
        if mode & 0o055 != 0o055:
            folder.chmod(mode | 0o055)
            request.addfinalizer(partial(folder.chmod, mode))
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=False, env=with_root())
    models = tmp_path / "models"
    assert len(list((models / ".sweeps").glob("*.lock"))) == 1
    looking = "import pathlib; from psa.storage.sweep_registry import active_sweeps; "
    looking += "print(len(active_sweeps(pathlib.Path('models'))))"
    looking += "; from psa.core.file_locks import unlocked_bytes as u"
    looking += "; print(u(pathlib.Path('models/.trials.lock'), [1, 2]))"

    def seen() -> list[str]:
        done = subprocess.run(
            [*AS_NOBODY, sys.executable, "-c", looking], cwd=tmp_path, capture_output=True, text=True,
            env=with_root(), check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:2]

    with locked_bytes(models / ".trials.lock", [1]):
        assert seen() == ["0", "{2}"]
    with register_sweep(models):
        assert seen() == ["1", "{1, 2}"]
        assert len(active_sweeps(models)) == 1


def with_root() -> dict[str, str]:
    """Return the environment, with psa to be imported from this tree."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
