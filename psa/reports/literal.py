"""Texts that stand in a table as they are, whatever somebody has called a variant."""

from __future__ import annotations

import re
from typing import Final

_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])")
# A number with its sign is none.
_FORMULA: Final = re.compile(r"[=@\t\r]|[+-](?![0-9.]+$)(?=.)")


def literal(text: str) -> str:
    """A text in which Markdown sees no HTML and no emphasis: two stars would make `4*4, 2*8` italic."""
    plain = _TAG.sub("&lt;", text)
    return plain.replace("*", r"\*") if plain.count("*") > 1 else plain


def uncomputed(text: str) -> str:
    """A text that a spreadsheet shows, where it would compute what begins like a formula."""
    return f"'{text}" if _FORMULA.match(text) else text
