"""The code of psa as one archive: what a container runs. Equal code gives equal bytes, and so one upload."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cloud
import psa

NAME: Final = "code.tar.gz"
# What training imports, and a container with PyTorch may lack. The versions are those of this machine.
NEEDS: Final = ("numpy", "pydantic", "safetensors", "filelock")
START: Final = f"""#!/bin/bash
set -e
python -c "import {", ".join(NEEDS)}" 2>/dev/null || python -m pip install --quiet -r requirements.txt
exec python -P -m cloud.bootstrap
"""
# exec at each step: a signal to the container must arrive where something can be saved
COMMAND: Final = (
    f"mkdir -p /opt/ml/code && tar -xzf /opt/ml/input/data/code/{NAME} -C /opt/ml/code"
    " && cd /opt/ml/code && exec bash start.sh"
)


@dataclass(frozen=True)
class Code:
    """The archive, and the digest of what is in it."""

    content: bytes
    digest: str

    @property
    def folder(self) -> str:
        """Where it lies in the bucket."""
        return f"code/{self.digest[:16]}"


def packed() -> Code:
    """The code of this installation."""
    files = dict(sorted(_files()))
    digest = hashlib.sha256()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in files.items():
            digest.update(f"{name} {len(content)} ".encode() + content)
            info = tarfile.TarInfo(name)  # no owner, no date
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return Code(gzip.compress(archive.getvalue(), mtime=0), digest.hexdigest())


def _files() -> Iterator[tuple[str, bytes]]:
    for package in (psa, cloud):
        root = Path(str(package.__file__)).parent
        for path in root.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{root.name}/{path.relative_to(root).as_posix()}", path.read_bytes()
    yield "requirements.txt", "".join(f"{name}=={version(name)}\n" for name in NEEDS).encode()
    yield "start.sh", START.encode()
