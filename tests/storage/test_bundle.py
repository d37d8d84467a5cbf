"""Bundles: many records in one file, which counts wherever a folder of records does."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_up import TINY, some_record
from paths import ROOT
from processes import PATIENCE_SECONDS

from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.file_locks import locked
from psa.core.files import write_atomically
from psa.execution.machine import Machine
from psa.execution.replay import replay
from psa.execution.worker.run import run_pack
from psa.experiment import Experiment
from psa.experiments.grid import load_grid
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation, RatchetTraining
from psa.specs.trial import Pack, Trial
from psa.storage.records import bundle as module
from psa.storage.records.bundle import Bundle, BundleRow, encode_bundle, read_bundle
from psa.storage.records.bundling import add_to_bundle
from psa.storage.records.record import decode_record, encode_record
from psa.storage.records.record_store import RecordStore, StoredRecord
from psa.storage.store import Store

GRID = TINY.replace("[0, 1]", "[0, 1, 2]")
PUBLISHED = ROOT / "results/published/simplemlp.parquet"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a grid `tiny`, its six records in `loose`, and the same as a bundle in `results`."""
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(GRID)
    store = Store(Path("models"), Path("loose"))
    for trial in trials():
        machine = {"host": "a name", "code": "/home/a-name/psa", "device_name": f"of seed {trial.seed}"}
        store.write(trial, some_record(3, trial), machine)
    assert run(PSA, ["bundle", "results/all.parquet", "--from", "loose"]) == 0
    return tmp_path


def trials() -> tuple[Trial, ...]:
    """The trials of the grid."""
    return load_grid(Path("grid.toml")).trials


def rows() -> list[BundleRow]:
    """The rows of the bundle."""
    return list(read_bundle(Path("results/all.parquet")) or ())


def said(capsys: pytest.CaptureFixture[str], *command: str, code: int = 2) -> str:
    """The output of a command that ends with this exit code, standard error last."""
    capsys.readouterr()
    assert run(PSA, list(command)) == code
    out, err = capsys.readouterr()
    return out + err


def test_equal_records_give_equal_bytes(home: Path) -> None:
    """Whatever the order, whether they come at once or one after the other, from a folder or a bundle."""
    whole = Path("results/all.parquet").read_bytes()
    assert encode_bundle(reversed(rows())) == whole
    for trial in reversed(trials()):
        assert run(PSA, ["bundle", "again.parquet", "--from", "results", "--grid", "grid.toml",
                         "--only", f"seed={trial.seed} mode={trial.intervention.mode}"]) == 0  # fmt: skip
    assert Path("again.parquet").read_bytes() == whole


def test_a_bundle_holds_the_bytes_of_files(home: Path) -> None:
    """Each record as its own file, sorted by id, each id once; and its sidecar without the host name and the
    folder of the code.
    """
    found = rows()
    assert [row.id for row in found] == sorted(trial.id for trial in trials())
    for row in found:
        assert row.record == Path(f"loose/{row.id}.json").read_bytes()
        facts = decode_record(Path(f"loose/{row.id}.machine.json").read_bytes(), "")
        assert row.machine == encode_record({"device_name": facts.pop("device_name")})
        assert facts.keys() == {"host", "code"}


def test_any_reader_of_parquet_reads_it(home: Path) -> None:
    """The four columns, without psa."""
    table = pq.read_table("results/all.parquet")
    assert table.column_names == ["id", "digest", "record", "machine"]
    assert table["digest"].to_pylist() == [row.digest for row in rows()]


def test_frames_are_those_of_loose_records(home: Path) -> None:
    """To the byte, from a folder with a bundle and from the bundle itself."""
    frames = {
        place: load_records_frame(Store(Path("models"), Path(place)), ["tiny"]).to_parquet()
        for place in ("loose", "results", "results/all.parquet")
    }
    assert frames["loose"] == frames["results"] == frames["results/all.parquet"]
    assert Store(Path("models"), Path("results")).sidecar(trials()[2].id) == {"device_name": "of seed 2"}


