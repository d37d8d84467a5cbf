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
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from installed import fault_of, linked_project, name_of, recorded, remove

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
PINS = ROOT / "tools" / "poetry.txt"
SUPPORTED = ((3, 11), (3, 14))  # includes the first and excludes the second; the Makefile repeats the range


class SetUpError(Exception):
    """The set-up cannot continue; the message says why and what to do."""


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
        say(f"a new {self.folder.name} with Python {dotted(sys.version_info[:2])}")
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.unfinished.touch()  # removed two lines below: the next call detects a kill in between
        # If .venv is active, its own Python runs this file, and has just been removed.
        run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", self.folder)
        self.unfinished.unlink()

    def install(self, requirements: Path) -> None:
        """Install exactly the lines of a requirements file; pip's own settings select the index."""
        options = ("--no-deps", "--no-input", "--disable-pip-version-check")
        run(self.python, "-m", "pip", "install", *options, "--requirement", requirements)

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
            lay_poetry(Environment(ROOT / ".poetry"))
            lay_venv(Environment(ROOT / ".venv"), wanted, same_python=options.same_python)
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
    say("Poetry itself, into .poetry (once, about 50 small packages)")
    poetry.install(PINS)
    poetry.seal(made_from, {"plain"})


def lay_venv(venv: Environment, wanted: set[str], *, same_python: bool) -> None:
    """Install into `.venv` the packages that the lock has for `wanted`, and link the project itself."""
    version = venv.version()
    if same_python and version not in {None, sys.version_info[:2]}:
        raise SetUpError(
            f".venv holds Python {dotted(version)}, not {dotted(sys.version_info[:2])}; remove it first"
        )
    wanted = wanted | (venv.extent() - obsolete(venv.extent()))  # an extra, once requested, is kept
    damage = venv.damage()
    without_pip = "pip" in damage  # which installs everything else
    if version is None or without_pip or not SUPPORTED[0] <= version < SUPPORTED[1]:
        venv.make()
        damage = {}
    made_from = digest(needs(), (ROOT / "poetry.lock").read_bytes(), os.fsencode(ROOT))
    if wanted <= venv.extent(made_from) and not damage:
        return
    for name, fault in sorted(damage.items())[:3]:
        say(f"{name} in .venv is installed again: {fault}")
    venv.seal("unfinished", wanted)
    say("what poetry.lock names, into .venv (all of it: about 6 GB with CUDA, a few minutes)")
    venv.sweep()
    venv.install(export(wanted))
    venv.unlink(ROOT)
    run_poetry("install", "--only-root", "--quiet")
    venv.seal(made_from, wanted)


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
    options = sorted(extent - {"plain"})
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


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[None]:
    """Put temporary files into `folder`, as /tmp may be small; the next call clears a kill's leftovers."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    os.environ["TMPDIR"] = str(folder)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_poetry(*arguments: str) -> None:
    """Run our own Poetry. It needs no password, so it must not wait for a desktop's keyring."""
    os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
    run(ROOT / ".poetry" / "bin" / "poetry", "--no-interaction", *arguments)


def run(*command: str | Path) -> None:
    """Run a command in the project's folder. Raises SetUpError that names it if it fails."""
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, close_fds=False, check=False)
    if done.returncode:
        line = " ".join(Path(part).name if isinstance(part, Path) else part for part in command)
        raise SetUpError(f"`{line}` failed, see above; when that is mended, make goes on from here")


def digest(*parts: bytes) -> str:
    """Return one digest of all parts together."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def dotted(version: tuple[int, ...]) -> str:
    """Format (3, 11) as 3.11."""
    return ".".join(str(part) for part in version)


def say(line: str) -> None:
    """Print a line of progress, before pip's own output."""
    print(f"set-up: {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
