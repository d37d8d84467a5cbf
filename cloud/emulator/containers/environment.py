"""Make a virtual environment that holds only chosen distributions, linked from the running interpreter's own.

A training container and a reader of the documentation have fewer packages than the interpreter that runs the
tests. Linking takes about a second and no disk space; installing PyTorch again would take minutes and 6 GB.
"""

from __future__ import annotations

import os
import sys
import venv
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from psa.core.errors import UserError
from psa.core.extras import how_to_install

# Through sh, since the kernel cuts the path of an interpreter behind `#!` at 127 or 255 characters.
_SCRIPT: Final = """#!/bin/sh
'''exec' "{python}" "$0" "$@"
'''
import sys
from {module} import {function}
sys.exit({function}())
"""


def make_environment(folder: Path, requirements: Iterable[str], without: Iterable[str] = ()) -> Path:
    """Create a virtual environment in `folder` and link installed distributions into it.

    Args:
        folder: A new or empty folder.
        requirements: Requirements such as "torch" or "moto[server]"; what they require is linked, too.
        without: Names of distributions to leave out, even if something requires them.

    Returns:
        The path of the environment's interpreter.

    Raises:
        UserError: If a required distribution is not installed here.

    """
    venv.EnvBuilder(symlinks=True).create(folder)
    python = folder / "bin" / "python"
    packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for distribution in _required(requirements, without):
        _link(distribution, packages)
        _write_scripts(distribution, python)
        _link_programs(distribution, python)
    return python


def _required(requirements: Iterable[str], without: Iterable[str]) -> list[metadata.Distribution]:
    """Return the distributions that the requirements need, each once, in the order they are met."""
    excluded = {canonicalize_name(name) for name in without}
    queue = [(requirement, "") for requirement in map(Requirement, requirements)]
    found: dict[str, metadata.Distribution] = {}
    visited = set[tuple[str, str]]()
    while queue:
        requirement, extra = queue.pop(0)
        name = canonicalize_name(requirement.name)
        if name in excluded or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        try:
            found.setdefault(name, metadata.distribution(name))
        except metadata.PackageNotFoundError:
            raise UserError(f"the package {name} is not installed", how_to_install("rehearse")) from None
        for wanted in {"", *requirement.extras} - {extra for seen, extra in visited if seen == name}:
            visited.add((name, wanted))
            queue += [(Requirement(line), wanted) for line in found[name].requires or ()]
    return list(found.values())


def _link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link a distribution's files; a folder that belongs to it alone is linked as a whole."""
    root = Path(str(distribution.locate_file(""))).absolute()
    for part in _parts(distribution, root):
        target = packages / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(root / part)


def _parts(distribution: metadata.Distribution, root: Path) -> Iterator[Path]:
    """Yield the files and whole folders of a distribution, relative to its site-packages."""
    # Poetry lists the files of a linked project by absolute paths, pip by relative ones.
    listed = distribution.files or ()
    files = [Path(os.path.relpath(file, root)) if file.is_absolute() else Path(file) for file in listed]
    files = [file for file in files if file.parts[0] not in ("..", "__pycache__")]
    regular = {file.parts[0] for file in files if len(file.parts) == 2 and file.name == "__init__.py"}
    whole = set[str]()
    for file in files:
        top = file.parts[0]
        if len(file.parts) > 1 and (top in regular or top.endswith((".dist-info", ".libs"))):
            if top not in whole:
                whole.add(top)
                yield Path(top)
        else:  # a module, or a part of a namespace package, whose folder other distributions share
            yield file


def _write_scripts(distribution: metadata.Distribution, python: Path) -> None:
    for entry in distribution.entry_points.select(group="console_scripts"):
        script = python.with_name(entry.name)
        function = entry.attr.partition(".")[0]
        script.write_text(_SCRIPT.format(python=python.absolute(), module=entry.module, function=function))
        os.chmod(script, 0o755)  # noqa: PTH101, S103 -- one line for one mode; a script


def _link_programs(distribution: metadata.Distribution, python: Path) -> None:
    """Link compiled programs such as SeaweedFS's; a script would start the interpreter that it names."""
    for file in distribution.files or ():
        if file.parts[0] != ".." or file.parts[-2:-1] != ("bin",):
            continue
        source, target = Path(str(distribution.locate_file(file))).resolve(), python.with_name(file.name)
        if source.exists() and not target.exists():
            with source.open("rb") as content:
                if content.read(2) != b"#!":
                    target.symlink_to(source)