@pytest.mark.crash  # two whole reports; frames, of which a report is a function, are compared above
def test_a_report_is_that_of_loose_records(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file of it, to the byte, but for the places of the records, which the page names: their folder
    has one name both times.
    """
    made = []
    for place in ("loose", "results"):
        Path(place).rename("records")
        report = ("report", "tiny", "--results-dir", "records", "--output-dir", "made")
        said(capsys, *report, "--grid", "grid.toml", code=0)
        made.append({path.relative_to("made"): path.read_bytes() for path in files(Path("made"))})
        shutil.rmtree("made")
        Path("records").rename(place)
    page = Path("tiny_simplemlp.html")
    (loose, of_loose), (bundled, of_bundle) = (without_places(each.pop(page).decode()) for each in made)
    assert len(made[0]) > 10
    assert made[0] == made[1]
    assert loose == bundled
    assert of_loose == [f"{trial.id}.json" for trial in trials()]
    assert of_bundle == [f"all.parquet, record {trial.id}" for trial in trials()]


def without_places(page: str) -> tuple[list[str | dict[str, Any]], list[str]]:
    """Return a page with its trials' data decoded and without the places of their records, and these."""
    before, encoded, after = re.split(r'(?<=")(eJ[A-Za-z0-9+/=]{100,})(?=")', page)
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(encoded)))
    places = data["rows"].pop("record")
    return [before, data, after], places


