"""Every write is whole or not at all: whatever fails, the old file is there and the error says what to do."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from psa.core.errors import UserError
from psa.core.files import check_writable, ensure_dir, read_bytes, temp_path, write_atomically


def files_in(folder: Path) -> set[str]:
    """The names in a folder."""
    return {path.name for path in folder.iterdir()}


def failing(monkeypatch: pytest.MonkeyPatch, name: str, number: int, code: int) -> list[int]:
    """Let call `number` (from 1) of os.<name> fail with an errno; the calls made so far."""
    real: Callable[..., Any] = getattr(os, name)
    calls: list[int] = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == number:
            raise OSError(code, os.strerror(code))
        return real(*args, **options)

    monkeypatch.setattr(os, name, call)
    return calls


def test_a_write_replaces_the_file_and_keeps_the_one_before(tmp_path: Path) -> None:
    """Three generations written leave the third and, as previous, the second; nothing else."""
    path, previous = tmp_path / "new" / "x.bin", tmp_path / "new" / "x.previous.bin"
    for content in (b"one", b"two", b"three"):
        write_atomically(path, content, previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"three", b"two")
    assert files_in(path.parent) == {"x.bin", "x.previous.bin"}


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """As are devices such as /dev/stdout, which root could replace."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            write_atomically(path, b"content")
            assert os.read(reader, 100) == b"content"
        finally:
            os.close(reader)
    with pytest.raises(UserError, match="cannot write"):  # without a reader: no wait without end
        write_atomically(pipe, b"content")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [link, pipe]


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes at a time gets all of them."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data)[:3]))
    write_atomically(tmp_path / "x", b"0123456789")
    assert (tmp_path / "x").read_bytes() == b"0123456789"


@pytest.mark.parametrize("name", ["open", "write", "fsync", "link", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_whichever_call_fails_no_file_is_torn_and_none_is_left_over(
    name: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th open, write, fsync, link or rename fails, for every n: old or new content, whole."""
    path, previous = tmp_path / "x.bin", tmp_path / "x.previous.bin"
    for number in range(1, 20):
        for file, content in ((path, b"old"), (previous, b"older")):
            file.unlink(missing_ok=True)  # the two may be one by now
            file.write_bytes(content * 100)
        with monkeypatch.context() as patch:
            calls = failing(patch, name, number, code)
            try:
                write_atomically(path, b"new" * 100, previous)
                failed = ""
            except UserError as refused:
                failed = str(refused)
        after = (path.read_bytes(), previous.read_bytes())
        assert files_in(tmp_path) == {"x.bin", "x.previous.bin"}
        if len(calls) < number:
            assert after == (b"new" * 100, b"old" * 100)
            assert not failed
            return
        assert failed.startswith(f"cannot write {path}: ")
        assert after in {
            (b"old" * 100, b"older" * 100),
            (b"old" * 100, b"old" * 100),  # previous is already the present file: nothing is lost
            (b"new" * 100, b"old" * 100),  # the folder could not be flushed
        }
    pytest.fail("the call never stopped failing")


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK])
def test_a_file_system_without_second_names_keeps_a_copy(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no hard link can be made, the previous generation is a copy."""

    def link(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    path, previous = tmp_path / "x.bin", tmp_path / "x.previous.bin"
    for content in (b"one", b"two", b"three"):
        write_atomically(path, content, previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"three", b"two")
    assert files_in(tmp_path) == {"x.bin", "x.previous.bin"}


def test_a_folder_that_cannot_be_flushed_by_itself_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some mounts refuse to flush a folder; the file is written all the same."""
    calls = failing(monkeypatch, "fsync", 2, errno.EINVAL)
    write_atomically(tmp_path / "x", b"content")
    assert len(calls) == 2
    assert (tmp_path / "x").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "Free some space and run the same command again: it goes on from what is stored"),
        (errno.EDQUOT, "Free some space and run the same command again: it goes on from what is stored"),
        (errno.EACCES, "Choose a folder you may write to"),
        (errno.EROFS, "Choose a folder you may write to"),
        (errno.EIO, "What is stored is untouched: mend the cause and run the same command again"),
    ],
)
def test_a_failed_write_says_what_to_do(
    code: int, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What, where, why, and the way out."""
    failing(monkeypatch, "write", 1, code)
    with pytest.raises(UserError) as refused:
        write_atomically(tmp_path / "x", b"content")
    assert str(refused.value).lower() == f"cannot write {tmp_path}/x: {os.strerror(code)}. {hint}".lower()


def test_a_path_below_a_file_is_refused_before_any_work(tmp_path: Path) -> None:
    """The folder is checked first, and the way out names what is in the way."""
    (tmp_path / "file").write_text("in the way")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"A part of that path is a file: choose another folder"):
            check_writable(folder)


def test_the_kernels_own_folders_are_refused() -> None:
    """/proc takes no new folder from anyone, root included."""
    if not Path("/proc/self").is_dir():
        pytest.skip("there is no /proc here")
    with pytest.raises(UserError, match="cannot create the folder /proc/psa-models"):
        ensure_dir(Path("/proc/psa-models"))


def test_a_check_of_a_folder_leaves_nothing(tmp_path: Path) -> None:
    """The folder is made, its probe is gone, and a full disk is found out."""
    check_writable(tmp_path / "a" / "b")
    assert files_in(tmp_path / "a" / "b") == set()


def test_a_full_disk_is_found_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No space for three bytes is no space for a checkpoint."""
    failing(monkeypatch, "write", 1, errno.ENOSPC)
    with pytest.raises(UserError, match=r"cannot write to the folder .*: no space left on device"):
        check_writable(tmp_path)
    assert files_in(tmp_path) == set()


def test_a_missing_file_is_none_and_an_unreadable_one_an_error(tmp_path: Path) -> None:
    """Absence is an answer; a folder in the place of a file is not."""
    assert read_bytes(tmp_path / "nothing") is None
    with pytest.raises(UserError, match=r"cannot read .*: is a directory\. There is a folder of that name"):
        read_bytes(tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_atomically(tmp_path / "x", b"content", tmp_path / "x.previous")
    assert files_in(tmp_path) == {"x"}


def test_no_two_writes_share_a_temporary_name(tmp_path: Path) -> None:
    """Containers on a shared folder may have the same process id, as the threads here do: names differ, and
    whoever writes what, the file is whole at any moment and nothing is left over.
    """
    path = tmp_path / "x.bin"
    assert len({temp_path(path) for _ in range(1000)}) == 1000
    contents = [bytes([number]) * 200_000 for number in range(8)]
    failures: list[Exception] = []

    def write(content: bytes) -> None:
        for _ in range(20):
            try:
                write_atomically(path, content)
                assert path.read_bytes() in contents
            except Exception as failure:  # noqa: BLE001 - an exception in a thread would go unseen
                failures.append(failure)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files_in(tmp_path) == {"x.bin"}
