"""A report as a PDF: the same bytes each time, fonts inside, tables on as many sheets as they take."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psa.reports.rendering.html import Fact, Page, Picture, Section
from psa.reports.rendering.pdf import document, fitted
from psa.reports.rendering.pdf_letters import broken, width
from psa.reports.rendering.pdf_sheets import ROOM
from psa.reports.rendering.tables import Bold, Column, Interval, MeanSd, Table

TABLE = Table(
    "Accuracies",
    "tab:some",
    (Column("Architecture"), Column("none", "uncertain"), Column("effect", "interval", signed=True)),
    (
        ("2*8", Bold(MeanSd(90.5, 0.25, 10, 10)), Interval(-1.5, -2.0, -1.0)),
        ("1*16", None, None),
    ),
    note="n = 10 unless a cell says otherwise.",
)


def page_of(folder: Path, table: Table = TABLE, size: tuple[int, int] = (600, 300)) -> Page:
    """A page with a picture and a table; its texts hold what other programs take for markup."""
    path = folder / "shown.png"
    Image.fromarray(np.full((size[1], size[0], 3), 200, dtype=np.uint8)).save(path)
    section = Section("What $is$ said", ("One & only_x^2, 50 %.",), (Picture(path, "A grey"),), (table,))
    facts = (Fact("Trials", "29 of 30", "10 per cell"),)
    return Page("A report", "Is it so?", facts, (section,), ("From 29 records.",), ("1 is missing.",))


def sheets(content: bytes) -> int:
    """How many sheets a document has."""
    return len(re.findall(rb"/Type /Page\b", content))


def test_equal_pages_are_equal_bytes(tmp_path: Path) -> None:
    """No date, no version, no name of a machine; the fonts are inside, none of them of Type 3."""
    content = document(page_of(tmp_path))
    assert content == document(page_of(tmp_path))
    assert b"CreationDate" not in content
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_long_tables_and_high_pictures_take_more_sheets(tmp_path: Path) -> None:
    """Nothing is cut off: what does not fit goes to the next sheet, what fits on none is made smaller."""
    assert sheets(document(page_of(tmp_path))) == 1
    long = replace(TABLE, rows=TABLE.rows * 100)
    assert sheets(document(page_of(tmp_path, long))) > 3
    assert sheets(document(page_of(tmp_path, size=(300, 9000)))) == 2


@pytest.mark.parametrize("columns", [3, 12, 60])
def test_a_table_is_no_wider_than_the_sheet(columns: int) -> None:
    """Whatever it takes."""
    wide = Table(
        "wide", "tab:wide", tuple(Column(f"column number {at}", "uncertain") for at in range(columns)),
        (tuple(MeanSd(98.25, 0.125, 9, 10) for _ in range(columns)),),
    )  # fmt: skip
    found = fitted(wide)
    assert found.whole <= ROOM + 1e-6
    assert found.rows[0][0] == ("98.25 ± 0.12 (n=9)",)


def test_lines_break_between_words() -> None:
    """No line is wider than its room; a word that is wider is cut; no letter is lost."""
    text = "The quick brown fox " * 10 + "x" * 200
    lines = broken(text, 100, 8)
    assert all(width(line, 8) <= 100 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert broken("", 100, 8) == [""]
