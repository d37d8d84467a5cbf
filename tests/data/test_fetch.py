"""psa.data.download: every layout of the data folder, all kinds of damage, kills, full disks, many users."""

import errno
import gzip
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_data import NAMES, TINY, TINY_SET, dataset_of
from paths import ROOT
from processes import PATIENCE_SECONDS

from psa.core.errors import CorruptFileError, UserError
from psa.data import download as fetch_module
from psa.data import sources
from psa.data.datasets import DATASETS, SourceFailed
from psa.data.download import download_dataset
from psa.data.sources import DataSource


def put(folder: Path, contents: dict[str, bytes], *, gz: bool = False, dotted: bool = False) -> None:
    """Write files as some download would leave them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        stem = name.replace("-idx", ".idx") if dotted else name
        (folder / (stem + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)


def source(title: str, contents: dict[str, bytes], *asked: list[str]) -> DataSource:
    """A source that hands over these files and then fails; it notes what it was asked for."""

    def get(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        for note in asked:
            note.append(title)
        for name in names:
            if name not in contents:
                raise SourceFailed(f"no {name}")
            yield name, contents[name]

    return DataSource(title, get)


def use_sources(monkeypatch: pytest.MonkeyPatch, *given: DataSource) -> None:
    """Let these sources be the only ones."""
    monkeypatch.setattr(sources, "sources_of", lambda _dataset: iter(given))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No source at all."""
    use_sources(monkeypatch)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("place", ["tiny", ".", "MNIST/raw"])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("gz", [False, True])
def test_every_layout_is_found(tmp_path: Path, place: str, *, dotted: bool, gz: bool) -> None:
    """Three folders, two spellings, packed or not; what was packed is kept unpacked as well."""
    put(tmp_path / place, TINY, gz=gz, dotted=dotted)
    assert download_dataset(TINY_SET, tmp_path) == TINY
    kept = {path.name for path in (tmp_path / "tiny").glob("*-ubyte")} if gz else set(NAMES)
    assert kept == set(NAMES)
    assert download_dataset(TINY_SET, tmp_path) == TINY


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_real_mnist_from_gz_files(data_dir: Path, tmp_path: Path) -> None:
    """The real thing, packed, in torchvision's folder: the published MD5s accept it."""
    real = download_dataset(DATASETS["mnist"], data_dir)
    for name, data in real.items():
        assert hashlib.md5(data, usedforsecurity=False).hexdigest() == DATASETS["mnist"].files[name].md5
    put(tmp_path / "MNIST" / "raw", {name: real[name] for name in NAMES[1:]}, gz=True)
    put(tmp_path, {NAMES[0]: real[NAMES[0]]})
    assert download_dataset(DATASETS["mnist"], tmp_path) == real


@pytest.mark.usefixtures("offline")
def test_a_gz_name_over_unpacked_bytes(tmp_path: Path) -> None:
    """Browsers unpack on the way and keep the name."""
    for name, data in TINY.items():
        (tmp_path / f"{name}.gz").write_bytes(data)
    assert download_dataset(TINY_SET, tmp_path) == TINY


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("place", ["tiny", ".", "MNIST/raw"])
@pytest.mark.parametrize("at", [0, 3, 100, -1])
def test_a_flipped_bit_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, *, gz: bool, at: int
) -> None:
    """One wrong bit anywhere stops with the file's name, though a source has a good copy."""
    use_sources(monkeypatch, source("good", TINY))
    put(tmp_path / place, TINY, gz=gz)
    victim = tmp_path / place / (NAMES[2] + ".gz" * gz)
    content = bytearray(gzip.decompress(victim.read_bytes()) if gz else victim.read_bytes())
    content[at] ^= 0x10
    victim.write_bytes(gzip.compress(bytes(content)) if gz else content)
    with pytest.raises(CorruptFileError) as caught:
        download_dataset(TINY_SET, tmp_path)
    assert str(victim) in caught.value.message
    assert "Delete it" in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("keep", [3, 12, 60, -4])
