"""Open files: however many trials a command reads, it holds a few descriptors."""

from __future__ import annotations

import contextlib
import itertools
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from processes import train_in_process

from psa.analysis.gradients.file import read_gradients
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, run
from psa.core.errors import CorruptFileError, UserError
from psa.experiments.grid import load_grid
from psa.reports.contract import ReportContext
from psa.reports.gradients.report import measured_of
from psa.storage import array_file
from psa.storage.store import Store

TRIALS = 30
ROOM = 20  # descriptors: fewer than there are trials
SAMPLES = 6  # of 60, the digits 3 and 8 outside of the validation split
GRID = f"""
study = "gradients"
name = "gradients"
seeds = "0..{TRIALS - 1}"
meta_loops = 1
[base]
arch = "1*4"
digits = "3,8"
val_size = 57_500
train_size = 60
batch_size = 2
"""


@contextlib.contextmanager
def few_descriptors() -> Iterator[None]:
    """So many more open files than there are now, and no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, ROOM, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with many trials, each with a record, a state and a file of gradients."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "dataset").symlink_to(data_dir.resolve())
    (folder / "grid.toml").write_text(GRID)
    train_in_process(folder, data_dir, 1, folder / "grid.toml")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "verify --replay 2",
        "status grid.toml",
        "plan grid.toml",
        "sweep grid.toml --data-dir dataset",
        pytest.param("report gradients", marks=pytest.mark.crash),
    ],
)
def test_a_command_over_many_trials_opens_few_files(
    command: str, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Less room than trials; nothing is left out of the result."""
    monkeypatch.chdir(trained)
    with few_descriptors():
        assert run(PSA, command.split()) == 0, capsys.readouterr()
    out, err = capsys.readouterr()
    assert "too many open files" not in (out + err).lower()
    if "report" in command:
        page = next((trained / "results/reports").glob("*.html")).read_text()
        assert page.count("gradients_online-1") >= TRIALS
        assert "oo many open files" not in page
    elif "plan" not in command and "verify" not in command:
        assert f"{TRIALS} of {TRIALS} trials done" in out


def test_measured_gradients_of_many_trials_hold_few_files(trained: Path) -> None:
    """A page of the report keeps what it measured of every trial until it is written."""
    store = Store(trained / "models", trained / "results")
    frame = load_records_frame(store, ["gradients"], load_grid(trained / "grid.toml").trials)
    with few_descriptors():
        measured, missing = measured_of(
            frame, ReportContext(trained, store=store, data_dir=trained / "dataset")
        )
        predictions = [len(one.kept.predictions) for one in measured]
    assert (predictions, missing) == ([SAMPLES] * TRIALS, [])


def test_maps_that_are_not_held_hold_no_descriptor(trained: Path) -> None:
    """The files of all trials at once, as a notebook reads them."""
    paths = sorted(trained.rglob("*.arrays.safetensors"))
    with few_descriptors():
        files = [read_gradients(path, trained / "dataset") for path in paths]
        shapes = [(len(kept), kept.layer("output").delta.shape) for kept in files]
    assert shapes == [(SAMPLES, (SAMPLES, 2))] * TRIALS


def test_a_file_that_goes_or_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    """A file that is removed or cut short after it was opened is named when it is read again."""
    path = tmp_path / "x.arrays.safetensors"
    array_file.write_arrays(path, {"a": np.arange(10), "b": np.ones((3, 2), np.float32)}, {"name": "x"})
    file = array_file.read_arrays(path)
    assert (sorted(file.arrays), len(file.arrays), "c" in file.arrays) == (["a", "b"], 2, False)
    assert file.arrays["a"].tolist() == list(range(10))
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with pytest.raises(CorruptFileError, match=r"x\.arrays\.safetensors is damaged"):
        file.arrays["b"]
    path.unlink()
    with pytest.raises(UserError, match="does not exist"):
        file.arrays["a"]
    with pytest.raises(KeyError):
        file.arrays["c"]
