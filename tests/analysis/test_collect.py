"""Records become one frame: what it holds, what is missing in it, and that it reads published tables too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import some_record

from psa.analysis.frame_columns import LOOP_COLUMNS, TRIAL_COLUMNS
from psa.analysis.frame_schema import trials_of
from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.published import published_trials
from psa.analysis.records_frame import load_frames, load_records_frame, stored_records, write_frame
from psa.core.errors import UserError
from psa.experiments.grid import load_grid
from psa.specs.trial import Trial
from psa.storage.records import record_store
from psa.storage.store import Store

GRID = """
[base]
family = "simplemlp"
[axes]
arch = ["1*1", "2*1"]
mode = ["none", "hidden", "output"]
"""


def trials(folder: Path, seeds: str = "0..2") -> tuple[Trial, ...]:
    """The trials of a small grid."""
    (folder / "grid.toml").write_text(f'seeds = "{seeds}"\n{GRID}')
    return load_grid(folder / "grid.toml").trials


def record(trial: Trial, correct: list[int]) -> dict[str, Any]:
    """A record with these validation counts of 10,000."""
    made = some_record(len(correct), trial)
    kept = [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)]
    made["history"] |= {"correct": correct, "kept": kept}
    made["samples"] = {"train": 50_000, "validation": 10_000, "test": 10_000, "zero_r_validation": 1102}
    made["finals"]["bounty"] = {"correct": max(correct), "loop": correct.index(max(correct)) + 1}
    made["finals"]["test"] = {"correct": max(correct) - 7, "loss": 0.5}
    return made


def stored(folder: Path, made: list[Trial]) -> Store:
    """A store with a record of each."""
    store = Store(folder / "models", folder / "results")
    for number, trial in enumerate(made):
        store.write(trial, record(trial, [2000, 1990, 2000 + number]), {})
    return store


def test_one_row_per_trial_and_loop(tmp_path: Path) -> None:
    """Counts become percentages of their split; the LKG is the copy that was kept last."""
    store = stored(tmp_path, list(trials(tmp_path)))
    frame = load_records_frame(store)
    assert list(frame.columns) == [*TRIAL_COLUMNS, *LOOP_COLUMNS]
    assert len(frame) == 18 * 3
    last = frame[(frame["arch"] == "2*1") & (frame["mode"] == "output") & (frame["seed"] == 2)]
    assert list(last["accuracy"]) == [20.0, 19.9, 20.17]
    assert list(last["lkg"]) == [20.0, 20.0, 20.17]
    assert list(last["kept"]) == [True, False, True]
    assert set(last["bounty"]) == {20.17}
    assert (set(last["bounty_correct"]), list(last["lkg_correct"])) == ({2017}, [2000, 2000, 2017])
    assert set(last["test"]) == {20.10}
    assert set(frame["zero_r"]) == {11.02}
    assert len(trials_of(frame)) == 18


def test_the_order_does_not_depend_on_the_disk(tmp_path: Path) -> None:
    """Records written in another order give the same frame."""
    made = list(trials(tmp_path))
    frames = []
    for name, order in (("a", made), ("b", made[::-1])):
        store = Store(tmp_path / name, tmp_path / name / "results")
        for trial in order:
            store.write(trial, record(trial, [100 + trial.seed]), {})
        frames.append(load_records_frame(store))
    pd.testing.assert_frame_equal(*frames)


def test_what_a_grid_expects_and_is_not_there_is_a_row(tmp_path: Path) -> None:
    """Missing, failed and damaged trials are told apart, and none of them has a number."""
    everyone = trials(tmp_path)
    store = stored(tmp_path, list(everyone[3:]))
    store.write_failure(everyone[1], "out of memory")
    path = store.record_path(everyone[2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"{}")
    rows = trials_of(load_records_frame(store, expected=everyone))
    assert list(rows["status"][:4]) == ["missing", "failed", "damaged", "done"]
    assert rows["bounty"][:3].isna().all()
    assert len(rows) == 18
    assert list(rows["parameters"][:3]) == [805] * 3


def test_without_a_grid_holes_are_what_others_have(tmp_path: Path) -> None:
    """Every arch is expected in the modes and seeds that occur."""
    everyone = [trial for trial in trials(tmp_path) if (str(trial.model.arch), trial.seed) != ("[1*1]", 1)]
    rows = trials_of(load_records_frame(stored(tmp_path, everyone)))
    holes = rows[rows["status"] == "missing"]
    assert {(row.arch, row.mode, row.seed) for row in holes.itertuples()} == {
        ("1*1", mode, 1) for mode in ("none", "hidden", "output")
    }


def test_without_a_grid_what_failed_or_is_damaged_is_told_from_what_is_missing(tmp_path: Path) -> None:
    """By what lies where the trial's record would be."""
    everyone = trials(tmp_path)
    store = stored(tmp_path, list(everyone[3:]))
    store.write_failure(everyone[1], "out of memory")
    store.record_path(everyone[2]).parent.mkdir(parents=True, exist_ok=True)
    store.record_path(everyone[2]).write_bytes(b"{}")
    rows = trials_of(load_records_frame(store))
    assert list(rows["status"][:4]) == ["missing", "failed", "damaged", "done"]


