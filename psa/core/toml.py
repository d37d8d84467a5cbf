"""TOML as people write it by hand: what no hand would write is refused before it costs time or memory."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from psa.core.errors import UserError
from psa.core.text_file import decode_text

_MAX_SIZE: Final = 1_000_000  # bytes
_MAX_DEPTH: Final = 32  # of tables in tables
_INTEGERS: Final = range(-(2**63), 2**63)  # what TOML has; Python would take larger ones
# Reading a key of n parts takes time that grows with n squared: 60,000 of them, 120 kB, a minute.
_LONG_KEY: Final = re.compile(rb"(?<![\w\"'-])(?:[\w\"'-]++\s*+\.\s*+){%d}" % _MAX_DEPTH)


def read_toml(content: bytes, where: str, what: str) -> dict[str, Any]:
    """The tables of a file. what: the file should be, in errors. Raises UserError."""
    if len(content) > _MAX_SIZE:
        raise UserError(f"{where} is {len(content):,} bytes long", f"That is no {what}")
    text = decode_text(content, where)
    if _LONG_KEY.search(content):
        raise UserError(f"{where} has a key of more than {_MAX_DEPTH} parts", f"That is no {what}")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of very many digits is but a ValueError
        raise UserError(f"{where} is no TOML: {error}", "Correct that line") from error
    _check(tables, where, what)
    return tables


def _check(tables: dict[str, Any], where: str, what: str) -> None:
    """Raise UserError for numbers that are none of TOML, and for tables deep inside of each other."""
    level: list[Any] = [tables]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        for value in level:
            if isinstance(value, int) and value not in _INTEGERS:
                raise UserError(f"{where} is no TOML: it has a number of more than 64 bits", "Correct it")
        if not level:
            return
    raise UserError(f"{where} has tables or lists more than {_MAX_DEPTH} deep", f"That is no {what}")
