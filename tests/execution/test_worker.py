"""psa.execution.worker.run: a pack in, states and records out, as the process that every backend starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import kept_trial, trial
from paths import ROOT
from processes import PATIENCE_SECONDS, until
from safetensors.numpy import load_file

from psa.core.errors import Interrupted, UserError
from psa.core.stop import StopRequest
from psa.execution.machine import Machine
from psa.execution.worker import halving, run, server
from psa.execution.worker.__main__ import main
from psa.execution.worker.protocol import EXIT_INTERRUPTED
from psa.execution.worker.run import RunHooks, run_pack
from psa.experiments.grid import load_grid
from psa.specs.data import DataSpec
from psa.specs.trial import Pack, Trial
from psa.storage import locks
from psa.storage.store import Store, decode_record
from psa.storage.trial_state import decode_state

TRIALS = [trial("1*4", "none", 1, batch_size=256), trial("1*4", "hidden", 2, batch_size=256)]


def pack_file(folder: Path, trials: Sequence[Trial], horizon: int) -> Path:
    """A pack as the file that a worker is given."""
    path = folder / "pack.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(Pack(trials=tuple(trials), horizon=horizon).model_dump_json())
    return path


def command(root: Path, data_dir: Path) -> list[str]:
    """What a backend starts."""
    options = [f"--root={root}", f"--data-dir={data_dir}", "--device=cpu"]
    return [sys.executable, "-m", "psa.execution.worker", str(root / "pack.json"), *options]


def worked(root: Path, trials: Sequence[Trial], horizon: int, data_dir: Path) -> int:
    """Run a pack in this process; the exit code."""
    pack_file(root, trials, horizon)
    return main(command(root, data_dir)[3:])


def store_of(root: Path) -> Store:
    """What a worker wrote."""
    return Store(root / "models", root / "results")


def record_bytes(root: Path, trials: Sequence[Trial]) -> list[bytes]:
    """The records of these trials as they lie on disk."""
    return [store_of(root).record_path(each).read_bytes() for each in trials]


def state_bytes(root: Path, trials: Sequence[Trial]) -> list[bytes]:
    """The states of these trials as they lie on disk."""
    return [store_of(root).state_file(each).path.read_bytes() for each in trials]


def read(root: Path, each: Trial) -> dict[str, Any]:
    """A trial's record; it must be there."""
    return decode_record(store_of(root).record_path(each).read_bytes(), each.id)


