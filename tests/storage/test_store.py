"""States keep two generations and lose neither to damage; records are written last and never changed."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import some_record, some_state

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import write_atomically
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.trial import Trial
from psa.storage import store as module
from psa.storage.checkpoint import CheckpointFile
from psa.storage.store import Store, decode_record, encode_record
from psa.storage.trial_state import encode_state


def flip(path: Path, at: int = -1) -> bytes:
    """Flip a bit of a stored file; the damaged content."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return bytes(content)


def two_generations(folder: Path) -> CheckpointFile:
    """A state file with the loops 2 and, before it, 1."""
    file = CheckpointFile(folder / "x.safetensors")
    file.save(some_state(1))
    file.save(some_state(2))
    return CheckpointFile(file.path)


def names(folder: Path) -> set[str]:
    """The files in a folder."""
    return {path.name for path in folder.iterdir()}


def test_no_file_is_no_state(tmp_path: Path) -> None:
    """Where nothing was stored there is nothing to go on from, and no error."""
    assert CheckpointFile(tmp_path / "x.safetensors").load() is None


def test_the_present_generation_is_read_and_the_one_before_it_kept(tmp_path: Path) -> None:
    """Each save leaves the new state and the one before it, no more."""
    file = two_generations(tmp_path)
    assert file.load() is not None
    file.save(some_state(3))
    assert names(tmp_path) == {"x.safetensors", "x.previous.safetensors"}
    assert file.path.read_bytes() == encode_state(some_state(3))
    assert (tmp_path / "x.previous.safetensors").read_bytes() == encode_state(some_state(2))


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut short": lambda content: content[: len(content) // 2],
    "empty": lambda content: b"",
    "a bit flipped": lambda content: content[:-1] + bytes([content[-1] ^ 4]),
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_present_falls_back_one_generation_loudly(
    damage: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning names the file and the loop gone back to; nothing is removed by reading."""
    file = two_generations(tmp_path)
    file.path.write_bytes(damage(file.path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        state = file.load()
        assert state is not None
        again = file.load()
    assert again is not None
    assert state.loops == again.loops == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"{file.path} is damaged" in caplog.text
    assert "going on from the generation before it, loop 1" in caplog.text
    assert names(tmp_path) == {"x.safetensors", "x.previous.safetensors"}


def test_a_missing_present_falls_back_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A stop between setting a damaged file aside and writing the new one costs nothing."""
    file = two_generations(tmp_path)
    file.path.unlink()
    state = file.load()
    assert state is not None
    assert state.loops == 1
    assert "is missing; going on from the generation before it" in caplog.text


def test_the_damaged_present_never_pushes_out_the_sound_previous(tmp_path: Path) -> None:
    """After the fall back the damaged file is set aside, unchanged, and the sound one stays previous."""
    file = two_generations(tmp_path)
    before = file.previous.read_bytes()
    damaged = flip(file.path)
    file.load()
    file.save(some_state(2))
    assert (tmp_path / "x.damaged.safetensors").read_bytes() == damaged
    assert file.previous.read_bytes() == before
    assert file.path.read_bytes() == encode_state(some_state(2))
    file.save(some_state(3))
    assert file.previous.read_bytes() == encode_state(some_state(2))


def test_a_second_damaged_file_does_not_replace_the_first(tmp_path: Path) -> None:
    """Whatever was set aside stays until somebody removes it."""
    file = two_generations(tmp_path)
    first = flip(file.path, 100)
    file.load()
    file.save(some_state(2))
    file = CheckpointFile(file.path)
    second = flip(file.path, 200)
    file.load()
    file.save(some_state(3))
    assert (tmp_path / "x.damaged.safetensors").read_bytes() == first
    assert (tmp_path / "x.damaged-2.safetensors").read_bytes() == second


def test_a_file_never_read_is_set_aside_too(tmp_path: Path) -> None:
    """Whoever saves without having read cannot know whether the present file is sound."""
    file = two_generations(tmp_path)
    file.save(some_state(3))
    assert (tmp_path / "x.damaged.safetensors").read_bytes() == encode_state(some_state(2))
    assert file.previous.read_bytes() == encode_state(some_state(1))


@pytest.mark.parametrize("both", [True, False])
def test_without_a_sound_generation_it_stops_and_says_how_to_start_anew(both: bool, tmp_path: Path) -> None:
    """No fresh start unasked; the command it names removes exactly this checkpoint."""
    file = two_generations(tmp_path)
    flip(file.path)
    if both:
        flip(file.previous)
    else:
        file.previous.unlink()
    left = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CorruptFileError) as stop:
        file.load()
    assert str(file.path) in str(stop.value)
    assert (str(file.previous) in str(stop.value)) == both
    assert f"`{shlex.join(['clean', '--model-dir', str(tmp_path), 'x.safetensors'])}`" in str(stop.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("content", [b"\x80\x04\x95junk", b"PK\x03\x04junk"])
def test_a_foreign_present_stops_even_with_a_sound_previous(content: bytes, tmp_path: Path) -> None:
    """A file that somebody else put there is nobody's damage: it is not gone around, and not touched."""
    file = two_generations(tmp_path)
    file.path.write_bytes(content)
    with pytest.raises(UserError, match="is a pickle"):
        file.load()
    assert file.path.read_bytes() == content


def test_a_folder_that_cannot_be_renamed_in_is_an_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the damaged file cannot be set aside, nothing is written over it."""
    file = two_generations(tmp_path)
    damaged = flip(file.path)
    file.load()

    def replace(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(UserError, match=r"cannot set aside .*: permission denied\. Choose a folder"):
        file.save(some_state(2))
    assert file.path.read_bytes() == damaged


def test_each_trial_has_its_own_place_and_the_train_command_one_name(tmp_path: Path) -> None:
    """Paths are functions of the trial; with `single` one seed has the plain name."""
    store = Store(tmp_path / "m", tmp_path / "r")
    one, two = Trial(seed=3), Trial(seed=4)
    assert store.state_file(one).path == tmp_path / "m" / one.id / "lkg.safetensors"
    assert store.record_path(one) == tmp_path / "r" / f"{one.id}.json"
    assert store.state_file(one) is store.state_file(one)
    single = Store(tmp_path / "m", tmp_path / "r", single="mnist_lkg", plain_seed=3)
    assert single.state_file(one).path.name == "mnist_lkg.safetensors"
    assert single.state_file(two).path.name == "mnist_lkg.s04.safetensors"


TRIAL = some_state().trial


def written(folder: Path, loops: int = 3, **changes: Any) -> Store:
    """A store with one record."""
    store = Store(folder / "m", folder / "r")
    store.write(TRIAL, some_record(loops) | changes, {"host": "here"})
    return store


def test_a_record_comes_back_with_its_machine_beside_it(tmp_path: Path) -> None:
    """What is read is what was written; the sidecar is there before the record is."""
    store = written(tmp_path)
    assert store.read(TRIAL) == some_record()
    path = store.record_path(TRIAL)
    sidecar = path.with_suffix(".machine.json")
    assert decode_record(sidecar.read_bytes(), "x") == {"host": "here"}
    assert sidecar.stat().st_mtime_ns <= path.stat().st_mtime_ns
    assert list(store.record_paths()) == [path]
    assert store.read(Trial()) is None


def test_a_record_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop before the last write leaves no record, so the trial is still pending."""
    calls: list[Path] = []

    def write(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise UserError("stopped here")
        write_atomically(path, content)

    monkeypatch.setattr(module, "write_atomically", write)
    store = Store(tmp_path / "m", tmp_path / "r")
    with pytest.raises(UserError, match="stopped here"):
        store.write(TRIAL, some_record(), {"host": "here"})
    assert calls[-1] == store.record_path(TRIAL)
    assert store.pending([TRIAL], 3) == [TRIAL]


@pytest.mark.parametrize("loops", [3, 2])
def test_a_stored_result_removes_the_note_of_a_failure(loops: int, tmp_path: Path) -> None:
    """Also one that is stored already, or of fewer loops: the trial is done."""
    store = Store(tmp_path / "m", tmp_path / "r")
    store.write(TRIAL, some_record(), {})
    store.write_failure(TRIAL, "no space")
    store.write(TRIAL, some_record(loops), {})
    assert store.failure(TRIAL) is None


def test_a_record_is_canonical(tmp_path: Path) -> None:
    """Equal records are equal bytes whatever their order; what JSON cannot hold is missing, as null."""
    record = some_record()
    backwards = dict(reversed(record.items()))
    assert encode_record(record) == encode_record(backwards)
    odd = {"b": float("nan"), "a": [float("inf"), (1, -float("inf"))], "c": {"d": float("nan")}, "e": True}
    content = encode_record(odd)
    assert decode_record(content, "x") == {"b": None, "a": [None, [1, None]], "c": {"d": None}, "e": True}
    assert json.loads(content, parse_constant=pytest.fail)
    assert content.endswith(b"}\n")


def test_the_same_record_again_changes_nothing(tmp_path: Path) -> None:
    """Neither the record nor what lies beside it is written a second time."""
    store = written(tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in (tmp_path / "r").rglob("*.json")}
    store.write(TRIAL, some_record(), {"host": "elsewhere"})
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before


def test_a_longer_run_extends_a_record_and_a_shorter_one_leaves_it(tmp_path: Path) -> None:
    """Rows may be added, never changed; what is stored longer already stays."""
    store = written(tmp_path, 3)
    store.write(TRIAL, some_record(5), {"host": "here"})
    assert store.read(TRIAL) == some_record(5)
    store.write(TRIAL, some_record(4), {"host": "here"})
    assert store.read(TRIAL) == some_record(5)


def test_a_run_may_go_on_on_another_kind_of_device(tmp_path: Path) -> None:
    """Rows so far are the same: the longer record names the device of its last loops."""
    store = written(tmp_path, 3)
    store.write(TRIAL, some_record(5) | {"device": "cuda"}, {"host": "here"})
    assert store.read(TRIAL) == some_record(5) | {"device": "cuda"}


def altered(loops: int, column: str, at: int, value: Any) -> dict[str, Any]:
    """A record with one value of its history changed."""
    record = some_record(loops)
    record["history"][column][at] = value
    return record


@pytest.mark.parametrize(
    ("record", "difference"),
    [
        (altered(3, "correct", 1, 7), "history"),
        (altered(5, "correct", 1, 7), "history, column correct"),
        (altered(2, "correct", 1, 7), "history, column correct"),
        (some_record(3) | {"device": "cuda"}, "device"),
        (some_record(3) | {"finals": some_record(3)["finals"] | {"stopped_early": True}}, "finals"),
        (some_record(5) | {"built": some_record()["built"] | {"parameters": 3}}, "built"),
        (some_record(5) | {"samples": some_record()["samples"] | {"train": 7}}, "samples"),
    ],
)
def test_a_record_that_differs_is_refused_loudly(record: Any, difference: str, tmp_path: Path) -> None:
    """Two runs of one trial that disagree are reported with the first difference; the stored one stays."""
    store = written(tmp_path, 3)
    before = store.record_path(TRIAL).read_bytes()
    with pytest.raises(UserError) as refused:
        store.write(TRIAL, record, {"host": "elsewhere"})
    assert str(refused.value).startswith(f"{store.record_path(TRIAL)} holds a record of this trial")
    assert f"({difference})" in refused.value.message
    assert store.record_path(TRIAL).read_bytes() == before


def test_every_flipped_bit_of_a_record_is_detected() -> None:
    """All eight bits of every byte."""
    content = encode_record(some_record(2))
    for at in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[at] ^= 1 << bit
            with pytest.raises(UserError, match=r"r/x\.json"):
                decode_record(bytes(flipped), "r/x.json")


def test_a_record_of_any_other_length_is_detected() -> None:
    """Cut anywhere, or with something after it; other JSON, other encodings, endless nesting."""
    content = encode_record(some_record(2))
    for wrong in (
        *(content[:length] for length in range(len(content))),
        content + b" ",
        content + content,
        content.decode().encode("utf-16"),
        b"null", b"3", b"[]", b'"x"', b"{}",
        b'{"format":"1"}', b'{"format":1}', b'{"format":null,"sha256":1}',
        b'{"format":NaN,"sha256":""}', b"[" * 100_000,
    ):  # fmt: skip
        with pytest.raises(CorruptFileError, match=r"r/x\.json is damaged"):
            decode_record(wrong, "r/x.json")


def test_a_newer_record_is_left_alone() -> None:
    """What a later psa wrote is not judged damaged."""
    content = encode_record(some_record()).replace(b'"format":1', b'"format":2')
    with pytest.raises(UserError, match=r"was written by a newer psa\. Update psa") as refused:
        decode_record(content, "r/x.json")
    assert not isinstance(refused.value, CorruptFileError)


def test_a_record_in_the_place_of_another_is_detected(tmp_path: Path) -> None:
    """A file copied under another trial's name would shift a mean: it is refused."""
    store = written(tmp_path)
    other = Trial(model=PublishedModelSpec(arch=Arch.parse("[1*2]")))
    store.record_path(other).parent.mkdir(parents=True)
    store.record_path(other).write_bytes(store.record_path(TRIAL).read_bytes())
    with pytest.raises(CorruptFileError, match="holds the record of another trial"):
        store.pending([other], 3)


def test_pending_is_what_has_no_record_of_the_horizon(tmp_path: Path) -> None:
    """Done is: a record of at least so many loops, or of an early stop. The order stays."""
    store = written(tmp_path)
    others = [Trial(seed=seed) for seed in range(3)]
    assert store.pending([others[1], TRIAL, others[0]], 3) == [others[1], others[0]]
    assert store.pending([TRIAL], 2) == []
    assert store.pending([TRIAL], 4) == [TRIAL]
    finals = some_record()["finals"] | {"stopped_early": True}
    early = written(tmp_path / "early", finals=finals)
    assert early.pending([TRIAL], 100) == []
    flip(store.record_path(TRIAL))
    with pytest.raises(CorruptFileError, match="Remove it, and the next sweep trains its trial again"):
        store.pending([TRIAL], 3)


def test_verify_names_every_damaged_file(tmp_path: Path) -> None:
    """Both generations of a state, the record and its sidecar: each that is damaged is found, no other."""
    store = written(tmp_path)
    file = store.state_file(TRIAL)
    file.save(some_state(1))
    file.save(some_state(2))
    stored = [file.path, file.previous, store.record_path(TRIAL)]
    stored.append(store.record_path(TRIAL).with_suffix(".machine.json"))
    assert {finding.path for finding in store.verify()} == set(stored)
    assert all(finding.problem is None for finding in store.verify())
    for path in stored:
        sound = path.read_bytes()
        for damage in DAMAGES.values():
            path.write_bytes(damage(sound))
            problems = {finding.path: finding.problem for finding in store.verify() if finding.problem}
            assert set(problems) == {path}
            assert str(path) in problems[path]
        path.unlink()
        path.write_bytes(sound)


def test_what_was_set_aside_is_not_found_damaged_again(tmp_path: Path) -> None:
    """After the run has recovered, verify is content; the file set aside is listed apart."""
    store = Store(tmp_path, tmp_path / "r")
    file = store.state_file(TRIAL)
    file.save(some_state(1))
    file.save(some_state(2))
    file = Store(tmp_path, tmp_path / "r").state_file(TRIAL)
    flip(file.path)
    file.load()
    file.save(some_state(2))
    assert all(finding.problem is None for finding in store.verify())
    assert [path.name for path in store.set_aside_paths()] == ["lkg.damaged.safetensors"]
