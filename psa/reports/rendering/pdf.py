"""A report as a PDF document: the same page that is shown as HTML, to print and to hand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from psa.reports.plotting.style import DPI
from psa.reports.rendering.html import Fact, Page, Picture, Section
from psa.reports.rendering.pdf_letters import broken, width
from psa.reports.rendering.pdf_sheets import FOOT, INK, LEADING, ROOM, SOFT, TOP, Sheets
from psa.reports.rendering.tables import Bold, Cell, Column, Table, in_markdown, value_of

_WARNING: Final = "#BC4C00"
_SIZES: Final = (7.0, 6.5, 6.0, 5.5, 5.0, 4.5)  # of tables, in points: the largest at which one fits
_GAP: Final = 9.0  # between columns
_WIDEST: Final = 150.0  # of a column of texts; longer ones take several lines
_HEAD: Final = 3  # lines of a heading
_SHRUNK: Final = 0.75  # of its size, to which a picture may shrink rather than leave half a sheet empty
_LINE: Final = 1.22  # from line to line of a cell, in sizes
# Where the value of a fact stands, and its detail, from the margin.
_VALUE: Final = 165.0
_DETAIL: Final = 285.0


def document(page: Page) -> bytes:
    """The PDF of a page; equal pages give equal bytes, and its fonts are embedded. Raises OSError where a
    picture cannot be read.
    """
    sheets = Sheets()
    sheets.paragraph(page.title, 17, bold=True)
    sheets.paragraph(page.question, 10, colour=SOFT, after=8)
    for text in page.warnings:
        _warning(sheets, text)
    for fact in page.facts:
        _fact(sheets, fact)
    for section in page.sections:
        _section(sheets, section)
    _heading(sheets, "Where the numbers come from", 60)
    for source in page.sources:
        sheets.paragraph(source, 7.5, colour=SOFT)
    return sheets.pdf(page.title)


def _heading(sheets: Sheets, text: str, following: float) -> None:
    """A heading, where there is also room for so many points of what follows."""
    sheets.need(28 + following)
    sheets.y -= 10 * (sheets.y < TOP)
    sheets.paragraph(text, 12.5, bold=True, after=1)
    sheets.rule()
    sheets.y -= 6


def _warning(sheets: Sheets, text: str) -> None:
    high = len(broken(text, ROOM - 12, 8.5)) * 8.5 * LEADING
    sheets.need(high)
    sheets.bar(high, _WARNING)
    sheets.paragraph(text, 8.5, indent=12, after=6)


def _fact(sheets: Sheets, fact: Fact) -> None:
    """What it is at the left, its value in bold, of what it is behind it."""
    names = broken(fact.name, _VALUE - 8, 8.5)
    values = broken(fact.value, _DETAIL - _VALUE - 8, 8.5, bold=True)
    details = broken(fact.detail, ROOM - _DETAIL, 7.5)
    step = 8.5 * LEADING
    high = max(map(len, (names, values, details))) * step
    sheets.need(high)
    for at, text in enumerate(names):
        sheets.line(text, 8.5, colour=SOFT, down=at * step)
    for at, text in enumerate(values):
        sheets.line(text, 8.5, _VALUE, bold=True, down=at * step)
    for at, text in enumerate(details):
        sheets.line(text, 7.5, _DETAIL, colour=SOFT, down=at * step + 1)
    sheets.y -= high + 1.5


def _section(sheets: Sheets, section: Section) -> None:
    _heading(sheets, section.title, 90)
    for text in section.text:
        sheets.paragraph(text, 8.5)
    for picture in section.pictures:
        _picture(sheets, picture)
    for table in section.tables:
        _table(sheets, table)


def _picture(sheets: Sheets, picture: Picture) -> None:
    """As large as it was drawn, if that nearly fits, with its sentence below."""
    with Image.open(picture.path) as image:
        wide, high = image.size
    below = len(broken(picture.caption, ROOM, 7.5)) * 7.5 * LEADING + 12
    scale = min(72 / DPI, ROOM / wide, (TOP - FOOT - below) / high)
    left = (sheets.y - FOOT - below) / high
    scale = left if _SHRUNK * scale <= left < scale else scale
    sheets.need(high * scale + below - 1e-6)
    sheets.image(picture.path, wide * scale, high * scale)
    sheets.y -= 3
    sheets.paragraph(picture.caption, 7.5, colour=SOFT, after=9)


Row = Sequence[Sequence[str]]  # of a table: the lines of each of its cells


@dataclass(frozen=True)
class Fitted:
    """A table as texts, at a size at which its columns fit beside each other."""

    size: float
    gap: float
    widths: tuple[float, ...]
    right: tuple[bool, ...]
    heads: Row
    rows: tuple[Row, ...]

    @property
    def whole(self) -> float:
        """How wide it is."""
        return sum(self.widths) + self.gap * (len(self.widths) - 1)

    def high(self, row: Row) -> float:
        """How high a row is."""
        return (max(map(len, row), default=1) * _LINE + 0.28) * self.size


def fitted(table: Table, room: float = ROOM) -> Fitted:
    """The largest size at which a table is no wider than `room`; below all sizes, one that is just so."""
    for size in _SIZES:
        found = _set(table, size)
        if found.whole <= room:
            return found
    found = _set(table, _SIZES[-1])
    scale = room / found.whole
    widths = tuple(scale * each for each in found.widths)
    return Fitted(found.size * scale, _GAP * scale, widths, found.right, found.heads, found.rows)


def _set(table: Table, size: float) -> Fitted:
    cells, widths, heads = [], [], []
    for at, column in enumerate(table.columns):
        texts = [shown(row[at], column) for row in table.rows]
        is_text = column.kind == "text"
        lines = [tuple(broken(text, _WIDEST, size)) if is_text else (text,) for text in texts]
        strong = [isinstance(row[at], Bold) for row in table.rows]
        each = [width(line, size, bold) for cell, bold in zip(lines, strong, strict=True) for line in cell]
        wide = max(each, default=0.0)
        word = max((width(part, size, bold=True) for part in column.name.split()), default=0.0)
        cells.append(lines)
        wide = max(wide, word)
        while len(broken(column.name, wide, size, bold=True)) > _HEAD:
            wide *= 1.1
        widths.append(wide + 0.5)
        heads.append(tuple(broken(column.name, widths[-1], size, bold=True)))
    right = tuple(column.kind != "text" for column in table.columns)
    return Fitted(size, _GAP, tuple(widths), right, tuple(heads), tuple(zip(*cells, strict=True)))


def shown(cell: Cell, column: Column) -> str:
    """A cell as text, without any markup."""
    value = value_of(cell)
    return value if isinstance(value, str) else in_markdown(value, column)


def _table(sheets: Sheets, table: Table) -> None:
    """With its heads on every sheet that it takes."""
    found = fitted(table)
    sheets.need(30 + found.high(found.heads) + 3 * found.size)
    sheets.paragraph(table.caption, 8.5, bold=True, after=2)
    _heads(sheets, found)
    for row, cells in zip(found.rows, table.rows, strict=True):
        if sheets.need(found.high(row)):
            _heads(sheets, found)
        _row(sheets, found, row, [isinstance(cell, Bold) for cell in cells])
    sheets.rule(INK, 0.7, found.whole)
    sheets.y -= 5
    if table.note:
        sheets.paragraph(table.note, 6.5, colour=SOFT)
    sheets.y -= 6


def _heads(sheets: Sheets, found: Fitted) -> None:
    sheets.rule(INK, 0.7, found.whole)
    sheets.y -= 2
    _row(sheets, found, found.heads, [True] * len(found.heads))
    sheets.rule(INK, 0.4, found.whole)
    sheets.y -= 1.5


def _row(sheets: Sheets, found: Fitted, row: Row, strong: Sequence[bool]) -> None:
    x = 0.0
    for lines, wide, right, bold in zip(row, found.widths, found.right, strong, strict=True):
        for at, text in enumerate(lines):
            down = at * _LINE * found.size
            sheets.line(text, found.size, x + wide * right, bold=bold, right=right, down=down)
        x += wide + found.gap
    sheets.y -= found.high(row)
