"""A report as one self-contained HTML page: no network, no other file; sortable tables, embedded pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from psa.reports.rendering.tables import Bold, Table, Value, central, shown, value_of

T = TypeVar("T")
_TEMPLATE: Final = "page.html"
_WRAPPED_FROM: Final = 40  # characters: shorter cells in several lines make rows tall in tables that scroll


@dataclass(frozen=True)
class Fact:
    """A headline: its name, its value with its interval, and what the value refers to."""

    name: str
    value: str
    detail: str = ""


@dataclass(frozen=True)
class Picture:
    """A stored PNG and its caption, which is also its alternative text."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Section:
    """Paragraphs, pictures and tables under one heading."""

    title: str
    text: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole report. warnings: shown first, such as missing trials."""

    title: str
    question: str
    facts: tuple[Fact, ...]
    sections: tuple[Section, ...] = field(repr=False)
    sources: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def pick(found: Mapping[str, T], *names: str) -> tuple[T, ...]:
    """Return the tables or pictures of these names, in their order; those that are missing are left out."""
    return tuple(found[name] for name in names if name in found)


def html(page: Page) -> str:
    """Return the page as HTML; equal pages give equal texts. Raises OSError if a picture cannot be read."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(_TEMPLATE).render(
        page={
            "title": page.title,
            "question": page.question,
            "facts": page.facts,
            "warnings": page.warnings,
            "sources": page.sources,
            "sections": [_section(section) for section in page.sections],
        }
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "pictures": [
            {
                "name": picture.path.stem,
                "caption": picture.caption,
                "address": _address("image/png", picture.path.read_bytes()),
            }
            for picture in section.pictures
        ],
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: Table) -> dict[str, Any]:
    name = table.label.replace(":", "-")
    return {
        "name": name,
        "caption": table.caption,
        "note": table.note,
        "heads": [{"name": column.name, "left": column.kind == "text"} for column in table.columns],
        "rows": [list(_row(table, number)) for number in range(len(table.rows))],
        "files": [
            {"name": f"{name}.csv", "address": _address("text/csv", table.csv().encode())},
            {"name": f"{name}.tex", "address": _address("text/plain", table.latex().encode())},
        ],
    }


def _row(table: Table, number: int) -> Iterator[dict[str, Any]]:
    for cell, column in zip(table.rows[number], table.columns, strict=True):
        value = value_of(cell)
        text = shown(cell, column)
        kinds = (
            ("missing", value is None),
            ("text", column.kind == "text"),
            ("long", len(text) > _WRAPPED_FROM),
        )
        yield {
            "text": text,
            "bold": isinstance(cell, Bold),
            "key": _key(value),
            "kind": " ".join(kind for kind, so in kinds if so),
        }


def _key(value: Value) -> str | float:
    """Return the sort key of a cell, empty for a missing one."""
    number = central(value)
    return "" if number is None else number


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
