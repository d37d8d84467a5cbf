"""What tells one folder of states from all others that use the same storage; it moves with the folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from psa.files import read_bytes, write_atomically


def home_of(models: Path) -> str:
    """Its name, 8 hexadecimal digits, made where it has none yet."""
    path = models / ".home"
    content = read_bytes(path)
    if content is None:
        content = secrets.token_hex(4).encode()
        write_atomically(path, content)
    return content.decode()
