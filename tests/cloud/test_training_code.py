"""The code archive of a training job, and the process that reports why its entry has failed."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch
from paths import ROOT
from processes import PATIENCE_SECONDS, until

from cloud.sagemaker.container import supervisor, wheels
from cloud.sagemaker.container.code import COMMAND, START_SCRIPT, CodeArchive, build_archive, unpacked_digest
from cloud.sagemaker.container.images import WheelTarget, container_target
from cloud.sagemaker.container.wheels import package_files, pinned_requirements
from psa.core.errors import UserError
from psa.execution.machine import describe
from psa.execution.worker import protocol

LINUX = "manylinux_2_17_x86_64"
TARGET = WheelTarget("3.12", "x86_64", "2.34", ("made_up",))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def members(content: bytes) -> dict[str, bytes]:
    """The files of a tar.gz."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]


def test_equal_code_gives_equal_bytes_and_what_is_unpacked_has_their_digest(tmp_path: Path) -> None:
    """One upload for all sweeps; a container can tell which code it runs."""
    code = build_archive()
    assert (build_archive().content, build_archive().digest) == (code.content, code.digest)
    with tarfile.open(fileobj=io.BytesIO(code.content)) as archive:
        archive.extractall(tmp_path, filter="data")
    assert unpacked_digest(tmp_path) == code.digest
    (tmp_path / "psa/core/errors.py").write_text("# changed\n")
    assert unpacked_digest(tmp_path) != code.digest
    assert len(code.content) == code.size
    assert all(len(word) <= 256 for word in (COMMAND,))


def test_the_archive_brings_what_the_image_lacks_for_the_containers_platform() -> None:
    """Compiled modules for its processor; nothing of this installation's."""
    names = members(build_archive().content)
    assert container_target().lacks == ("safetensors",)
    module = next(content for name, content in names.items() if name.endswith("_safetensors_rust.abi3.so"))
    assert (module[:4], module[18:20]) == (b"\x7fELF", b"\x3e\x00")  # of x86-64
    assert "packages/safetensors/safetensors/torch.py" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(("RECORD", "INSTALLER"))]
    assert pinned_requirements(container_target()) == names["requirements.txt"].decode().split("\n")[1:-1]
    assert "pip" not in START_SCRIPT


