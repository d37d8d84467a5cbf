"""The page of a report: one file, nothing fetched, tables that sort in a real browser, texts stay texts."""

from __future__ import annotations

import html as escapes
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_frames import row
from pictures import PIXEL
from PIL import Image
from processes import PATIENCE_SECONDS

from psa.analysis.frame_schema import build_frame
from psa.reports.rendering.html import CellTrials, Fact, Page, Picture, Section, html, with_notes
from psa.reports.rendering.provenance import Provenance
from psa.reports.rendering.tables import Bold, Column, Interval, MeanSd, Table
from psa.reports.rendering.trials import StoredTrial, index_trials

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


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """No address of the network, no other file: pictures and downloads lie in the page."""
    text = html(page_of(tmp_path))
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    loading = re.compile(r"@import|url\((?!data:)|\b(?:fetch|XMLHttpRequest|WebSocket|importScripts)\b")
    assert not loading.findall(re.sub(r"data:[^\"]*", "", html(with_trials(tmp_path))))
    assert text.count('="data:image/') == text.count('src="data:image/webp;base64,') == 1


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


def test_figures_and_tables_are_numbered_and_linked(tmp_path: Path) -> None:
    """The contents have a link to each, and each has a link to itself; every target is there once."""
    text = html(page_of(tmp_path))
    contents = text[text.index("<nav") : text.index("</nav>")]
    assert re.findall(r'href="#([^"]+)"', contents) == ["top", "s1", "shown", "tab-some", "origin"]
    assert "Figure 1. A pixel" in contents
    assert "Table 1. Accuracies of &lt;three&gt; &amp; more" in contents
    for target in re.findall(r'href="#([^"]+)"', text):
        assert len(re.findall(rf'id="{target}"', text)) == 1, target
    assert text.count('href="#tab-some"') == text.count('href="#shown"') == 2


def test_notes_of_figures_are_in_their_captions_once(tmp_path: Path) -> None:
    """Matched by the file, and read aloud with the picture."""
    page = with_notes(page_of(tmp_path), {tmp_path / "shown.png": ("n = 3 < 4.",)})
    text = html(page)
    assert 'alt="A pixel n = 3 &lt; 4."' in text
    assert '<span class="note">n = 3 &lt; 4.</span>' in text
    assert text.count("n = 3 &lt; 4.") == 2


def test_the_origin_is_at_the_foot(tmp_path: Path) -> None:
    """Commit, versions, time, command, grid: by the records, not by the clock."""
    origin = Provenance((("Trained", "2026-11-28 20:41 UTC"), ("Command", "psa report x")), "[axes]\n<a>")
    page = replace(page_of(tmp_path), origin=origin)
    foot = html(page).partition("<footer")[2]
    assert "2026-11-28 20:41 UTC" in foot
    assert "<code>psa report x</code>" in foot
    assert "[axes]\n&lt;a&gt;" in foot


SPECS = {"method": {"lr": 0.1}, "model": {"arch": "[2*8]"}}


def with_trials(folder: Path, rows: int = 3) -> Page:
    """The page with the trials of its cells, and as many rows of its table."""
    made = [
        row(arch, "none", seed, [9000 + 10 * seed, 8000, 9100]) for arch in ("2*8", "1*8") for seed in (0, 1)
    ]
    made += [row("1*16", "none", 0)]
    shown = build_frame(made)
    done = [str(name) for name in shown["id"].unique() if "1*16" not in str(name)]
    stored = {name: StoredTrial(f"{name}.json", SPECS | {"seed": int(name[-2:])}, {}) for name in done}
    commands = {"ablation/simplemlp-2*8/none/s00": "psa sweep grid.toml --only 'seed=0'"}
    table = replace(TABLE, rows=(TABLE.rows * rows)[: max(rows, 3)])
    page = page_of(folder)
    return replace(
        page,
        sections=(replace(page.sections[0], tables=(table,)),),
        cells={TABLE.label: CellTrials({"Architecture": "arch"}, {"none": {"mode": "none"}})},
        trials=index_trials(shown, stored, None, commands),
    )


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
    order = ["2*8 1*8 1*16", "1*8 2*8 1*16", "1*16 2*8 1*8", "2*8 1*8 1*16", "1*8 2*8 1*16", "1*8 1*16 2*8"]
    assert browsed(tmp_path, page_of(tmp_path), PROBE) == {
        "shown": order,
        "pictures": True,
        "errors": [],
        "sorted": "ascending",
    }


