"""Text and TOML files written by hand, with editors of any system.

UTF-8 with or without a byte order mark, LF or CRLF. Very large or deeply nested TOML is refused before it
costs time or memory.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

from psa.core.errors import UserError

_HINT: Final = "Save it as UTF-8"
_UTF_8_MARK: Final = b"\xef\xbb\xbf"
_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_MAX_SIZE: Final = 1_000_000  # bytes
_MAX_DEPTH: Final = 32  # of tables in tables
_INTEGERS: Final = range(-(2**63), 2**63)  # what TOML has; Python would take larger ones
# Reading a key of n parts takes time that grows with n squared: 60,000 of them, 120 kB, a minute.
_LONG_KEY: Final = re.compile(rb"(?<![\w\"'-])(?:[\w\"'-]++\s*+\.\s*+){%d}" % _MAX_DEPTH)


def decode_text(content: bytes, where: str) -> str:
    """Return the text of a file, with LF at the end of each line. Raise UserError that names its encoding."""
    for mark, encoding in _MARKS.items():
        if content.startswith(mark):
            raise UserError(f"{where} must be UTF-8 text, got {encoding}", _HINT)
    # Ctrl-Z, which old editors of DOS and Windows put at the end of a text
    body = content.removeprefix(_UTF_8_MARK).rstrip(b"\x1a")
    if b"\0" in body:
        raise UserError(f"{where} must be UTF-8 text, got zero bytes: UTF-16, or not text", _HINT)
    try:
        return body.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = body.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{where} must be UTF-8 text, got in line {line} the byte 0x{body[error.start]:02x}: perhaps "
            "Latin-1 or Windows-1252",
            _HINT,
        ) from None


def read_toml(content: bytes, where: str, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file. what: the expected kind of file, for errors. Raises UserError."""
    if len(content) > _MAX_SIZE:
        raise UserError(
            f"{where} must have at most {_MAX_SIZE:,} bytes, got {len(content):,}", f"Name a {what}"
        )
    text = decode_text(content, where)
    if _LONG_KEY.search(content):
        raise UserError(f"{where} must have keys of at most {_MAX_DEPTH} parts", f"Name a {what}")
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of very many digits is but a ValueError
        raise UserError(f"{where} must be valid TOML: {error}", "Correct that line") from error
    _check(tables, where, what)
    return tables


def _check(tables: dict[str, Any], where: str, what: str) -> None:
    """Raise UserError for numbers beyond the range of TOML, and for deeply nested tables."""
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
                raise UserError(
                    f"{where} must be valid TOML, whose numbers have at most 64 bits", "Correct it"
                )
        if not level:
            return
    raise UserError(f"{where} must have tables and lists at most {_MAX_DEPTH} deep", f"Name a {what}")