def started(root: Path, data_dir: Path) -> subprocess.Popen[str]:
    """A real worker process on the pack of a root."""
    return subprocess.Popen(
        command(root, data_dir), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> dict[str, tuple[Path, int, str, str]]:
    """Root, exit code, output and errors of real worker processes (side by side, since each takes seconds):
    `good` trained both trials for one loop on all of MNIST, `bad` was given no pack.
    """
    good, bad = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("bad")
    pack_file(good, TRIALS, 1)
    (bad / "pack.json").write_text("{}")
    with started(good, data_dir) as one, started(bad, data_dir) as other:
        said = one.communicate(timeout=PATIENCE_SECONDS), other.communicate(timeout=PATIENCE_SECONDS)
    return {"good": (good, one.returncode, *said[0]), "bad": (bad, other.returncode, *said[1])}


@pytest.fixture(scope="module")
def real(processes: dict[str, tuple[Path, int, str, str]]) -> Path:
    """The root of the good one."""
    root, code, out, said = processes["good"]
    assert (code, out) == (0, ""), said
    return root


# What comes out


def test_a_worker_leaves_a_state_and_a_record_for_each_trial(real: Path) -> None:
    """Where the store says, sound to the last bit, and nothing else: no temporary file, no damaged one."""
    store = store_of(real)
    findings = list(store.verify())
    assert len(findings) >= 2 * len(TRIALS)
    assert [finding for finding in findings if finding.problem is not None] == []
    assert store.pending(TRIALS, 1) == []
    assert {path.name for path in real.rglob(".*") if path.is_file()} == {".trials.lock"}
    for each in TRIALS:
        state = decode_state(store.state_file(each).path.read_bytes(), each.id)
        assert (state.trial, state.loops, state.horizon) == (each, 1, 1)
        weights = load_file(store.state_file(each).path)
        assert all(np.array_equal(weights[name], array) for name, array in state.lkg.items())


def test_a_record_says_what_was_asked_built_and_found(real: Path) -> None:
    """Counts, not percentages; the network that was really built; the books of the state."""
    for each in TRIALS:
        record, state = read(real, each), decode_state(state_bytes(real, [each])[0], each.id)
        assert Trial.model_validate(record["spec"]) == each
        assert (record["id"], record["digest"]) == (each.id, each.digest)
        assert record["built"]["parameters"] == 785 * 4 + 50
        assert record["samples"]["train"] == 50_000
        assert record["samples"]["zero_r_validation"] == 1102
        assert record["history"] == state.history
        assert record["finals"]["bounty"] == {"correct": state.best_correct, "loop": 1}
        assert 0 < record["finals"]["test"]["correct"] <= 10_000
        assert record["finals"]["stopped_early"] is False


def test_what_differs_between_machines_lies_beside_the_record(real: Path) -> None:
    """Versions, host and seconds are in a file of their own, and in the record is none of them."""
    for each in TRIALS:
        path = store_of(real).record_path(each)
        beside = json.loads(path.with_suffix(".machine.json").read_bytes())
        assert {"torch", "host", "finished", "pack_seconds", "threads"} <= set(beside)
        assert not {"torch", "host", "finished", "pack_seconds", "threads"} & set(read(real, each))


def test_a_record_is_byte_for_byte_the_same_in_one_pack_or_two(
    real: Path, tmp_path: Path, data_dir: Path
) -> None:
    """By a process of its own or by a call: the packing and the place leave no trace, nor in the state."""
    for each in TRIALS:
        assert worked(tmp_path, [each], 1, data_dir) == 0
    assert record_bytes(tmp_path, TRIALS) == record_bytes(real, TRIALS)
    assert state_bytes(tmp_path, TRIALS) == state_bytes(real, TRIALS)


@pytest.mark.slow
def test_the_same_pack_again_changes_nothing(tmp_path: Path, data_dir: Path) -> None:
    """Records and states keep their bytes; a shorter horizon takes nothing back."""
    assert worked(tmp_path, TRIALS, 2, data_dir) == 0
    before = record_bytes(tmp_path, TRIALS), state_bytes(tmp_path, TRIALS)
    for horizon in (2, 1):
        assert worked(tmp_path, TRIALS, horizon, data_dir) == 0
        assert (record_bytes(tmp_path, TRIALS), state_bytes(tmp_path, TRIALS)) == before


@pytest.mark.slow
def test_a_longer_horizon_extends_record_and_state(real: Path, tmp_path: Path, data_dir: Path) -> None:
    """One loop and then one more is two in one go, byte for byte, and begins with the record of one."""
    for horizon in (1, 2):
        assert worked(tmp_path / "more", TRIALS, horizon, data_dir) == 0
    assert worked(tmp_path / "whole", TRIALS, 2, data_dir) == 0
    assert record_bytes(tmp_path / "more", TRIALS) == record_bytes(tmp_path / "whole", TRIALS)
    assert state_bytes(tmp_path / "more", TRIALS) == state_bytes(tmp_path / "whole", TRIALS)
    for each in TRIALS:
        one, two = read(real, each)["history"], read(tmp_path / "more", each)["history"]
        assert {column: values[:1] for column, values in two.items()} == one


@pytest.mark.slow
def test_ordinary_training_runs_the_same_way(tmp_path: Path, data_dir: Path) -> None:
    """A pack of policy keep, with patience: resumed through its files it is the run in one go."""
    trials = [kept_trial("1*4", seed, batch_size=256, patience=1, lr=0.01) for seed in (1, 2)]
    for horizon in (1, 3):
        assert worked(tmp_path / "more", trials, horizon, data_dir) == 0
    assert worked(tmp_path / "whole", trials, 3, data_dir) == 0
    assert record_bytes(tmp_path / "more", trials) == record_bytes(tmp_path / "whole", trials)


# Stops


def stored_loops(root: Path) -> int:
    """How many loops are stored, of every trial the same; none of them has a record."""
    (loops,) = {decode_state(content, "").loops for content in state_bytes(root, TRIALS)}
    assert not any(store_of(root).record_path(each).exists() for each in TRIALS)
    return loops


def assert_goes_on(root: Path, data_dir: Path) -> None:
    """Run again it completes, and record and state are byte for byte those of an undisturbed run."""
    loops = stored_loops(root)
    for place in (root, root / "undisturbed"):
        assert worked(place, TRIALS, loops + 1, data_dir) == 0
    assert record_bytes(root, TRIALS) == record_bytes(root / "undisturbed", TRIALS)
    assert state_bytes(root, TRIALS) == state_bytes(root / "undisturbed", TRIALS)


@pytest.mark.slow
def test_a_process_that_is_terminated_goes_on_later(tmp_path: Path, data_dir: Path) -> None:
    """SIGTERM in the middle of a loop: it leaves with 75 and one line; nothing is lost, no bit changes."""
    pack_file(tmp_path, TRIALS, 1_000_000)  # more loops than it will get to
    path = store_of(tmp_path).state_file(TRIALS[0]).path
    with started(tmp_path, data_dir) as process:
        until(path.exists, process)  # the first loop is saved
        process.terminate()
        out, said = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (EXIT_INTERRUPTED, "")
    assert EXIT_INTERRUPTED == 75
    assert said.splitlines() == ["stopped as asked; every finished loop is saved"]
    assert_goes_on(tmp_path, data_dir)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_between_two_steps(tmp_path: Path, data_dir: Path, number: signal.Signals) -> None:
    """Also the very moment a loop ends; afterwards the signals mean again what they meant before."""
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    stop = StopRequest()
    pack = Pack(trials=tuple(TRIALS), horizon=1_000_000)
    with pytest.raises(Interrupted):
        run_pack(
            pack,
            store_of(tmp_path),
            Machine(data_dir, "cpu"),
            RunHooks(on_loop=lambda _reports: os.kill(os.getpid(), number), stop=stop),
        )
    assert stop.signal == number
    assert stored_loops(tmp_path) == 1
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_goes_on(tmp_path, data_dir)


# Trials that others have in hand


@pytest.mark.slow
def test_a_worker_leaves_to_others_what_they_have_in_hand(tmp_path: Path, data_dir: Path) -> None:
    """One of two trials is held by another process: the other one is trained, the first not touched, and the
    worker says so with 75. Run again when it is free, it is trained as if nothing had been.
    """
    pack_file(tmp_path, TRIALS, 1)
    store = store_of(tmp_path)
    with locks.lock_trials(store, TRIALS[:1]):
        with started(tmp_path, data_dir) as process:
            out, said = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, out) == (EXIT_INTERRUPTED, "")
        assert said == (
            "1 of 2 trials are locked by another process; nothing is lost, run this again once it has ended\n"
        )
        assert store.pending(TRIALS, 1) == TRIALS[:1]
        assert not store.state_file(TRIALS[0]).path.exists()
        # what is done is nobody's to wait for
        assert worked(tmp_path, TRIALS[1:], 1, data_dir) == 0
    assert worked(tmp_path, TRIALS, 1, data_dir) == 0
    assert store.pending(TRIALS, 1) == []


