"""Stored files that do not lie where they belong, as users and their programs leave them: each is named, none
is counted.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import TINY, some_record, some_state
from paths import ROOT

from psa.analysis.frame_schema import trials_of
from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, run
from psa.core import stored_files
from psa.core.errors import CorruptFileError, UserError
from psa.core.stored_files import files_below
from psa.execution.worker.run import RunHooks, run_unlocked
from psa.experiment import Experiment
from psa.experiments.grid import load_grid
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation
from psa.specs.trial import Trial
from psa.storage import layout
from psa.storage.checkpoint import CheckpointFile
from psa.storage.store import Store
from psa.storage.trial_state import encode_state

MEAN = 10.02  # of the bounties in the records of `home`


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Four done trials of a grid `tiny` in the folders that commands use by default."""
    monkeypatch.chdir(tmp_path)
    Path("grid.toml").write_text(TINY)
    store = Store(Path("models"), Path("results"))
    for trial in trials():
        store.write(trial, some_record(3, trial), {"host": "here"})
        store.state_file(trial).save(some_state(2, trial=trial))
        store.state_file(trial).save(some_state(3, trial=trial))
    return Store(Path("models"), Path("results"))


def trials() -> tuple[Trial, ...]:
    """The trials of the grid."""
    return load_grid(Path("grid.toml")).trials


def record(number: int) -> Path:
    """The place of a record."""
    return Path("results") / f"{trials()[number].id}.json"


def state(number: int) -> Path:
    """The place of a state."""
    return Path("models") / trials()[number].id / "lkg.safetensors"


def swap(one: Path, two: Path) -> None:
    """Give each of two files the other's name."""
    between = one.with_name("between")
    one.rename(between)
    two.rename(one)
    between.rename(two)


def copied(source: Path, target: Path) -> None:
    """Copy a file or a folder, and make the folder it goes to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def stranger() -> Trial:
    """A trial of another grid."""
    return Trial(study="other", model=PublishedModelSpec(family="simplemlp", arch="1*1"), seed=7)


def other_record() -> None:
    """Put another grid's record in the place of one of this grid."""
    Store(Path("m"), Path("r")).write(stranger(), some_record(3, stranger()), {})
    shutil.copy(Path("r") / f"{stranger().id}.json", record(0))


MISPLACED: dict[str, Callable[[], object]] = {
    "two records swapped": lambda: swap(record(0), record(1)),
    "a record over another": lambda: shutil.copy(record(0), record(1)),
    "another grid's record": other_record,
    "two states swapped": lambda: swap(state(0), state(2)),
    "a state over another": lambda: shutil.copy(state(0), state(1)),
    "a state over another's previous": lambda: shutil.copy(
        state(0), state(1).with_name("lkg.previous.safetensors")
    ),
    "a state as that of train": lambda: shutil.copy(state(0), "models/mnist_lkg.safetensors"),
    "a folder of records inside itself": lambda: copied(Path("results/tiny"), Path("results/tiny/tiny")),
    "a backup of the records": lambda: copied(Path("results/tiny"), Path("results/backup/tiny")),
    "a backup of the states": lambda: copied(Path("models/tiny"), Path("models/backup/tiny")),
    "a copy of a study": lambda: copied(Path("results/tiny"), Path("results/tiny (copy)")),
}


