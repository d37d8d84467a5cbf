"""The interpreter of a rehearsal's containers: it has the packages of AWS's image, without psa.

If psa were installed in the container, a missing or incomplete code archive would go unnoticed. The
interpreter is made once per installation, from links, in the user's cache.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cloud.cache import cache_folder
from cloud.emulator.containers import environment
from cloud.emulator.containers.environment import make_environment
from cloud.sagemaker.container.images import container_target
from cloud.sagemaker.container.wheels import is_loadable_here
from psa.core.errors import UserError
from psa.core.file_locks import locked
from psa.core.files import check_writable

IMAGE_PACKAGES: Final = ("torch", "numpy", "pydantic", "filelock")
_OURS: Final = ("psa", "cloud")
_MARK: Final = "complete"
_PATIENCE_SECONDS: Final = 120.0  # wait for another rehearsal that makes it; it takes seconds
_LOOK: Final = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"


def image_python(folder: Path) -> Path:
    """Return the interpreter for containers; it is created if it is not in the cache.

    Args:
        folder: Where to create it if the user's cache is not writable.

    Raises:
        UserError: If a package of the image is not installed here, or psa can be imported in it.

    """
    try:
        images = cache_folder("rehearsal")
        check_writable(images)
    except UserError:
        images = folder / "image"
    return _made(images / _key())


def packages_from_archive() -> tuple[str, ...]:
    """Return the packages that containers get only from the code archive.

    The archive has them for the Python and platform of AWS's image; a rehearsal's image must contain those
    that the interpreter here cannot load from it.
    """
    inside = container_target()
    return tuple(name for name in inside.lacks if is_loadable_here(name, inside))


def _key() -> str:
    """Return a cache key for the inputs of the interpreter."""
    # Folder names contain the versions; reading the metadata of 200 distributions would take longer.
    installed = sorted(str(path) for entry in sys.path for path in Path(entry).glob("*.dist-info"))
    made_by = Path(str(environment.__file__)).read_text()
    facts = [sys.executable, sys.version, IMAGE_PACKAGES, packages_from_archive(), installed, made_by]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _made(folder: Path) -> Path:
    """Return the interpreter in a folder, recreated if it is incomplete or has broken links.

    Raises UserError.
    """
    python = folder / "bin" / "python"
    with locked(folder.with_suffix(".lock"), _PATIENCE_SECONDS):
        if not (folder / _MARK).exists() or _fault(python):
            shutil.rmtree(folder, ignore_errors=True)
            make_environment(
                folder, [*IMAGE_PACKAGES, *_held_besides()], without=[*_OURS, *packages_from_archive()]
            )
            if fault := _fault(python):
                raise UserError(fault, "Install psa in a new virtual environment")
            (folder / _MARK).touch()
    return python


def _held_besides() -> Iterator[str]:
    return (name for name in container_target().lacks if name not in packages_from_archive())


def _fault(python: Path) -> str:
    """Return how the interpreter's packages differ from those of AWS's image; "" if they do not."""
    unwanted = (*_OURS, *packages_from_archive())
    try:
        done = subprocess.run(
            [python, "-P", "-c", _LOOK, *IMAGE_PACKAGES, *unwanted],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"HOME": "/nonexistent"},
        )
    except FileNotFoundError:
        return f"there must be an interpreter for a rehearsal's containers, and {python} is missing"
    found = set(done.stdout.split())
    if found == set(IMAGE_PACKAGES):
        return ""
    wrong = ", ".join(sorted(found ^ set(IMAGE_PACKAGES)))
    return (
        f"the interpreter for a rehearsal's containers ({python}) must find {', '.join(IMAGE_PACKAGES)} "
        f"and not {', '.join(unwanted)}; differing packages: {wrong}"
    )
