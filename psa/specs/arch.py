"""The hidden layers of a network as people write them: `[4*4, 2*8]`."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import Final

from psa.core.errors import UserError
from psa.core.formatting import quote

MAX_WIDTH: Final = 65_536
MAX_DEPTH: Final = 10_000
_MAX_TEXT: Final = 4_000  # longer strings are refused without parsing
_MAX_DIGITS: Final = 9
_SEGMENT: Final = re.compile(r"\s*([0-9]+)\s*[*xX]\s*([0-9]+)\s*", re.ASCII)
_HELP: Final = 'Write count*width segments, e.g. --arch "4*4, 2*8, 1*16" or 4x8'
_LIMITS: Final = f"At most {MAX_DEPTH:,} hidden layers of at most {MAX_WIDTH:,} units"


@dataclass(frozen=True)
class Arch:
    """Hidden layers as stacks (depth, width), neighbours of equal width merged: `[1*8, 1*8]` is `[2*8]`."""

    stacks: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Read `4*4, 2*8`, `[4*4, 2*8]` or `4x4, 2x8`: four hidden layers of width 4, then two of width 8.

        Raises UserError for anything else, and for sizes that no machine could hold.
        """
        if len(text) > _MAX_TEXT:
            raise UserError(f"arch must have at most {_MAX_TEXT:,} characters, got {len(text):,}", _HELP)
        inner = text.strip(string.whitespace)
        if inner.startswith("[") != inner.endswith("]") or inner == "[":
            raise UserError(f"arch must have both brackets or none, got {quote(text)}", _HELP)
        return cls.of_stacks(
            [_stack(segment) for segment in inner.removeprefix("[").removesuffix("]").split(",")]
        )

    @classmethod
    def of_stacks(cls, stacks: list[tuple[int, int]]) -> Arch:
        """Merge equal neighbours and check the sizes. Raises UserError."""
        merged: list[tuple[int, int]] = []
        for depth, width in stacks:
            if depth < 1 or width < 1:
                raise UserError(f"arch must have counts and widths from 1, got {depth}*{width}", _HELP)
            if merged and merged[-1][1] == width:
                merged[-1] = (merged[-1][0] + depth, width)
            else:
                merged.append((depth, width))
        widest, deepest = max(w for _, w in merged), sum(d for d, _ in merged)
        if widest > MAX_WIDTH or deepest > MAX_DEPTH:
            raise UserError(
                f"arch must be smaller, got {deepest:,} hidden layers, the widest {widest:,}", _LIMITS
            )
        return cls(tuple(merged))

    @classmethod
    def coerce(cls, value: object) -> Arch:
        """Return an Arch unchanged, or parse a string. Raises UserError."""
        if isinstance(value, Arch):
            return value
        if not isinstance(value, str):
            raise UserError(f"arch must be a string, got {quote(value)}", _HELP)
        return cls.parse(value)

    @property
    def widths(self) -> tuple[int, ...]:
        """One width per hidden layer, input side first."""
        return tuple(width for depth, width in self.stacks for _ in range(depth))

    @property
    def label(self) -> str:
        """The name used in tables: `4*4, 2*8`."""
        return ", ".join(f"{depth}*{width}" for depth, width in self.stacks)

    @property
    def slug(self) -> str:
        """The name used in paths: `4x4-2x8`, cut short where a file name would be too long."""
        text = "-".join(f"{depth}x{width}" for depth, width in self.stacks)
        return text if len(text) <= 80 else f"{text[:72]}-etc"

    def __str__(self) -> str:
        return f"[{self.label}]"


def _stack(segment: str) -> tuple[int, int]:
    """Parse `4*8` as (4, 8). Raises UserError."""
    match = _SEGMENT.fullmatch(segment)
    if match is None:
        raise UserError(f"arch must be segments COUNT*WIDTH, got {quote(segment.strip())}", _HELP)
    if max(len(digits.lstrip("0")) for digits in match.groups()) > _MAX_DIGITS:
        raise UserError(f"arch must be smaller, got {quote(segment.strip())}", _LIMITS)
    return int(match[1]), int(match[2])