def installed(folder: Path, tag: str, *, is_editable: bool = False) -> None:
    """A distribution called made_up, as pip would leave it."""
    files = (
        {"made_up_link.pth": "/elsewhere\n"} if is_editable else {"made_up/__init__.py": "INSTALLED = 1\n"}
    )
    files |= {
        "made_up-1.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: made_up\nVersion: 1.0\n",
        "made_up-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {tag}\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    lines = [*files, "made_up/__pycache__/x.pyc", "made_up-1.0.dist-info/RECORD", "../../bin/made-up"]
    (folder / "made_up-1.0.dist-info/RECORD").write_text("".join(f"{name},,\n" for name in lines))


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("cp312-cp312-manylinux2014_x86_64", True),
        (f"cp310-abi3-{LINUX}", True),
        ("cp312-abi3-manylinux_2_34_x86_64", True),
        (f"cp311-cp311-{LINUX}", False),
        (f"cp313-abi3-{LINUX}", False),
        ("cp312-cp312-manylinux_2_35_x86_64", False),
        ("cp312-cp312-musllinux_1_2_x86_64", False),
        ("cp310-abi3-manylinux_2_17_aarch64", False),
        ("cp310-abi3-macosx_11_0_arm64", False),
    ],
)
def test_the_installed_package_is_taken_where_it_fits_the_container(
    tag: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the tags of its wheel, not by the Python that submits."""
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(tmp_path, tag)
    files = package_files("made_up", TARGET, offline=True)
    assert (files is not None) == fits
    if files is not None:
        assert {Path(name).name for name in files} == {"__init__.py", "METADATA", "WHEEL"}


def test_a_link_to_the_source_is_not_taken_for_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editable installation holds none of the modules."""
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(tmp_path, "py3-none-any", is_editable=True)
    assert package_files("made_up", TARGET, offline=True) is None


def wheel(folder: Path, tag: str) -> Path:
    """A wheel of made_up."""
    path = folder / f"made_up-1.0-{tag}.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("made_up/__init__.py", "DOWNLOADED = 1\n")
        info = "made_up-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.4\nName: made_up\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.slow
def test_what_does_not_fit_is_downloaded_once_for_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pip, with its own settings; without one that fits, one line says what is needed and where to put it.

    The digest is known before: a dry run asks no network.
    """
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(tmp_path, f"cp311-cp311-{LINUX}")
    code = CodeArchive({"psa/__init__.py": b""}, TARGET)
    links = tmp_path / "links"
    wheel(links, f"cp311-cp311-{LINUX}")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    with pytest.raises(UserError) as caught:
        _ = code.content
    assert str(caught.value).count("\n") == 0
    assert "the training container (Python 3.12 on Linux x86_64) needs made_up==1.0" in caught.value.message
    assert str(tmp_path / "cache/psa/wheels/made_up-1.0") in caught.value.hint
    digest, small = code.digest, code.size

    wheel(links, "cp312-cp312-manylinux_2_28_x86_64")
    brought = members(code.content)
    assert brought["packages/made_up/made_up/__init__.py"] == b"DOWNLOADED = 1\n"
    assert "packages/made_up/made_up-1.0.dist-info/RECORD" not in brought
    monkeypatch.setattr(wheels, "_download", lambda *_: pytest.fail("it was downloaded twice"))
    again = CodeArchive({"psa/__init__.py": b""}, TARGET)
    assert (again.content, again.digest) == (code.content, digest)
    assert again.size == len(code.content) > small


def test_a_wheel_that_was_put_into_the_cache_is_taken(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the message says; others that lie there are passed over, and a damaged one is named."""
    monkeypatch.syspath_prepend(str(tmp_path))
    installed(tmp_path, f"cp311-cp311-{LINUX}")
    folder = cache / "psa/wheels/made_up-1.0"
    folder.mkdir(parents=True)
    (folder / "nonsense.whl").write_text("")
    wheel(folder, "cp312-cp312-win_amd64")
    assert package_files("made_up", TARGET, offline=True) is None
    path = wheel(folder, f"cp312-cp312-{LINUX}")
    assert package_files("made_up", TARGET, offline=True)
    path.write_bytes(b"torn")
    with pytest.raises(UserError, match=r"must be a wheel.*Delete it"):
        package_files("made_up", TARGET, offline=True)


@pytest.mark.parametrize(
    ("script", "code", "left"),
    [
        ("pass", 0, None),
        ("raise SystemExit(75)", 75, None),
        ("import of_no_name", 1, "Traceback*ModuleNotFoundError: No module named 'of_no_name'"),
        ("raise MemoryError", 1, "Traceback*MemoryError"),
        ("import os; os.kill(os.getpid(), 9)", 137, "*SIGKILL, most often for lack of memory"),
        ("import os; os.kill(os.getpid(), 11)", 139, "the training process was killed by signal SIGSEGV"),
        ("import sys; sys.exit('x' * 5000 + 'end')", 1, "xxx*end"),
        ("[print('line', n, file=sys.stderr) for n in range(99)]; sys.exit(3)", 3, "line 79*line 98"),
        ("open(sys.argv[1], 'w').write('its own'); sys.exit('not this')", 1, "its own"),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\n'); sys.exit(4)", 4, "\ufffd"),
    ],
)  # fmt: skip
def test_a_failure_of_any_kind_leaves_its_reason(
    script: str, code: int, left: str | None, tmp_path: Path
) -> None:
    """In at most as many characters as SageMaker keeps; also of what the entry could not write itself."""
    file = tmp_path / "output/failure"
    file.parent.mkdir()
    command = [sys.executable, "-c", f"import sys; {script}", str(file)]
    done = supervised(command, file)
    _, err = done.communicate(timeout=PATIENCE_SECONDS)
    assert done.returncode == code, err
    if left is None:
        assert not file.exists()
        return
    text = file.read_text()
    assert len(text) <= 1024 - len("AlgorithmError: , exit code: 255")
    first, star, last = left.partition("*")
    assert text.startswith(first)
    assert text.endswith(last) if star else text.rstrip() == first
    if "not this" not in script and "SIG" not in left:
        assert err.rstrip().endswith(text.splitlines()[-1][-20:])  # and the log has it, too


def supervised(command: list[str], file: Path) -> subprocess.Popen[str]:
    """The supervisor of a command."""
    script = (
        "import sys; from pathlib import Path; from cloud.sagemaker.container.supervisor import main;"
        f" sys.exit(main({command!r}, Path({str(file)!r})))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, errors="replace", cwd=ROOT
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_entry(number: signal.Signals, tmp_path: Path) -> None:
    """Which saves and leaves; that is not a failure."""
    ready = tmp_path / "ready"
    script = (
        "import signal, sys, time, pathlib\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(75))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: time.sleep(0.01)"
    )
    process = supervised([sys.executable, "-c", script], tmp_path / "failure")
    until(ready.exists, process)
    process.send_signal(number)
    process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 75
    assert not (tmp_path / "failure").exists()


def test_the_supervisor_imports_nothing_that_may_fail() -> None:
    """Neither torch nor psa: it is what reports that those cannot be imported."""
    script = "import sys, cloud.sagemaker.container.supervisor; "
    script += "print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "psa", "pydantic", "safetensors"} & set(done.stdout.split())
    assert supervisor.EXIT_RETRY == protocol.EXIT_INTERRUPTED


def test_workers_run_the_code_of_their_parent(tmp_path: Path) -> None:
    """Also where the parent alone finds it: in a folder of no installation."""
    copy = tmp_path / "copy"
    for name, content in build_archive().files.items():
        if name.startswith("psa/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(content)
    worker = "import queue, sys\n\ndef main():\n    print('the copy', sys.argv[1:], flush=True)\n"
    (copy / "psa/execution/worker/__main__.py").write_text(worker)
    (tmp_path / "queue.py").write_text("raise SystemExit('the wrong queue')\n")
    script = (
        f"import sys; sys.path.insert(0, {str(copy)!r}); from psa.execution.worker.pool import _Worker;"
        "from psa.execution.machine import Machine; worker = _Worker(Machine(), None);"
        "print(worker.output.read().decode()); worker.end()"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "the copy ['--serve', '--data-dir', 'dataset', '--threads', '1']", (
        done.stderr
    )


def test_a_sidecar_names_all_that_equal_bytes_depend_on() -> None:
    """The version of torch, the kind of processor, and where the code lay."""
    facts = describe(torch.device("cpu"), 1)
    assert facts["torch"] == torch.__version__
    assert facts["device_name"]
    assert "model name" not in facts["device_name"]
    assert facts["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert facts["code"] == str(ROOT / "psa")
