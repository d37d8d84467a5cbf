"""A table as one value, and its formats: Markdown, LaTeX, CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Final, Literal

from psa.analysis.stats import Interval
from psa.core.files import write_atomically
from psa.core.formatting import group_thousands
from psa.reports.rendering import latex
from psa.reports.rendering.latex import escape_formula, escape_markdown

MISSING: Final = "n/a"
_FEW: Final = r"\,\textsuperscript{{n={}}}"  # in LaTeX, the number of trials of an incomplete cell
# A count is shown as 1,234; a number and a percentage with the digits of their column, a p-value, or another
# number above 0, down to the last of them (<0.001); the two last are values of the classes of those names.
ColumnKind = Literal["text", "count", "number", "percent", "p", "mean_sd", "interval"]


@dataclass(frozen=True)
class MeanSd:
    """A mean and the standard deviation of its n trials, out of `expected`; NaN where n is 1."""

    mean: float
    sd: float
    n: int
    expected: int


Value = str | int | float | MeanSd | Interval | None


@dataclass(frozen=True)
class Bold:
    """A value to highlight, such as a winner."""

    value: Value


Cell = Value | Bold
_TYPES: Final[dict[ColumnKind, type | tuple[type, ...]]] = {
    "text": str,
    "count": int,
    "number": (int, float),
    "percent": (int, float),
    "p": (int, float),
    "mean_sd": MeanSd,
    "interval": Interval,
}


@dataclass(frozen=True)
class Column:
    """A column of a table. digits: after the decimal point; signed: show a plus, too; breaks: in LaTeX the
    text may take several lines of that many centimetres; most: a single number beyond it, on either side of
    0, is shown as `>+10` or `<-10`.
    """

    name: str
    kind: ColumnKind = "text"
    digits: int = 2
    signed: bool = False
    breaks: float = 0
    most: float = math.inf

    @property
    def unit(self) -> str:
        """The unit of its cells, which is not repeated where the heading states it."""
        return "%" if self.kind == "percent" and "%" not in self.name else ""


@dataclass(frozen=True)
class Table:
    """Rows under columns; None and NaN are missing. note: the number of trials, what is missing, how it was
    computed. In LaTeX a long table takes several pages, and a wide one is turned. Raises ValueError for a row
    that does not fit the columns, and for two columns of one name.
    """

    caption: str
    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...] = field(repr=False)
    note: str = ""
    long: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        names = [column.name.strip() for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError(f"columns must have different names, got {names}")
        for row in self.rows:
            for column, cell in zip(self.columns, row, strict=True):
                value = value_of(cell)
                if value is not None and not isinstance(value, _TYPES[column.kind]):
                    raise ValueError(f"column {column.name!r} must hold {column.kind} cells, got {value!r}")

    def markdown(self) -> str:
        """Return a heading, an aligned table, the note. A missing cell is `n/a`, a highlighted one bold."""
        heads = [column.name for column in self.columns]
        rows = [
            [in_markdown(cell, column) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]
        left = [column.kind == "text" for column in self.columns]
        parts = [f"### {escape_markdown(self.caption)}", grid(heads, rows, left)]
        return "\n\n".join([*parts, *([escape_markdown(self.note)] if self.note else [])]) + "\n"

    def latex(self) -> str:
        """Return a float or longtable (booktabs, longtable, pdflscape, siunitx). A missing cell is a dash."""
        cells = [list(column) for column in zip(*self.rows, strict=True)] or [[] for _ in self.columns]
        sheet = latex.Sheet(
            self.caption,
            self.label,
            [_specification(column, inner) for column, inner in zip(self.columns, cells, strict=True)],
            [_head(column) for column in self.columns],
            [[_in_latex(*each) for each in zip(row, self.columns, strict=True)] for row in self.rows],
            self.note,
            self.wide,
        )
        return "\n".join(part.long() if self.long else part.float() for part in sheet.fitted())

    def csv(self) -> str:
        """Return the numbers unrounded; means, deviations and counts in columns of their own."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(name for column in self.columns for name in _csv_names(column))
        for row in self.rows:
            writer.writerow(
                part
                for cell, column in zip(row, self.columns, strict=True)
                for part in _csv_parts(cell, column)
            )
        return text.getvalue()


def save_table(table: Table, folder: Path, name: str) -> list[Path]:
    """Store the table as `name`.md, .tex and .csv. Return their paths. Raises UserError."""
    renderings = {".md": table.markdown, ".tex": table.latex, ".csv": table.csv}
    for ending, rendered in renderings.items():
        write_atomically(folder / f"{name}{ending}", rendered().encode())
    return [folder / f"{name}{ending}" for ending in renderings]


def grid(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[bool]) -> str:
    """Return a Markdown table with aligned bars; a column is aligned left or right."""
    lines = [[text.replace("|", r"\|") for text in row] for row in [heads, *rows]]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            text.ljust(width) if aligned else text.rjust(width)
            for text, width, aligned in zip(line, widths, left, strict=True)
        ]
        for line in lines
    ]
    rule = [
        f":{'-' * (width - 1)}" if aligned else f"{'-' * (width - 1)}:"
        for width, aligned in zip(widths, left, strict=True)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [padded[0], rule, *padded[1:]])


