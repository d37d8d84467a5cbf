"""Archives that jobs leave, read as if an enemy had packed them."""

from __future__ import annotations

import contextlib
import gzip
import io
import pickle
import re
import tarfile
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.aws.artifact import Limits, read_artifact
from psa.core.errors import UserError
from psa.storage.trial_state import decode_state

RESULTS = {"results.txt": b"98.25\n98.31\n", "logs/run 1.log": b"Loop 1/100\n", "empty.txt": b""}
Change = Callable[[tarfile.TarInfo], None]


def packed(files: dict[str, bytes], change: Change = lambda member: None, **options: int) -> bytes:
    """A tar.gz of files, each header changed on the way."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", **options) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            change(member)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(stream.getvalue(), mtime=0)


def refused(data: bytes | Path, limits: Limits | None = None) -> str:
    """The one line of the refusal, which names the archive."""
    with pytest.raises(UserError) as caught:
        read_artifact(data, limits or Limits(), name="the-job/model.tar.gz")
    said = str(caught.value)
    assert "the-job/model.tar.gz" in said
    assert said.isprintable()
    return said


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_plain_files_are_read(layout: int, tmp_path: Path) -> None:
    """From bytes and from a file, in each layout of tar; folders say nothing, `./` is no part of a name."""
    data = packed({f"./{name}": content for name, content in RESULTS.items()}, format=layout)
    assert read_artifact(data) == RESULTS
    (tmp_path / "model.tar.gz").write_bytes(data)
    assert read_artifact(tmp_path / "model.tar.gz") == RESULTS


def test_what_the_command_tar_packs_is_read(tmp_path: Path) -> None:
    """With folders, long names and several gzip members one after the other."""
    deep = tmp_path / "model" / ("a" * 120) / ("b" * 120)
    deep.mkdir(parents=True)
    (deep / "results.txt").write_bytes(b"12.00\n")
    with tarfile.open(tmp_path / "model.tar", "w") as archive:
        archive.add(tmp_path / "model", ".")
    whole = (tmp_path / "model.tar").read_bytes()
    data = gzip.compress(whole[:700]) + gzip.compress(whole[700:])
    assert read_artifact(data) == {f"{'a' * 120}/{'b' * 120}/results.txt": b"12.00\n"}


def as_link(kind: bytes) -> Change:
    """Turn a member into a link that leads out."""

    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, "../../etc/passwd", 0

    return change


def as_kind(kind: bytes) -> Change:
    """Turn a member into a device, a pipe, or something else."""

    def change(member: tarfile.TarInfo) -> None:
        member.type, member.size = kind, 0

    return change


HOSTILE = [
    ({"../out.txt": b"x"}, None, "'../out.txt' leads out"),
    ({"a/../../out.txt": b"x"}, None, "leads out"),
    ({"..\\out.txt": b"x"}, None, "leads out"),
    ({"/etc/cron.d/x": b"x"}, None, "'/etc/cron.d/x' has an absolute name"),
    ({"C:/x": b"x"}, None, "absolute name"),
    ({"~root/x": b"x"}, None, "absolute name"),
    ({"a\nb": b"x"}, None, "no name that can be used"),
    ({"a\x1b[2Jb": b"x"}, None, "no name that can be used"),
    ({".": b"x"}, None, "no name that can be used"),
    ({"a" * 2000: b"x"}, None, "no name that can be used"),
    ({"results.txt": b"x"}, as_link(tarfile.SYMTYPE), "is a link to '../../etc/passwd'"),
    ({"results.txt": b"x"}, as_link(tarfile.LNKTYPE), "is a link to '../../etc/passwd'"),
    ({"dev": b""}, as_kind(tarfile.CHRTYPE), "must be a plain file or a folder"),
    ({"dev": b""}, as_kind(tarfile.BLKTYPE), "must be a plain file or a folder"),
    ({"pipe": b""}, as_kind(tarfile.FIFOTYPE), "must be a plain file or a folder"),
    ({"results.txt": b"1", "./results.txt": b"2"}, None, "stands there twice"),
    ({"model.pkl": b"x"}, None, "'model.pkl' is a pickle by its name"),
    ({"model.PTH": b"x"}, None, "is a pickle by its name"),
]


@pytest.mark.parametrize(("files", "change", "said"), HOSTILE)
def test_a_hostile_member_is_refused_by_name(
    files: dict[str, bytes], change: Change | None, said: str
) -> None:
    """Paths that lead out, links, devices, doubles and pickles; nothing is written anywhere."""
    assert said in refused(packed(files, change or (lambda member: None)))


def test_what_is_taken_passes_the_data_filter(tmp_path: Path) -> None:
    """Python's own rules for archives from elsewhere refuse nothing that is read here."""
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(packed(RESULTS)))) as archive:
        for member in archive:
            tarfile.data_filter(member, str(tmp_path))


def test_bombs_are_refused_before_they_expand() -> None:
    """A thousandfold, and one whose header claims more than there is; little memory is taken."""
    zeros = packed({"zeros.txt": bytes(100 * 2**20)})
    assert len(zeros) < 2**20
    tracemalloc.start()
    assert "expand to more than" in refused(zeros) or "says that it holds" in refused(zeros)
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20
    tracemalloc.stop()
    claims = gzip.compress(b"".join([_header("results.txt", 8**11 - 1), bytes(1024)]))
    assert "says that it holds 8,589,934,591 bytes" in refused(claims)
    assert "more than 3 files" in refused(packed({f"{n}.txt": b"" for n in range(4)}), Limits(files=3))
    assert "expand to more than 20,000" in refused(
        packed({f"{n}.txt": bytes(5_000) for n in range(9)}), Limits(bytes=20_000)
    )


