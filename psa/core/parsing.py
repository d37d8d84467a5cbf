"""Parsing of the values in a grid, on the command line and in arguments from Python: lists, ranges, files of
values, `key=value`, paths.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

from psa.core.errors import CorruptFileError, UserError
from psa.core.formatting import quote
from psa.core.stored_files import read_stored
from psa.core.text_file import decode_text

# The name of a study, and of anything that a plugin registers; names are parts of paths.
NAME_PATTERN: Final = r"^[a-z][a-z0-9_-]{0,39}$"
MAX_VALUES: Final = 200_000
_MAX_FILE: Final = 10_000_000  # bytes
_LONGEST_LINE: Final = 10_000
# A quote begins a quoted value only where a value begins, and ends it only where a value may end.
_QUOTED: Final = re.compile(r"""(?<=[=,])("[^"]*"|'[^']*')(?=[,\s]|$)""")
_NAMES: Final = re.compile(r"""("[^"]*"|'[^']*')(?=,|$)|[^,]+""")
_RANGE: Final = re.compile(r"\s*([0-9]{1,18})\s*\.\.\s*([0-9]{1,18})\s*", re.ASCII)


def parse_values(value: Any, folder: Path, where: str) -> list[Any]:
    """Return a list unchanged, "0..9" as numbers, "@file" as the lines of the file. Raises UserError."""
    if isinstance(value, str) and value.startswith("@"):
        value = _lines(folder, value[1:], where)
    elif isinstance(value, str) and (match := _RANGE.fullmatch(value)):
        low, high = int(match[1]), int(match[2])
        if high - low >= MAX_VALUES:
            raise UserError(
                f"{where} must be at most {MAX_VALUES:,} values, got {value}", "Use a shorter range"
            )
        if high < low:
            raise UserError(
                f"{where} must be FIRST..LAST with FIRST <= LAST, got {value}", f"Write {high}..{low}"
            )
        value = list(range(low, high + 1))
    elif not isinstance(value, list):
        value = [value]
    if not value:
        raise UserError(f"{where} must have at least one value, got none", "Add one, or remove the key")
    seen: set[str] = set()
    for shown in map(repr, value):
        if shown in seen:
            raise UserError(f"{where} must have each value once, got {shown} twice", "Remove one of them")
        seen.add(shown)
    return list(value)


def _lines(folder: Path, name: str, where: str) -> list[str]:
    """Return the values in a file, one a line without remarks. Raise UserError."""
    path = folder / name
    _check_place(folder, name, where)
    try:
        content = read_stored(path, _MAX_FILE)
    except CorruptFileError as error:
        raise UserError(f"{where}: {error.message}", "Name another file of values") from None
    if content is None:
        raise UserError(f"{where}: {path} does not exist", "Paths are relative to the folder of the grid")
    lines = [line.split("#")[0].strip() for line in decode_text(content, str(path)).splitlines()]
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST_LINE or not line.isprintable():
            raise UserError(
                f"{path}: line {number} must hold at most {_LONGEST_LINE:,} printable characters, "
                f"got {len(line):,}" + ", some not printable" * (not line.isprintable()),
                "Write one value a line",
            )
    return [line for line in lines if line]


def _check_place(folder: Path, name: str, where: str) -> None:
    """Raise UserError for a file that a grid from another person must not make psa read: a message that
    refuses a value quotes it.
    """
    path = folder / name
    try:
        inside = any(path.resolve().is_relative_to(root.resolve()) for root in (folder, Path()))
    except (OSError, ValueError, RuntimeError) as error:  # a loop of links, a zero byte
        raise UserError(f"{where}: {path} cannot be read ({error})", "Name another file") from None
    hidden = any(part.startswith(".") and part.strip(".") for part in Path(name).parts)
    if hidden or not inside:
        raise UserError(
            f"{where}: a file of values must lie beside the grid or in the current folder and not be hidden, "
            f"got {path}",
            "Copy it there",
        )


