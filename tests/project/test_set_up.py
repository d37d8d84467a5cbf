"""Environments that tools/environment.py makes: copied, moved and damaged ones.

The project is a small one with a single dependency from a local wheel, so that pip needs no index. Poetry is
a stand-in that installs and removes a linked project as Poetry 2.5 does: by the absolute paths of RECORD.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from set_up import load_tool

PYPROJECT = """
[build-system]
requires = ["poetry-core"]
[project]
name = "small-project"
version = "1.0"
[project.optional-dependencies]
ray = ["ray"]
aws = ["boto3"]
[tool.poetry]
packages = [{ include = "small" }]
"""
COPIES: dict[str, Callable[[Path, Path], None]] = {
    "copied": lambda source, target: run("cp", "-r", source, target),
    "copied with links and times": lambda source, target: run("cp", "-a", source, target),
    "hard-linked": lambda source, target: run("cp", "-al", source, target),
}
SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"


def run(*command: str | Path) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, capture_output=True)


def digest(content: bytes) -> str:
    """Return the digest of a file as RECORD has it."""
    return f"sha256={base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip('=')}"


def wheel(folder: Path) -> Path:
    """Write the wheel of the one dependency."""
    path = folder / "needed-1.0-py3-none-any.whl"
    info = "needed-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("needed/__init__.py", "VALUE = 1\n")
        file.writestr("needed/part.py", "VALUE = 2\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: needed\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        lines = [f"{part.filename},{digest(file.read(part))},{part.file_size}\n" for part in file.infolist()]
        file.writestr(f"{info}/RECORD", "".join([*lines, f"{info}/RECORD,,\n"]))
    return path


def quick(run: Callable[..., None]) -> Callable[..., None]:
    """Return `run`, but for `python -m venv`: pip is copied from the tests' own environment, not unpacked."""

    def instead(*command: str | Path) -> None:
        if "venv" not in command:
            return run(*command)
        folder = Path(command[-1])
        run(*command[:-1], "--without-pip", folder)
        settings = folder / "pyvenv.cfg"
        settings.write_text(settings.read_text().replace(" --without-pip", ""))
        for source in Path(sysconfig.get_path("purelib")).glob("pip*"):
            shutil.copytree(source, folder / SITE / source.name)
        return None

    return instead


class Poetry:
    """The two commands of Poetry that the set-up runs, for the project in `root`."""

    def __init__(self, root: Path, wheel: Path) -> None:
        self.root, self.wheel = root, wheel

    def __call__(self, command: str, *options: str) -> None:
        """Run `export` or `install --only-root`."""
        if command == "export":
            (output,) = (Path(option.partition("=")[2]) for option in options if "output=" in option)
            output.write_text(f"{self.wheel}\n")
        else:
            self._link()

    def _link(self) -> None:
        site = self.root / ".venv" / SITE
        info = site / "small_project-1.0.dist-info"
        if info.exists():
            for line in (info / "RECORD").read_text().splitlines():
                Path(line.split(",")[0]).unlink(missing_ok=True)
            shutil.rmtree(info)
        info.mkdir()
        script = self.root / ".venv/bin/small"
        files = {
            site / "small_project.pth": f"{self.root}\n",
            script: f"#!{self.root}/.venv/bin/python\nimport small\nprint(small.__file__)\n",
            info / "METADATA": "Metadata-Version: 2.1\nName: small-project\nVersion: 1.0\n",
            info / "INSTALLER": "poetry",
            info / "direct_url.json": f'{{"dir_info": {{"editable": true}}, "url": "{self.root.as_uri()}"}}',
        }
        for path, text in files.items():
            path.write_text(text)
        script.chmod(0o755)
        lines = [f"{path},sha256=x,{path.stat().st_size}\n" for path in files]
        (info / "RECORD").write_text("".join([*lines, f"{info / 'RECORD'},,\n"]))


