"""Installed packages of an environment, read from the .dist-info folders that pip and Poetry write."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def name_of(info: Path) -> str:
    """Return the name of the package that a .dist-info describes."""
    return info.name.partition("-")[0]


def fault_of(info: Path) -> str:
    """Return the fault of an installed package, or "" without any.

    pip writes INSTALLER after all files of a wheel: without it the installation was never complete.
    """
    if not (info / "INSTALLER").exists():
        return "its installation was cut short"
    try:
        wrong = [path for path, size in recorded(info) if is_wrong(path, size)]
    except (OSError, ValueError):
        return "its RECORD cannot be read"
    return f"{wrong[0].name} is missing or damaged" if wrong else ""


def is_wrong(path: Path, size: str) -> bool:
    """Return whether a file is missing or has another size. Python recreates its caches by itself."""
    return size_of(path) != int(size) if size else path.suffix != ".pyc" and not path.exists()


def recorded(info: Path) -> Iterator[tuple[Path, str]]:
    """Yield the files of an installed package with their sizes in bytes, "" if none is recorded.

    Yields nothing without a RECORD.
    """
    if not (info / "RECORD").exists():
        return
    with (info / "RECORD").open(newline="", encoding="utf-8") as lines:
        for path, _, size in csv.reader(lines):
            yield Path(os.path.normpath(info.parent / path)), size


def size_of(path: Path) -> int | None:
    """Return the size of a file, or None if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def linked_project(info: Path) -> str:
    """Return the address of the project that a .dist-info links, or "" if it links none."""
    try:
        origin = json.loads((info / "direct_url.json").read_text())
        return str(origin["url"]) if origin["dir_info"]["editable"] else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
