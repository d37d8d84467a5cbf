"""psa verify --replay: stored loops are trained again and give the same bits, or it is said which differ."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from psa.cli.app import PSA, run
from psa.execution.machine import Machine, describe
from psa.execution.replay import replay, steps_of, two_kinds
from psa.execution.worker.run import run_pack
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation, RatchetTraining
from psa.specs.trial import Pack, Trial
from psa.storage.records.record import encode_record
from psa.storage.store import Store
from psa.storage.trial_state import decode_state, encode_state


@pytest.fixture
def store(tmp_path: Path, data_dir: Path) -> Store:
    """Two trials of two digits, three loops in two runs: both have a previous generation."""
    trials = tuple(
        Trial(
            data=DataSpec(digits=(0, 1)),
            model=PublishedModelSpec(family="simplemlp", arch="1*4"),
            method=RatchetTraining(lr=1e-3),
            intervention=Ablation(mode="hidden"),
            seed=seed,
        )
        for seed in (0, 1)
    )
    made = Store(tmp_path / "models", tmp_path / "results")
    for horizon in (2, 3):
        run_pack(Pack(trials=trials, horizon=horizon), made, Machine(data_dir))
    return made


def test_every_stored_step_gives_the_same_bits(store: Store, data_dir: Path) -> None:
    """The first loop and the loop after each previous generation come out as stored."""
    steps = steps_of(store)
    assert {step.loop for step in steps} >= {1}
    assert any(step.from_previous for step in steps)
    found = list(replay(store, Machine(data_dir), 100))
    assert len(found) == len(steps)
    assert [each.difference for each in found] == [None] * len(steps)


def test_a_state_that_this_code_did_not_make_is_found_out(store: Store, data_dir: Path) -> None:
    """A sound file with other books or other weights passes every digest, and fails the replay."""
    first, second = [path for path in store.state_paths() if path.name == "lkg.safetensors"]
    books = decode_state(first.read_bytes(), "")
    books.history["correct"][0] += 1
    first.write_bytes(encode_state(books))
    weights = decode_state(second.read_bytes(), "")
    weights.lkg["output.bias"] = np.nextafter(weights.lkg["output.bias"], np.float32(9))
    second.write_bytes(encode_state(weights))
    assert all(finding.problem is None for finding in store.verify())
    found = {(each.place, each.loop): each.difference for each in replay(store, Machine(data_dir), 100)}
    assert "correct" in (found[str(first), 1] or "")
    if weights.lkg_loop == 3:
        assert "weights" in (found[str(second), 3] or "")


HERE = {"processor": "This CPU", "torch": "2.15.0", "platform": "Linux-y", "host": "here"}
PROMISE = "; bits are promised only for equal processors and equal versions of torch"


@pytest.mark.parametrize(
    ("then", "line"),
    [
        ({"host": "there"}, ""),
        (
            {"processor": "Other CPU"},
            f"made on Other CPU with torch 2.15.0, replayed on This CPU with torch 2.15.0{PROMISE}",
        ),
        (
            {"torch": "2.14.0"},
            f"made on This CPU with torch 2.14.0, replayed on This CPU with torch 2.15.0{PROMISE}",
        ),
        (
            {"processor": None, "platform": "Linux-x"},
            "made on a processor that is not recorded (Linux-x) with torch 2.15.0, replayed on This CPU with "
            f"torch 2.15.0{PROMISE}",
        ),
    ],
)
def test_two_kinds_of_machine_are_named(then: dict[str, str], line: str) -> None:
    """The processor and the version of torch of each; nothing where bits are promised."""
    assert two_kinds(HERE | then, HERE) == line


def test_a_difference_names_the_other_machine(
    store: Store, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both machines are named, and a machine that is not recorded is called that."""
    here = describe(torch.device("cpu"), 1)
    assert here["processor"]
    for number, path in enumerate(path for path in store.state_paths() if path.stem == "lkg"):
        state = decode_state(path.read_bytes(), "")
        state.history["correct"][0] += 100
        path.write_bytes(encode_state(state))
        sidecar = store.record_path(state.trial).with_suffix(".machine.json")
        sidecar.unlink()
        if number == 0:
            sidecar.write_bytes(encode_record(here | {"processor": "Other CPU"}))
    folders = ["--model-dir", store.models, "--results-dir", store.results, "--data-dir", data_dir]
    assert run(PSA, ["verify", "--replay", "9", *map(str, folders)]) == 2
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert len(lines) == 2
    assert sum("made on Other CPU with torch" in line for line in lines) == 1
    assert sum("the machine it was made on is not recorded" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("column", "change", "rounding"),
    [
        ("correct", 3, True),
        ("correct", 100, False),
        ("loss", 1e-7, True),
        ("train_loss", 0.1, False),
        ("unit", 1, False),
        ("loss", None, False),
    ],
)
def test_other_machines_may_differ_by_rounding(
    column: str,
    change: float | None,
    rounding: bool,
    store: Store,
    data_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A stranger with another processor is not told that the records are wrong, unless they are."""
    here = describe(torch.device("cpu"), 1)
    path = next(path for path in store.state_paths() if path.stem == "lkg")
    state = decode_state(path.read_bytes(), "")
    state.history[column] = [
        None if value is None or change is None else value + change for value in state.history[column]
    ]
    path.write_bytes(encode_state(state))
    sidecar = store.record_path(state.trial).with_suffix(".machine.json")
    sidecar.write_bytes(encode_record(here | {"processor": "Other CPU"}))
    folders = ["--model-dir", store.models, "--results-dir", store.results, "--data-dir", data_dir]
    code = run(PSA, ["verify", "--json", "--replay", "9", *map(str, folders)])
    found = json.loads(capsys.readouterr().out)
    assert (code, bool(found["differences"]), bool(found["rounding"])) == (
        (0, False, True) if rounding else (2, True, False)
    )
    run(PSA, ["verify", "--replay", "9", *map(str, folders)])
    shown = f"equal within rounding: {found['rounding']}, made on Other CPU with torch"
    assert (shown in capsys.readouterr().out) == rounding
