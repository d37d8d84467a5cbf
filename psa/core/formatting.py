"""Values in readable form: durations, sizes, counts, names, a wrong value in an error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

_MAX_SHOWN: Final = 60  # characters of a wrong value


def format_duration(seconds: float) -> str:
    """Return a duration as `3 h 05 min`, `4 min 10 s`, `12 s`, `less than 1 s` or `0 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return "less than 1 s" if 0 < seconds < 1 else f"{whole} s"


def format_pace(seconds: float) -> str:
    """Return the time of one meta-loop: `0.35 s`, `4.2 s`, `12 s`, `4 min 10 s`."""
    return f"{seconds:.2g} s" if seconds < 9.95 else format_duration(seconds)


def format_rate(per_second: float) -> str:
    """Return a number of meta-loops per second in the unit that fits: `3.2 loops/s`, `38 loops/min`."""
    seconds, unit = 3600, "h"
    if per_second >= 1 / 60:
        seconds, unit = (1, "s") if per_second >= 1 else (60, "min")
    count = per_second * seconds
    return f"{count:,.0f} loops/{unit}" if count >= 9.95 else f"{count:.1f} loops/{unit}"


def format_bytes(count: float) -> str:
    """Return bytes in the unit that fits: `17.8 GB`, `330 MB`, `94 kB`, `512 B`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        # from where rounding would fill the unit: 999.7 kB is 1.0 MB
        if count >= 0.9995 * unit:
            shown = count / unit
            return f"{shown:.1f} {name}" if shown < 99.95 else f"{shown:,.0f} {name}"
    return f"{count:.0f} B"


def format_number(value: float) -> str:
    """Return a number with six significant digits where these are all, otherwise with all of its digits.

    Different numbers have different texts.
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def join_names(names: Sequence[str], most: int = 12) -> str:
    """Join names with commas, only the first of many: `1*1, 1*2 and 96 more`."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def group_thousands(text: str) -> str:
    """Separate the thousands of the numbers in a text: `46,218.5 ± 4,714.0`; digits after a point stay."""
    return re.sub(r"(?<![\d.])\d{4,}", lambda found: f"{int(found[0]):,}", text)


def pluralize(count: int, thing: str) -> str:
    """Return a count with its noun: `1 trial`, `5,880 trials`."""
    return f"{count:,} {thing}{'s' * (count != 1)}"


def format_range(counts: Iterable[float]) -> str:
    """Return the least and the greatest of some whole numbers: `2 to 5`, or `3` where all are equal."""
    found = list(counts)
    least, most = f"{min(found):.0f}", f"{max(found):.0f}"
    return least if least == most else f"{least} to {most}"


def quote(value: object) -> str:
    """Return a value as Python writes it, on one line and cut short."""
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # a number of very many digits, lists very deep in lists
        shown = f"this {type(value).__name__}"
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