def parse_seeds(value: Any, folder: Path, where: str) -> list[Any]:
    """Return the values of a text as parse_values does, or of several joined by commas: "0..4,7"."""
    if not isinstance(value, str) or "," not in value:
        return parse_values(value, folder, where)
    found: list[Any] = []
    for part in value.split(","):
        found += parse_values(part.strip(), folder, where)
        if len(found) > MAX_VALUES:  # before it fills the memory
            raise UserError(f"{where} must be at most {MAX_VALUES:,} values, got more", "Give fewer")
    return parse_values(found, folder, where)


def parse_assignment(text: str, what: str) -> tuple[str, str]:
    """Split `key=value` into key and value. Raises UserError."""
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise UserError(f"{what} must be key=value, got {text!r}", "For example lr=1e-3")
    return key.strip(), value.strip()


def parse_int(value: Any, where: str) -> int:
    """Return the integer in a number or a text. Raises UserError."""
    text = str(value).strip()
    if isinstance(value, bool | float) or re.fullmatch(r"[+-]?[0-9]{1,30}", text, re.ASCII) is None:
        raise UserError(f"{where} must be a whole number, got {value!r}", "Write 0, 1, 2, ...")
    return int(text)


def strip_brackets(text: str) -> str:
    """Return a list without the brackets around all of it; in `a,b(c=1)` they belong to the last item."""
    first, last = 0, len(text)  # no copies: a text of very many brackets would take time by its square
    while True:
        while first < last and text[first].isspace():
            first += 1
        while first < last and text[last - 1].isspace():
            last -= 1
        if last - first < 2 or text[first] + text[last - 1] not in ("[]", "()"):
            return text[first:last]
        first, last = first + 1, last - 1


def split_top_level(text: str, separator: str, *, quotes: bool = False) -> list[str]:
    """Split a text at separators outside of brackets, and strip the parts.

    `[2*4, 1*7],1*16` has two parts: the comma within an architecture is its own. quotes: nor does it split
    `key="a value"`.
    """
    parts, depth, begin = [], 0, 0
    for at, character in enumerate(_QUOTED.sub(lambda value: "_" * len(value[0]), text) if quotes else text):
        depth += (character in "[(") - (character in "])")
        if character == separator and depth <= 0:
            parts.append(text[begin:at])
            begin = at + 1
    parts.append(text[begin:])
    return [part.strip() for part in parts if part.strip()]


def split_names(text: str, known: Collection[str]) -> list[str]:
    """Split a text at commas into names; one in quotes may hold commas and blanks: `"big, slow",small`.

    known: names that may begin and end with quotes of their own.
    """
    return [_without_quotes(found, known) for found in _NAMES.finditer(text)]


def _without_quotes(found: re.Match[str], known: Collection[str]) -> str:
    return found[0] if found[1] is None or found[0] in known else found[1][1:-1]


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """Return the known name that a mistaken one is most like, from 0 (any) to 1 (the same). None for none."""
    return next(iter(difflib.get_close_matches(name, sorted(known), 1, likeness)), None)


def check_choice(key: object, names: set[str], where: str, what: str = "key") -> None:
    """Raise UserError unless a key (or what it is called) is in `names`; the hint is the nearest of them."""
    if not isinstance(key, str) or key not in names:
        near = nearest(key, names) if isinstance(key, str) else None
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(sorted(names))}"
        raise UserError(f"{where}: unknown {what} {quote(key)}", hint)


def as_path(value: object, name: str) -> Path:
    """Return an argument as a path. Raises UserError for anything but a string or a path."""
    found = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if isinstance(found, str):
        return Path(found)
    raise UserError(f"{name} must be a string or a path, got {quote(value)}")


def as_list(value: object, name: str) -> list[Any]:
    """Return an argument as a list. Raises UserError for a string, and for what has no items."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    raise UserError(f"{name} must be a list, got {quote(value)}", f"Write {name}=[...]")


def as_names(value: object, name: str) -> list[str]:
    """Return an argument as a list of strings. Raises UserError for anything else."""
    found = as_list(value, name)
    if (wrong := next((each for each in found if not isinstance(each, str)), None)) is not None:
        raise UserError(f"{name} must be strings, got {quote(wrong)}")
    return found