def test_the_ratio_counts_from_a_size_on() -> None:
    """What packs well and is small is no bomb; the same, larger, is one."""
    log = {"a.log": b"equal lines\n" * 10_000}
    assert read_artifact(packed(log), Limits(ratio=2)) == log
    assert "expand to more than 1,000" in refused(packed(log), Limits(ratio=2, small=1_000))


def test_sparse_files_are_refused() -> None:
    """They hold less than they say."""
    assert "must be a plain file or a folder" in refused(
        packed({"sparse": bytes(1024)}, _sparse_type, format=tarfile.GNU_FORMAT)
    ) or "must be a gzipped" in refused(
        packed({"sparse": bytes(1024)}, _sparse_type, format=tarfile.GNU_FORMAT)
    )


def _sparse_type(member: tarfile.TarInfo) -> None:
    member.type = tarfile.GNUTYPE_SPARSE


def _header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def test_headers_that_call_for_the_next_one_are_refused() -> None:
    """Thousands of extended headers in a row exhaust no stack, and end."""
    one = _header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + b"name\0".ljust(512, b"\0")
    assert "must be a gzipped tar archive" in refused(gzip.compress(one * 5_000 + bytes(1024)))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_an_archive_that_is_cut_off_is_told(share: float) -> None:
    """Wherever the download ended; also one that was cut before it was packed."""
    data = packed({"a.txt": bytes(range(256)) * 40, "b.txt": b"98.25\n" * 100})
    assert "Fetch it again" in refused(data[: int(len(data) * share)])
    whole = gzip.decompress(data)
    cut = whole[: -(-len(whole) // 512 // 2) * 512 + 100]
    assert "cut off" in refused(gzip.compress(cut)) or "must be a gzipped" in refused(gzip.compress(cut))


@pytest.mark.parametrize(
    "data", [b"", b"98.25\n", b"\x1f\x8b", gzip.compress(b"", mtime=0), gzip.compress(b"x" * 9, mtime=0)]
)
def test_what_is_no_archive_is_told(data: bytes) -> None:
    """Text, nothing at all, and a gzip of something else."""
    assert re.search(r"model\.tar\.gz (is cut off|must be a gzipped tar archive)", refused(data))


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(UserError, match=r"cannot read .*nowhere"):
        read_artifact(tmp_path / "nowhere.tar.gz")


def test_unwanted_files_are_skipped_unread() -> None:
    """A checkpoint in pickle beside the results keeps nobody from the results; its name is still judged."""
    state = io.BytesIO()
    torch.save({"weight": torch.zeros(3)}, state)
    files = {"model/results.txt": b"98.25\n", "mnist_lkg.safetensors": state.getvalue(), "old.pkl": b"x"}
    assert read_artifact(packed(files), wanted=["results.txt"]) == {"model/results.txt": b"98.25\n"}
    with pytest.raises(UserError, match="leads out"):
        read_artifact(packed({"results.txt": b"1", "../old.pkl": b"x"}), wanted=["results.txt"])


@dataclass(frozen=True)
class Canary:
    """An object whose pickle creates a file when it is loaded."""

    path: Path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return _touch, (str(self.path),)


def _touch(path: str) -> None:
    Path(path).touch()


@pytest.mark.parametrize("name", ["results.txt", "records/a.json", "models/a.safetensors"])
def test_a_pickle_under_another_name_is_not_loaded(name: str, tmp_path: Path) -> None:
    """Its bytes are returned as they are; the reader of a checkpoint refuses them."""
    content = pickle.dumps(Canary(tmp_path / "loaded"))
    assert read_artifact(packed({name: content})) == {name: content}
    with pytest.raises(UserError, match="is a pickle"):
        decode_state(content, name)
    assert not (tmp_path / "loaded").exists()
    pickle.loads(content)  # noqa: S301 - our own, to see that the canary works
    assert (tmp_path / "loaded").exists()


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_archives_never_crash(data: st.DataObject) -> None:
    """Bytes changed, removed and put in, before and after packing: the files or one clean error."""
    whole = gzip.decompress(packed(RESULTS, format=data.draw(st.sampled_from([0, 1, 2]))))
    inner = _damaged(whole, data)
    outer = gzip.compress(inner, 1)
    if data.draw(st.booleans()):
        outer = _damaged(outer, data)
    _must_be_clean(outer)


@settings(max_examples=100, deadline=None)
@given(noise=st.binary(max_size=3_000))
def test_noise_never_crashes(noise: bytes) -> None:
    """As an archive, and inside of a gzip."""
    _must_be_clean(noise)
    _must_be_clean(gzip.compress(noise, 1))


@settings(max_examples=100, deadline=None)
@given(
    name=st.text(max_size=80),
    size=st.integers(0, 8**11 - 1),
    kind=st.binary(min_size=1, max_size=1),
    tail=st.binary(max_size=2_000),
)
def test_strange_headers_never_crash(name: str, size: int, kind: bytes, tail: bytes) -> None:
    """Any name, size and type that a header can say."""
    member = tarfile.TarInfo(name.replace("\0", ""))
    member.size, member.type = size, kind
    _must_be_clean(gzip.compress(member.tobuf(tarfile.PAX_FORMAT, errors="replace") + tail + bytes(1024), 1))


def _damaged(whole: bytes, data: st.DataObject) -> bytes:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(changed)))
        part = data.draw(st.binary(max_size=12))
        changed[at : at + data.draw(st.integers(0, 600))] = part
    return bytes(changed)


def _must_be_clean(data: bytes) -> None:
    with contextlib.suppress(UserError):
        found = read_artifact(data, Limits(bytes=2**20))
        assert all(".." not in name.split("/") and not name.startswith("/") for name in found)
