"""The options that several commands share, and numbers read strictly: 1.5 is no number of images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter, Token

MAX_COUNT: Final = 100_000
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf)", re.ASCII | re.IGNORECASE
)


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """A whole number, and nothing that would have to be rounded to one. Raises ValueError."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not a whole number.')
    return int(text)


def _wholes(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(_whole(kind, [token]) for token in tokens)


def _number(_type: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not a number.')
    return float(text)


def _dollars(kind: Any, tokens: Sequence[Token]) -> float:
    value = _number(kind, tokens)
    if not 0 < value < math.inf:
        raise ValueError(f"{value:g} is not a number of dollars above 0.")
    return value


def _count(kind: Any, tokens: Sequence[Token]) -> int:
    value = _whole(kind, tokens)
    if not 1 <= value <= MAX_COUNT:
        raise ValueError(f"{value} is not a number from 1 to {MAX_COUNT:,}.")
    return value


Whole = Annotated[int, Parameter(converter=_whole)]
Wholes = Annotated[tuple[int, ...] | None, Parameter(converter=_wholes, consume_multiple=True, negative="")]
Count = Annotated[int | None, Parameter(converter=_count)]
Dollars = Annotated[float, Parameter(converter=_dollars)]
Number = Annotated[float, Parameter(converter=_number)]

ModelDir = Annotated[Path, Parameter(env_var="SAGEMAKER_MODEL_DIR", help="Folder of the checkpoints.")]
ResultsDir = Annotated[Path, Parameter(help="Folder of the records, one per finished trial.")]
DataDir = Annotated[Path, Parameter(help="Folder of the data sets; what is missing is fetched into it.")]
