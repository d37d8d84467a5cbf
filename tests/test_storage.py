"""The tree that all nodes share: the same on this disk and on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3 import s3_server

from cloud.storage import Storage
from psa.errors import UserError


@pytest.fixture(params=["folder", "s3"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Storage]:
    """An empty tree."""
    if request.param == "folder":
        yield Storage.at(str(tmp_path / "tree"))
        return
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield Storage.at(server.uri("some/prefix"))


def test_what_was_written_is_there(storage: Storage) -> None:
    """Files by name, folders and trees in order; what is not there is None or empty."""
    assert storage.folders() == []
    storage.check_writable()
    for name in ("b/two.txt", "b/c/three.txt", "a/one.txt", "top.txt"):
        storage.write(name, name.encode())
    storage.write("top.txt", b"anew")
    assert storage.read("top.txt") == b"anew"
    assert storage.read("b/nothing.txt") is None
    assert storage.folders() == ["a", "b"]
    assert list(storage.tree("b")) == ["c/three.txt", "two.txt"]
    assert list(storage.tree("nowhere")) == []


def test_a_folder_of_it_is_a_tree_of_its_own(storage: Storage) -> None:
    """By its URI."""
    storage.write("b/c/three.txt", b"3")
    inner = Storage.at(storage.under("b/c"))
    assert list(inner.tree("")) == ["three.txt"]
    assert inner.read("three.txt") == b"3"


def test_what_is_removed_is_gone(storage: Storage) -> None:
    """All of it; what is gone already is no mistake."""
    storage.write("a/b/one.txt", b"1")
    storage.write("c/two.txt", b"2")
    storage.remove("a")
    storage.remove("a")
    storage.remove_file("c/none.txt")
    assert list(storage.tree("")) == ["c/two.txt"]


def test_an_existing_file_is_no_folder(tmp_path: Path) -> None:
    """What is in the way is named, with the way out."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--storage .*file.*Name a folder"):
        Storage.at(str(tmp_path / "file")).check_writable()


def test_wrong_keys_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the secret is not in it."""
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
        with pytest.raises(UserError) as caught:
            Storage.at(server.uri("x")).check_writable()
    assert "quite-another-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["s3://AKIAEXAMPLE:very-secret@bucket/x", "s3://AKIAEXAMPLE@bucket"])
def test_an_address_with_keys_in_it_is_refused(place: str) -> None:
    """It would be shown wherever the storage is named; the error itself does not show it."""
    with pytest.raises(UserError, match="holds keys") as refused:
        Storage.at(place)
    assert "AKIAEXAMPLE" not in str(refused.value)
    assert "very-secret" not in str(refused.value)
