"""Packages that a container's image lacks, for the container's Python and platform.

The submitter's may differ. The installed distribution is used if its wheel fits the container; otherwise pip
downloads the wheel of the same version, with pip's own settings, into the user's cache.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.tags import Tag, compatible_tags, cpython_tags, parse_tag, sys_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from cloud.cache import cache_folder
from cloud.sagemaker.container.images import WheelTarget
from psa.core.errors import UserError
from psa.core.files import ensure_dir
from psa.core.process import run_captured

_DOWNLOAD_SECONDS: Final = 600.0
# Files written by an installer, which differ between two installations of one wheel.
_INSTALLERS_OWN: Final = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")


def pinned_requirements(target: WheelTarget) -> list[str]:
    """Return the requirements for what the image lacks, at the versions installed here."""
    return [f"{name}=={metadata.version(name)}" for name in target.lacks]


def package_files(name: str, target: WheelTarget, *, offline: bool = False) -> dict[str, bytes] | None:
    """Return the files of a distribution for a container, by their path below site-packages.

    Args:
        name: The distribution, which is installed here for any Python and platform.
        target: The container.
        offline: Return None instead of downloading.

    Raises:
        UserError: If no wheel fits the container, or none can be downloaded.

    """
    fitting = frozenset(_tags(target))
    version = metadata.version(name)
    files = _installed(name, fitting) or _cached(name, version, fitting)
    if files is None and not offline:
        _download(name, version, target)
        files = _cached(name, version, fitting)
        if files is None:
            raise UserError(
                f"{name}=={version} has no wheel for the training container ({target})",
                "Install another version of it",
            )
    return files


def is_loadable_here(name: str, target: WheelTarget) -> bool:
    """Return whether this interpreter can load the wheel that a container gets for a distribution.

    A wheel that would have to be downloaded first counts as not loadable.
    """
    files = package_files(name, target, offline=True) or {}
    built_for = {
        tag for path, content in files.items() if _is_about(path) for tag in _tags_in(content.decode())
    }
    return not built_for.isdisjoint(sys_tags())


def _is_about(path: str) -> bool:
    """Return whether a file of a distribution is the one that names the wheel's tags."""
    return path.endswith(".dist-info/WHEEL")


def _tags_in(about: str) -> set[Tag]:
    """Return the tags that the WHEEL file of a distribution names."""
    lines = (line for line in about.splitlines() if line.startswith("Tag:"))
    return {tag for line in lines for tag in parse_tag(line[4:].strip())}


def _tags(target: WheelTarget) -> list[Tag]:
    """Return the tags of all wheels that the container can load."""
    major, minor = map(int, target.python.split("."))
    interpreter = f"cp{major}{minor}"
    binary = cpython_tags((major, minor), [interpreter], target.platforms)
    return [*binary, *compatible_tags((major, minor), interpreter, target.platforms)]


def _installed(name: str, fitting: Collection[Tag]) -> dict[str, bytes] | None:
    """Return the files of the installed distribution, or None if it does not fit or is incomplete."""
    distribution = metadata.distribution(name)
    if not _tags_in(distribution.read_text("WHEEL") or "") & set(fitting):
        return None
    files = {}
    for path in distribution.files or ():
        if _belongs(path.parts):
            try:
                files[path.as_posix()] = Path(str(distribution.locate_file(path))).read_bytes()
            except OSError:
                return None
    # An editable installation lists a link to its source in place of the modules.
    return files if f"{name}/__init__.py" in files else None


def _belongs(parts: tuple[str, ...]) -> bool:
    """Return whether a file is part of the package rather than of its installation."""
    is_inside = parts[0] != "/" and ".." not in parts
    return is_inside and "__pycache__" not in parts and parts[-1] not in _INSTALLERS_OWN


def _wheels_folder(name: str, version: str) -> Path:
    return cache_folder("wheels") / f"{name}-{version}"


def _cached(name: str, version: str, fitting: Collection[Tag]) -> dict[str, bytes] | None:
    """Return the files of the first fitting wheel in the cache, or None without any."""
    for path in sorted(_wheels_folder(name, version).glob("*.whl")):
        try:
            found, number, _, built_for = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        is_wanted = (found, number) == (canonicalize_name(name), Version(version))
        if is_wanted and built_for & set(fitting):
            return _unpacked(path)
    return None


def _unpacked(wheel: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = (each.filename for each in archive.infolist() if not each.is_dir())
            return {name: archive.read(name) for name in names if _belongs(Path(name).parts)}
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{wheel} must be a wheel, and cannot be read ({error})", "Delete it") from None


def _download(name: str, version: str, target: WheelTarget) -> None:
    """Download the wheel into the cache with pip. Raises UserError."""
    folder = _wheels_folder(name, version)
    ensure_dir(folder)
    # In a temporary folder until it is complete, since another process may look for it at the same time.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--disable-pip-version-check", "--quiet", "--retries=1"]
        command += ["--python-version", target.python, "--implementation", "cp", "--dest", scratch]
        command += [word for platform in target.platforms for word in ("--platform", platform)]
        trouble = _trouble_of([*command, f"{name}=={version}"])
        if trouble is not None:
            raise UserError(
                f"the training container ({target}) needs {name}=={version}, whose wheel for it could not be "
                f"downloaded: {trouble}",
                f"Check the network and pip's settings, or put the wheel into {folder}",
            )
        for path in Path(scratch).glob("*.whl"):
            path.replace(folder / path.name)


def _trouble_of(command: list[str]) -> str | None:
    """Run a command. Return the last line of its errors, or None if it succeeded."""
    try:
        done = run_captured(command, _DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {_DOWNLOAD_SECONDS:.0f} s"
    if done.returncode == 0:
        return None
    lines = done.stderr.strip().splitlines() or [f"pip exited with code {done.returncode}"]
    return lines[-1].removeprefix("ERROR: ")[:300]
