"""The code archive of a training job: psa, and the packages that the image of its container lacks.

Equal code has an equal digest, and is uploaded once. The entry point logs the digest of its code.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import cloud
import psa
from cloud.sagemaker.container.images import WheelTarget, container_target

ARCHIVE_NAME: Final = "code.tar.gz"
PACKAGES: Final = "packages"
# Imports of training besides PyTorch, checked at the start, since workers would only exit with code 1.
NEEDS: Final = ("numpy", "pydantic", "safetensors")
_PINS: Final = "requirements.txt"
_START: Final = "start.sh"
# -P keeps the current folder off the path; PYTHONPATH names the archive's folder, which holds only what
# `packed` puts there, and workers inherit it. Packages of the image take precedence over the archive's.
START_SCRIPT: Final = f"""#!/bin/bash
export PYTHONPATH="$PWD${{PYTHONPATH:+:$PYTHONPATH}}"
for package in {PACKAGES}/*/; do
  name="$(basename "$package")"
  python -P -c "import $name" 2>/dev/null || PYTHONPATH="$PYTHONPATH:$PWD/{PACKAGES}/$name"
done
python -P -c "import {", ".join(NEEDS)}, cloud.sagemaker.container.supervisor" 2>/opt/ml/output/failure || {{
  code=$?
  cat /opt/ml/output/failure >&2
  exit $code
}}
: > /opt/ml/output/failure
exec python -P -m cloud.sagemaker.container.supervisor
"""
# exec at each step, so that a signal to the container reaches the process that forwards it. An error before
# the supervisor starts is written to the file that SageMaker reads.
COMMAND: Final = (
    f"mkdir -p /opt/ml/code && tar -xzf /opt/ml/input/data/code/{ARCHIVE_NAME} -C /opt/ml/code"
    f" 2>/opt/ml/output/failure && cd /opt/ml/code && exec bash {_START};"
    " code=$?; cat /opt/ml/output/failure >&2; exit $code"
)


@dataclass(frozen=True)
class CodeArchive:
    """The files of psa by name, and the container that they are meant for."""

    files: Mapping[str, bytes]
    target: WheelTarget

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the files. Packages count by version, so that computing it needs no network."""
        return digest_files(self.files)

    @property
    def folder(self) -> str:
        """The folder of the archive in the bucket."""
        return f"code/{self.digest[:16]}"

    @cached_property
    def content(self) -> bytes:
        """The archive. Raises UserError if a package for the container is not available."""
        return _packed({**self.files, **self._packages(offline=False)})

    @property
    def size(self) -> int:
        """The size of the archive in bytes, without packages that would have to be downloaded first."""
        return len(_packed({**self.files, **self._packages(offline=True)}))

    def _packages(self, *, offline: bool) -> dict[str, bytes]:
        from cloud.sagemaker.container.wheels import (
            package_files,  # not imported in containers, whose image may lack `packaging`
        )

        return {
            f"{PACKAGES}/{name}/{path}": content
            for name in self.target.lacks
            for path, content in (package_files(name, self.target, offline=offline) or {}).items()
        }


def build_archive() -> CodeArchive:
    """Return the code of this installation."""
    from cloud.sagemaker.container.wheels import pinned_requirements

    inside = container_target()
    roots = [Path(str(package.__file__)).parent for package in (psa, cloud)]
    files = {name: content for root in roots for name, content in _package(root)}
    requirements = f"# {inside}\n" + "".join(f"{pin}\n" for pin in pinned_requirements(inside))
    files |= {_PINS: requirements.encode(), _START: START_SCRIPT.encode()}
    return CodeArchive(files, inside)


def unpacked_digest(folder: Path) -> str:
    """Return the digest of an unpacked archive, or of the code in a folder."""
    files = {name: content for package in ("psa", "cloud") for name, content in _package(folder / package)}
    for name in (_PINS, _START):
        if (folder / name).is_file():
            files[name] = (folder / name).read_bytes()
    return digest_files(files)


def digest_files(files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of files and their names."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def _packed(files: Mapping[str, bytes]) -> bytes:
    """Return a tar.gz of files without owners and dates."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(archive.getvalue(), mtime=0)


def _package(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a package, by their path below its parent."""
    for path in root.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"{root.name}/{path.relative_to(root).as_posix()}", path.read_bytes()
