"""The page of a report: one file, nothing fetched, tables that sort in a real browser, texts stay texts."""

from __future__ import annotations

import html as escapes
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS

from psa.reports.rendering.html import Fact, Page, Picture, Section, html
from psa.reports.rendering.tables import Bold, Column, Interval, MeanSd, Table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# A PNG of one pixel.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63606060f80f0001"
    "0401005fe5c34b0000000049454e44ae426082"
)
TABLE = Table(
    "Accuracies of <three> & more",
    "tab:some",
    (
        Column("Architecture"),
        Column("Parameters", "count"),
        Column("none", "mean_sd"),
        Column("effect", "interval", signed=True),
    ),
    (
        ("2*8", 6458, Bold(MeanSd(90.5, 0.25, 10, 10)), Interval(-1.5, -2.0, -1.0)),
        ("1*8", 6370, MeanSd(9.75, 0.5, 9, 10), Interval(0.25, -0.5, 1.0)),
        ("1*16", 12730, None, None),
    ),
    note="n = 10 unless a cell says otherwise.",
)


def page_of(folder: Path) -> Page:
    """A small page with a picture and a table."""
    (folder / "shown.png").write_bytes(PIXEL)
    section = Section(
        "What <b>is</b> said", ("One & only.",), (Picture(folder / "shown.png", "A pixel"),), (TABLE,)
    )
    facts = (Fact("Trials", "29 of 30", "10 per cell"),)
    return Page("A report", "Is it so?", facts, (section,), ("From 29 records.",), ("1 trial is missing.",))


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """No address of the network, no other file: pictures and downloads lie in the page."""
    text = html(page_of(tmp_path))
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert text.count('src="data:image/png;base64,') == 1


def test_equal_pages_are_equal_texts(tmp_path: Path) -> None:
    """A page holds no time and no name of a machine."""
    assert html(page_of(tmp_path)) == html(page_of(tmp_path))


def test_texts_cannot_become_markup(tmp_path: Path) -> None:
    """What stands in a caption or a heading is shown as it is."""
    text = html(page_of(tmp_path))
    assert "<b>is</b>" not in text
    assert "&lt;b&gt;is&lt;/b&gt;" in text
    assert "Accuracies of &lt;three&gt; &amp; more" in text


def test_what_is_missing_is_shown_and_said(tmp_path: Path) -> None:
    """An empty cell says so, a cell of fewer trials says how many, the warning stands before the numbers."""
    text = html(page_of(tmp_path))
    assert text.count(">n/a<") == 2
    assert "(n=9)" in text
    assert text.index("1 trial is missing.") < text.index("29 of 30")


PROBE = """
<script>
const errors = []; window.addEventListener("error", event => errors.push(String(event.message)));
window.addEventListener("load", () => {
  const table = document.querySelector("table.sortable");
  const column = () => [...table.tBodies[0].rows].map(row => row.cells[0].textContent).join(" ");
  const button = number => table.tHead.rows[0].cells[number].querySelector("button");
  const click = number => { button(number).click(); return column(); };
  const shown = [column(), click(1), click(1), click(1), click(2), click(0)];
  const pictures = [...document.images].every(image => image.complete && image.naturalWidth > 0);
  document.body.dataset.found = JSON.stringify({ shown, pictures, errors,
    sorted: table.tHead.rows[0].cells[0].getAttribute("aria-sort") });
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium) to open the page in")
def test_the_page_works_in_a_browser(tmp_path: Path) -> None:
    """Opened in headless Chromium: no error, every picture is there, a click on a heading sorts."""
    path = tmp_path / "page.html"
    path.write_text(html(page_of(tmp_path)).replace("</head>", PROBE, 1))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
    done = subprocess.run(
        [CHROMIUM or "", *options, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found is not None, done.stdout[-500:]
    said = escapes.unescape(found[1])
    order = ["2*8 1*8 1*16", "1*8 2*8 1*16", "1*16 2*8 1*8", "2*8 1*8 1*16", "1*8 2*8 1*16", "1*8 1*16 2*8"]
    assert json.loads(said) == {"shown": order, "pictures": True, "errors": [], "sorted": "ascending"}
