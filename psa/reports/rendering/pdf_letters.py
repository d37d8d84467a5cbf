"""How wide text is in print, and where its lines break."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

_FINE: Final = 100  # points, at which widths are measured: they grow with the size
_FIXED: Final = 65_536  # FreeType's unit of a linear advance


@lru_cache(maxsize=2)
def _font(bold: bool) -> FT2Font:
    return get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))


@lru_cache(maxsize=4096)
def _advance(letter: str, bold: bool) -> float:
    """Of one letter, in parts of the size."""
    font = _font(bold)
    font.set_size(_FINE, 72)
    return float(font.load_char(ord(letter)).linearHoriAdvance) / _FIXED / _FINE


def width(text: str, size: float, bold: bool = False) -> float:
    """Of a line in typographic points, without kerning."""
    return size * sum(_advance(letter, bold) for letter in text)


def broken(text: str, room: float, size: float, bold: bool = False) -> list[str]:
    """The lines of a paragraph no wider than `room` points; a word that is wider is cut."""
    lines = [""]
    for word in text.split():
        for part in _cut(word, room, size, bold):
            longer = f"{lines[-1]} {part}" if lines[-1] else part
            if width(longer, size, bold) <= room or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(part)
    return lines


def _cut(word: str, room: float, size: float, bold: bool) -> Sequence[str]:
    if width(word, size, bold) <= room:
        return [word]
    parts = [""]
    for letter in word:
        if parts[-1] and width(parts[-1] + letter, size, bold) > room:
            parts.append("")
        parts[-1] += letter
    return parts