def rounded(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a number as text, without the minus of a negative zero."""
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text if float(text) else text.lstrip("+-")


def value_of(cell: Cell) -> Value:
    """Return the value of a cell, None if it is missing."""
    value = cell.value if isinstance(cell, Bold) else cell
    number = central(value)
    return None if isinstance(number, float) and math.isnan(number) else value


def central(value: Value) -> str | float | None:
    """Return the central number of a mean or an interval; a single number or a text is returned as is."""
    if isinstance(value, MeanSd):
        return value.mean
    return value.value if isinstance(value, Interval) else value


def _plain(value: str | float, column: Column) -> str:
    """Format a single number or a text, for any format."""
    if isinstance(value, str):
        return value
    if column.kind == "count":
        return str(value)
    if column.kind == "p" and value < 10**-column.digits:
        return f"<{10**-column.digits:.{column.digits}f}"
    # rounded half up: five pairs allow p >= 0.0625, and 0.062 would be below that
    if column.kind == "p":
        return str(Decimal(value).quantize(Decimal(1).scaleb(-column.digits), ROUND_HALF_UP))
    if abs(value) > column.most:
        return f">{column.most:+g}" if value > 0 else f"<{-column.most:g}"
    return rounded(value, column.digits, signed=column.signed)


def _shown(
    value: MeanSd | Interval, column: Column, number: Callable[[float], str], plus_minus: str, few: str
) -> str:
    """Format a value of several numbers, each written by `number`."""
    if isinstance(value, MeanSd):
        sd = "" if math.isnan(value.sd) else f"{plus_minus}{rounded(value.sd, column.digits)}"
        count = few.format(value.n) if value.n < value.expected else ""
        return f"{rounded(value.mean, column.digits)}{sd}{count}"
    around = [value.low, value.high]
    ends = "" if any(map(math.isnan, around)) else f" [{', '.join(map(number, around))}]"
    return f"{number(value.value)}{ends}"


def in_markdown(cell: Cell, column: Column) -> str:
    """Return a cell as the text between two bars."""
    value = value_of(cell)
    if value is None:
        return MISSING
    if isinstance(value, MeanSd | Interval):
        text = _shown(value, column, lambda each: _plain(each, column), " ± ", " (n={})")
    else:
        text = escape_markdown(_plain(value, column)) + column.unit
    text = text if column.kind == "text" else group_thousands(text)
    return f"**{text}**" if isinstance(cell, Bold) else text


def shown(cell: Cell, column: Column) -> str:
    """Return a cell as text without markup."""
    value = value_of(cell)
    return value if isinstance(value, str) else in_markdown(value, column)


def _in_latex(cell: Cell, column: Column) -> str:
    value = value_of(cell)
    if value is None:
        return latex.LATEX_MISSING
    if isinstance(value, MeanSd | Interval):
        text = _shown(value, column, lambda each: rf"\num{{{_plain(each, column)}}}", " +- ", _FEW)
    else:
        text = latex.escape(value) if isinstance(value, str) else _plain(value, column)
    return rf"\bfseries {text}" if isinstance(cell, Bold) else text


def _head(column: Column) -> str:
    name = latex.escape(column.name) + (r" (\%)" if column.unit else "")
    return name if column.kind == "text" else f"{{{name}}}"


def _specification(column: Column, cells: Iterable[Cell]) -> str:
    """Return the LaTeX specification of a column: numbers on their points, with room for the widest."""
    if column.kind == "text":
        return rf">{{\raggedright\arraybackslash}}p{{{column.breaks:g}cm}}" if column.breaks else "l"
    if column.kind == "interval":
        return "r"
    values = [value for value in map(value_of, cells) if value is not None]
    values_with_sd = [value for value in values if isinstance(value, MeanSd)]
    numbers = [_plain(number, column) for number in map(central, values) if number is not None]
    deviations = [rounded(value.sd, column.digits) for value in values_with_sd if not math.isnan(value.sd)]
    # an uncertainty is counted in its digits: 0.06 takes one, 17.87 four
    room = max((len(text.replace(".", "").lstrip("0")) or 1 for text in deviations), default=0)
    few = [_FEW.format(value.n) for value in values_with_sd if value.n < value.expected]
    after = f"{{{max(few, key=len)}}}" if few else ""
    return f"S[table-format={_widest(numbers)}{f'({room})' if room else ''}{after}]"


def _widest(numbers: Sequence[str]) -> str:
    """Return the room of numbers around their points in the notation of siunitx: `<1.3`, `+2.2`, `7`."""
    small = "<" if any(number[0] in "<>" for number in numbers) else ""
    sign = "+" if any(number.lstrip("<>")[0] in "+-" for number in numbers) else ""
    halves = [number.lstrip("<>+-").partition(".") for number in numbers]
    whole, digits = (max((len(half[at]) for half in halves), default=1) for at in (0, 2))
    return f"{small}{sign}{whole}{f'.{digits}' if digits else ''}"


def _csv_names(column: Column) -> list[str]:
    parts = {"mean_sd": (" mean", " sd", " n"), "interval": ("", " low", " high")}.get(column.kind, ("",))
    return [f"{column.name}{part}" for part in parts]


def _csv_parts(cell: Cell, column: Column) -> list[str]:
    value = value_of(cell)
    match value:
        case MeanSd():
            parts: list[str | float] = [value.mean, value.sd, value.n]
        case Interval():
            parts = [value.value, value.low, value.high]
        case None:
            parts = [math.nan] * len(_csv_names(column))
            if column.kind == "mean_sd":
                parts[-1] = 0
        case str():
            parts = [escape_formula(value)]
        case _:
            parts = [value]
    return ["" if isinstance(part, float) and math.isnan(part) else str(part) for part in parts]