class Checkout:
    """A checkout of the small project, and the set-up of its `.venv`."""

    def __init__(self, root: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.wheel, self.monkeypatch = root, wheel, monkeypatch
        self.venv = root / ".venv"

    def tool(self) -> ModuleType:
        """Return tools/environment.py for this folder."""
        tool = load_tool("environment")
        self.monkeypatch.setattr(tool, "ROOT", self.root)
        self.monkeypatch.setattr(tool, "BUILD", self.root / ".build")
        self.monkeypatch.setattr(tool, "run_poetry", Poetry(self.root, self.wheel))
        self.monkeypatch.setattr(tool, "run", quick(tool.run))
        (self.root / ".build").mkdir(exist_ok=True)
        return tool

    def set_up(self) -> ModuleType:
        """Do as `make` does in this folder, from the stamps on; returns tools/environment.py."""
        tool = self.tool()
        tool.lay_venv(tool.Environment(self.venv), {"plain"}, same_python=False)
        return tool

    def works(self) -> bool:
        """Return whether the command of the project starts, from this folder, and its dependency is whole."""
        commands: list[list[str | Path]] = [
            [self.venv / "bin/small"],
            [self.venv / "bin/python", "-c", "import needed.part, pip; needed.part.VALUE, needed.VALUE"],
        ]
        try:
            done = [
                subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
                for command in commands
            ]
        except OSError:
            return False
        own = str(self.root / "small/__init__.py")
        return done[0].stdout.strip() == own and [each.returncode for each in done] == [0, 0]

    def state(self) -> dict[str, tuple[int, int, int]]:
        """Return identity, size and time of change of every file, but for Python's caches."""
        return {
            str(path): (path.lstat().st_ino, path.lstat().st_size, path.lstat().st_mtime_ns)
            for path in self.root.rglob("*")
            if path.is_symlink() or (path.is_file() and path.suffix != ".pyc")
        }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout that is set up; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("set_up")
    root = folder / "original"
    (root / "small").mkdir(parents=True)
    (root / "small/__init__.py").touch()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "poetry.lock").touch()
    with pytest.MonkeyPatch.context() as monkeypatch:
        Checkout(root, wheel(folder), monkeypatch).set_up()
    return root