def test_a_mean_does_not_shift_because_something_is_missing(tmp_path: Path) -> None:
    """Integers stay integers and means are of what is there."""
    everyone = trials(tmp_path)
    store = stored(tmp_path, list(everyone[1:]))
    rows = trials_of(load_records_frame(store, expected=everyone))
    assert str(rows["seed"].dtype) == str(rows["bounty_loop"].dtype) == "Int64"
    cell = rows[(rows["arch"] == "1*1") & (rows["mode"] == "none")]
    assert cell["bounty"].mean() == pytest.approx((20.00 + 20.01) / 2)


def test_studies_are_picked_by_name(tmp_path: Path) -> None:
    """Only what was asked for is read; nothing at all is an error that says what to do."""
    store = stored(tmp_path, list(trials(tmp_path)))
    assert set(load_records_frame(store, ["ablation"])["study"]) == {"ablation"}
    with pytest.raises(UserError, match="holds no record of other"):
        load_records_frame(store, ["other"])


def counted(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[str]:
    """The names of what a function of a module decodes from now on."""
    decode, places = getattr(module, name), list[str]()

    def decoded(content: bytes, where: str) -> Any:
        places.append(where)
        return decode(content, where)

    monkeypatch.setattr(module, name, decoded)
    return places


def test_both_frames_are_of_records_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They equal the frames that are made one by one."""
    some = [Trial.model_validate({"seed": seed, "probes": ["train_accuracy"]}) for seed in range(3)]
    store = Store(tmp_path / "models", tmp_path / "results")
    seen = {"places": {}, "loops": [{"correct": [1.0]}], "last": {"correct": [2.0]}}
    for trial in some:
        store.write(trial, record(trial, [100]) | {"probes": {"train_accuracy": seen}}, {})
    places = counted(monkeypatch, record_store, "decode_trial_record")
    frame, observed = load_frames(store, ["ablation"])
    assert sorted(places) == sorted(str(store.record_path(trial)) for trial in some)
    pd.testing.assert_frame_equal(frame, load_records_frame(store, ["ablation"]))
    pd.testing.assert_frame_equal(observed, load_probe_frame(store, ["ablation"]))
    assert list(observed["value"]) == [1.0, 2.0] * 3


def test_a_record_and_its_sidecar_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For what no column of a frame holds."""
    trial = trials(tmp_path)[0]
    store = Store(tmp_path / "models", tmp_path / "results")
    store.write(trial, record(trial, [100]), {"host": "here"})
    records = counted(monkeypatch, record_store, "decode_trial_record")
    sidecars = counted(monkeypatch, record_store, "decode_record")
    ((found, machine),) = stored_records(store, [trial.id, "ablation/none/s00-abcdef"])
    assert (found["id"], machine["host"]) == (trial.id, "here")
    assert (len(records), len(sidecars)) == (1, 1)
    assert (store.sidecar(trial.id), len(sidecars)) == (machine, 2)


def test_parquet_and_csv_hold_the_same(tmp_path: Path) -> None:
    """Parquet keeps the types; CSV reads back to the same numbers."""
    frame = load_records_frame(stored(tmp_path, list(trials(tmp_path))))
    parquet, text = write_frame(frame, tmp_path / "out")
    some = frame.dropna(axis=1, how="all")  # a column of nothing has no type
    pd.testing.assert_frame_equal(pd.read_parquet(parquet)[some.columns], some)
    again = pd.read_csv(text)
    assert list(again.columns) == list(frame.columns)
    assert list(again["accuracy"]) == list(frame["accuracy"])


PUBLISHED = """# Trials

### Architecture: 1*2048

| Trial | None | Decay | Full |
|:-----::----:|:-----:|
| 1 | 98.22% | 98.10% | N/A |
| 2 | 98.30% | 98.12% | 98.01% |

### Architecture: 18*18

| Trial | None | Decay | Full |
|---|---|---|---|
| 1 | 11.02% | 9.90% | 10.00% |
"""


def test_published_tables_of_trials_are_read(tmp_path: Path) -> None:
    """With the separator row as it was published, which is no proper Markdown."""
    path = tmp_path / "psa_simplemlp_trials.md"
    path.write_text(PUBLISHED)
    rows = trials_of(published_trials(path, "simplemlp"))
    assert len(rows) == 9
    wide = rows[rows["arch"] == "1*2048"]
    assert list(wide[wide["mode"] == "none"]["bounty"]) == [98.22, 98.30]
    assert list(wide[wide["mode"] == "full"]["status"]) == ["missing", "done"]
    assert set(wide["parameters"]) == {1_628_170}
    assert set(rows["source"]) == {"published"}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("| 1 | 98.22 | 1% | 1% |", "must be a percentage or N/A"),
        ("| 1 | 250% | 1% | 1% |", "must be a percentage or N/A"),
        ("| 1 | 98.22% |", "must be a row of trials"),
        ("| 9999999999 | 1% | 1% | 1% |", "must be a row of trials"),
        ("| Trial | None | None | Full |", "a mode must occur once, got 'none'"),
        ("| Trial | None | Foo | Full |", "a mode must be one of .*, got 'foo'"),
        ("### Architecture: 1*0", "widths from 1, got 1\\*0"),
    ],
)
def test_a_published_table_that_is_not_so_is_named(line: str, named: str, tmp_path: Path) -> None:
    """The file and the line."""
    path = tmp_path / "t.md"
    path.write_text(PUBLISHED.replace("| 1 | 98.22% | 98.10% | N/A |", line))
    with pytest.raises(UserError, match=rf"t\.md, line 7.*{named}"):
        published_trials(path, "simplemlp")
    with pytest.raises(UserError, match=r"the table of trials .* does not exist"):
        published_trials(tmp_path / "nowhere.md", "simplemlp")
