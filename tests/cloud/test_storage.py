"""The tree that all nodes share: the same on this disk and on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from proxy import Fault, Proxy, proxy
from s3 import BUCKET, s3_server

from cloud import retry
from cloud.aws.errors import Unreachable, is_transient_in_storage
from cloud.emulator.s3_server import S3
from cloud.object_store import ObjectStore
from cloud.retry import retry_until_reachable, retry_with_ticks
from psa.core.errors import UserError


@pytest.fixture(params=["folder", "s3"])
def storage(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """An empty tree."""
    if request.param == "folder":
        yield ObjectStore.at(str(tmp_path / "tree"))
        return
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield ObjectStore.at(server.uri("some/prefix"))


def test_what_was_written_is_there(storage: ObjectStore) -> None:
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


def test_a_folder_of_it_is_a_tree_of_its_own(storage: ObjectStore) -> None:
    """By its URI."""
    storage.write("b/c/three.txt", b"3")
    inner = ObjectStore.at(storage.under("b/c"))
    assert list(inner.tree("")) == ["three.txt"]
    assert inner.read("three.txt") == b"3"


def test_what_is_removed_is_gone(storage: ObjectStore) -> None:
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
        ObjectStore.at(str(tmp_path / "file")).check_writable()


def test_wrong_keys_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the secret is not in it."""
    with s3_server(tmp_path) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
        with pytest.raises(UserError) as caught:
            ObjectStore.at(server.uri("x")).check_writable()
    assert "quite-another-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["s3://AKIAEXAMPLE:very-secret@bucket/x", "s3://AKIAEXAMPLE@bucket"])
def test_an_address_with_keys_in_it_is_refused(place: str) -> None:
    """It would be shown wherever the storage is named; the error itself does not show it."""
    with pytest.raises(UserError, match="must not contain keys") as refused:
        ObjectStore.at(place)
    assert "AKIAEXAMPLE" not in str(refused.value)
    assert "very-secret" not in str(refused.value)


# A network between the storage and a real server that fails in its answers.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run one S3 server with two files."""
    with pytest.MonkeyPatch.context() as context, s3_server(tmp_path_factory.mktemp("s3")) as found:
        for name, value in found.environment.items():
            context.setenv(name, value)
        there = ObjectStore.at(found.uri("runs"))
        there.write("x", CONTENT)
        there.write("folder/y", b"y")
        yield found


CONTENT = bytes(range(256)) * 4096


@pytest.fixture
def network(server: S3) -> Iterator[Proxy]:
    """Run a network of its own for each test."""
    with proxy(server.port) as found:
        yield found


def behind(network: Proxy) -> ObjectStore:
    """Return the storage behind a network."""
    return ObjectStore.at(f"s3://{BUCKET}/runs?endpoint_override=127.0.0.1:{network.port}&scheme=http")


@pytest.mark.parametrize("after", [17, 20, 60])
def test_an_answer_torn_in_its_head_is_not_taken_for_nothing(after: int, network: Proxy) -> None:
    """Neither a file nor a folder then looks empty: what is left of a sweep would be removed."""
    for question, answer in (
        (lambda there: there.read("x"), CONTENT),
        (lambda there: there.folders(), ["folder"]),
        (lambda there: list(there.tree("")), ["folder/y", "x"]),
    ):
        there = behind(network)  # its first connection
        network.faults.append(Fault("torn", after))
        assert question(there) == answer
        assert not network.faults


@pytest.mark.parametrize("fault", [Fault("torn", 500_000), Fault("reset", 20)], ids=lambda fault: fault.kind)
def test_a_network_that_fails_once_is_not_noticed(fault: Fault, network: Proxy) -> None:
    """The client asks again by itself."""
    there = behind(network)
    network.faults.append(fault)
    assert there.read("x") == CONTENT
    assert not network.faults


@pytest.mark.slow
def test_what_passes_is_waited_for(
    network: Proxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, ticks meanwhile, and in the end the content."""
    monkeypatch.setattr(retry, "RETRY_SECONDS", 0.1)
    there = behind(network)
    network.always = Fault("reset", 0)
    with pytest.raises(Unreachable, match=r"--storage .*cannot be read \(x\).*Check the network"):
        there.read("x")
    waiting = retry_with_ticks(lambda: there.read("x"), "tick")
    assert next(waiting) == "tick"
    network.always = None
    assert retry_until_reachable(lambda: there.read("x")) == CONTENT
    assert set(waiting) <= {"tick"}
    assert sum("retrying, the" in entry.getMessage() for entry in caplog.records) == 1


def test_what_does_not_pass_is_told_at_once(server: S3) -> None:
    """A bucket that is not there: no patience, and the way out."""
    there = ObjectStore.at(server.uri("runs").replace(BUCKET, "no-such-bucket"))
    with pytest.raises(UserError, match="Name a folder that all nodes share") as caught:
        retry_until_reachable(lambda: there.write("x", b"x"))
    assert not isinstance(caught.value, Unreachable)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout was reached", True),
        ("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate.", True),
        ("AWS Error INTERNAL_FAILURE during PutObject operation: x", True),
        ("AWS Error SERVICE_UNAVAILABLE during PutObject operation: x", True),
        ("AWS Error THROTTLING during PutObject operation: x", True),
        ("AWS Error REQUEST_TIMEOUT during PutObject operation: x", True),
        ("AWS Error REQUEST_TIME_TOO_SKEWED during PutObject operation: x", True),
        ("AWS Error UNKNOWN (HTTP status 503) during HeadObject operation: No response body.", True),
        ("AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body.", False),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body.", False),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during PutObject operation: x", False),
        ("AWS Error NO_SUCH_BUCKET during CreateMultipartUpload operation: x", False),
        ("AWS Error INVALID_ACCESS_KEY_ID during PutObject operation: x", False),
        (OSError(116, "Stale file handle"), True),
        (OSError(110, "Connection timed out"), True),
        (OSError(28, "No space left on device"), False),
        (PermissionError(13, "Permission denied"), False),
    ],
    ids=lambda case: str(case)[:50],
)
def test_what_passes_in_a_storage_and_what_does_not(error: str | OSError, passes: bool) -> None:
    """By the codes that the watch over SageMaker goes by; of a network file system by its numbers."""
    assert is_transient_in_storage(error if isinstance(error, OSError) else OSError(error)) == passes