def files(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    return (path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("place", ["results", "results/all.parquet"])
def test_commands_read_bundles(place: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Status, plan and verify count what is in one."""
    where = ("--results-dir", place)
    assert "6 of 6 trials done" in said(capsys, "status", "grid.toml", *where, code=0)
    assert "│ trials pending" in (told := said(capsys, "plan", "grid.toml", *where, code=0))
    assert told.split("trials pending")[1].split("│")[1].strip() == "0"
    checked = said(capsys, "verify", *where, code=0)
    assert checked.endswith(f"{place}: 1 (6 records in bundles), damaged: 0\n")


def test_experiments_read_bundles(home: Path) -> None:
    """From Python, too."""
    experiment = Experiment(
        name="tiny", base={"family": "simplemlp", "arch": "1*1"}, axes={"mode": ["none", "hidden"]},
        epochs=3, seeds=3,
    )  # fmt: skip
    assert list(experiment.results().frame["status"]) == ["done"] * 6
    assert list(experiment.results(results_dir="results/all.parquet").frame["status"]) == ["done"] * 6


def test_a_published_folder_is_checked_with_the_results(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As its loose records are: checked with results/, counted by its own name."""
    Path("results/published").mkdir()
    Path("results/all.parquet").rename("results/published/all.parquet")
    assert "(6 records in bundles)" in said(capsys, "verify", code=0)
    assert "0 of 6 trials done" in said(capsys, "status", "grid.toml", code=3)
    assert "6 of 6" in said(capsys, "status", "grid.toml", "--results-dir", "results/published", code=0)


# What is damaged, how, and a part of the line that says so.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a bit of a record": (lambda content: flipped(content, len(content) // 3), "is damaged"),
    "a bit of the footer": (lambda content: flipped(content, len(content) - 20), "all.parquet"),
    "a bit of the end": (lambda content: flipped(content, len(content) - 1), "is damaged"),
    "cut short": (lambda content: content[: len(content) // 2], "is damaged"),
    "empty": (lambda content: b"", "is damaged"),
    "text": (lambda content: b"id,digest\n", "is damaged, or not a Parquet file"),
    "a foreign schema": (lambda content: foreign(), "must be a bundle of records (columns id, digest"),
    "columns of other types": (lambda content: typed(), "must be a bundle of records"),
    "a doubled id": (lambda content: assembled([*rows()[:2], rows()[1]]), "must hold each record once"),
    "another order": (lambda content: assembled(rows()[::-1]), "must be sorted by id"),
    "a row removed": (lambda content: assembled(rows()[1:], like=rows()), "the digest of its records"),
    "a newer format": (lambda content: newer(), "was written by a newer psa"),
}


def flipped(content: bytes, at: int) -> bytes:
    """Return the content with one bit changed."""
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def foreign() -> bytes:
    """A Parquet file of something else."""
    return parquet(pa.table({"arch": ["1*1"], "bounty": [98.0]}), {})


def typed() -> bytes:
    """A file with the metadata and the columns of a bundle, one of them of another type."""
    names = ["id", "digest", "record", "machine"]
    return parquet(pa.table({name: pa.array(["x"]) for name in names}), facts(encode_bundle([])))


def facts(content: bytes) -> dict[bytes, bytes]:
    """The metadata of a file."""
    return dict(pq.ParquetFile(io.BytesIO(content)).metadata.metadata)


def parquet(table: pa.Table, metadata: dict[bytes, bytes]) -> bytes:
    """The file of a table."""
    out = io.BytesIO()
    with pq.ParquetWriter(out, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    return out.getvalue()


def assembled(made: list[BundleRow], like: list[BundleRow] | None = None) -> bytes:
    """A bundle of rows just as they are, with the digest of them, or of other ones."""
    columns = {field.name: [getattr(row, field.name) for row in made] for field in module._schema()}
    digest = {"format": 1, "records": len(like or made), "sha256": module._digest(like or made)}
    text = str(digest).replace("'", '"').encode()
    return parquet(pa.table(columns, schema=module._schema()), {b"psa.bundle": text})


def newer() -> bytes:
    """A bundle of a later version."""
    return parquet(pa.table({"rows": [1]}), {b"psa.bundle": b'{"format": 2}'})


@pytest.mark.parametrize(("damage", "line"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_bundle_is_named_in_one_line(
    damage: Callable[[bytes], bytes], line: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command; a sweep trains nothing, and the file is left as it is."""
    path = Path("results/all.parquet")
    content = damage(path.read_bytes())
    path.write_bytes(content)
    (home / "loose").rename(home / "away")
    assert line in said(capsys, "verify")
    for command in ("status", "sweep"):
        told = said(capsys, command, "grid.toml")
        assert line in told
        assert told.count("\n") == 1
    told = said(capsys, "bundle", "results/all.parquet", "--from", "away")
    assert line in told
    assert path.read_bytes() == content
    assert not (home / "models/tiny").exists()


def test_no_flipped_bit_changes_what_is_read(home: Path) -> None:
    """Wherever it is in the file: it is refused, or the rows are the same to the byte."""
    path, written = Path("results/all.parquet"), rows()
    content = path.read_bytes()
    refused = 0
    for at in range(0, len(content), 7):
        path.write_bytes(flipped(content, at))
        try:
            assert rows() == written
        except UserError:
            refused += 1
    assert refused > len(content) / 7 * 0.7  # the rest: facts in the footer that no reader asks for


@pytest.mark.parametrize("kind", ["a FIFO", "a folder", "a link to nothing", "a link to itself"])
def test_what_is_not_a_file(kind: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named at once."""
    path = Path("results/other.parquet")
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to("nothing" if kind == "a link to nothing" else path.name)
    assert str(path) in said(capsys, "verify")
    assert str(path) in said(capsys, "status", "grid.toml")


def test_one_record_that_links_to_itself_is_one_damaged_record(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All others count."""
    path = Path(f"loose/{trials()[0].id}.json")
    path.unlink()
    path.symlink_to(path.name)
    told = said(capsys, "status", "grid.toml", "--results-dir", "loose", code=4)
    assert "5 of 6 trials done" in told
    assert "got a link to itself" in told


def test_a_record_of_another_trial_in_a_row(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row says one trial, its record another; nothing is counted for either."""
    first, second, *rest = rows()
    Path("results/all.parquet").write_bytes(
        encode_bundle([BundleRow(first.id, first.digest, second.record, None), second, *rest])
    )
    line = f"record {first.id} must be of that trial, got a record of {second.id}"
    assert line in said(capsys, "verify")
    assert "5 of 6 trials done" in said(capsys, "status", "grid.toml", code=4)
    assert "holds the record" not in said(capsys, "bundle", "new.parquet", "--from", "results")
    assert len(read_bundle(Path("new.parquet")) or ()) == 5


def test_a_record_that_differs_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stored one stays, the others are added, and the line names both and what differs."""
    trial = trials()[0]
    changed = some_record(3, trial)
    changed["history"]["correct"][1] += 1
    Store(Path("models"), Path("mine")).write(trial, changed, {})
    other = trials()[1].changed(seed=7)
    Store(Path("models"), Path("mine")).write(other, some_record(3, other), {})
    told = said(capsys, "bundle", "results/all.parquet", "--from", "mine")
    assert "LEFT OUT" in told
    assert "differs from the record of the same trial in mine/" in told
    assert "(history)" in told
    assert "7 records" in told
    assert "1 added, 1 left out" in told
    kept = {row.id: row.record for row in rows()}
    assert kept[trial.id] == Path(f"loose/{trial.id}.json").read_bytes()
    assert other.id in kept


def test_a_longer_run_takes_the_place_of_a_shorter_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And not the other way round; nothing is written where nothing is new."""
    trial = trials()[0]
    Store(Path("models"), Path("mine")).write(trial, some_record(5, trial), {"device": "later"})
    assert "1 extended by a longer run" in said(
        capsys, "bundle", "results/all.parquet", "--from", "mine", code=0
    )
    stored = RecordStore(Path("results")).read(trial)
    assert stored is not None
    assert stored["loops"] == 5
    before = Path("results/all.parquet").stat()
    assert "6 there already" in said(capsys, "bundle", "results/all.parquet", "--from", "loose", code=0)
    assert Path("results/all.parquet").stat() == before


def test_what_is_left_out_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Damaged and misplaced records, each in a line; those of another grid as a number."""
    paths = [Path(f"loose/{trial.id}.json") for trial in trials()]
    paths[0].write_bytes(flipped(paths[0].read_bytes(), 100))
    shutil.copy(paths[1], paths[2])
    told = said(
        capsys, "bundle", "new.parquet", "--from", "loose", "--grid", "grid.toml", "--only", "seed=1..2"
    )
    assert told.count("LEFT OUT") == 2
    assert str(paths[0]) in told
    assert str(paths[2]) in told
    assert "left out" in told
    assert "not of this grid" in told


def test_overrides_select_the_trials_of_the_sweep_that_had_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials with a setting outside of the grid's axes, which no part of the file names."""
    words = ["grid.toml", "lr=2e-3"]
    others = load_grid(Path(words[0]), words[1:]).trials
    store = Store(Path("models"), Path("loose"))
    for trial in others:
        store.write(trial, some_record(3, trial), {})
    told = said(capsys, "bundle", "new.parquet", *words[1:], "--from", "loose", "--grid", words[0], code=0)
    assert f"{len(others)} added, {len(trials())} not of this grid" in told
    assert {record["id"] for record in RecordStore(Path("new.parquet")).all()} == {
        trial.id for trial in others
    }


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["bundle", "x.txt", "--from", "loose"], "a bundle must be called NAME.parquet, got x.txt"),
        (["bundle", "x.parquet", "--from", "nowhere"], "--from must be a folder or a bundle, got nowhere"),
        (["bundle", "x.parquet", "--from", "empty"], "must hold records to put into x.parquet, got none"),
        (
            ["bundle", "x.parquet", "--from", "loose", "--only", "seed=1"],
            "must belong to a grid, got 'seed=1'",
        ),
        (["bundle", "x.parquet", "seeds=1", "--from", "loose"], "must belong to a grid, got 'seeds=1'"),
        (
            ["bundle", "x.parquet", "--from", "grid.toml"],
            "a bundle, got the file grid.toml",
        ),
        (["bundle", "results/all.parquet", "--from", "empty"], "must hold records to put into"),
        (["bundle", "x.parquet"], "--from"),
        (["sweep", "grid.toml", "--results-dir", "results/all.parquet"], "results/all.parquet"),
    ],
)
def test_bad_input(command: list[str], line: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2, and no file made."""
    Path("empty").mkdir()
    told = said(capsys, *command)
    assert line in told
    assert told.count("\n") == 1
    assert not Path("x.parquet").exists()
    assert not Path("x.txt").exists()


def test_a_damaged_target_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is added to a file that cannot be read, or that is something else."""
    Path("mine.parquet").write_bytes(foreign())
    assert "must be a bundle of records" in said(capsys, "bundle", "mine.parquet", "--from", "loose")
    assert Path("mine.parquet").read_bytes() == foreign()


def test_two_that_add_to_one_bundle_wait_for_each_other(home: Path) -> None:
    """The second one reads what the first one has written, not what was there when it began."""
    path, (first, second, *_) = Path("new.parquet"), trials()
    one, two = (Store(Path("models"), Path(name)) for name in ("one", "two"))
    one.write(first, some_record(3, first), {})
    two.write(second, some_record(3, second), {})
    with ThreadPoolExecutor() as pool:
        with locked(path.with_name(".new.parquet.lock")):
            waiting = pool.submit(add_to_bundle, path, two.records)
            path.write_bytes(encode_bundle([row for row in rows() if row.id == first.id]))
        assert waiting.result(PATIENCE_SECONDS).records == 2
    assert [row.id for row in read_bundle(path) or ()] == sorted([first.id, second.id])


def test_a_locked_bundle_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After some minutes of waiting."""
    monkeypatch.setattr("psa.storage.records.bundling._PATIENCE_SECONDS", 0.0)
    path = Path("results/all.parquet")
    with (
        locked(path.with_name(".all.parquet.lock")),
        pytest.raises(UserError, match="at work on results/all"),
    ):
        add_to_bundle(path, RecordStore(Path("loose")))


def test_the_machine_is_that_of_the_record_that_counts(home: Path) -> None:
    """The machine is that of the longer run, also beside a damaged bundle; a missing one is filled in."""
    trial = trials()[0]
    longer = Store(Path("models"), Path("longer"))
    longer.write(trial, some_record(5, trial), {"device": "later"})
    add_to_bundle(Path("results/longer.parquet"), longer.records)
    assert RecordStore(Path("results")).sidecar(trial.id) == {"device": "later"}
    Path("results/other.parquet").write_bytes(b"PAR1")
    add_to_bundle(Path("new.parquet"), RecordStore(Path("results")))
    row = (read_bundle(Path("new.parquet")) or Bundle(Path(), ())).get(trial.id)
    assert row is not None
    assert row.machine == encode_record({"device": "later"})
    bare = [BundleRow(each.id, each.digest, each.record, None) for each in rows()]
    Path("bare.parquet").write_bytes(encode_bundle(bare))
    assert add_to_bundle(Path("bare.parquet"), RecordStore(Path("loose"))).completed == 6
    assert Path("bare.parquet").read_bytes() == encode_bundle(rows())


def test_traces_of_absent_trials_take_no_time_that_grows_with_a_bundle(home: Path) -> None:
    """By a search for the beginning of an id, and not by looking at each."""
    bundle = read_bundle(Path("results/all.parquet"))
    assert bundle is not None
    first = rows()[0].id
    ids = sorted(row.id for row in bundle)
    assert bundle.with_prefix(first) == [first]
    assert bundle.with_prefix(first[:-3]) == [name for name in ids if name.startswith(first[:-3])]
    assert bundle.with_prefix("") == ids
    assert bundle.with_prefix(f"{first}x") == bundle.with_prefix("zzz") == []


@pytest.mark.slow
def test_the_trials_of_a_bundle_are_done(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sweep trains what is missing; a longer run extends what is bundled by a loose record."""
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(GRID + 'digits = "0,1"\n')
    of_seed = {seed: tuple(each for each in trials() if each.seed == seed) for seed in (0, 1, 2)}
    machine, made = Machine(data_dir), Store(Path("elsewhere"), Path("made"))
    for seed in (0, 1):
        run_pack(Pack(trials=of_seed[seed], horizon=3), made, machine)
    said(capsys, "bundle", "results/some.parquet", "--from", "made", code=0)
    assert "6 of 6" in said(capsys, "sweep", "grid.toml", "--data-dir", str(data_dir), code=0)
    store = Store(Path("models"), Path("results"))
    assert [path.name[:3] for path in store.record_paths()] == ["s02", "s02"]
    assert not store.state_file(of_seed[0][0]).path.exists()
    for seed in (0, 1, 2):
        run_pack(Pack(trials=of_seed[seed], horizon=4), store, machine)
    assert {record["loops"] for record in store.records.all()} == {4}
    assert len(store.record_paths()) == 6
    assert "6 of 6 trials done" in said(capsys, "status", "grid.toml", "meta_loops=4", code=0)
    assert "damaged: 0" in said(capsys, "verify", code=0)


@pytest.mark.parametrize("place", ["loose", "in a second bundle"])
def test_two_records_of_one_trial_that_disagree_count_for_none(
    place: str, home: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The line names both places and what differs; the sound records are counted."""
    trial = trials()[0]
    changed = some_record(3, trial)
    changed["finals"]["test"]["correct"] += 1
    other = Store(Path("models"), Path("results" if place == "loose" else "other"))
    write_atomically(other.record_path(trial), encode_record(changed))
    if place != "loose":
        add_to_bundle(Path("results/second.parquet"), other.records)
    line = "differs from the record of the same trial in"
    assert line in said(capsys, "verify")
    told = said(capsys, "status", "grid.toml", code=4)
    assert "5 of 6 trials done" in told
    assert line in told
    with caplog.at_level(logging.WARNING):
        frame = load_records_frame(Store(Path("models"), Path("results")), ["tiny"], trials())
    assert list(frame.loc[frame["id"] == trial.id, "status"]) == ["damaged"]
    assert line in caplog.text
    assert "(finals)" in caplog.text


def test_a_damaged_bundle_is_left_out_of_a_report(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Loose records beside it are counted, and a warning says that those in it are not."""
    shutil.copytree("loose", "results", dirs_exist_ok=True)
    Path("results/all.parquet").write_bytes(b"PAR1")
    with caplog.at_level(logging.WARNING):
        frame = load_records_frame(Store(Path("models"), Path("results")), ["tiny"], trials())
    assert list(frame["status"].unique()) == ["done"]
    assert "results/all.parquet is damaged" in caplog.text
    assert "none of its records counts" in caplog.text


def test_records_of_a_bundle_are_replayed(tmp_path: Path, data_dir: Path) -> None:
    """Without a state: loop 1 of each trial from its initial weights; a forged number is found."""
    trial = Trial(
        data=DataSpec(digits=(0, 1)),
        model=PublishedModelSpec(family="simplemlp", arch="1*4"),
        method=RatchetTraining(lr=1e-3),
        intervention=Ablation(mode="hidden"),
    )
    made = Store(tmp_path / "models", tmp_path / "loose")
    run_pack(Pack(trials=(trial,), horizon=2), made, Machine(data_dir))
    store = Store(tmp_path / "none", tmp_path / "results")
    add_to_bundle(tmp_path / "results/a.parquet", made.records)
    assert [(each.loop, each.difference) for each in replay(store, Machine(data_dir), 9)] == [(1, None)]
    record: dict[str, Any] = made.read(trial) or {}
    record["history"]["correct"][0] += 1
    forged = BundleRow(trial.id, trial.digest, encode_record(record), None)
    (tmp_path / "results/a.parquet").write_bytes(encode_bundle([forged]))
    (found,) = replay(store, Machine(data_dir), 9)
    assert found.place == f"{tmp_path}/results/a.parquet, record {trial.id}"
    assert "correct" in (found.difference or "")


def test_the_published_records() -> None:
    """Every one is sound, and they take less than 5 KB each."""
    bundle = read_bundle(PUBLISHED)
    assert bundle is not None
    assert len(bundle) >= 600
    found = list(RecordStore(PUBLISHED).scan())
    assert all(isinstance(each, StoredRecord) for each in found)
    assert all(row.machine is None or decode_record(row.machine, "") for row in bundle)
    assert PUBLISHED.stat().st_size < 5_000 * len(bundle)


def test_columns_of_nothing(tmp_path: Path) -> None:
    """A bundle without records is one."""
    (tmp_path / "x.parquet").write_bytes(encode_bundle([]))
    bundle = read_bundle(tmp_path / "x.parquet")
    assert bundle is not None
    assert len(bundle) == 0
    with pytest.raises(ValueError, match="must differ"):
        encode_bundle([BundleRow("a", "b", b"", None)] * 2)
    assert load_probe_frame(Store(tmp_path, tmp_path / "none.parquet")).empty


@pytest.mark.slow
def test_a_program_may_end_as_soon_as_a_bundle_is_read() -> None:
    """Threads of pyarrow that still needed the interpreter aborted 1 of 40 such programs."""
    read = "from psa.storage.records.bundle import read_bundle; import pathlib, sys"
    code = f"{read}; read_bundle(pathlib.Path({str(PUBLISHED)!r})); sys.exit(2)"
    for _ in range(60):
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert (ended.returncode, ended.stderr) == (2, "")
