"""A report as a PDF: the same bytes each time, fonts inside, tables on as many sheets as they take."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psa.cli.app import PSA, run
from psa.core.extras import how_to_install
from psa.reports.rendering.html import Fact, Page, Picture, Section
from psa.reports.rendering.pdf import document
from psa.reports.rendering.tables import Bold, Column, Interval, MeanSd, Table

pytest.importorskip("typst")

MARGIN = 42
TABLE = Table(
    "Accuracies",
    "tab:some",
    (Column("Architecture"), Column("none", "mean_sd"), Column("effect", "interval", signed=True)),
    (
        ("2*8", Bold(MeanSd(90.5, 0.25, 10, 10)), Interval(-1.5, -2.0, -1.0)),
        ("1*16", None, None),
    ),
    note="n = 10 unless a cell says otherwise.",
)
# Each of these would fail, or change the document, if it were read as markup.
MARKUP = ["#panic(1)", "#pagebreak()", "$x", "*a", "@nowhere", "`a", "[", "\\", "<b>", "\0", "α ≤ 日本 é"]


def page_of(folder: Path, table: Table = TABLE, size: tuple[int, int] = (600, 300), text: str = "A") -> Page:
    """Return a page with a picture and a table."""
    folder.mkdir(exist_ok=True)
    path = folder / "shown.png"
    Image.fromarray(np.full((size[1], size[0], 3), 200, dtype=np.uint8)).save(path)
    section = Section(text, (text,), (Picture(path, text),), (table,))
    return Page(text, "Is it so?", (Fact(text, text, text),), (section,), (text,), (text,))


def sizes(content: bytes) -> list[tuple[float, float]]:
    """Return the width and height of each sheet of a document."""
    boxes = re.findall(rb"/MediaBox ?\[0 0 ([\d.]+) ([\d.]+)\]", content)
    return [(float(width), float(height)) for width, height in boxes]


def rules(content: bytes, thickness: float) -> list[list[tuple[float, float]]]:
    """Return where the horizontal lines of a thickness begin and end, for each sheet that has some."""
    pattern = re.compile(rb"1 0 0 -1 ([\d.]+) [\d.]+ cm[^\n]* %g w 4 M 0 0 m ([\d.]+) 0 l" % thickness)
    found = [pattern.findall(stream) for stream in streams(content)]
    return [[(float(left), float(left) + float(wide)) for left, wide in lines] for lines in found if lines]


def streams(content: bytes) -> Iterator[bytes]:
    """Yield the streams of a document, expanded."""
    for start in re.finditer(rb"/FlateDecode[^\n]*\n?stream\r?\n", content):
        yield zlib.decompressobj().decompress(content[start.end() :])


def test_equal_pages_are_equal_bytes(tmp_path: Path) -> None:
    """No date and no path; the fonts are inside."""
    content = document(page_of(tmp_path / "one"))
    assert content == document(page_of(tmp_path / "two"))
    assert b"CreationDate" not in content
    assert b"/FontFile2" in content
    assert b"DejaVuSans" in content


@pytest.mark.parametrize("text", MARKUP)
def test_texts_are_no_markup(tmp_path: Path, text: str) -> None:
    """Wherever they stand: in titles, facts, captions, heads, cells and notes."""
    table = Table(text, text, (Column(text), Column("n", "count")), ((text, 1), (Bold(text), 2)), text)
    assert len(sizes(document(page_of(tmp_path, table, text=text)))) == 1


def test_long_tables_repeat_their_heads(tmp_path: Path) -> None:
    """On each of the sheets that they take."""
    content = document(page_of(tmp_path, replace(TABLE, rows=TABLE.rows * 150)))
    assert len(sizes(content)) > 3
    assert len(rules(content, 0.4)) >= len(sizes(content)) - 1
    assert all(len(lines) == 1 for lines in rules(content, 0.4))


def test_a_high_picture_fits_a_sheet(tmp_path: Path) -> None:
    """It gets smaller and goes to a sheet of its own, with its caption."""
    assert len(sizes(document(page_of(tmp_path, size=(300, 9000))))) == 3


def test_a_long_cell_takes_as_many_sheets_as_it_needs(tmp_path: Path) -> None:
    """Also where it has no space to break at."""
    for text in ("word " * 4000, "x" * 16_000):
        table = Table("long", "tab:long", (Column("a"), Column("b")), (("1*8", text),))
        assert len(sizes(document(page_of(tmp_path, table)))) > 4


@pytest.mark.parametrize(("columns", "turned", "tables"), [(3, 0, 1), (12, 1, 1), (60, 1, 5)])
def test_wide_tables_are_turned_and_then_parted(
    tmp_path: Path, columns: int, turned: int, tables: int
) -> None:
    """No column is outside of the margins."""
    wide = Table(
        "wide", "tab:wide", tuple(Column(f"column number {at}", "mean_sd") for at in range(columns)),
        (tuple(MeanSd(98.25, 0.125, 9, 10) for _ in range(columns)),) * 10,
    )  # fmt: skip
    content = document(page_of(tmp_path, wide))
    assert sum(width > height for width, height in sizes(content)) == turned
    lines = [ends for sheet in rules(content, 0.4) for ends in sheet]
    assert len(lines) == tables
    room = max(sizes(content))[0] if turned else min(sizes(content))[0]
    assert all(left >= MARGIN - 1 and right <= room - MARGIN + 1 for left, right in lines)


def test_without_typst_the_command_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before any work, and only where a PDF is asked for."""
    monkeypatch.setitem(sys.modules, "typst", None)
    words = [
        "report",
        "all",
        "--output-dir",
        str(tmp_path / "pages"),
        "--results-dir",
        str(tmp_path / "none"),
    ]
    assert run(PSA, [*words, "--pdf"]) == 2
    said = capfd.readouterr().err
    assert said == f"error: --pdf needs typst, which is not installed. {how_to_install('pdf')}\n"
    assert not (tmp_path / "pages").exists()
    run(PSA, words)
    assert "needs typst" not in capfd.readouterr().err
