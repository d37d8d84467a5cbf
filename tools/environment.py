"""Create the project's environments: `.poetry` (Poetry itself) and `.venv` (packages of poetry.lock).

make runs this on a bare Python, so it needs only the standard library. Poetry reads the lock and links the
project; pip installs, also from an index of plain HTML pages, which `poetry install` cannot read. Each
environment has a stamp of its inputs, written last: if both match and all files are in place, nothing is
done; after a kill the next call continues. A copied or moved environment has stale paths and is recreated.
"""

import argparse
import contextlib
import difflib
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch_build
from basics import digest, dotted, scratch
from installed import fault_of, linked_project, name_of, recorded, remove
from phases import LOG, ROOT, SetUpError, phase, run, say

BUILD = ROOT / ".build"
PINS = ROOT / "tools" / "poetry.txt"
SUPPORTED = ((3, 11), (3, 14))  # includes the first and excludes the second; the Makefile repeats the range


class Environment:
    """A virtual environment in `folder`, with a stamp of its inputs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.stamp = folder / "set-up.json"
        self.unfinished = folder / "unfinished"

    def extent(self, made_from: str | None = None) -> set[str]:
        """Return "plain", groups and extras installed from `made_from` (None: any); empty if unknown."""
        try:
            stamp = json.loads(self.stamp.read_text())
            return set(stamp["extent"]) if made_from in {None, stamp["made_from"]} else set()
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def seal(self, made_from: str, extent: set[str]) -> None:
        """Write the stamp atomically."""
        fresh = self.stamp.with_suffix(".new")
        packages = sorted(name_of(info) for info in self.packages())
        fresh.write_text(json.dumps({"made_from": made_from, "extent": sorted(extent), "packages": packages}))
        fresh.replace(self.stamp)

    def packages(self) -> list[Path]:
        """Return the .dist-info folders of the installed packages."""
        return sorted(self.folder.glob("lib/python*/site-packages/*.dist-info"))

    def damage(self) -> dict[str, str]:
        """Return the faults of damaged packages, by RECORD's names and sizes (46,000 files in 0.5 s)."""
        faults = {name_of(info): fault_of(info) for info in self.packages()}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            sealed = json.loads(self.stamp.read_text())["packages"]
            faults = {**dict.fromkeys(sealed, "it is missing"), **faults}
        return {name: fault for name, fault in faults.items() if fault}

    def made_here(self) -> bool:
        """Return whether the environment was created in its present folder, not copied or moved to it.
        Python's venv records the folder in pyvenv.cfg; virtualenv, Poetry and uv only in bin/activate.
        """
        try:
            lines = (self.folder / "pyvenv.cfg").read_text("utf-8", "surrogateescape").splitlines()
            commands = [line for line in lines if line.startswith("command = ")]
            if commands:
                return any(line.endswith(f" {self.folder}") for line in commands)
            script = (self.folder / "bin" / "activate").read_text("utf-8", "surrogateescape")
        except OSError:
            return False
        folders = re.findall(r"^\s*(?:export )?VIRTUAL_ENV=(.+)$", script, re.MULTILINE)
        return any(folder.strip().strip("'\"") == str(self.folder) for folder in folders)

    def version(self) -> tuple[int, ...] | None:
        """Return Python's (major, minor) version, or None without a complete environment with pip."""
        if self.unfinished.exists() or not self.made_here():
            return None
        ask = "import sys, pip; print(*sys.version_info[:2])"
        try:
            answer = subprocess.run([self.python, "-c", ask], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return tuple(int(part) for part in answer.stdout.split())

    def make(self) -> None:
        """Recreate the environment with the Python that runs this file."""
        with phase(f"a new {self.folder.name} with Python {dotted(sys.version_info[:2])}"):
            if self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir()
            self.unfinished.touch()  # removed two lines below: the next call detects a kill in between
            # If .venv is active, its own Python runs this file, and has just been removed.
            run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", self.folder)
            self.unfinished.unlink()

    def install(self, *requirements: str | Path) -> None:
        """Install exactly these requirements (options of pip); pip's own settings select the index."""
        options = ("--no-deps", "--no-input", "--disable-pip-version-check")
        run(self.python, "-m", "pip", "install", *options, *requirements)

    def sweep(self) -> None:
        """Remove damaged packages, which pip would count as installed, and its `~...` leftovers of a kill."""
        damaged = [info for info in self.packages() if fault_of(info)]
        for leftover in {*damaged, *self.folder.glob("lib/python*/site-packages/~*")}:
            remove(leftover)

    def unlink(self, project: Path) -> None:
        """Remove the links of `project` from the environment, under any name. Poetry would follow the
        absolute paths in RECORD anywhere; this stays in the folder.
        """
        for info in self.packages():
            if linked_project(info) != project.as_uri():
                continue
            for path, _ in recorded(info):
                if path.is_relative_to(self.folder):
                    path.unlink(missing_ok=True)
            remove(info)


def main() -> int:
    """Create both environments. Return the exit status, 0 on success."""
    options = parse()
    try:
        wanted = {"plain", *(f"--with={name}" for name in options.group), *extras_of(options.extra)}
        refuse_links()
        with one_at_a_time():
            LOG.unlink(missing_ok=True)
            lay_poetry(Environment(ROOT / ".poetry"))
            lay_venv(Environment(ROOT / ".venv"), wanted, same_python=options.same_python, cpu=options.cpu)
    except SetUpError as error:
        print(f"set-up: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Lay .poetry and .venv; do nothing where they are right.")
    parser.add_argument("--group", action="append", default=[], help="a dependency group to install as well")
    parser.add_argument("--extra", action="append", default=[], help="extras to install as well, or all")
    parser.add_argument(
        "--cpu", choices=("", "0", "1"), default="", help="PyTorch's CPU build (1) or not (0)"
    )
    parser.add_argument("--same-python", action="store_true", help="refuse a .venv of another Python")
    return parser.parse_args()


def extras_of(words: Iterable[str]) -> set[str]:
    """Return the options of the extras in `words` (split at spaces, commas). Raises SetUpError if unknown."""
    known = list(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    names = " ".join(words).replace(",", " ").split()
    for name in names:
        if name not in {*known, "all"}:
            near = difflib.get_close_matches(name, [*known, "all"], 1)
            raise SetUpError(
                f"EXTRAS must name extras of psa ({', '.join(known)}) or be all, got {name}."
                + (f" Did you mean {near[0]}?" if near else "")
            )
    return {f"--extras={name}" for name in (known if "all" in names else names)}


def refuse_links() -> None:
    """Raise SetUpError if a folder of ours is a link, since the content of its target would be removed."""
    for folder in (BUILD, ROOT / ".poetry", ROOT / ".venv"):
        if folder.is_symlink():
            raise SetUpError(
                f"{folder.name} must be a folder of this checkout, and is a link to {folder.readlink()}."
                " Remove the link, then make creates the folder"
            )


def lay_poetry(poetry: Environment) -> None:
    """Recreate `.poetry` whenever its pins change; it is small."""
    made_from = digest(PINS.read_bytes(), os.fsencode(ROOT))
    if poetry.version() and poetry.extent(made_from) and not poetry.damage():
        return
    poetry.make()
    with phase("Poetry itself, into .poetry (once, about 50 small packages)"):
        poetry.install("--requirement", PINS)
    poetry.seal(made_from, {"plain"})


def lay_venv(venv: Environment, wanted: set[str], *, same_python: bool, cpu: str = "") -> None:
    """Install into `.venv` the packages that the lock has for `wanted`, and link the project itself.

    cpu: "1" for PyTorch's CPU build, "0" for that of the lock, "" to choose (see torch_build.wants_cpu).
    """
    version = venv.version()
    if same_python and version not in {None, sys.version_info[:2]}:
        raise SetUpError(
            f".venv holds Python {dotted(version)}, not {dotted(sys.version_info[:2])}; remove it first"
        )
    before = venv.extent()
    wanted = wanted | (before - obsolete(before) - {torch_build.CPU})  # an extra, once requested, is kept
    damage = venv.damage()
    without_pip = "pip" in damage  # which installs everything else
    fresh = version is None or without_pip or not SUPPORTED[0] <= version < SUPPORTED[1]
    if fresh:
        venv.make()
        damage = {}
    if torch_build.wants_cpu(cpu, before, lambda: torch_build.is_available(venv, locked())):
        wanted.add(torch_build.CPU)
    made_from = digest(needs(), (ROOT / "poetry.lock").read_bytes(), os.fsencode(ROOT))
    same_torch = (torch_build.CPU in wanted) == (torch_build.CPU in before)
    if wanted <= venv.extent(made_from) and same_torch and not damage:
        return
    for name, fault in sorted(damage.items())[:3]:
        say(f"{name} in .venv is installed again: {fault}")
    if before and not fresh and not same_torch:
        if torch_build.CPU in wanted:
            torch_build.check(venv, locked())
        venv.make()  # pip would take one build of a version for the other
    venv.seal("unfinished", wanted)
    venv.sweep()
    fill(venv, wanted)
    venv.seal(made_from, wanted)


def fill(venv: Environment, wanted: set[str]) -> None:
    """Install the packages for `wanted` into an environment, then the project."""
    requirements, cpu = export(wanted), torch_build.CPU in wanted
    size = "about 1 GB" if cpu else "about 6 GB with CUDA; CPU=1 installs a fifth of it"
    if cpu:
        requirements.write_text(torch_build.split(requirements.read_text())[0])
    with phase(f"the packages of poetry.lock, into .venv ({size})"):
        venv.install("--requirement", requirements)
    if cpu:
        with phase("PyTorch's CPU build"):
            torch_build.install(venv, locked())
    with phase("psa itself"):
        venv.unlink(ROOT)
        run_poetry("install", "--only-root", "--quiet")


def locked() -> str:
    """Return the locked requirements of the plain installation."""
    return export({"plain"}).read_text()


def obsolete(extent: set[str]) -> set[str]:
    """Return the extras in `extent` that pyproject.toml no longer has."""
    return {option for option in extent if option.startswith("--extras=")} - extras_of(["all"])


def needs() -> bytes:
    """Return the parts of pyproject.toml that affect an installation, so not a linter's settings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return json.dumps([project["project"], project["tool"]["poetry"], project["build-system"]]).encode()


def export(extent: set[str]) -> Path:
    """Write the locked packages for `extent`, with hashes, to a requirements file. Return its path."""
    requirements = BUILD / "requirements.txt"
    requirements.unlink(missing_ok=True)  # it may be a hard link that is shared with another checkout
    options = sorted(extent - {"plain", torch_build.CPU})
    run_poetry("export", "--quiet", "--format=requirements.txt", f"--output={requirements}", *options)
    return requirements


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Hold the set-up's lock. Children inherit it: a pip that outlives a killed make still blocks others."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "set-up.lock").open("a") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work in this folder; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        with scratch(BUILD / "scratch"):
            yield


def run_poetry(*arguments: str) -> None:
    """Run our own Poetry. It needs no password, so it must not wait for a desktop's keyring."""
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    run(ROOT / ".poetry" / "bin" / "poetry", "--no-interaction", *arguments)


if __name__ == "__main__":
    sys.exit(main())
