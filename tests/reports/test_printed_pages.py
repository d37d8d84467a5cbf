"""A page on paper: every column, no lone heading, no half-empty sheet, no ten sheets of one table."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from browsed_pages import NEEDS, PIXEL, PRINTS, SCRIPT, browsed, page_of, printed, printed_text, wide_table

from psa.reports.rendering.html import Page, Picture, Section
from psa.reports.rendering.provenance import Provenance
from psa.reports.rendering.tables import Column, Table

HEADING = re.compile(r"^(Section \d+|Table \d+\. )")


@PRINTS
def test_a_printed_page_has_all_columns_and_headings_stay_with_what_follows(tmp_path: Path) -> None:
    """On paper no column of a table is cut, a table repeats its headings on each sheet, and no sheet ends
    with a heading. There are so many sections of different lengths that a heading meets the end of a sheet.
    """
    lengths = (100, *(1 + 5 * at % 7 for at in range(40)))
    tables = [wide_table(f"t{at}", rows) for at, rows in enumerate(lengths)]
    (tmp_path / "shown.png").write_bytes(PIXEL)
    sections = tuple(
        Section(f"Section {at}", ("A paragraph of one line.",) * (at % 4), tables=(table,))
        for at, table in enumerate(tables, 1)
    )
    sheets = printed(tmp_path, replace(page_of(tmp_path), sections=sections))
    lines = [line for sheet in sheets for line in sheet]
    ends = [line.split()[-1] for line in lines]
    assert [mark for table in tables for *_, mark in table.rows if mark not in ends] == []
    with_rows = [sheet for sheet in sheets if any(line.startswith("1*") for line in sheet)]
    assert len(with_rows) > 2
    for sheet in with_rows:
        first = next(at for at, line in enumerate(sheet) if line.startswith("1*"))
        assert any("Rightmost" in line for line in sheet[:first]), sheet[:3]
    assert not [sheet[-1] for sheet in sheets if HEADING.match(sheet[-1]) or "Rightmost" in sheet[-1]]


def listing(rows: int) -> Table:
    """A table of two columns with so many rows, each with a mark."""
    lines = tuple((f"row-{at}.", at) for at in range(rows))
    return Table("Many rows", "tab:many", (Column("Name"), Column("Number", "count")), lines, "The note.")


def with_tables(folder: Path, *tables: Table) -> Page:
    """The small page with these tables in its section."""
    page = page_of(folder)
    return replace(page, sections=(replace(page.sections[0], tables=tables),))


@PRINTS
@pytest.mark.parametrize(("rows", "shown"), [(100, 100), (101, 40)])
def test_a_very_long_table_prints_its_first_rows_and_where_the_others_are(
    tmp_path: Path, rows: int, shown: int
) -> None:
    """Nobody reads ten sheets of one table."""
    sheets = printed(tmp_path, with_tables(tmp_path, listing(rows)))
    lines = [line for sheet in sheets for line in sheet]
    assert sum(line.startswith("row-") for line in lines) == shown
    said = "Printed are the first 40 of 101 rows. All rows are in the HTML page and in tab-many.csv"
    assert any(line.startswith(said) for line in lines) == (shown < rows)


@NEEDS
def test_the_note_of_a_cut_table_counts_the_rows_that_are_not_filtered(tmp_path: Path) -> None:
    """A reader may filter rows and print those."""
    script = (
        SCRIPT
        % """
      const input = document.querySelector(".table input"), note = document.querySelector(".printed");
      const filtered = text => { input.value = text; input.dispatchEvent(new Event("input"));
        return note.hidden ? "" : note.textContent.split(".")[0]; };
      done({ notes: [filtered(""), filtered("number >= 60"), filtered("number >= 61"), filtered("row-7.")] });
      """
    )
    found = browsed(tmp_path, with_tables(tmp_path, listing(101)), script)
    first = "Printed are the first 40 of"
    assert found == {"errors": [], "notes": [f"{first} 101 rows", f"{first} 41 rows", "", ""]}


def word_heights(tmp_path: Path, *tables: Table) -> set[str]:
    """The heights in points of the word "only." of the section's paragraph, on all sheets."""
    text = printed_text(tmp_path, with_tables(tmp_path, *tables), "-bbox")
    found = re.findall(r'yMin="([\d.]+)" xMax="[\d.]+" yMax="([\d.]+)">only\.<', text)
    return {f"{float(bottom) - float(top):.1f}" for top, bottom in found}