def checkout(root: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    """Return the checkout in a folder."""
    return Checkout(root, original.parent / "needed-1.0-py3-none-any.whl", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("way", COPIES)
def test_a_copied_checkout_leaves_the_original_alone(
    way: str, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy gets an environment of its own; no file of the original is removed or changed."""
    source = checkout(original, original, monkeypatch)
    before = source.state()
    COPIES[way](original, tmp_path / "copy")
    copy = checkout(tmp_path / "copy", original, monkeypatch)
    assert not copy.works(), "it still leads to the original"
    copy.set_up()
    assert copy.works()
    assert source.state() == before
    assert source.works()


@pytest.mark.slow
def test_a_moved_checkout_is_set_up_again(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scripts lead to a folder that is gone, or that holds another checkout by now."""
    shutil.copytree(original, tmp_path / "first", symlinks=True)
    first = checkout(tmp_path / "first", original, monkeypatch)
    first.set_up()
    first.root.rename(tmp_path / "second")
    second = checkout(tmp_path / "second", original, monkeypatch)
    second.set_up()
    assert second.works()


def test_a_checkout_behind_a_link_is_the_same_checkout(original: Path, tmp_path: Path) -> None:
    """Reached by another path, its environment is kept."""
    shutil.copytree(original.parents[0] / "original/small", tmp_path / "real/tools")
    (tmp_path / "link").symlink_to("real")
    shutil.copy(load_tool("environment").__file__ or "", tmp_path / "real/tools")
    for name in ("basics", "installed", "phases", "torch_build"):
        shutil.copy(load_tool(name).__file__ or "", tmp_path / "real/tools")
    ask = "import environment; print(environment.ROOT)"
    said = subprocess.run(
        [sys.executable, "-c", ask], cwd=tmp_path / "link/tools", capture_output=True, text=True, check=True
    )
    assert Path(said.stdout.strip()) == (tmp_path / "real").resolve()


@pytest.mark.parametrize("name", [".venv", ".poetry", ".build"])
def test_a_linked_folder_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it leads to belongs to something else; nothing there is touched."""
    tool = load_tool("environment")
    root = tmp_path / "root"
    root.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/precious").touch()
    (root / name).symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(tool, "ROOT", root)
    monkeypatch.setattr(tool, "BUILD", root / ".build")
    monkeypatch.setattr(sys, "argv", ["environment.py"])
    assert tool.main() == 1
    assert f"set-up: {name} must be a folder of this checkout" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["precious"]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "a command is gone": lambda venv: (venv / "bin/small").unlink(),
    "the link to the project is gone": lambda venv: (venv / SITE / "small_project.pth").unlink(),
    "the project is not installed": lambda venv: shutil.rmtree(venv / SITE / "small_project-1.0.dist-info"),
    "a package is gone": lambda venv: shutil.rmtree(venv / SITE / "needed"),
    "a module is gone": lambda venv: (venv / SITE / "needed/part.py").unlink(),
    "a module is cut short": lambda venv: os.truncate(venv / SITE / "needed/part.py", 3),
    "a package is gone whole": lambda venv: [
        shutil.rmtree(venv / SITE / name) for name in ("needed", "needed-1.0.dist-info")
    ].clear(),
    "pip is damaged": lambda venv: (venv / SITE / "pip/_internal/cli/main.py").unlink(),
    "the interpreter is gone": lambda venv: [
        (venv / "bin/python").unlink(),
        (venv / "bin/python").symlink_to("/gone/python3"),
    ].clear(),
}


@pytest.fixture(scope="module")
def broken(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second checkout that is set up, for tests that damage and mend it."""
    root = tmp_path_factory.mktemp("broken") / "checkout"
    shutil.copytree(original, root, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        checkout(root, original, monkeypatch).set_up()
    return root


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_environment_is_mended(
    damage: str, broken: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its stamp says that it is complete; then nothing is left to do."""
    mended = checkout(broken, original, monkeypatch)
    assert mended.works()
    DAMAGES[damage](mended.venv)
    mended.set_up()
    assert mended.works()
    before = mended.state()
    mended.set_up()
    assert mended.state() == before, "a call that finds nothing to do must change nothing"


def test_a_project_that_changed_its_name_is_linked_once(
    broken: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the new name alone: what linked it under the old one is removed."""
    renamed = checkout(broken, original, monkeypatch)
    site = renamed.venv / SITE
    (site / "small_project-1.0.dist-info").rename(site / "former-1.0.dist-info")
    record = site / "former-1.0.dist-info/RECORD"
    (site / "former.pth").touch()
    text = record.read_text().replace("small_project-1.0", "former-1.0")
    record.write_text(f"{text}{site / 'former.pth'},sha256=x,0\n")
    renamed.set_up()
    assert renamed.works()
    assert not list(site.glob("former*"))


@pytest.mark.slow
def test_extras_are_kept_when_the_lock_changes(
    broken: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was asked for once is installed anew from a new lock, not left as it was."""
    tool = checkout(broken, original, monkeypatch).set_up()
    venv = tool.Environment(broken / ".venv")
    tool.lay_venv(venv, {"plain", "--extras=ray"}, same_python=False)
    with (broken / "poetry.lock").open("a") as lock:
        lock.write("# a new version\n")
    tool.lay_venv(venv, {"plain"}, same_python=False)
    assert venv.extent() == {"plain", "--extras=ray"}


@pytest.mark.parametrize(
    ("words", "extras"),
    [([""], []), (["ray aws"], ["aws", "ray"]), (["ray,aws"], ["aws", "ray"]), (["all"], ["aws", "ray"])],
)
def test_extras_are_named_as_people_type_them(
    words: list[str], extras: list[str], original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With spaces, with commas, or all of them at once."""
    tool = load_tool("environment")
    monkeypatch.setattr(tool, "ROOT", original)
    assert tool.extras_of(words) == {f"--extras={name}" for name in extras}


def test_an_unknown_extra_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line that lists the extras."""
    tool = load_tool("environment")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "BUILD", tmp_path / ".build")
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    monkeypatch.setattr(sys, "argv", ["environment.py", "--extra=ray rey"])
    assert tool.main() == 1
    assert capsys.readouterr().err == (
        "set-up: EXTRAS must name extras of psa (ray, aws) or be all, got rey. Did you mean ray?\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


REQUIREMENTS = """\
numpy==2.4.6 ; python_version >= "3.11" \\
    --hash=sha256:aa
nvidia-cublas==13.4 ; platform_system == "Linux" \\
    --hash=sha256:bb
cuda-toolkit[cublas]==13.2 \\
    --hash=sha256:cc
torch==2.15.0 ; python_version >= "3.11" \\
    --hash=sha256:dd \\
    --hash=sha256:ee
torchvision==0.29.2 \\
    --hash=sha256:ff
triton==3.8.0 ; platform_system == "Linux"
tritonclient==1.0
"""


def test_the_cpu_build_takes_the_place_of_the_lock_s() -> None:
    """In the versions of the lock; what only CUDA needs is left out, and every other hash is kept."""
    kept, wheels = load_tool("torch_build").split(REQUIREMENTS)
    assert wheels == ["torch==2.15.0+cpu", "torchvision==0.29.2+cpu"]
    assert re.findall(r"^(\S+?)==", kept, re.MULTILINE) == ["numpy", "tritonclient"]
    assert kept.count("--hash") == 1


@pytest.mark.parametrize(
    ("setting", "before", "gpu", "available", "cpu"),
    [
        ("1", set(), True, False, True),
        ("0", {"plain", "--torch=cpu"}, False, True, False),
        ("", {"plain", "--torch=cpu"}, True, False, True),
        ("", {"plain"}, False, True, False),
        ("", set(), False, True, True),
        ("", set(), False, False, False),
        ("", set(), True, True, False),
    ],
)
def test_which_build_is_installed(
    setting: str, before: set[str], gpu: bool, available: bool, cpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CPU says; else that of the environment; in a new one CPU without a device and with the index."""
    tool = load_tool("torch_build")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(tool, "has_gpu", lambda: gpu)
    assert tool.wants_cpu(setting, before, lambda: available) == cpu


class CpuPoetry(Poetry):
    """Poetry for a lock that names PyTorch beside the one dependency."""

    def __call__(self, command: str, *options: str) -> None:
        """Run `export` or `install --only-root`."""
        super().__call__(command, *options)
        if command == "export":
            (output,) = (Path(option.partition("=")[2]) for option in options if "output=" in option)
            output.write_text(f"{output.read_text()}torch==2.0\ntorchvision==1.0\nnvidia-cublas==13.4\n")


def torch_wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel of PyTorch's CPU build into a folder that serves as an index."""
    place = folder / name
    place.mkdir(parents=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(place / f"{name}-{version}-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}/__init__.py", "")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        lines = [f"{part.filename},{digest(file.read(part))},{part.file_size}\n" for part in file.infolist()]
        file.writestr(f"{info}/RECORD", "".join([*lines, f"{info}/RECORD,,\n"]))
    (place / "index.html").write_text(
        "".join(f'<a href="{each.name}">{each.name}</a>' for each in place.iterdir())
    )


@pytest.mark.slow
def test_the_cpu_build_is_installed_from_its_index(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default without a device and with the index; kept afterwards, and replaced with CPU=0."""
    root = tmp_path / "checkout"
    shutil.copytree(original, root, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    made = checkout(root, original, monkeypatch)
    tool = made.tool()
    monkeypatch.setattr(tool, "run_poetry", CpuPoetry(root, made.wheel))
    monkeypatch.setattr(tool.torch_build, "has_gpu", lambda: False)
    for name, version in (("torch", "2.0+cpu"), ("torchvision", "1.0+cpu")):
        torch_wheel(tmp_path / "index", name, version)
    monkeypatch.setenv("TORCH_INDEX", (tmp_path / "index").as_uri())
    venv = tool.Environment(made.venv)
    tool.lay_venv(venv, {"plain"}, same_python=False)
    assert {"torch-2.0+cpu.dist-info", "needed-1.0.dist-info"} <= {path.name for path in venv.packages()}
    assert venv.extent() == {"plain", "--torch=cpu"}
    out = capsys.readouterr().out
    assert re.search(
        r"^set-up: the packages of poetry.lock, into .venv \(about 1 GB\) ... \d+ s$", out, re.MULTILINE
    )
    before = made.state()
    tool.lay_venv(venv, {"plain"}, same_python=False)
    assert made.state() == before
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_without_the_index_the_locked_build_is_installed(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default; with CPU=1 it is an error that names the way out, and an environment is left as it is."""
    root = tmp_path / "checkout"
    shutil.copytree(original, root, symlinks=True, ignore=shutil.ignore_patterns(".venv"))
    made = checkout(root, original, monkeypatch)
    made.set_up()
    tool = made.tool()
    monkeypatch.setattr(tool, "run_poetry", CpuPoetry(root, made.wheel))
    monkeypatch.setenv("TORCH_INDEX", (tmp_path / "nothing").as_uri())
    before = {path: facts for path, facts in made.state().items() if ".venv" in path}
    with pytest.raises(tool.SetUpError, match=r"CPU=1 needs PyTorch's CPU build from file:.*TORCH_INDEX=URL"):
        tool.lay_venv(tool.Environment(made.venv), {"plain"}, same_python=False, cpu="1")
    assert {path: facts for path, facts in made.state().items() if ".venv" in path} == before
    assert made.works()


def test_a_failed_phase_names_the_log_and_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for the phase, and what the command printed is in the file and in the error."""
    tool = load_tool("phases")
    monkeypatch.setattr(tool, "LOG", tmp_path / "logs/set-up.log")
    shout = "import sys; print('\\n'.join(map(str, range(40)))); sys.exit('no space left')"
    with pytest.raises(tool.SetUpError, match="no space left") as failure, tool.phase("packages"):
        tool.run(sys.executable, "-c", shout)
    assert re.fullmatch(r"set-up: packages ... failed after \d+ s\n", capsys.readouterr().out)
    assert str(tmp_path / "logs/set-up.log") in str(failure.value)
    assert str(failure.value).count("\n") == 15
    assert len((tmp_path / "logs/set-up.log").read_text().splitlines()) == 42


def test_the_active_environment_can_be_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """make finds its Python first on PATH: where .venv is active, in the folder that it removes."""
    tool = load_tool("environment")
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    monkeypatch.setattr(tool, "run", quick(tool.run))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python3"))
    venv = tool.Environment(tmp_path / ".venv")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    venv.make()
    assert venv.version() == sys.version_info[:2]
