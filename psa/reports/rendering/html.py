"""A report as one self-contained HTML page: no network, no other file.

Tables sort and filter, a cell opens its trials with their curves, and the page prints as it is read.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from psa.reports.rendering.images import EmbeddedImage, embedded_image
from psa.reports.rendering.provenance import Provenance
from psa.reports.rendering.tables import Bold, Table, Value, central, shown, value_of
from psa.reports.rendering.trials import CellTrials, TrialIndex

T = TypeVar("T")
_FOLDER: Final = Path(__file__).with_name("page")
_TEMPLATE: Final = "page.html"
_WRAPPED_FROM: Final = 40  # characters: shorter cells in several lines make rows tall in tables that scroll
_HIGH: Final = 0.75  # height by width; such figures have a row for each architecture or arm
_SHORT: Final = 10  # rows; a table of so many is kept on one printed page
_WHOLE: Final = 25  # rows; a table of so many has no scroll box of its own, which would hide one or two rows
_NARROW: Final = 80  # letters; two tables of so many stand beside each other on a wide screen
_DENSE: Final = 140  # letters; the columns of a wider table stand closer together on a usual screen
_WIDE: Final = 165  # letters; upright, a wider table is printed below 5.4 points, so its sheet is turned
_WIDEST: Final = 270  # letters; wider than a turned sheet, so cells take several lines
_PRINTED_WHOLE: Final = 100  # rows, of two sheets; of a longer table only the first are printed
_PRINTED: Final = 40  # rows, of one sheet
_STACKED: Final = 4  # columns; with a sentence among so few, a phone shows each row as a block
_WRAPPED: Final = 24  # letters of a printed line of a column of texts
_PADDING: Final = 2  # letters beside a column
_FILTERED_FROM: Final = 8  # rows; a shorter table is read at a glance


@dataclass(frozen=True)
class Fact:
    """A headline: its name, its value with its interval, and what the value refers to."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Picture:
    """A stored PNG and its caption, which is also its alternative text.

    notes: see `footnote` of plotting. image: the PNG as the page contains it, if that is made already.
    """

    path: Path
    caption: str
    notes: tuple[str, ...] = ()
    image: EmbeddedImage | None = field(default=None, repr=False)

    @property
    def text(self) -> str:
        """The caption with its notes."""
        return " ".join((self.caption, *self.notes))


@dataclass(frozen=True)
class Section:
    """Paragraphs, pictures and tables under one heading."""

    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report.

    warnings: shown first, such as missing trials. cells: by the label of a table, the trials of its cells.
    trial_names: by the id of a trial, names that the report has for it. trials, origin: see `with_trials`.
    """

    title: str
    question: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...] = field(repr=False)
    sources: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    cells: Mapping[str, CellTrials] = field(default_factory=dict, repr=False)
    trial_names: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    trials: TrialIndex | None = field(default=None, repr=False)
    origin: Provenance | None = field(default=None, repr=False)

    @property
    def filled(self) -> tuple[Section, ...]:
        """The sections with content: without a finished trial there are no curves, for example."""
        return tuple(each for each in self.sections if each.text or each.pictures or each.tables)


def with_pictures(
    page: Page, notes: Mapping[Path, tuple[str, ...]], images: Mapping[Path, EmbeddedImage]
) -> Page:
    """Return the page with the notes of its figures in their captions and with their images.

    notes, images: by the path of the PNG.
    """

    def filled(section: Section) -> Section:
        pictures = tuple(
            replace(picture, notes=notes.get(picture.path, picture.notes), image=images.get(picture.path))
            for picture in section.pictures
        )
        return replace(section, pictures=pictures)

    return replace(page, sections=tuple(map(filled, page.sections)))


def pick(found: Mapping[str, T], *names: str) -> tuple[T, ...]:
    """Return the tables or pictures of these names, in their order; those that are missing are left out."""
    return tuple(found[name] for name in names if name in found)


def html(page: Page) -> str:
    """Return the page as HTML; equal pages give equal texts. Raises OSError if a picture cannot be read."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    numbers = itertools.count(1), itertools.count(1)
    return environment.get_template(_TEMPLATE).render(
        page={
            "title": page.title,
            "question": page.question,
            "facts": page.facts,
            "warnings": page.warnings,
            "sources": page.sources,
            "sections": [_section(section, page, *numbers) for section in page.filled],
            "trials": page.trials,
            "origin": page.origin,
        },
        style=_resource("page.css"),
        printed=_PRINTED,
        script=_resource("page.js"),
        trials_script=_resource("trials.js"),
        plot_style=_resource("uplot.min.css"),
        plot_script=_resource("uplot.min.js"),
    )


