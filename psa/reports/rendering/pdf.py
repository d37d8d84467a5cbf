"""A report as a PDF document for printing and sharing: the content of the HTML page, set by typst."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.reports.rendering.html import Page, Section
from psa.reports.rendering.tables import Bold, Table, shown

_TEMPLATE: Final = Path(__file__).parent / "page.typ"


def check_typst() -> None:
    """Raise UserError if typst is not installed."""
    try:
        import typst  # noqa: F401
    except ImportError:
        raise UserError("--pdf needs typst, which is not installed", how_to_install("pdf")) from None


def document(page: Page) -> bytes:
    """Return the PDF of a page; equal pages give equal bytes."""
    import typst

    origin = () if page.origin is None else page.origin.facts
    content = {
        "title": page.title,
        "question": page.question,
        "facts": [asdict(fact) for fact in page.facts],
        "warnings": page.warnings,
        "sections": [_section(section) for section in page.filled],
        "sources": [*page.sources, *(f"{name}: {value}" for name, value in origin)],
    }
    made: bytes = typst.compile(
        _TEMPLATE,
        root=Path("/"),
        format="pdf",
        sys_inputs={"page": json.dumps(content)},
        font_paths=[Path(mpl.get_data_path()) / "fonts/ttf"],  # the same fonts on every machine
        ignore_system_fonts=True,
        timestamp=0,
    )
    return made


def _section(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "pictures": [
            {"file": str(picture.path.absolute()), "caption": picture.text} for picture in section.pictures
        ],
        "tables": [_table(table) for table in section.tables],
    }


def _table(table: Table) -> dict[str, Any]:
    columns = [
        {
            "name": column.name,
            "left": column.kind == "text",
            "cells": [
                {"text": shown(row[at], column), "bold": isinstance(row[at], Bold)} for row in table.rows
            ],
        }
        for at, column in enumerate(table.columns)
    ]
    return {"caption": table.caption, "note": table.note, "columns": columns}