@pytest.mark.slow
def test_a_trial_is_held_while_a_worker_trains_it(tmp_path: Path, data_dir: Path) -> None:
    """Nobody else can take it then, and everybody once the worker has ended, however it ended."""
    pack_file(tmp_path, TRIALS, 1_000_000)
    store = store_of(tmp_path)
    with started(tmp_path, data_dir) as process:
        until(store.state_file(TRIALS[0]).path.exists, process)
        assert locks.unlocked_trials(store, TRIALS) == []
        assert worked(tmp_path, TRIALS, 1_000_000, data_dir) == EXIT_INTERRUPTED
        process.kill()
        process.communicate()
    assert locks.unlocked_trials(store, TRIALS) == TRIALS


# Refusals


def refused(capsys: pytest.CaptureFixture[str], root: Path, data_dir: Path) -> str:
    """The one line with which a worker refuses its pack, exit code 2."""
    assert main(command(root, data_dir)[3:]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    return said.err


GOOD = json.loads(Pack(trials=tuple(TRIALS), horizon=1).model_dump_json())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "must be JSON"),
        (b"{", "must be JSON"),
        (b"\xff\xfe\x00", "must be JSON"),
        (b"[" * 100_000, "must be JSON"),
        (b"null", "pack.json must be a table, got "),
        (b"[]", "pack.json must be a table, got "),
        (b"{}", "trials"),
        (json.dumps(GOOD | {"horizon": 0}).encode(), "horizon must be greater than or equal to 1, got 0"),
        (json.dumps(GOOD | {"trials": []}).encode(), "trials"),
        (json.dumps(GOOD | {"horizn": 3}).encode(), "unknown key 'horizn'"),
        (json.dumps(GOOD | {"trials": GOOD["trials"][:1] * 2}).encode(), "each trial once"),
        (json.dumps(GOOD | {"trials": [{"seed": 1}, {"model": {"arch": "[2*2]"}}]}).encode(), "share"),
        (
            json.dumps(GOOD | {"trials": [{"method": {"policy": "ratchet", "lr": float("nan")}}]}).encode(),
            "lr",
        ),
        (
            json.dumps(GOOD | {"trials": [{"model": {"arch": "[1*65536, 9999*65536]"}}]}).encode(),
            "parameters",
        ),
    ],
)
def test_a_pack_that_is_none_is_one_line(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], content: bytes, says: str
) -> None:
    """Whatever is in the file: exit code 2, the reason in one line, and nothing is written."""
    (tmp_path / "pack.json").write_bytes(content)
    assert says in refused(capsys, tmp_path, data_dir)
    assert [path.name for path in tmp_path.iterdir()] == ["pack.json"]


