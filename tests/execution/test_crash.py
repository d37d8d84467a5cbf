"""Nothing hurts a sweep: kills at random, each failing file operation, every crash prefix, two at once."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up import some_record, some_state
from paths import ROOT

from psa.core import files
from psa.core.errors import UserError
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation
from psa.specs.trial import Trial
from psa.storage.checkpoint import CheckpointFile
from psa.storage.store import Store
from psa.storage.trial_state import TrialState, encode_state

sys.path.insert(0, str(ROOT / "tests" / "crash"))
import harness
from processes import tree

TRIAL = Trial(model=PublishedModelSpec(family="simplemlp", arch="1*1"), intervention=Ablation(mode="hidden"))
OPERATIONS = ("open", "write", "fsync", "link", "replace")


def state(loops: int) -> TrialState:
    """A state that differs from loop to loop."""
    return some_state(loops, trial=TRIAL)


def record(loops: int) -> dict[str, Any]:
    """A record of as many loops."""
    return some_record(loops, trial=TRIAL)


class Faulty:
    """The os module, whose n-th operation fails. `fails` raises or, for a short write, does less."""

    def __init__(self, at: int, fails: Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]) -> None:
        self.left, self.fails, self.failed = at, fails, ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in OPERATIONS:
            return real

        def operation(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                self.failed = name
                return self.fails(name, real, arguments)
            return real(*arguments, **options)

        return operation


def raising(number: int) -> Callable[[str, Callable[..., Any], tuple[Any, ...]], Any]:
    """Fail with this errno."""

    def fails(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        raise OSError(number, os.strerror(number))

    return fails


def short_then_full(name: str, real: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """A write that takes only a part, as a signal or a nearly full disk may make it; others fail."""
    if name != "write":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return real(arguments[0], bytes(arguments[1])[: max(1, len(arguments[1]) // 3)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "fails",
    [raising(errno.ENOSPC), raising(errno.EIO), raising(errno.EACCES), short_then_full],
    ids=["ENOSPC", "EIO", "EACCES", "short write"],
)
def test_the_nth_file_operation_fails(
    fails: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every operation made to fail in turn: a clean error, no half-visible file, and the next try goes on."""
    number, seen = 0, set()
    while True:
        number += 1
        store = Store(tmp_path / f"m{number}", tmp_path / f"r{number}")
        store.state_file(TRIAL).save(state(1))
        faulty = Faulty(number, fails)
        monkeypatch.setattr(files, "os", faulty)
        error = None
        try:
            store.state_file(TRIAL).save(state(2))
            store.write(TRIAL, record(2), {"host": "here"})
        except UserError as raised:
            error = raised
        monkeypatch.setattr(files, "os", os)
        if not faulty.failed:
            break
        seen.add(faulty.failed)
        if error is not None:
            assert "\n" not in str(error)
            assert error.hint
        found = Store(store.models, store.results)
        kept = found.state_file(TRIAL).load()
        assert kept is not None
        assert encode_state(kept) in (encode_state(state(1)), encode_state(state(2)))
        assert found.read(TRIAL) in (None, record(2))
        assert all(finding.problem is None for finding in found.verify())
        # the next run goes on to the same end
        found.state_file(TRIAL).save(state(2))
        found.write(TRIAL, record(2), {"host": "here"})
        again = Store(store.models, store.results)
        assert encode_state(again.state_file(TRIAL).load() or state(1)) == encode_state(state(2))
        assert again.read(TRIAL) == record(2)
    assert seen == set(OPERATIONS)


