"""Files are written whole by psa.core.files, new folders are durable, and no temporary file stays behind."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import some_record, some_state
from paths import ROOT

from psa.analysis.records_frame import write_frame
from psa.core.errors import UserError
from psa.core.files import ensure_dir, leftovers, temp_path, write_atomically
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation
from psa.specs.trial import Trial
from psa.storage import locks
from psa.storage.store import Store

SOURCES = sorted(path for folder in ("psa", "cloud") for path in (ROOT / folder).rglob("*.py"))
MEMORY = "into memory; psa.core.files writes it"
CONTAINER = "read by SageMaker when the container has ended; imports nothing of psa"
LIVE = "a log, which grows while its process runs"
# Calls outside of psa/core/files.py that write files or make folders, each with its reason.
EXCEPTIONS = {
    ("psa/core/process.py", "os.open"): "the null device takes the place of a closed stream",
    ("psa/execution/worker/protocol.py", "os.fdopen"): "standard output",
    ("psa/execution/worker/protocol.py", "open"): "the null device takes the place of a closed stream",
    ("psa/core/file_locks.py", "os.open"): "a lock has no content",
    ("psa/storage/checkpoint.py", "self.path.replace"): "a damaged file is set aside, whole",
    (
        "psa/experiments/tracking/tensorboard.py",
        "SummaryWriter",
    ): "TensorBoard's library, which appends to its log",
    ("psa/reports/activations/arms.py", "rename"): "a column of a frame",
    (
        "cloud/object_store.py",
        "self.files.move",
    ): "a file that was written under another name, in any storage",
    ("cloud/emulator/containers/environment.py", "target.symlink_to"): "links to installed files",
    ("psa/storage/records/bundle.py", "writer.write_table"): MEMORY,
    ("psa/execution/worker/start.py", "_GROUP.write_text"): "a setting of the kernel",
    ("psa/reports/plotting/style.py", "figure.savefig"): MEMORY,
    ("cloud/sagemaker/container/code.py", "tarfile.open"): MEMORY,
    ("cloud/sagemaker/container/supervisor.py", "failure.parent.mkdir"): CONTAINER,
    ("cloud/sagemaker/container/supervisor.py", "failure.write_text"): CONTAINER,
    (
        "cloud/sagemaker/container/wheels.py",
        "path.replace",
    ): "a wheel that pip has downloaded, whole, into the user's cache",
    ("cloud/emulator/containers/image.py", "touch"): "the user's cache: the mark of a finished environment",
    ("cloud/ray/driver_process.py", "log.open"): LIVE,
    ("cloud/slurm/event_log.py", "os.open"): LIVE,
    ("cloud/slurm/backend.py", "script.write_text"): "scratch, for sbatch --test-only",
    (
        "cloud/ray/pack_worker.py",
        "target.parent.mkdir",
    ): "links in a temporary folder, removed after their upload",
    ("cloud/ray/pack_worker.py", "os.link"): "links in a temporary folder, removed after their upload",
    ("cloud/emulator/s3_server.py", "open"): LIVE,
    ("cloud/emulator/log_store.py", "file.open"): LIVE,
    ("cloud/emulator/s3_sync.py", "tarfile.open"): "scratch, removed after its upload",
    ("cloud/emulator/containers/environment.py", "target.parent.mkdir"): "links to installed files",
    ("cloud/emulator/containers/environment.py", "script.write_text"): "beside links to installed files",
}
WRITERS = {
    "write_text", "write_bytes", "mkdir", "makedirs", "touch", "copyfile", "copy2", "copytree", "move",
    "rename", "renames", "link", "symlink_to", "hardlink_to", "write_table", "savefig", "SummaryWriter",
    "PdfPages", "imsave", "save_file", "write_image", "FileHandler",
}  # fmt: skip
TO_PATHS = {
    "to_csv",
    "to_parquet",
    "to_json",
    "to_html",
    "to_latex",
    "to_markdown",
    "to_string",
    "to_excel",
    "tofile",
}
FLAGS = {"O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC"}


def trial_of(seed: int = 0) -> Trial:
    """Return a trial of the smallest network."""
    model = PublishedModelSpec(family="simplemlp", arch="1*1")
    return Trial(model=model, intervention=Ablation(mode="hidden"), seed=seed)


def name_of(node: ast.AST) -> str:
    """Return `a.b.c` of a call's function; the last name alone where it is not a plain name."""
    if isinstance(node, ast.Attribute):
        inner = name_of(node.value)
        return f"{inner}.{node.attr}" if inner else node.attr
    return node.id if isinstance(node, ast.Name) else ""