def test_a_truncated_gz_is_damage(tmp_path: Path, keep: int) -> None:
    """A download that was cut off, wherever it was cut."""
    put(tmp_path, TINY, gz=True)
    victim = tmp_path / f"{NAMES[0]}.gz"
    victim.write_bytes(victim.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match="cannot be unpacked") as caught:
        download_dataset(TINY_SET, tmp_path)
    assert str(victim) in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_empty_and_overlong_files_are_damage(tmp_path: Path) -> None:
    """An empty file, and one that unpacks to far more than it should, are named with their sizes."""
    put(tmp_path, TINY)
    (tmp_path / NAMES[1]).write_bytes(b"")
    with pytest.raises(CorruptFileError, match="has 0 bytes"):
        download_dataset(TINY_SET, tmp_path)
    (tmp_path / NAMES[1]).write_bytes(gzip.compress(bytes(50_000_000)))
    with pytest.raises(CorruptFileError, match="more than 404 bytes"):
        download_dataset(TINY_SET, tmp_path)


def test_a_loose_file_of_another_data_set_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MNIST's files loose in the folder are no damaged Fashion-MNIST; in the set's own folder they are."""
    other = {name: data[::-1] for name, data in TINY.items()}
    monkeypatch.setattr(fetch_module, "DATASETS", {"other": dataset_of(other, "other")})
    put(tmp_path, other)
    use_sources(monkeypatch, source("good", TINY))
    assert download_dataset(TINY_SET, tmp_path) == TINY
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == other
    put(tmp_path / "tiny", other)
    with pytest.raises(CorruptFileError, match="tiny"):
        download_dataset(TINY_SET, tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission is an error that names the file and the reason."""
    put(tmp_path, TINY)

    def refuse(_path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=rf"cannot read .*{NAMES[0]}: permission denied"):
        download_dataset(TINY_SET, tmp_path)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("workers", [0, 1, 2, 64])
def test_any_number_of_threads_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """The same files in the same order, the same lines said, and the same files kept."""
    put(tmp_path, {name: TINY[name] for name in NAMES[:3]}, gz=True)
    put(tmp_path / "MNIST" / "raw", {NAMES[3]: TINY[NAMES[3]]})
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", _refuse_to_open)
        said: list[str] = []
        assert list(download_dataset(TINY_SET, tmp_path, said.append, workers=workers).items()) == list(
            TINY.items()
        )
        assert [line.partition(" ")[0] for line in said] == list(NAMES[:3])
    assert download_dataset(TINY_SET, tmp_path, workers=workers) == TINY
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == set(NAMES[:3])


def _refuse_to_open(*_args: Any, **_kwargs: Any) -> None:
    raise OSError(errno.EROFS, "Read-only file system")


@pytest.mark.usefixtures("offline")
def test_four_threads_read_four_files_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With workers=4 no read waits for another to end; with workers=0 no thread is started at all."""
    put(tmp_path, TINY)
    together = threading.Barrier(4)

    def read(path: Path) -> bytes:
        together.wait(timeout=PATIENCE_SECONDS)
        return path.read_bytes()

    with monkeypatch.context() as patched:
        patched.setattr(fetch_module, "read_bytes", read)
        assert download_dataset(TINY_SET, tmp_path, workers=4) == TINY
    monkeypatch.setattr(threading.Thread, "start", lambda _thread: pytest.fail("a thread was started"))
    assert download_dataset(TINY_SET, tmp_path, workers=0) == TINY


@pytest.mark.usefixtures("offline")
def test_of_two_damaged_files_the_first_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though a thread finds the damage of the last file long before that of the second."""
    put(tmp_path, TINY | {NAMES[1]: b"damaged", NAMES[3]: b"damaged"})
    later_is_read = threading.Event()

    def read(path: Path) -> bytes:
        if path.name == NAMES[1]:
            assert later_is_read.wait(timeout=PATIENCE_SECONDS)
        if path.name == NAMES[3]:
            later_is_read.set()
        return path.read_bytes()

    monkeypatch.setattr(fetch_module, "read_bytes", read)
    with pytest.raises(CorruptFileError, match=NAMES[1]):
        download_dataset(TINY_SET, tmp_path, workers=4)


