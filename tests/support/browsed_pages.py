"""A small page of a report, and what headless Chromium shows, prints and finds of a page."""

from __future__ import annotations

import html as escapes
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pictures import PIXEL
from processes import PATIENCE_SECONDS

from psa.reports.rendering.html import Fact, Page, Picture, Section, html
from psa.reports.rendering.tables import Bold, Column, Interval, MeanSd, Table

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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


COLUMNS = 14


def wide_table(name: str, rows: int) -> Table:
    """A table of 14 columns of numbers with intervals, with a mark in its last column."""
    columns = (Column("Architecture"), *(Column(f"Value {at}", "interval") for at in range(1, COLUMNS - 1)))
    cells = tuple(Interval(50.25, 40.125, 60.5) for _ in range(COLUMNS - 2))
    lines = tuple((f"1*{at}", *cells, f"end-{name}-{at}") for at in range(rows))
    return Table(f"Long {name}", f"tab:{name}", (*columns, Column("Rightmost")), lines, "The note.")


NARROWEST = 500  # pixels of a window of headless Chromium


def in_a_frame(path: Path, wide: int, high: int) -> Path:
    """A page that shows another one as on a screen of this size, and repeats what that one found."""
    frame = path.with_name("frame.html")
    heard = "addEventListener('message', event => { document.body.dataset.found = event.data; });"
    frame.write_text(
        f"<!doctype html><body style='margin:0'><script>{heard}</script><iframe src='{path.name}' "
        f"style='border:0;width:{wide}px;height:{high}px'></iframe></body>"
    )
    return frame


def browsed(tmp_path: Path, page: Page, probe: str, size: str = "1280,900", *extra: str) -> dict[str, Any]:
    """Run a script in the page in headless Chromium, and return what it found."""
    path = tmp_path / "page.html"
    path.write_text(html(page).replace("</head>", probe, 1))
    if int(size.partition(",")[0]) < NARROWEST:
        path = in_a_frame(path, *map(int, size.split(",")))
    shown = opened(tmp_path, path, f"--window-size={size}", *extra, "--dump-dom")
    found = re.search(r'data-found="([^"]*)"', shown)
    assert found is not None, shown[-500:]
    result: dict[str, Any] = json.loads(escapes.unescape(found[1]))
    return result


def opened(tmp_path: Path, path: Path, *words: str) -> str:
    """The output of headless Chromium for a page."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
    options += ["--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [CHROMIUM or "", *options, *words, path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
        # its socket needs a short path, whatever another test has left in the environment
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    return done.stdout


PDFTOTEXT = shutil.which("pdftotext")
PRINTS = pytest.mark.skipif(
    CHROMIUM is None or PDFTOTEXT is None, reason="needs Chromium and pdftotext (poppler-utils)"
)


def printed_text(tmp_path: Path, page: Page, form: str) -> str:
    """The text of a page that Chromium prints, in a form of pdftotext: -layout or -bbox."""
    path, target = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(html(page))
    opened(tmp_path, path, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    return subprocess.run(
        [PDFTOTEXT or "", form, str(target), "-"], capture_output=True, text=True, check=True
    ).stdout


def printed(tmp_path: Path, page: Page) -> list[list[str]]:
    """The lines of each sheet of a page that Chromium prints."""
    sheets = printed_text(tmp_path, page, "-layout").split("\f")
    return [
        [line.strip() for line in sheet.splitlines() if line.strip()] for sheet in sheets if sheet.strip()
    ]


SCRIPT = """
<script>
const errors = []; addEventListener("error", event => errors.push(String(event.message)));
const press = (element, key) =>
  element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const done = found => {
  document.body.dataset.found = JSON.stringify({ ...found, errors });
  if (parent !== window) parent.postMessage(document.body.dataset.found, "*");
};
const ready = () => new Promise(go => {
  const wait = () => document.body.dataset.trials ? go() : setTimeout(wait, 20);
  wait();
});
addEventListener("load", async () => { %s });
</script></head>"""
NEEDS = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