class Recorder:
    """The os module, writing down what is done to files."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self.names: dict[int, str] = {}

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            if name == "open":
                self.names[result] = str(arguments[0])
                if not Path(arguments[0]).is_dir():
                    self.operations.append(("create", str(arguments[0])))
            elif name == "write":
                self.operations.append(("write", self.names[arguments[0]], bytes(arguments[1])[:result]))
            elif name == "fsync":
                self.operations.append(("fsync", self.names[arguments[0]]))
            elif name in ("link", "replace"):
                self.operations.append((name, str(arguments[0]), str(arguments[1])))
            return result

        return operation if name in OPERATIONS else real


class Disk:
    """What a power cut leaves: names and contents, each in memory and as far as it is durable.

    Contents become durable by fsync of the file, names by fsync of the folder; what is not durable may or
    may not have reached the disk.
    """

    def __init__(self) -> None:
        self.contents: dict[int, bytes] = {}
        self.durable_contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self.durable_names: dict[str, int] = {}

    def apply(self, operation: tuple[Any, ...]) -> None:
        """Do one recorded operation."""
        match operation:
            case ("create", path):
                self.names[path] = node = len(self.contents)
                self.contents[node] = b""
            case ("write", path, data):
                self.contents[self.names[path]] += data
            case ("fsync", path) if path in self.names:
                self.durable_contents[self.names[path]] = self.contents[self.names[path]]
            case ("fsync", _):
                self.durable_names = dict(self.names)
            case ("link", source, target):
                self.names[target] = self.names[source]
            case ("replace", source, target):
                self.names[target] = self.names.pop(source)

    def after_a_cut(self) -> Iterator[dict[str, bytes]]:
        """The files as they may be found: names and contents each durable only, or all."""
        for names in (self.names, self.durable_names):
            for durable_only in (True, False):
                lost = self.durable_contents if durable_only else self.contents
                yield {path: lost.get(node, self.contents[node][:7]) for path, node in names.items()}


def test_every_crash_prefix_leaves_a_sound_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut after any recorded operation, with and without what was not yet synced: the state is an old or a
    new one in full, and never one older than what a finished save had promised.
    """
    recorder = Recorder()
    monkeypatch.setattr(files, "os", recorder)
    file, finished_at = CheckpointFile(tmp_path / "lkg.safetensors"), []
    for loops in (1, 2, 3):
        file.save(state(loops))
        finished_at.append(len(recorder.operations))
    monkeypatch.setattr(files, "os", os)
    disk, checked = Disk(), 0
    for at, operation in enumerate(recorder.operations, start=1):
        disk.apply(operation)
        promised = sum(at >= end for end in finished_at)
        for number, found in enumerate(disk.after_a_cut()):
            folder = tmp_path / f"cut{at}-{number}"
            folder.mkdir()
            for path, content in found.items():
                (folder / Path(path).name).write_bytes(content)
            loaded = CheckpointFile(folder / "lkg.safetensors").load()
            reached = 0 if loaded is None else loaded.loops
            assert promised <= reached <= 3, (at, number, operation)
            if loaded is not None:
                assert encode_state(loaded) == encode_state(state(reached))
            checked += 1
    assert checked == 4 * len(recorder.operations) > 60


@pytest.fixture(scope="module")
def undisturbed(trained: Callable[[int], dict[str, bytes]]) -> dict[str, bytes]:
    """Records and weights of the smoke grid, trained in peace."""
    return trained(3)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "size"), [(1, 60), (2, 1)])
def test_workers_pack_sizes_and_order_change_nothing(
    workers: int, size: int, tmp_path: Path, undisturbed: dict[str, bytes], data_dir: Path
) -> None:
    """One worker or two, packs of one or all: the same bytes in every record and state."""
    process = harness.sweep(tmp_path, data_dir.absolute(), workers=workers, size=size)
    assert process.wait() == 0, (tmp_path / "out.txt").read_text()
    assert tree(tmp_path) == undisturbed


@pytest.mark.slow
def test_two_sweeps_on_one_folder_do_not_collide(
    tmp_path: Path, undisturbed: dict[str, bytes], data_dir: Path
) -> None:
    """Both end well, together they leave what one leaves alone, and no trial is trained twice."""
    both = [harness.sweep(tmp_path, data_dir.absolute()) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0], (tmp_path / "out.txt").read_text()
    assert tree(tmp_path) == undisturbed


@pytest.mark.slow
def test_a_killed_sweep_ends_as_an_undisturbed_one(data_dir: Path) -> None:
    """SIGKILL at random moments and inside writes, of everything, a worker or the parent; `make crash` does
    two hundred of these, here are some.
    """
    assert harness.campaign(4, seed=1, data_dir=data_dir.absolute(), say=False) >= 1