@PRINTS
def test_no_table_makes_the_whole_page_smaller(tmp_path: Path) -> None:
    """The browser shrinks every sheet to the width of the widest element, so none may be wider than its own
    sheet. That of a wide table is turned.
    """
    usual = word_heights(tmp_path, listing(3))
    assert len(usual) == 1
    assert word_heights(tmp_path, wide_table("wide", 3)) == usual
    text = printed_text(tmp_path, with_tables(tmp_path, wide_table("wide", 3)), "-bbox")
    sheets = re.findall(r'<page width="([\d.]+)" height="([\d.]+)"', text)
    turned = [float(width) > float(height) for width, height in sheets]
    assert turned == [False, True, False]


@PRINTS
def test_no_upright_sheet_has_a_table_that_is_too_small_to_read(tmp_path: Path) -> None:
    """Letters of 4.6 points were called legible. A table that needs fewer than 5.4 has its sheet turned."""
    whole = wide_table("wide", 3)
    tables = [
        replace(
            whole,
            label=f"tab:of{count}",
            columns=(*whole.columns[:count], whole.columns[-1]),
            rows=tuple((*row[:count], f"end-{count}-{at}") for at, row in enumerate(whole.rows)),
        )
        for count in range(5, 10)
    ]
    text = printed_text(tmp_path, with_tables(tmp_path, *tables), "-bbox")
    found = re.findall(r'yMin="([\d.]+)" xMax="[\d.]+" yMax="([\d.]+)">end-', text)
    assert len(found) == 15
    line = 1.16  # of the letters' size, in DejaVu Sans, Arial and Helvetica within some hundredths
    assert min(float(bottom) - float(top) for top, bottom in found) / line > 5.3


@PRINTS
def test_where_the_numbers_come_from_is_on_one_sheet(tmp_path: Path) -> None:
    """The last of its lines stood alone on a sheet."""
    facts = tuple((f"Fact-{at}", f"value-{at}") for at in range(18))
    page = replace(with_tables(tmp_path, listing(18)), origin=Provenance(facts, ""))
    sheets = ["\n".join(sheet) for sheet in printed(tmp_path, page)]
    (foot,) = (sheet for sheet in sheets if "Where the numbers come from" in sheet)
    assert [at for at in range(18) if f"value-{at}" not in foot] == []


def png(width: int, height: int) -> bytes:
    """A white picture of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = (b"\0" + b"\xff" * width) * height
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@PRINTS
def test_two_figures_stand_on_a_sheet(tmp_path: Path) -> None:
    """Figures as wide as the sheet would leave almost half of each sheet empty."""
    pictures = []
    for at in range(4):
        (tmp_path / f"map{at}.png").write_bytes(png(1440, 1020))
        pictures.append(Picture(tmp_path / f"map{at}.png", "A caption of several lines. " * 25))
    page = replace(page_of(tmp_path), sections=(Section("Maps", (), tuple(pictures)),))
    shown = [re.findall(r"Figure (\d)\.", "\n".join(sheet)) for sheet in printed(tmp_path, page)]
    assert [each for each in shown if each] in ([["1"], ["2", "3"], ["4"]], [["1", "2"], ["3", "4"]])


@PRINTS
def test_a_paragraph_under_a_heading_is_not_split(tmp_path: Path) -> None:
    """A line of it on one sheet and a line on the next leaves both alone."""
    picture = Picture(tmp_path / "map.png", "A caption")
    picture.path.write_bytes(png(1440, 1020))
    texts = [f"begin-{at} {'and so on ' * 14} end-{at}" for at in range(8)]
    sections = tuple(Section(f"Section {at}", (text,), (picture,)) for at, text in enumerate(texts))
    sheets = ["\n".join(sheet) for sheet in printed(tmp_path, replace(page_of(tmp_path), sections=sections))]
    for at in range(8):
        (sheet,) = (sheet for sheet in sheets if f"begin-{at} " in sheet)
        assert f"end-{at}" in sheet


@PRINTS
def test_texts_before_a_figure_that_fills_a_sheet_do_not_go_with_it(tmp_path: Path) -> None:
    """A section of text alone, and the text of the next one, left half a sheet empty before a tall figure."""
    picture = Picture(tmp_path / "tall.png", "A caption")
    picture.path.write_bytes(png(1000, 1600))
    sections = (Section("Alone", ("A text alone.",)), Section("Shown", ("A text before it.",), (picture,)))
    sheets = ["\n".join(sheet) for sheet in printed(tmp_path, replace(page_of(tmp_path), sections=sections))]
    (first,) = (at for at, sheet in enumerate(sheets) if "A report" in sheet)
    assert "A text alone." in sheets[first]
    assert "A text before it." in sheets[first]
    assert "Figure 1." in sheets[first + 1]