SAVING = """
<script>
HTMLAnchorElement.prototype.click = async function () {
  const bytes = await fetch(this.href).then(answer => answer.arrayBuffer());
  document.body.dataset.found = JSON.stringify({ name: this.download, bytes: [...new Uint8Array(bytes)] });
};
window.addEventListener("load", () => document.querySelector("button.png").click());
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium) to open the page in")
def test_a_picture_is_saved_as_png(tmp_path: Path) -> None:
    """The page holds WebP without loss: the saved file is a PNG of the same pixels, named as the figure."""
    drawn = np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8)
    page = page_of(tmp_path)
    Image.fromarray(drawn).save(tmp_path / "shown.png")
    found = browsed(tmp_path, page, SAVING)
    saved = Image.open(io.BytesIO(bytes(found["bytes"])))
    assert (found["name"], saved.format) == ("shown.png", "PNG")
    assert np.array_equal(np.asarray(saved.convert("RGB")), drawn)


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
    """What a script in the page found in headless Chromium."""
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
COLUMNS = 14
HEADING = re.compile(r"^(Section \d+|Table \d+\. )")


def printed(tmp_path: Path, page: Page) -> list[list[str]]:
    """The lines of each sheet of a page that Chromium prints."""
    path, target = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(html(page))
    opened(tmp_path, path, "--no-pdf-header-footer", f"--print-to-pdf={target}")
    text = subprocess.run(
        [PDFTOTEXT or "", "-layout", str(target), "-"], capture_output=True, text=True, check=True
    ).stdout
    sheets = text.split("\f")
    return [
        [line.strip() for line in sheet.splitlines() if line.strip()] for sheet in sheets if sheet.strip()
    ]


def wide_table(name: str, rows: int) -> Table:
    """A table of 14 columns of numbers with intervals, with a mark in its last column."""
    columns = (Column("Architecture"), *(Column(f"Value {at}", "interval") for at in range(1, COLUMNS - 1)))
    cells = tuple(Interval(50.25, 40.125, 60.5) for _ in range(COLUMNS - 2))
    lines = tuple((f"1*{at}", *cells, f"end-{name}-{at}") for at in range(rows))
    return Table(f"Long {name}", f"tab:{name}", (*columns, Column("Rightmost")), lines, "The note.")


@pytest.mark.skipif(
    CHROMIUM is None or PDFTOTEXT is None, reason="needs Chromium and pdftotext (poppler-utils)"
)
def test_a_printed_page_has_all_columns_and_headings_stay_with_what_follows(tmp_path: Path) -> None:
    """On paper no column of a table is cut, a table repeats its headings on each sheet, and no sheet ends
    with a heading. There are so many sections of different lengths that a heading meets the end of a sheet.
    """
    lengths = (200, *(1 + 5 * at % 7 for at in range(40)))
    tables = [wide_table(f"t{at}", rows) for at, rows in enumerate(lengths)]
    (tmp_path / "shown.png").write_bytes(PIXEL)
    sections = tuple(
        Section(f"Section {at}", ("A paragraph of one line.",) * (1 + at % 4), tables=(table,))
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


@NEEDS
def test_a_cell_opens_its_trials(tmp_path: Path) -> None:
    """By mouse and by keys: the curve, the settings, the record and the command of each trial."""
    script = (
        SCRIPT
        % """
      await ready();
      const table = document.querySelector("table.opens"), dialog = document.querySelector("dialog");
      const cell = table.tBodies[0].rows[0].cells[2];
      cell.click();
      const text = () => document.querySelector("#trial-details").textContent;
      const found = { open: dialog.open, title: document.querySelector("#dialog-title").textContent,
        rows: document.querySelectorAll("#cell-trials tbody tr").length, first: text(),
        canvas: document.querySelectorAll("#plot canvas").length,
        kinds: [...document.querySelectorAll("#curve-kind option")].map(option => option.value) };
      document.querySelectorAll("#cell-trials tbody tr")[1].click();
      found.second = text();
      dialog.close();
      cell.focus(); press(cell, "ArrowDown");
      found.below = document.activeElement.textContent;
      press(document.activeElement, "Enter");
      found.keyboard = document.querySelector("#dialog-title").textContent;
      dialog.close();
      table.tBodies[0].rows[2].cells[2].click();
      found.missing = text();
      done(found);"""
    )
    found = browsed(tmp_path, with_trials(tmp_path), script)
    assert found["errors"] == []
    assert (found["open"], found["title"], found["rows"], found["canvas"]) == (
        True,
        "2*8, none (2 trials)",
        2,
        1,
    )
    assert found["kinds"] == ["lkg", "accuracy"]
    first, second = found["first"], found["second"]
    assert "Record, in the results folder: ablation/simplemlp-2*8/none/s00.json" in first
    assert "psa sweep grid.toml --only 'seed=0'" in first
    assert "method.lr0.1" in first
    assert ("seed0" in first, "seed1" in second, "psa sweep" in second) == (True, True, False)
    assert (found["below"], found["keyboard"]) == ("9.75 ± 0.50 (n=9)", "1*8, none (2 trials)")
    assert "No record: missing." in found["missing"]


@NEEDS
def test_rows_and_trials_are_filtered(tmp_path: Path) -> None:
    """By words and by numbers of a column; the list of trials, too."""
    script = (
        SCRIPT
        % """
      await ready();
      const table = document.querySelector("table.opens"), input = document.querySelector(".table input");
      const rows = text => { input.value = text; input.dispatchEvent(new Event("input"));
        return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent); };
      const trials = document.querySelector("#trial-filter");
      const listed = text => { trials.value = text; trials.dispatchEvent(new Event("input"));
        return document.querySelectorAll("#trial-table tbody tr").length; };
      const found = { words: rows("1*16"), numbers: rows("parameters > 6,400; none > 90"),
        none: rows("x y z"),
        count: document.querySelector(".table .count").textContent, all: rows("").length,
        trials: [listed(""), listed("1*8"), listed("bounty >= 91"), listed("missing")] };
      press(document.body, "/");
      found.focused = document.activeElement === input;
      done(found);"""
    )
    found = browsed(tmp_path, with_trials(tmp_path, 9), script)
    assert found["errors"] == []
    assert set(found["words"]) == {"1*16"}
    assert set(found["numbers"]) == {"2*8"}
    assert (found["none"], found["count"], found["all"]) == ([], "0 of 9 rows", 9)
    assert found["trials"] == [5, 2, 4, 1]
    assert found["focused"]


@NEEDS
@pytest.mark.parametrize("size", ["390,800", "1280,900", "2200,1200"])
def test_the_page_is_as_wide_as_the_screen(tmp_path: Path, size: str) -> None:
    """Nothing beside the tables scrolls sideways, and no margin is left empty; the contents stay in sight."""
    script = (
        SCRIPT
        % """
      await ready();
      scrollTo(0, 10000);
      const content = document.querySelector("#content").getBoundingClientRect();
      const nav = document.querySelector("nav").getBoundingClientRect();
      done({ wide: document.documentElement.scrollWidth, screen: document.documentElement.clientWidth,
        right: content.right, left: content.left, top: nav.top, menu: document.querySelector("#menu").open,
        figure: document.querySelector("figure img").getBoundingClientRect().width });"""
    )
    found = browsed(tmp_path, with_trials(tmp_path), script, size)
    assert found["errors"] == []
    assert found["screen"] == pytest.approx(int(size.partition(",")[0]), abs=20)  # but for the scroll bar
    assert found["wide"] <= found["screen"]
    assert found["right"] == found["screen"]
    assert found["left"] == (0 if size.startswith("390") else 272)
    assert found["top"] <= 0.5
    assert found["menu"] != size.startswith("390")
    assert found["figure"] >= 600  # also on a phone, where it scrolls: smaller letters could not be read


@NEEDS
@pytest.mark.parametrize(("size", "beside"), [("1280,900", False), ("1800,900", True), ("2200,1200", True)])
def test_narrow_tables_stand_beside_each_other_on_a_wide_screen(
    tmp_path: Path, size: str, beside: bool
) -> None:
    """A wide table keeps the whole width."""
    tables = (TABLE, replace(TABLE, label="tab:other"), wide_table("wide", 2))
    page = replace(page_of(tmp_path), sections=(Section("Numbers", (), (), tables),))
    script = (
        SCRIPT
        % """
      const boxes = [...document.querySelectorAll(".table")].map((each) => each.getBoundingClientRect());
      const narrow = [...document.querySelectorAll(".narrow .scroll")];
      const scrolls = narrow.map((each) => each.scrollWidth > each.clientWidth);
      done({ tops: boxes.map((box) => box.top), widths: boxes.map((box) => box.width), scrolls });"""
    )
    found = browsed(tmp_path, page, script, size)
    assert found["errors"] == []
    assert (found["tops"][0] == found["tops"][1]) == beside
    assert found["tops"][2] > found["tops"][1]
    assert found["scrolls"] == [False, False]
    assert (found["widths"][2] > 1.9 * found["widths"][0]) == beside


@NEEDS
def test_dark_colours_follow_the_system_and_the_button(tmp_path: Path) -> None:
    """Text is light on dark then, and a picture keeps its white ground."""
    script = (
        SCRIPT
        % """
      await ready();
      const light = element => getComputedStyle(document.querySelector(element)).backgroundColor;
      const before = [light("body"), light("figure .view")];
      document.querySelector("#theme").click();
      done({ before, after: [light("body"), light("figure .view")] });"""
    )
    found = browsed(
        tmp_path, with_trials(tmp_path), script, "1280,900", "--blink-settings=preferredColorScheme=0"
    )
    assert found["errors"] == []
    assert found["before"] == ["rgb(13, 17, 23)", "rgb(255, 255, 255)"]
    assert found["after"] == ["rgb(255, 255, 255)", "rgb(255, 255, 255)"]