@pytest.mark.parametrize("how", MISPLACED)
def test_verify_names_each_file_that_lies_elsewhere(
    how: str, home: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, what it holds, and where that belongs; nothing of it is called damaged."""
    MISPLACED[how]()
    assert run(PSA, ["verify"]) == 2
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines
    assert "damaged: 0, misplaced: " in last
    for line in lines:
        assert line.startswith("MISPLACED ")
        assert "belongs in" in line
        assert "Move it there, or remove it" in line


COPIES: dict[str, Callable[[Path], Path]] = {
    "jupyter": lambda path: path.parent / ".ipynb_checkpoints" / f"{path.stem}-checkpoint.json",
    "dropbox": lambda path: path.with_name(f"{path.stem} (ann's conflicted copy 2026-11-28).json"),
    "syncthing": lambda path: path.with_name(f"{path.stem}.sync-conflict-20261128-101112-ABCDEFG.json"),
    "a browser": lambda path: path.with_name(f"{path.stem} (1).json"),
    "a file manager": lambda path: path.with_name(f"Copy of {path.name}"),
    "macos": lambda path: path.with_name(f"{path.stem} copy.json"),
    "a hidden folder above": lambda path: Path("results/.ipynb_checkpoints") / path.name,
    "beside the studies": lambda path: Path("results") / path.name,
    "a backup folder": lambda path: Path("results/backup") / path.relative_to("results"),
    "a folder in the study": lambda path: path.parent / "old" / path.name,
    "a copied study": lambda path: Path("results/tiny copy") / path.relative_to("results/tiny"),
}


@pytest.mark.slow
@pytest.mark.parametrize("who", COPIES)
def test_a_copy_is_never_counted_and_named_in_one_line(
    who: str, home: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every reader: rows, observations, status, sweep, verify and experiments."""
    rows = trials_of(load_records_frame(home, ["tiny"]))
    for number in range(4):
        copied(record(number), COPIES[who](record(number)))
    for names in (["tiny"], []):
        caplog.clear()
        store = Store(home.models, home.results)
        frame = trials_of(load_records_frame(store, names))
        load_probe_frame(store, names)
        assert frame.equals(rows)
        assert frame["bounty"].mean() == pytest.approx(MEAN)
        assert len(caplog.records) == 1
        assert "results holds 4 copies of records where psa keeps none" in caplog.text
    for command in (["status", "grid.toml"], ["sweep", "grid.toml"]):
        caplog.clear()
        assert run(PSA, command) == 0
        assert "4 of 4 trials done" in capsys.readouterr().out
        assert caplog.text.count("copies of records where psa keeps none") == 1
    assert run(PSA, ["verify"]) == 2
    assert "damaged: 0, misplaced: 4" in capsys.readouterr().out


def test_an_experiment_counts_no_copy(home: Store, caplog: pytest.LogCaptureFixture) -> None:
    """The rows of Python's interface are those of the grid, too."""
    copied(record(0), COPIES["a browser"](record(0)))
    experiment = Experiment(
        name="tiny", base={"family": "simplemlp", "arch": "1*1"}, axes={"mode": ["none", "hidden"]},
        epochs=3, seeds=2,
    )  # fmt: skip
    assert list(experiment.results().frame["status"]) == ["done"] * 4
    assert "s00" in caplog.text
    assert caplog.text.count("copies of records") == 1


@pytest.mark.parametrize("folder", ["results/published", "results/mine"])
def test_a_results_folder_of_its_own_is_checked_where_it_lies(
    folder: str, home: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that comes with psa, or a user's: sound, not counted with the others, and by itself as ever."""
    moved = Path(folder) / "tiny"
    moved.parent.mkdir()
    Path("results/tiny").rename(moved)
    assert run(PSA, ["verify"]) == 0
    out = capsys.readouterr().out
    assert ("is a folder of its own, 4 files" in out) == (folder == "results/mine")
    assert out.endswith("Files checked in models and results: 16, damaged: 0\n")
    assert len(trials_of(load_records_frame(Store(home.models, Path(folder)), ["tiny"]))) == 4
    with pytest.raises(UserError, match="holds no record"):
        load_records_frame(home)
    path = moved / record(0).relative_to("results/tiny")
    swap(path, moved / record(1).relative_to("results/tiny"))
    assert run(PSA, ["verify"]) == 2
    assert "misplaced: 2" in capsys.readouterr().out


def test_the_checkpoint_of_train_is_in_its_place(home: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint of each seed is accepted under its own name, and refused under that of another seed."""
    one = Trial(study="train", seed=4, intervention=Ablation(mode="hidden"), model=trials()[0].model)
    for name in ("mnist_lkg", "mnist_lkg.previous", "mnist_lkg.s04", "mnist_lkg.s04.previous"):
        Path(f"models/{name}.safetensors").write_bytes(encode_state(some_state(2, trial=one)))
    assert run(PSA, ["verify"]) == 0
    capsys.readouterr()
    for name in ("mnist_lkg.s05", "fashion-mnist_lkg", "mnist_lkg (1)"):
        shutil.copy("models/mnist_lkg.safetensors", f"models/{name}.safetensors")
    assert run(PSA, ["verify"]) == 2
    assert "misplaced: 3" in capsys.readouterr().out


def test_a_sweep_names_the_misplaced_record_and_its_place(
    home: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained over it; the line says where it belongs."""
    swap(record(0), record(1))
    for command in ("sweep", "status", "plan"):
        code = run(PSA, [command, "grid.toml"])
        assert code == {"sweep": 1, "status": 4, "plan": 0}[command]
        out = capsys.readouterr().out
        for one, other in ((0, 1), (1, 0)):
            assert f"{record(one)} holds the record of another trial, {trials()[other].id}" in out
            assert f"which belongs in {record(other)}. Move it there" in out


def test_a_sweep_names_the_misplaced_state_and_a_way_out(home: Store) -> None:
    """Two seeds swapped: it spoke of an option --seed that nobody had given, and named no file."""
    swap(state(0), state(1))
    for number in range(2):
        record(number).unlink()
    from psa.execution.machine import Machine
    from psa.specs.trial import Pack

    failed: dict[str, str] = {}
    data = Path(os.environ.get("PSA_DATA_DIR", "/nowhere"))
    if not data.is_dir():
        pytest.skip("no data")
    run_unlocked(
        Pack(trials=trials()[:2], horizon=3), home, Machine(data),
        RunHooks(on_failure=lambda trial, error: failed.update({trial.id: str(error)})),
    )  # fmt: skip
    assert failed.keys() == {trial.id for trial in trials()[:2]}
    for one, other in ((0, 1), (1, 0)):
        said = failed[trials()[one].id]
        assert f"{state(one)} must hold {trials()[one].id}, got {trials()[other].id}" in said
        assert "Move it to the place of" in said
        assert "--seed" not in said
    with pytest.raises(CorruptFileError, match="must hold"):
        home.load_state(trials()[0])


def test_a_collision_of_two_ids_is_called_that(home: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six digits of a digest are shared by two of some thousand settings: what it is, and a way out."""
    one, two = (Trial(data=DataSpec(split_seed=seed)) for seed in (1, 2))
    monkeypatch.setitem(two.__dict__, "digest", one.digest[:6] + two.digest[6:])
    assert one.id == two.id
    path = home.record_path(one)
    for option in ("--results-dir", "--model-dir"):
        with pytest.raises(CorruptFileError, match=r"holds another trial of the same id") as refused:
            layout.check_digest(path, (one.id, one.digest), two, option)
        assert str(refused.value).endswith(f"Give the grid another name, or use another {option}")


def moved(folder: str, target: Path) -> None:
    """Move a folder to another disk, and leave a link to it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, target)
    Path(folder).symlink_to(target.absolute(), target_is_directory=True)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_folders_on_another_disk_are_read(
    depth: int, home: Store, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder itself, a study, a network or a mode: each behind a link, of records and of states."""
    rows, disk = trials_of(load_records_frame(home, ["tiny"])), tmp_path_factory.mktemp("disk")
    part = Path(*Path(trials()[0].id).parts[:depth])
    for root in ("results", "models"):
        moved(str(Path(root) / part), disk / root)
    store = Store(Path("models"), Path("results"))
    for names in (["tiny"], []):
        assert trials_of(load_records_frame(store, names)).equals(rows)
    assert len(list(store.state_paths())) == 8
    assert run(PSA, ["verify"]) == 0
    assert capsys.readouterr().out == "Files checked in models and results: 16, damaged: 0\n"


def test_links_that_lead_in_a_circle_are_named_once(
    home: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the folder itself, to one above it, and a second name of a study: each file is read once."""
    rows = trials_of(load_records_frame(home, ["tiny"]))
    for link, target in (("results/tiny/again", ".."), ("results/up", "../.."), ("results/a", "tiny")):
        Path(link).symlink_to(target)
    caplog.clear()
    assert trials_of(load_records_frame(home)).equals(rows)
    assert len(caplog.records) == 3
    assert caplog.text.count("and is not followed") == 3
    assert run(PSA, ["verify"]) == 0
    assert capsys.readouterr().out == "Files checked in models and results: 16, damaged: 0\n"


@pytest.mark.parametrize("path", ["results/tiny", "models/tiny"])
def test_a_link_to_a_disk_that_is_not_there_is_named(
    path: str, home: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained again over what lies on it."""
    shutil.rmtree(path)
    Path(path).symlink_to("/nowhere/tiny")
    assert run(PSA, ["verify"]) == 2
    assert f"DAMAGED {path} is a link to /nowhere/tiny, which does not exist" in capsys.readouterr().out
    if path == "results/tiny":
        assert run(PSA, ["report", "tiny"]) == 2
        assert "is a link to /nowhere/tiny, which does not exist" in caplog.text
        for command in ("status", "sweep"):
            assert run(PSA, [command, "grid.toml"]) == 2
            assert "Mount the disk that it is on, or remove the link" in capsys.readouterr().err


def a_socket(path: Path) -> None:
    """Bind a socket there; a name of more than about 100 bytes is too long for one."""
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(here)


STRANGE: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a socket": a_socket,
    "which does not exist": lambda path: path.symlink_to("/nowhere/file"),
    "must have at most": lambda path: path.write_bytes(b"") or os.truncate(path, 2**40),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", ["record", "sidecar", "state", "previous"])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_regular_file_is_named_and_waited_for_by_nobody(
    kind: str, which: str, home: Store, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A FIFO or a device in the place of a file held up every reader for ever."""
    places = {"record": record(0), "sidecar": record(0).with_suffix(".machine.json"), "state": state(0)}
    path = places.get(which, state(0).with_name("lkg.previous.safetensors"))
    path.unlink()
    STRANGE[kind](path)
    assert run(PSA, ["verify"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"DAMAGED {path} ")
    assert kind in lines[0]
    assert lines[1:] == ["Files checked in models and results: 16, damaged: 1"]
    rows = trials_of(load_records_frame(home, ["tiny"]))
    assert sorted(rows["status"]) == (["damaged"] if which == "record" else []) + ["done"] * len(
        rows[rows["status"] == "done"]
    )
    assert run(PSA, ["status", "grid.toml"]) == (4 if which == "record" else 0)
    assert home.sidecar(trials()[0].id) == (None if which == "sidecar" else {"host": "here"})
    kept = CheckpointFile(state(0)).load()
    assert kept is not None
    assert kept.loops == (2 if which == "state" else 3)


def test_a_state_that_is_nothing_but_a_link_to_nothing_is_no_fresh_start(home: Store) -> None:
    """The disk may come back: nothing is trained anew unasked."""
    state(0).with_name("lkg.previous.safetensors").unlink()
    state(0).unlink()
    state(0).symlink_to("/nowhere/lkg.safetensors")
    with pytest.raises(
        CorruptFileError, match=r"is a link to /nowhere/lkg\.safetensors, which does not exist"
    ):
        CheckpointFile(state(0)).load()


@pytest.mark.parametrize("which", ["state", "record"])
def test_a_file_that_is_removed_meanwhile_is_no_damage(
    which: str, home: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process cleans: what was listed and is gone is left out in silence."""
    gone = state(0) if which == "state" else record(0)
    listed = files_below

    def removes(root: Path, wanted: Callable[[str], bool]) -> stored_files.Listing:
        found = listed(root, wanted)
        gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr("psa.storage.store.files_below", removes)
    monkeypatch.setattr("psa.storage.verification.files_below", removes)
    rows = trials_of(load_records_frame(home, ["tiny"]))
    assert "damaged" not in set(rows["status"])
    assert run(PSA, ["verify"]) == 0
    assert "damaged: 0" in capsys.readouterr().out


def test_a_file_that_grows_is_read_when_it_has_ended(home: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that copies into the folder: a part of a record is never taken for all of it."""
    whole, path = record(0).read_bytes(), record(0)
    path.write_bytes(whole[:100])
    read = stored_files._read

    def grows(descriptor: int, most: int) -> bytes:
        content = read(descriptor, most)
        with path.open("r+b") as file:
            file.write(whole)
        return content

    monkeypatch.setattr(stored_files, "_read", grows)
    monkeypatch.setattr(stored_files, "_TRIES", 2)
    with pytest.raises(CorruptFileError, match="changes while it is read"):
        home.read(trials()[0])
    monkeypatch.setattr(stored_files, "_read", read)
    assert home.read(trials()[0]) == some_record(3, trials()[0])


def test_an_endless_writer_does_not_hold_up_a_reader(home: Store) -> None:
    """A log that somebody redirected into a record's name."""
    stop, begun = threading.Event(), threading.Event()

    def write() -> None:
        with record(0).open("ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x" * 4096)
                begun.set()

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait()
    try:
        with pytest.raises(CorruptFileError, match=r"changes while it is read|is damaged"):
            home.read(trials()[0])
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("option", ["--model-dir", "--results-dir"])
def test_verify_of_a_folder_that_does_not_exist_is_a_slip(
    option: str, home: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the two folders is enough, but not one that was named."""
    assert run(PSA, ["verify", option, "resluts"]) == 2
    assert capsys.readouterr().err == f"error: {option} must be a folder, got resluts. Name one that exists\n"


@pytest.mark.parametrize(
    "command", ["verify", "status reproduction/smoke.toml", "plan reproduction/smoke.toml"]
)
def test_a_file_in_place_of_a_folder_is_refused(
    command: str, home: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By every command that reads: none says that nothing is done yet."""
    words = command.replace("reproduction", str(ROOT / "reproduction")).split()
    assert run(PSA, [*words, "--results-dir", "/dev/null"]) == 2
    assert capsys.readouterr().err == (
        "error: --results-dir must be a folder, got the file /dev/null. Name one that exists\n"
    )


def test_a_folder_that_may_not_be_read_is_named(
    home: Store,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Half of a study was missing in silence. Refused by hand here: tests may run as root."""
    scandir = os.scandir

    def refuses(path: str) -> object:
        if path.endswith("hidden"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)
    load_records_frame(home, ["tiny"])
    assert "cannot read the folder results/tiny/simplemlp-1x1/hidden: permission denied" in caplog.text
    assert run(PSA, ["verify"]) == 2
    assert "DAMAGED cannot read the folder models/tiny/simplemlp-1x1/hidden" in capsys.readouterr().out
