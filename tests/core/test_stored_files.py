"""Reading stored files: bounded, without waiting, in time that grows with their number; by one function."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from cloud.workspace import read_workspace_id
from psa.core.errors import CorruptFileError, UserError
from psa.core.parsing import parse_values
from psa.core.stored_files import files_below, read_stored

SOURCES = sorted(path for folder in ("psa", "cloud") for path in (ROOT / folder).rglob("*.py"))


def links_to_folders(root: Path, number: int) -> Path:
    """A tree with so many links, two to each folder outside and one to a folder that lies in it."""
    for at in range(number // 2):
        (root / "elsewhere" / f"f{at}").mkdir(parents=True)
        (root / "elsewhere" / f"f{at}" / "x.json").touch()
    tree = root / "tree"
    (tree / "own").mkdir(parents=True)
    for at in range(number):
        (tree / f"link{at}").symlink_to(root / "elsewhere" / f"f{at // 2}")
    (tree / "again").symlink_to(tree / "own")
    return tree


def calls_of(function: Callable[[], Any]) -> int:
    """The number of calls, of Python and of C, that a function makes."""
    count = 0

    def counted(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


def test_the_work_of_following_links_grows_with_their_number(tmp_path: Path) -> None:
    """Four times the links are at most five times the calls; each folder is listed once."""
    few, many = (links_to_folders(tmp_path / str(number), number) for number in (20, 80))
    calls = [calls_of(lambda tree=tree: files_below(tree, lambda name: True)) for tree in (few, many)]  # type: ignore[misc]
    assert calls[1] <= 5 * calls[0]
    listing = files_below(many, lambda name: name.endswith(".json"))
    assert len(listing.files) == 40
    assert len(listing.repeated) == 41
    assert listing.faults == []


def test_a_stored_file_may_be_given_a_limit(tmp_path: Path) -> None:
    """One byte more is refused, with both numbers."""
    path = tmp_path / "x"
    path.write_bytes(bytes(1000))
    assert read_stored(path, 1000) == bytes(1000)
    with pytest.raises(CorruptFileError, match="must have at most 999 bytes, got 1,000"):
        read_stored(path, 999)


REFUSED: dict[str, Callable[[Path], Any]] = {
    "FIFO": os.mkfifo,
    "folder": Path.mkdir,
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_the_name_of_a_folder_of_states_is_no_place_to_wait(kind: str, tmp_path: Path) -> None:
    """Nothing waits for a writer, and nothing reads a device."""
    REFUSED[kind](tmp_path / ".home")
    with pytest.raises(UserError, match=f"must be a regular file, got a {kind}"):
        read_workspace_id(tmp_path)


@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_a_file_of_values_must_be_a_file(kind: str, tmp_path: Path) -> None:
    """The message names the key; a file of values that is not there is another mistake."""
    REFUSED[kind](tmp_path / "x.txt")
    with pytest.raises(UserError, match=f"arch: .*x.txt must be a regular file, got a {kind}"):
        parse_values("@x.txt", tmp_path, "arch")
    with pytest.raises(UserError, match=r"arch: .*y.txt does not exist"):
        parse_values("@y.txt", tmp_path, "arch")


def test_an_error_is_put_on_one_line_by_one_function() -> None:
    """Another way to do so leaves escape codes in what an error says."""
    text_of_an_error = r"(\([^()]*(error|said)[^()]*\)|error|reason|said)"
    own_way = re.compile(rf"""["'] ["']\.join\([^()]*{text_of_an_error}[^()]*\.split\(\)""")
    assert own_way.search("""{' '.join(str(error).split())[:500]}""")
    found = [str(path) for path in SOURCES if own_way.search(path.read_text())]
    assert found == []
