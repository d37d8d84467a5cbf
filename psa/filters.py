"""Which digits stay: sets of them by name, and how a set is written."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

from psa.core.errors import UserError
from psa.core.parsing import check_known

PRESETS: Final = {
    "binary": (0, 1),
    "even": (0, 2, 4, 6, 8),
    "prime": (2, 3, 5, 7),
    "similar": (6, 8, 9),
}
WHY: Final = {
    "binary": "the easiest pair",
    "even": "every second digit",
    "prime": "the prime numbers",
    "similar": "closed loops: the shapes that look most alike",
}
_SHOWN: Final = 20
_HINT: Final = f"Write digits such as 0,1,7, or {', '.join(PRESETS)}"


def digits_of(text: str) -> tuple[int, ...]:
    """The digits that `even` or `0,1,7` stands for, with or without brackets.

    Raises UserError for an unknown name (with the nearest one) and for a set that is none: see checked.
    """
    bare = text.strip("[]() \t")
    if re.search("[a-z]", bare, re.IGNORECASE) and "," not in bare:
        check_known(bare, set(PRESETS), "digits", "name")
        return PRESETS[bare]
    parts = [part.strip() for part in bare.split(",")]
    for part in parts:
        if re.fullmatch("[0-9]", part, re.ASCII) is None:
            raise UserError(f"digits {text!r} must be digits from 0 to 9, got {part!r}", _HINT)
    return checked(tuple(map(int, parts)))


def checked(digits: tuple[int, ...]) -> tuple[int, ...]:
    """The digits themselves. Raises UserError for one digit, one given twice, and any order but a rising
    one: label 0 is the least digit, so that another order would promise another labelling.
    """
    shown = ", ".join(map(str, digits[:_SHOWN])) + ", ..." * (len(digits) > _SHOWN)
    counts = Counter(digits)
    if not digits:
        raise UserError("digits must name at least two digits, got none", _HINT)
    for digit in digits:
        if counts[digit] > 1:
            raise UserError(f"digits {shown} must name each digit once, got {digit} more than once", _HINT)
    if len(digits) < 2:
        raise UserError(f"digits {shown} must name at least two digits, got one", _HINT)
    if tuple(sorted(digits)) != digits:
        rising = ",".join(map(str, sorted(digits)))
        raise UserError(
            f"digits {shown} must be in rising order", f"Labels follow the digits: write {rising}"
        )
    return digits


def resolved(value: Any) -> Any:
    """A text as the digits it stands for, a list of digits if it is a set; whatever else is left to the type
    of the setting.

    Raises ValueError, which pydantic reports with the key it belongs to.
    """
    try:
        if isinstance(value, list | tuple) and all(type(each) is int for each in value):
            return checked(tuple(value))
        return digits_of(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from error


def label_mapping(digits: tuple[int, ...]) -> str:
    """`2→0 3→1 5→2 7→3`: the label that stands for each digit while training."""
    return " ".join(f"{digit}→{label}" for label, digit in enumerate(digits))