def test_a_pack_that_is_not_there_is_one_line(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file, or a folder of that name."""
    assert "no such file" in refused(capsys, tmp_path, data_dir).lower()
    (tmp_path / "pack.json").mkdir()
    assert "is a directory" in refused(capsys, tmp_path, data_dir).lower()


def test_a_process_says_so_as_well(processes: dict[str, tuple[Path, int, str, str]]) -> None:
    """The same from outside: exit code 2, nothing on standard output, one line on standard error."""
    root, code, out, said = processes["bad"]
    assert (code, out, said.count("\n")) == (2, "", 1)
    assert said.startswith("error: ")
    assert [path.name for path in root.iterdir()] == ["pack.json"]


@pytest.mark.parametrize(
    "other",
    [
        trial("1*5", "none", 1, batch_size=256),
        trial("1*4", "none", 7, batch_size=256),
        trial("1*4", "output", 1, batch_size=256),
        trial("1*4", "none", 1, batch_size=256, lr=0.5),
        Trial.model_validate(TRIALS[0].model_dump() | {"study": "another"}),
    ],
    ids=["arch", "seed", "mode", "rate", "study"],
)
def test_the_state_of_another_trial_is_refused(
    real: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], other: Trial
) -> None:
    """A file moved to where another trial's belongs is neither continued nor overwritten."""
    (content,) = state_bytes(real, TRIALS[:1])
    path = store_of(tmp_path).state_file(other).path
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    pack_file(tmp_path, [other], 2)
    refused(capsys, tmp_path, data_dir)
    assert path.read_bytes() == content
    assert not (tmp_path / "results").exists()


def test_a_damaged_state_is_never_a_fresh_start(
    real: Path, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With no sound generation left the worker stops and names the file."""
    (content,) = state_bytes(real, TRIALS[:1])
    path = store_of(tmp_path).state_file(TRIALS[0]).path
    path.parent.mkdir(parents=True)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    pack_file(tmp_path, TRIALS[:1], 2)
    assert str(path) in refused(capsys, tmp_path, data_dir)
    assert not (tmp_path / "results").exists()


def test_the_readers_of_a_machine_read_the_data(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--num-workers` is how many threads read and check the data files: it reaches the loader."""
    asked = []
    real = run.load_splits

    def load(*arguments: Any, **options: Any) -> Any:
        asked.append(options["workers"])
        return real(*arguments, **options)

    monkeypatch.setattr(run, "load_splits", load)
    monkeypatch.setattr(run, "_kept", {})
    run.splits_of(DataSpec(), Machine(data_dir, loader_threads=3), torch.device("cpu"))
    assert asked == [3]


def test_a_setting_that_is_wrong_for_all_trials_is_found_out_once(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here a memory that cannot hold its samples: the pack fails, and its halves are not tried one by one."""
    base = {"arch": "1*4", "train_size": 2000, "val_size": 1000, "memory_size": 100, "forgetting": "none"}
    base |= {"method": "hybrid", "affected_dims": 4, "k": 4}
    trials = load_grid(
        {"study": "memory", "name": "room", "base": base, "seeds": "0..7", "meta_loops": 2}
    ).trials
    tried: list[int] = []

    def counted(pack: Pack, *given: Any) -> Any:
        tried.append(len(pack.trials))
        return run.run_unlocked(pack, *given)

    monkeypatch.setattr(halving, "run_unlocked", counted)
    with pytest.raises(UserError, match="memory"):
        server._train(
            Pack(trials=trials, horizon=2),
            store_of(tmp_path),
            Machine(data_dir, "cpu"),
            StopRequest(),
            lambda kind, **facts: None,
        )
    assert tried == [8]