def test_the_next_source_is_asked_for_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that stops half-way keeps what it gave; damage is refused; the last source is not needed."""
    asked: list[str] = []
    half = source("half", {name: gzip.compress(TINY[name]) for name in NAMES[:2]}, asked)
    bad = source("bad", {NAMES[2]: TINY[NAMES[2]][:-1] + b"!", NAMES[3]: TINY[NAMES[3]]}, asked)
    use_sources(monkeypatch, half, bad, source("good", TINY, asked), source("spare", TINY, asked))
    said: list[str] = []
    assert download_dataset(TINY_SET, tmp_path, said.append) == TINY
    assert asked == ["half", "bad", "good"]
    assert any(f"bad failed: {NAMES[2]} has" in line for line in said)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == TINY
    use_sources(monkeypatch)
    assert download_dataset(TINY_SET, tmp_path) == TINY


def test_no_source_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists what was tried and why that failed, and says where to put which files."""
    use_sources(monkeypatch, source("here", {}), source("there", {NAMES[0]: b"<html>"}))
    with pytest.raises(UserError) as caught:
        download_dataset(TINY_SET, tmp_path)
    text = str(caught.value)
    assert not isinstance(caught.value, CorruptFileError)
    assert "\n" not in text
    assert f"{tmp_path} (none of its files); here (no {NAMES[0]})" in text
    assert "there (" in text
    assert all(name in caught.value.hint for name in NAMES)
    assert str(tmp_path / "tiny") in caught.value.hint


def test_a_data_dir_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before any source is asked."""
    asked: list[str] = []
    use_sources(monkeypatch, source("good", TINY, asked))
    (tmp_path / "data").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot create the folder .*data"):
        download_dataset(TINY_SET, tmp_path / "data")
    assert asked == []


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file and the reason; no part of a file stays."""
    use_sources(monkeypatch, source("good", TINY))

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "tiny").mkdir()  # else the folder would be refused, and not the file
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=rf"cannot write .*{NAMES[0]}: no space left"):
        download_dataset(TINY_SET, tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.usefixtures("offline")
def test_packed_files_in_a_read_only_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are used all the same, and it is said that they cannot be kept unpacked."""
    put(tmp_path, TINY, gz=True)
    monkeypatch.setattr(os, "open", _refuse_to_open)
    said: list[str] = []
    assert download_dataset(TINY_SET, tmp_path, said.append) == TINY
    assert len(said) == 4
    assert all("read-only file system" in line for line in said)


def test_an_interrupt_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C just before the rename: neither the file nor its temp is there, and the next fetch completes."""
    use_sources(monkeypatch, source("good", TINY))

    def interrupt(_temporary: Path, _target: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download_dataset(TINY_SET, tmp_path)
    assert list((tmp_path / "tiny").iterdir()) == []
    assert download_dataset(TINY_SET, tmp_path) == TINY


def test_leftovers_of_a_kill_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old temp file goes, one that may be in use stays."""
    use_sources(monkeypatch, source("good", TINY))
    folder = tmp_path / "tiny"
    folder.mkdir()
    old, young = folder / f".{NAMES[0]}.1.tmp", folder / f".{NAMES[0]}.2.tmp"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(old, (time.time() - 7200, time.time() - 7200))
    download_dataset(TINY_SET, tmp_path)
    assert not old.exists()
    assert young.exists()


FETCH_ON_A_WORD = """
import sys
from pathlib import Path
from psa.data.download import download_dataset
from psa.data.datasets import DATASETS, Dataset, IdxFile
source, target, *files = sys.argv[1:]
known = dict(zip(files[::3], (IdxFile(md5, int(size)) for md5, size in zip(files[1::3], files[2::3]))))
print("ready", flush=True)
sys.stdin.readline()
got = download_dataset(Dataset("tiny", known, "MNIST", system=Path(source)), Path(target))
print(sum(map(len, got.values())))
"""


def test_processes_that_fetch_at_once_do_not_hurt_each_other(tmp_path: Path) -> None:
    """Three real processes, one folder: each gets the right bytes, and nothing else is left behind."""
    contents = {name: np.random.default_rng(i).bytes(2_000_000) for i, name in enumerate(NAMES)}
    big = dataset_of(contents)
    put(tmp_path / "system", contents)
    files = [word for name, file in big.files.items() for word in (name, file.md5, str(file.size))]
    command = [
        sys.executable,
        "-c",
        FETCH_ON_A_WORD,
        str(tmp_path / "system"),
        str(tmp_path / "data"),
        *files,
    ]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    running: list[Any] = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in running] == ["8000000\n"] * 3
    assert {path.name: path.read_bytes() for path in (tmp_path / "data" / "tiny").iterdir()} == contents
