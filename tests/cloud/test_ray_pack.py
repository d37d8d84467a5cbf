"""A pack as a trial of Ray Tune, without a cluster: its failures, and those of its node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import trial

pytest.importorskip("ray", reason="the extra ray is not installed")

from cloud.object_store import ObjectStore
from cloud.ray import pack_worker
from cloud.ray.node_errors import NODE_RETRIES, NodeRetries, is_node_error
from cloud.ray.pack_worker import PackTrial
from psa.core.errors import UserError
from psa.core.files import file_error
from psa.core.stop import StopRequest
from psa.execution.machine import Machine
from psa.execution.worker import halving, run, server
from psa.specs.trial import Pack
from psa.storage.store import Store

TRIALS = tuple(trial("1*4", seed=seed, batch_size=500) for seed in range(4))
PACK = Pack(trials=TRIALS, horizon=1)


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Pack], None]], list[int]]:
    """Let training begin and then raise what a function raises for a pack; the sizes of the packs tried."""
    monkeypatch.setattr(pack_worker.tune, "report", lambda *_, **__: None)
    tried: list[int] = []

    def set_fault(fault: Callable[[Pack], None]) -> list[int]:
        def faulty(pack: Pack, store: Store, machine: Machine, hooks: run.RunHooks) -> Any:
            tried.append(len(pack.trials))
            hooks.on_start([])
            fault(pack)
            return [{}] * len(pack.trials), 0

        monkeypatch.setattr(halving, "run_unlocked", faulty)
        return tried

    return set_fault


def pack_trial(folder: Path, **config: Any) -> PackTrial:
    """The pack as one trial of Tune, with a storage of its own."""
    config = {"storage": str(folder / "storage"), "experiment": "x", **config}
    return PackTrial(PACK, folder / "work", NodeRetries(config), often=False)


def of_one(pack: Pack) -> None:
    """Fail for the third trial, as a plugin may."""
    if TRIALS[2] in pack.trials:
        raise ZeroDivisionError("of a plugin")


def test_a_trial_that_fails_fails_alone(tmp_path: Path, fail: Any) -> None:
    """On Ray as in a worker process."""
    tried = fail(of_one)
    facts = pack_trial(tmp_path, pack="p0000").train(Machine(tmp_path, "cpu"))
    assert (facts["trained"], facts["failed"]) == (3, {TRIALS[2].id: "ZeroDivisionError: of a plugin"})
    assert tried == [4, 2, 2, 1, 1]
    said: dict[str, Any] = {}
    server._train(
        PACK, Store(tmp_path / "models", tmp_path / "results"), Machine(tmp_path, "cpu"), StopRequest(),
        lambda kind, **facts: said.update({kind: facts}),
    )  # fmt: skip
    assert (said["done"]["trained"], said["done"]["failed"]) == (3, facts["failed"])


def test_a_configuration_of_a_search_fails_as_a_whole(tmp_path: Path, fail: Any) -> None:
    """Its seeds are compared together with those of others."""
    tried = fail(of_one)
    with pytest.raises(ZeroDivisionError):
        pack_trial(tmp_path).train(Machine(tmp_path, "cpu"))
    assert tried == [4]


def test_a_file_error_is_retried_elsewhere_a_few_times(tmp_path: Path, fail: Any) -> None:
    """Then the pack is trained by halves: the error may be that of one trial."""

    def fault(pack: Pack) -> None:
        if TRIALS[0] in pack.trials:
            raise OSError(28, "No space left on device")

    tried = fail(fault)
    for _ in range(NODE_RETRIES):
        with pytest.raises(OSError, match="No space left"):
            pack_trial(tmp_path, pack="p0000").train(Machine(tmp_path, "cpu"))
    assert tried == [4] * NODE_RETRIES
    facts = pack_trial(tmp_path, pack="p0000").train(Machine(tmp_path, "cpu"))
    assert (facts["trained"], list(facts["failed"])) == (3, [TRIALS[0].id])
    assert ObjectStore.at(str(tmp_path / "storage")).read("x/retries/p0000") == b"..."


def test_a_pack_without_memory_is_tried_by_halves_before_another_node(tmp_path: Path, fail: Any) -> None:
    """A pack of a single trial cannot be halved; it is retried on another node."""

    def fault(pack: Pack) -> None:
        if len(pack.trials) > limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    limit = 2
    tried = fail(fault)
    facts = pack_trial(tmp_path, pack="p0000").train(Machine(tmp_path, "cpu"))
    assert (facts["trained"], facts["failed"], tried) == (4, {}, [4, 2, 2])
    limit = 0
    with pytest.raises(RuntimeError, match="out of memory"):
        pack_trial(tmp_path, pack="p0000").train(Machine(tmp_path, "cpu"))


def caused(error: OSError) -> UserError:
    """The one line of a file error, as it is raised."""
    try:
        raise file_error(error, "cannot write x") from error
    except UserError as found:
        return found


@pytest.mark.parametrize(
    ("error", "is_of_node"),
    [
        (MemoryError(), True),
        (caused(OSError(28, "No space left on device")), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("shapes do not match"), False),
        (UserError("arch must be a string, got 3"), False),
    ],
)
def test_errors_of_nodes_are_told_from_those_of_packs(error: Exception, is_of_node: bool) -> None:
    """Memory, files and devices, also where psa names them on one line."""
    assert is_node_error(error) == is_of_node


def test_a_node_error_is_raised_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a node without space does not take one pack after another."""
    pauses: list[float] = []
    monkeypatch.setattr(pack_worker.time, "sleep", pauses.append)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pack_worker.tempfile, "TemporaryDirectory", refuse)
    with pytest.raises(OSError, match="No space left"):
        pack_worker.run_pack_trial({"storage": str(tmp_path), "experiment": "x", "pack": "p0000"}, {})
    assert pauses == [pack_worker.NODE_PAUSE_SECONDS]
