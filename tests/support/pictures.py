"""Pictures that nobody looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

# A PNG of one pixel.
PIXEL: Final = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63606060f80f0001"
    "0401005fe5c34b0000000049454e44ae426082"
)


def undrawn(_figure: Any, stem: Path) -> list[Path]:
    """In place of a figure that would take seconds."""
    stem.with_suffix(".png").write_bytes(PIXEL)
    return [stem.with_suffix(".png")]