def _resource(name: str) -> str:
    """Return a style sheet or a script of this folder, which goes into the page as it is."""
    return _FOLDER.joinpath(name).read_text()


def _section(section: Section, page: Page, figures: Iterator[int], tables: Iterator[int]) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "pictures": [_picture(picture, next(figures)) for picture in section.pictures],
        "tables": [_table(table, page.cells.get(table.label), next(tables)) for table in section.tables],
    }


def _picture(picture: Picture, number: int) -> dict[str, Any]:
    image = picture.image or embedded_image(picture.path.read_bytes())
    return {
        "name": picture.path.stem,
        "number": number,
        "title": _short(picture.caption),
        "caption": picture.caption,
        "notes": picture.notes,
        "text": picture.text,
        "size": image.size,
        "shape": _shape(*image.size),
        "address": _address(image.media_type, image.content),
    }


def _short(caption: str) -> str:
    """Return the first clause of a caption, for the contents."""
    return re.split(r"[:.,;] ", caption.rstrip("."), maxsplit=1)[0]


def _shape(width: int, height: int) -> str:
    """Return the class of a figure that limits its height in print, "" for one of ordinary height."""
    return "tall" if height > width else "high" if height > _HIGH * width else ""


def _table(table: Table, cells: CellTrials | None, number: int) -> dict[str, Any]:
    name = table.label.replace(":", "-")
    cells = cells or CellTrials({})
    selecting = {*cells.rows, *cells.columns}
    letters = _letters(table)
    return {
        "name": name,
        "number": number,
        "caption": table.caption,
        "note": table.note,
        "opens": bool(table.rows) and any(column.name in selecting for column in table.columns),
        "kind": _kind(len(table.rows), letters),
        "letters": letters,
        "cut": len(table.rows) > _PRINTED_WHOLE,
        "stacked": len(table.columns) <= _STACKED and _has_sentence(table),
        "filtered": len(table.rows) >= _FILTERED_FROM,
        "heads": [
            {
                "name": column.name,
                "left": column.kind == "text",
                "selects": cells.rows.get(column.name, ""),
                "fixed": dict(cells.columns.get(column.name, {})),
                "side": cells.sides.get(column.name, ""),
            }
            for column in table.columns
        ],
        "rows": [list(_row(table, at)) for at in range(len(table.rows))],
        "others": list(map(dict, cells.others)),
        "needs": cells.needs,
        "files": [
            {"name": f"{name}.csv", "address": _address("text/csv", table.csv().encode())},
            {"name": f"{name}.tex", "address": _address("text/plain", table.latex().encode())},
        ],
    }


def _kind(rows: int, letters: int) -> str:
    """Return the classes of a table by its size."""
    return _classes(
        short=rows <= _SHORT,
        whole=rows <= _WHOLE,
        narrow=letters <= _NARROW,
        dense=letters > _DENSE,
        wide=letters > _WIDE,
        widest=letters > _WIDEST,
    )


def _classes(**applies: bool) -> str:
    """Return the names of those CSS classes that apply."""
    return " ".join(name for name, applied in applies.items() if applied)


def _has_sentence(table: Table) -> bool:
    """Return whether a cell of the table is so long that it wraps."""
    return any(
        len(shown(cell, column)) > _WRAPPED_FROM
        for row in table.rows
        for cell, column in zip(row, table.columns, strict=True)
    )


def _letters(table: Table) -> int:
    """Return the width of a table in letters, by which a printed page chooses the size of its letters."""
    widths = []
    for at, column in enumerate(table.columns):
        texts = [shown(row[at], column) for row in table.rows]
        longest = max(map(len, [*texts, *column.name.split()]), default=0)
        widths.append(min(longest, _WRAPPED) if column.kind == "text" else longest)
    return sum(widths) + _PADDING * len(widths)


def _row(table: Table, number: int) -> Iterator[dict[str, Any]]:
    for cell, column in zip(table.rows[number], table.columns, strict=True):
        value = value_of(cell)
        text = shown(cell, column)
        yield {
            "text": text,
            "bold": isinstance(cell, Bold),
            "key": _key(value),
            "kind": _classes(
                missing=value is None,
                text=column.kind == "text",
                brief=column.kind == "text" and len(text) <= _WRAPPED,
                long=len(text) > _WRAPPED_FROM,
            ),
        }


def _key(value: Value) -> str | float:
    """Return the sort key of a cell, empty for a missing one."""
    number = central(value)
    return "" if number is None else number


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