def opens_to_write(call: ast.Call) -> bool:
    """Return whether a call of some `open` asks for a mode, or flags, that write."""
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in ("mode", "flags"))]
    texts = [node.value for node in given if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    flags = {each.attr for node in given for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    return bool(flags & FLAGS) or any(set(text) & set("wax+") and len(text) <= 4 for text in texts)


def writes(source: str) -> Iterator[str]:
    """Yield the calls of a source that write a file or make a folder."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        last = name.rpartition(".")[2]
        replaces = last == "replace" and len(node.args) == 1 and not node.keywords
        given = bool(node.args) or any(
            option.arg in ("path", "path_or_buf", "buf") for option in node.keywords
        )
        opens = last in ("open", "fdopen", "NamedTemporaryFile") and opens_to_write(node)
        if last in WRITERS or replaces or opens or (last in TO_PATHS and given):
            yield name


def test_nothing_is_written_but_by_psa_files() -> None:
    """Outside of psa/core/files.py only listed calls write a file or make a folder, and all of them exist."""
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        if path != ROOT / "psa/core/files.py"
        for name in writes(path.read_text())
    }
    assert found == EXCEPTIONS.keys()


@pytest.mark.parametrize(
    "source",
    [
        "path.write_text(text)",
        "(folder / name).write_bytes(content)",
        "path.open('w')",
        "path.open(mode='ab')",
        "open(path, 'xb')",
        "gzip.open(path, 'wb')",
        "os.open(path, os.O_WRONLY | os.O_CREAT)",
        "frame.to_csv(path, index=False)",
        "frame.to_parquet(path=path)",
        "figure.savefig(path)",
        "pq.write_table(table, path)",
        "path.parent.mkdir(parents=True, exist_ok=True)",
        "os.makedirs(folder)",
        "shutil.copyfile(source, target)",
        "temporary.replace(path)",
    ],
)
def test_the_search_for_writes_finds_each(source: str) -> None:
    """The rule above fails for each of these, and not for reading."""
    assert list(writes(source))
    reading = (
        "path.open('rb'); open(path); text.replace('a', 'b'); frame.to_csv(index=False); path.read_text()"
    )
    assert list(writes(reading)) == []


class Recorder:
    """Notes which folders are made and which are flushed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[Path] = []
        self.flushed: set[Path] = set()
        self._paths: dict[int, Path] = {}
        for name in ("mkdir", "open", "fsync"):
            monkeypatch.setattr(os, name, self._noting(name, getattr(os, name)))

    def _noting(self, name: str, real: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            result = real(*arguments, **options)
            if name == "mkdir":
                self.made.append(Path(arguments[0]))
                self.flushed.discard(Path(arguments[0]).parent)
            elif name == "open":
                self._paths[result] = Path(arguments[0])
            else:
                self.flushed.add(self._paths[arguments[0]])
            return result

        return call


def test_every_new_folder_is_flushed_to_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state, a record, a report and a lock in folders that are new: a power cut loses none of them."""
    recorder, trial = Recorder(monkeypatch), trial_of()
    store = Store(tmp_path / "a" / "models", tmp_path / "b" / "c" / "results")
    with locks.lock_trials(store, [trial]):
        store.state_file(trial).save(some_state(1, trial=trial))
        store.write(trial, some_record(1, trial=trial), {"host": "here"})
    write_frame(pd.DataFrame({"x": [1]}), tmp_path / "b" / "c" / "results" / "study")
    ensure_dir(tmp_path / "d" / "e")
    assert len(recorder.made) > 10
    assert [folder for folder in recorder.made if folder.parent not in recorder.flushed] == []


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    """No flush and no new mode; a file in its place is refused."""
    ensure_dir(tmp_path / "a", mode=0o700)
    ensure_dir(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="A part of that path is a file"):
        ensure_dir(tmp_path / "file")


def test_tables_of_a_report_are_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of rows.parquet and rows.csv leaves those of the last report."""
    write_frame(pd.DataFrame({"x": [1, 2]}), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"rows.csv", "rows.parquet"}

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left on device"):
        write_frame(pd.DataFrame({"x": [3]}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_lease_removes_what_killed_writers_have_left_of_its_trial(tmp_path: Path) -> None:
    """Half-written states, arrays, records and sidecars of this trial go; those of others, whose writers may
    live, stay; and so does a failure, which is written without a lease.
    """
    store, trial, other = Store(tmp_path / "m", tmp_path / "r"), trial_of(seed=1), trial_of(seed=2)
    kept, gone = [], []
    for each in (trial, other):
        state, record = store.state_file(each), store.record_path(each)
        paths = [state.path, state.previous, state.arrays_path("gradients_online-1"), record]
        paths.append(record.with_suffix(".machine.json"))
        left = [temp_path(path) for path in paths]
        (gone if each is trial else kept).extend(left)
        kept.append(temp_path(record.with_suffix(".failed.json")))
    for path in (*kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    with locks.lock_trials(store, [trial]):
        assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


@pytest.mark.parametrize("length", [1, 100, 219, 220, 221, 240, 255])
@pytest.mark.parametrize("letter", ["x", "\u00e9", "["])
def test_a_name_as_long_as_the_file_system_allows_can_be_written(
    length: int, letter: str, tmp_path: Path
) -> None:
    """Temporary names beside it are no longer than it may be, and what a kill leaves of it can be found."""
    name = letter * (length // len(letter.encode())) or letter
    path = tmp_path / name
    write_atomically(path, b"one", tmp_path / "previous")
    write_atomically(path, b"two", tmp_path / "previous")
    assert path.read_bytes() == b"two"
    temp_path(path).touch()
    assert len(leftovers(tmp_path, name[:20])) == 1
