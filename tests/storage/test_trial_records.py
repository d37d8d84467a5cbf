"""A record with a sound digest that is nevertheless no record of ours: one clear line wherever it is read."""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from made_up import some_record, some_state

from psa.cli.app import PSA, run
from psa.core.errors import CorruptFileError, UserError
from psa.core.files import write_atomically
from psa.storage.records.record import encode_record
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.store import Store

TRIAL = some_state().trial
# Where something may be wrong, and what a fault there is called by.
FAULTS: dict[str, tuple[tuple[str, ...], Any]] = {
    "a part is missing": (("samples", "train"), None),
    "a count is a text": (("samples", "test"), "10000"),
    "no validation samples": (("samples", "validation"), 0),
    "a column of the history is missing": (("history", "loss"), None),
    "a column of the history is short": (("history", "loss"), [0.5]),
    "the history is a list": (("history",), []),
    "an unknown key": (("surprise",), 1),
    "a spec without a model": (("spec", "model"), None),
    "a spec of another kind": (("spec", "kind"), "astrology"),
    "places as a list": (("probes",), {"layer_usage": {"places": ["a"], "loops": [], "last": {}}}),
    "a file without a digest": (("files",), {"gradients-1": {"bytes": 3}}),
}


def changed(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A sound record with one value changed, or left out where it is None."""
    record = copy.deepcopy(some_record())
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    if value is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return record


def stored(folder: Path, record: dict[str, Any]) -> Store:
    """A folder with that record, whose digest is right."""
    store = Store(folder / "models", folder / "results")
    path = store.record_path(TRIAL)
    path.parent.mkdir(parents=True)
    write_atomically(path, encode_record(record))
    return store


def test_a_sound_record_is_read() -> None:
    """As it was written."""
    assert decode_trial_record(encode_record(some_record()), "here") == some_record()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(fault: str) -> None:
    """Which file, which part of it, and what to do."""
    path, value = FAULTS[fault]
    with pytest.raises(CorruptFileError, match=r"^here must be a valid record of a trial \(") as refused:
        decode_trial_record(encode_record(changed(path, value)), "here")
    assert path[0] in str(refused.value)
    assert str(refused.value).endswith("Remove it, and the next sweep trains its trial again")


@pytest.mark.parametrize("fault", FAULTS)
def test_every_command_says_so_in_one_line(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`psa verify` and `psa report` name the file; nothing is a traceback."""
    monkeypatch.chdir(tmp_path)
    path = stored(tmp_path, changed(*FAULTS[fault])).record_path(TRIAL).relative_to(tmp_path)
    assert run(PSA, ["verify"]) == 2
    assert f"{path} must be a valid record of a trial" in capsys.readouterr().out
    assert run(PSA, ["report", "ablation"]) == 2
    said = capsys.readouterr().err
    assert f"{path} must be a valid record of a trial" in said
    assert "unexpected" not in said


anything = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-3, 10**6)
    | some.floats(allow_nan=False, allow_subnormal=False)
    | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PLACES = [
    (key,) if inner is None else (key, inner)
    for key, value in some_record().items()
    for inner in [None, *(value if isinstance(value, dict) else ())]
]


@given(some.sampled_from(PLACES), anything)
def test_whatever_stands_anywhere_is_read_or_refused(place: tuple[str, ...], value: Any) -> None:
    """No value at any place of a record ends in anything but a record or a clear refusal."""
    with contextlib.suppress(UserError):
        record = decode_trial_record(encode_record(changed(place, value)), "here")
        assert record["history"].keys() == some_record()["history"].keys()
