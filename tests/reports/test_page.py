"""The page of a report: one file, nothing fetched, tables that sort in a real browser, texts stay texts."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsed_pages import CHROMIUM, NEEDS, SCRIPT, TABLE, browsed, page_of, wide_table
from made_up_frames import row
from PIL import Image

from psa.analysis.frame_schema import build_frame
from psa.reports.rendering.html import Page, Section, html, with_pictures
from psa.reports.rendering.images import embedded_image
from psa.reports.rendering.paired import paired_trials
from psa.reports.rendering.provenance import Provenance
from psa.reports.rendering.tables import Column, Interval, MeanSd, Table
from psa.reports.rendering.trials import CellTrials, StoredTrial, index_trials


def test_nothing_is_fetched(tmp_path: Path) -> None:
    """No address of the network, no other file: pictures and downloads lie in the page."""
    text = html(page_of(tmp_path))
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*\"", text)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    loading = re.compile(r"@import|url\((?!data:)|\b(?:fetch|XMLHttpRequest|WebSocket|importScripts)\b")
    assert not loading.findall(re.sub(r"data:[^\"]*", "", html(with_trials(tmp_path))))
    assert text.count('="data:image/') == text.count('src="data:image/webp;base64,') == 1


def test_sections_without_content_and_headings_without_rows_are_left_out(tmp_path: Path) -> None:
    """Without a finished trial nothing is below them. A table without rows keeps its caption and its note."""
    page = with_trials(tmp_path)
    (section,) = page.sections
    empty = replace(section, tables=(replace(TABLE, rows=()),))
    text = html(replace(page, sections=(empty, Section("Curves of nothing"))))
    assert "Curves of nothing" not in text
    assert "The table has no rows." in text
    assert TABLE.note in text
    assert '<table class="sortable' not in text
    assert "Select a number" not in text


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
    page = with_pictures(page_of(tmp_path), {tmp_path / "shown.png": ("n = 3 < 4.",)}, {})
    text = html(page)
    assert 'alt="A pixel n = 3 &lt; 4."' in text
    assert '<span class="note">n = 3 &lt; 4.</span>' in text
    assert text.count("n = 3 &lt; 4.") == 2


def test_a_picture_that_is_encoded_already_is_not_read_again(tmp_path: Path) -> None:
    """The page is the same to the byte; `psa report` encodes a figure while it draws the next one."""
    page, path = page_of(tmp_path), tmp_path / "shown.png"
    expected = html(page)
    encoded = with_pictures(page, {}, {path: embedded_image(path.read_bytes())})
    path.unlink()
    assert html(encoded) == expected


def test_the_origin_is_at_the_foot(tmp_path: Path) -> None:
    """Commit, versions, time, command, grid: by the records, not by the clock."""
    origin = Provenance((("Trained", "2026-11-28 20:41 UTC"), ("Command", "psa report x")), "[axes]\n<a>")
    page = replace(page_of(tmp_path), origin=origin)
    foot = html(page).partition("<footer")[2]
    assert "2026-11-28 20:41 UTC" in foot
    assert "psa report x" in re.sub("<[^>]*>", "", foot)
    assert foot.count('<span class="word">') == 3  # a line ends between words alone
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


@NEEDS
def test_the_dialog_of_a_cell_fits_a_phone_and_numbers_whole_loops(tmp_path: Path) -> None:
    """The list of curves was cut on the right, and a plot of three loops had ticks at 1.2 and 1.4."""
    script = """
      await ready();
      const drawn = [], write = CanvasRenderingContext2D.prototype.fillText;
      CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
        drawn.push(String(text)); return write.call(this, text, ...rest); };
      document.querySelector("table.opens").tBodies[0].rows[0].cells[2].click();
      await new Promise(go => setTimeout(go, 200));
      const dialog = document.querySelector("dialog"), select = document.querySelector("#curve-kind");
      done({ fits: select.getBoundingClientRect().right <= dialog.getBoundingClientRect().right - 8,
        ticks: drawn.filter(text => /^[0-9.]+$/.test(text)) });
    """
    found = browsed(tmp_path, with_trials(tmp_path), SCRIPT % script, "390,844")
    assert found["errors"] == []
    assert found["fits"]
    assert {"1", "2", "3"} <= set(found["ticks"])
    assert not [text for text in found["ticks"] if "." in text and float(text) < 10]


def test_the_list_of_trials_promises_a_command_only_where_a_trial_has_one(tmp_path: Path) -> None:
    """Without a grid no trial has a command."""
    page, words = with_trials(tmp_path), "the command that trains it again"
    without = index_trials(build_frame([row("2*8", "none", 0)]), {}, None, {})
    assert words in html(page)
    assert words not in html(replace(page, trials=without))
    assert "see its curve, its settings and its record." in html(replace(page, trials=without))


@NEEDS
def test_a_short_text_of_a_trial_takes_one_line(tmp_path: Path) -> None:
    """A stage stood in three lines at 1280 pixels, next to an arm with room to spare."""
    frame = build_frame([row("2*8", "none", seed) for seed in range(4)])
    long = "g12: hybrid growing 2*48, gate_temperature=0.25, uncertainty=True"
    arms = {
        str(name): {"Stage": f"{8 + at},000 samples, 5 epochs", "Arm": long, "Same": f"of {at}"}
        for at, name in enumerate(frame["id"].unique())
    }
    page = replace(page_of(tmp_path), trials=index_trials(frame, {}, arms))
    script = """
      await ready();
      const heights = at => [...document.querySelectorAll("#trial-table tbody tr")].map(line => {
        const range = document.createRange(); range.selectNodeContents(line.cells[at]);
        return range.getClientRects().length; });
      const box = document.querySelector("#trials .scroll");
      done({ lines: heights(0), fits: box.scrollWidth <= box.clientWidth });
    """
    assert browsed(tmp_path, page, SCRIPT % script) == {"errors": [], "lines": [1, 1, 1, 1], "fits": True}


@NEEDS
def test_the_list_of_trials_shows_its_accuracies_on_a_usual_screen(tmp_path: Path) -> None:
    """Beside an activation, a temperature and an arm, accuracies stood to the right of the page."""
    frame = build_frame([row("2*8", "none", seed) for seed in range(4)])
    names = {"Activation": "RescaledReLU(scale=100)", "Architecture": "1*512, 1*256, 1*128"}
    arms = {
        str(name): names | {"Temperature": f"0.{at}", "Arm": f"RescaledReLU(scale=100), temperature 0.{at}"}
        for at, name in enumerate(frame["id"].unique())
    }
    page = replace(page_of(tmp_path), trials=index_trials(frame, {}, arms))
    script = """
      await ready();
      const box = document.querySelector("#trials .scroll"), hidden = box.scrollWidth - box.clientWidth;
      done({ heads: box.querySelectorAll("th").length, hidden });
    """
    assert browsed(tmp_path, page, SCRIPT % script) == {"errors": [], "heads": 9, "hidden": 0}


def test_trials_of_one_arm_stand_together() -> None:
    """A frame knows no arms: those of one architecture and mode were mixed, seed by seed."""
    frame = build_frame(
        [row("2*8", "none", seed) | {"id": f"{arm}-{seed}"} for seed in (0, 1) for arm in "ba"]
    )
    arms = {str(name): {"Arm": str(name)[0]} for name in frame["id"].unique()}
    shown = index_trials(frame, {}, arms).content["rows"]
    assert shown["Arm"] == ["a", "a", "b", "b"]
    assert shown["seed"] == [0, 1, 0, 1]
    assert shown["id"] == ["a-0", "a-1", "b-0", "b-1"]


def test_the_list_of_trials_has_the_arms_in_the_order_of_the_report() -> None:
    """One order for all of them, whichever trial of an arm a frame begins with."""
    frame = build_frame(
        [
            row("2*8", "none", seed) | {"id": f"{arm}-{seed}"}
            for seed in (0, 1)
            for arm in ("late", "early", "x")
        ]
    )
    names = [f"{arm}-{seed}" for arm in ("early", "late") for seed in (1, 0)]
    shown = index_trials(frame, {}, {name: {"Stage": name[:-2]} for name in names}).content["rows"]
    assert shown["id"] == ["early-0", "early-1", "late-0", "late-1", "x-0", "x-1"]


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


@NEEDS
@pytest.mark.parametrize(("high", "kind"), [(9, "webp"), (16_384, "png")])
def test_a_picture_is_saved_as_png(tmp_path: Path, high: int, kind: str) -> None:
    """The page holds WebP without loss, or PNG where the figure is higher than WebP allows, as with a row for
    each of 400 arms. The saved file is a PNG of the same pixels, named as the figure.
    """
    drawn = np.random.default_rng(0).integers(0, 256, (high, 14, 3), np.uint8)
    page = page_of(tmp_path)
    Image.fromarray(drawn).save(tmp_path / "shown.png")
    assert f'src="data:image/{kind};base64,' in html(page)
    found = browsed(tmp_path, page, SAVING)
    saved = Image.open(io.BytesIO(bytes(found["bytes"])))
    assert (found["name"], saved.format) == ("shown.png", "PNG")
    assert np.array_equal(np.asarray(saved.convert("RGB")), drawn)


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


def trials_with_curves(folder: Path, seeds: int, extra: str) -> Page:
    """Two architectures with some seeds each in the list of trials, with arms that `extra` names."""
    made = [
        row(arch, "none", seed, [9000 + 10 * seed, 8000, 9100])
        for arch in ("2*8", "1*8")
        for seed in range(seeds)
    ]
    shown = build_frame([*made, row("1*16", "none", 0)])
    names = {str(name): {"Arm": f"{extra} {str(name).split('/')[1]}"} for name in shown["id"].unique()}
    stored = {name: StoredTrial(f"{name}.json", SPECS, {}) for name in names if "1*16" not in name}
    return replace(with_trials(folder), trials=index_trials(shown, stored, names))


_CURVES = """
      await ready();
      const made = window.uPlot, plots = [];
      window.uPlot = function (options, ...rest) { plots.push(options); return new made(options, ...rest); };
      document.querySelector("#plot-trials").click();
      const seen = () => { const options = plots.at(-1); return {
        labels: options.series.slice(1).map(series => series.label), legend: options.legend.show,
        names: [...document.querySelectorAll(".u-legend .u-label")].slice(1).map(label => label.textContent),
        thick: options.series.slice(1).findIndex(series => series.width === 3) }; };
      const found = { ...seen(), title: document.querySelector("#dialog-title").textContent };
      const rows = document.querySelectorAll("#cell-trials tbody tr");
      rows[rows.length - 2].click();
      found.later = seen();
      const last = plots.at(-1);
      last.hooks.setSeries[0](null, 2);
      found.pointed = document.querySelector("#curve-name").textContent;
      found.note = document.querySelector("#curve-note").textContent;
      done(found);"""


@NEEDS
def test_curves_of_more_trials_than_a_plot_holds_are_spread_over_all(tmp_path: Path) -> None:
    """The page says how many are drawn and that a trial has none; the selected one is always among them."""
    found = browsed(tmp_path, trials_with_curves(tmp_path, 90, "of"), SCRIPT % _CURVES)
    assert found["errors"] == []
    assert found["title"] == "All trials (181 trials)"
    assert (len(found["labels"]), found["legend"]) == (60, False)
    assert sum("2*8" in label for label in found["labels"]) == 30
    assert (found["thick"], found["later"]["thick"]) == (59, 60)  # the last one, above the others
    assert found["later"]["labels"][-1].endswith("seed 88")
    assert found["pointed"] == found["later"]["labels"][1]
    assert (
        "61 of 180 curves are drawn, at even distances in the list. 1 trial without a curve." in found["note"]
    )
    assert found["note"].endswith(
        "The thick curve is that of the selected trial. Point at a curve to see its trial."
    )


@NEEDS
def test_a_curve_is_named_by_what_tells_its_trial_from_the_others(tmp_path: Path) -> None:
    """Arm and seed, not the end of an id, which differs by a digest alone."""
    found = browsed(tmp_path, trials_with_curves(tmp_path, 2, "arm"), SCRIPT % _CURVES)
    assert found["errors"] == []
    assert found["legend"]
    first = [f"arm simplemlp-{arch}, seed {seed}" for arch in ("1*8", "2*8") for seed in (0, 1)]
    assert found["labels"] == [*first[1:], first[0]]  # the selected one last, above the others
    assert found["names"] == found["later"]["names"] == first  # in the order of the list
    assert found["pointed"] == ""
    assert found["note"] == "1 trial without a curve. The thick curve is that of the selected trial."


@NEEDS
def test_numbers_of_a_dialog_have_names(tmp_path: Path) -> None:
    """In its title and in the names of its curves, also of a lone one."""
    shown = build_frame([row(arch, "none", 0, [9000, 9100, 9200]) for arch in ("2*8", "1*8")])
    ids = [str(name) for name in shown["id"].unique()]
    names = {name: {"Temperature": text} for name, text in zip(ids, ("0.1", "1"), strict=True)}
    stored = {name: StoredTrial(f"{name}.json", SPECS, {}) for name in ids}
    table = Table(
        "Means", "tab:some", (Column("Temperature"), Column("none", "percent")), (("0.1", 92.0), ("1", 92.0))
    )
    page = page_of(tmp_path)
    page = replace(
        page,
        sections=(replace(page.sections[0], tables=(table,)),),
        cells={table.label: CellTrials({"Temperature": "Temperature"}, {"none": {"mode": "none"}})},
        trials=index_trials(shown, stored, names),
    )
    script = """
      await ready();
      const made = window.uPlot, plots = [];
      window.uPlot = function (options, ...rest) { plots.push(options); return new made(options, ...rest); };
      document.querySelector("#plot-trials").click();
      document.querySelector("table.opens").tBodies[0].rows[0].cells[1].click();
      done({ labels: plots.map(options => options.series.slice(1).map(series => series.label)),
        title: document.querySelector("#dialog-title").textContent });
    """
    found = browsed(tmp_path, page, SCRIPT % script)
    assert found["errors"] == []
    assert found["labels"] == [["temperature 1", "temperature 0.1"], ["seed 0"]]
    assert found["title"] == "temperature 0.1, none (1 trial)"


@NEEDS
@pytest.mark.parametrize(("correct", "least"), [([9573], 75.0), ([9573, 9990, 9999], 90.0)])
def test_the_axes_of_a_curve_hold_possible_numbers(correct: list[int], least: float, tmp_path: Path) -> None:
    """No accuracy above 100 %, and no half epochs: of a single point a plot of its own choice had both."""
    shown = build_frame([row("2*8", "none", 0, correct)])
    stored = {str(name): StoredTrial(f"{name}.json", SPECS, {}) for name in shown["id"].unique()}
    page = replace(with_trials(tmp_path), trials=index_trials(shown, stored))
    script = """
      await ready();
      const made = window.uPlot, plots = [];
      window.uPlot = function (...all) { const plot = new made(...all); plots.push(plot); return plot; };
      document.querySelector("#plot-trials").click();
      await new Promise(go => setTimeout(go, 200));
      const { x, y } = plots[0].scales;
      done({ x: [x.min, x.max], y: [y.min, y.max], ticks: plots[0].axes[0]._splits });
    """
    found = browsed(tmp_path, page, SCRIPT % script)
    assert found["errors"] == []
    assert least <= found["y"][0] < found["y"][1] <= 100.0
    assert found["x"] == ([0.5, 1.5] if len(correct) == 1 else [1, 3])
    assert set(found["ticks"]) <= {1, 2, 3}


@NEEDS
def test_a_cell_of_a_comparison_opens_the_trials_of_its_arms(tmp_path: Path) -> None:
    """A difference those of both arms, a number of one arm those of that arm."""
    arms = ("2*8 & more", "1*8")
    frame = build_frame(
        [row("2*8", "none", seed, [9000]) | {"id": f"{arm}-{seed}"} for arm in arms for seed in (0, 1)]
    )
    columns = (Column("Arm"), Column("Minus"), Column("Arm %"), Column("Minus %"), Column("Difference"))
    table = Table("Arms", "tab:arms", columns, ((*arms, "90", "91", "-1"),), "")
    cells = paired_trials(
        table,
        {"Arm": "Arm"},
        lambda row: {"Arm": row["Minus"]},
        of_one=("Arm %",),
        of_other=("Minus", "Minus %"),
    )
    names = {str(name): {"Arm": str(name).rpartition("-")[0]} for name in frame["id"].unique()}
    page = replace(
        page_of(tmp_path),
        sections=(Section("Numbers", (), (), (table,)),),
        cells={table.label: cells},
        trials=index_trials(frame, {}, names),
    )
    script = """
      await ready();
      const dialog = document.querySelector("dialog"), opened = [];
      for (const cell of document.querySelector("table.opens").tBodies[0].rows[0].cells) {
        cell.click();
        opened.push(document.querySelector("#dialog-title").textContent);
        dialog.close();
      }
      done({ opened });
    """
    one, other = (f"{arm} (2 trials)" for arm in arms)
    assert browsed(tmp_path, page, SCRIPT % script) == {
        "errors": [],
        "opened": [one, other, one, other, "2*8 & more minus 1*8 (4 trials)"],
    }


@NEEDS
def test_a_difference_opens_the_trials_that_it_is_of(tmp_path: Path) -> None:
    """Those with the number that the table needs, whose seed both arms have."""
    reached = {("new", 0): 50.0, ("new", 1): None, ("old", 0): 40.0, ("old", 1): 41.0, ("old", 2): 42.0}
    made = [row("2*8", "none", seed, [9000]) | {"id": f"{arm}-{seed}"} for arm, seed in reached]
    names = {f"{arm}-{seed}": {"Arm": arm, "After (%)": value} for (arm, seed), value in reached.items()}
    table = Table("Arms", "tab:arms", (Column("Arm"), Column("Difference")), (("new", "10"),), "")
    cells = paired_trials(table, {"Arm": "Arm"}, lambda _: {"Arm": "old"})
    page = replace(
        page_of(tmp_path),
        sections=(Section("Numbers", (), (), (table,)),),
        cells={table.label: replace(cells, needs="After (%)")},
        trials=index_trials(build_frame(made), {}, names),
    )
    script = """
      await ready();
      document.querySelector("table.opens").tBodies[0].rows[0].cells[1].click();
      done({ title: document.querySelector("#dialog-title").textContent,
        cells: [...document.querySelectorAll("#cell-trials tbody tr")].map(row => row.cells[1].innerText) });
    """
    found = browsed(tmp_path, page, SCRIPT % script)
    assert found == {"errors": [], "title": "new minus old (2 trials)", "cells": ["50.00", "40.00"]}


@NEEDS
def test_the_legend_of_the_curves_leaves_the_border_of_the_table_free(tmp_path: Path) -> None:
    """With two curves or more it stands above the list of their trials."""
    script = """
      await ready();
      document.querySelector("table.opens").tBodies[0].rows[0].cells[2].click();
      await new Promise(go => setTimeout(go, 200));
      const box = name => document.querySelector(name).getBoundingClientRect();
      done({ legend: box(".u-legend").bottom, table: box("dialog .scroll").top });
    """
    found = browsed(tmp_path, with_trials(tmp_path), SCRIPT % script)
    assert found["errors"] == []
    assert found["legend"] + 4 < found["table"]


@NEEDS
def test_trials_that_are_missing_stand_in_the_columns_of_the_others(tmp_path: Path) -> None:
    """Their "n/a" is on the side of the numbers above and below it, and looks as in other tables."""
    script = (
        SCRIPT
        % """
      await ready();
      const table = document.querySelector("#trial-table"), side = cell => getComputedStyle(cell).textAlign;
      const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
      const at = heads.findIndex(head => head.textContent.startsWith("Bounty"));
      const gone = rows.filter(row => row.cells[at].textContent === "n/a");
      done({ gone: gone.length, heads: heads.map(side), rows: rows.map(row => [...row.cells].map(side)),
        bounty: side(heads[at]), looks: gone.map(row => getComputedStyle(row.cells[at]).fontStyle) });"""
    )
    found = browsed(tmp_path, with_trials(tmp_path, 9), script)
    assert found["errors"] == []
    assert (found["gone"], found["looks"]) == (1, ["italic"])
    assert found["bounty"] == "right"
    assert all(sides == found["heads"] for sides in found["rows"])


@NEEDS
def test_a_filter_means_the_column_of_that_name(tmp_path: Path) -> None:
    """Not the first one that begins with it, such as Pairs for p; that one serves where no name is equal."""
    columns = (Column("Mode"), Column("Pairs", "count"), Column("p", "p"), Column("p (Holm)", "p"))
    rows = (("full", 10, 0.01, 0.2), *(("hidden", 10, 0.5, 0.6),) * 9)
    table = Table("Tests", "tab:some", columns, rows)
    page = page_of(tmp_path)
    page = replace(page, sections=(replace(page.sections[0], tables=(table,)),))
    script = """
      const table = document.querySelector("table.sortable"), input = document.querySelector(".table input");
      const rows = text => { input.value = text; input.dispatchEvent(new Event("input"));
        return [...table.tBodies[0].rows].filter(row => !row.hidden).map(row => row.cells[0].textContent); };
      done({ found: ["p < 0.05", "P (holm) < 0.5", "pair < 5", "p ( < 0.5"].map(rows) });
    """
    found = browsed(tmp_path, page, SCRIPT % script)
    assert found["errors"] == []
    assert found["found"] == [["full"], ["full"], [], ["full"]]


@NEEDS
def test_a_phone_shows_the_whole_names_of_all_curves(tmp_path: Path) -> None:
    """Long ones take several lines; a box that scrolls would hide the last names, and their seeds."""
    script = """
      await ready();
      document.querySelector("#plot-trials").click();
      await new Promise(go => setTimeout(go, 200));
      const edge = document.querySelector("#plot").getBoundingClientRect();
      const names = [...document.querySelectorAll(".u-legend .u-label")].slice(1);
      const legend = document.querySelector(".u-legend");
      done({ names: names.map(name => name.textContent),
        inside: names.every(name => { const box = name.getBoundingClientRect();
          return box.left >= edge.left && box.right <= edge.right && box.bottom <= edge.bottom; }),
        scrolls: legend.scrollHeight > legend.clientHeight });
    """
    arm = "a network with a memory of its hidden vectors that is read before the last layer, as"
    found = browsed(tmp_path, trials_with_curves(tmp_path, 6, arm), SCRIPT % script, "390,844")
    assert found["errors"] == []
    assert len(found["names"]) == 12
    assert (found["inside"], found["scrolls"]) == (True, False)


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
        const shown = () => document.querySelectorAll("#trial-table tbody tr").length, before = shown();
        document.querySelector("#trial-table thead button").click(); // sorting shows the same trials
        return before === shown() ? before : "other trials"; };
      const found = { words: rows("1*16"), numbers: rows("parameters > 6,400; none > 90"),
        none: rows("x y z"),
        count: document.querySelector(".table .count").textContent, all: rows("").length,
        trials: [listed(""), listed("1*8"), listed("bounty >= 91"), listed("missing"), listed("x y z")] };
      press(document.body, "/");
      found.focused = document.activeElement === input;
      done(found);"""
    )
    found = browsed(tmp_path, with_trials(tmp_path, 9), script)
    assert found["errors"] == []
    assert set(found["words"]) == {"1*16"}
    assert set(found["numbers"]) == {"2*8"}
    assert (found["none"], found["count"], found["all"]) == ([], "0 of 9 rows", 9)
    assert found["trials"] == [5, 2, 4, 1, 0]
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


@NEEDS
def test_dark_colours_are_not_printed(tmp_path: Path) -> None:
    """Light text on white paper cannot be read, whichever colours a reader has chosen for the screen."""
    script = (
        SCRIPT
        % """
      const rules = [...document.styleSheets].flatMap(sheet => [...sheet.cssRules])
        .flatMap(rule => rule.media
          ? [...rule.cssRules].map(each => [rule.media.mediaText, each]) : [["", rule]]);
      const dark = rules.filter(([, rule]) => rule.style?.colorScheme === "dark");
      done({ media: dark.map(([media]) => media) });"""
    )
    found = browsed(tmp_path, page_of(tmp_path), script)
    assert found == {"errors": [], "media": ["screen", "screen and (prefers-color-scheme: dark)"]}


@NEEDS
def test_a_table_says_how_many_rows_it_has_and_that_it_continues(tmp_path: Path) -> None:
    """The count stands beside the filter. The edge where rows are out of sight has a shadow, under a cover
    that moves with the rows and lies over the shadow at the last one.
    """
    script = (
        SCRIPT
        % """
      await ready();
      const style = getComputedStyle(document.querySelector(".table .scroll"));
      const shadows = style.backgroundPosition.split(", ").map((place, at) =>
        [place, style.backgroundAttachment.split(", ")[at]]);
      done({ count: document.querySelector(".table .count").textContent, shadows });"""
    )
    found = browsed(tmp_path, with_trials(tmp_path, 9), script)
    assert found["errors"] == []
    assert found["count"] == "9 rows"
    assert [kind for place, kind in found["shadows"] if place == "50% 100%"] == ["local", "scroll"]


@NEEDS
@pytest.mark.parametrize("size", ["390,800", "1280,900"])
def test_a_short_text_does_not_make_a_row_tall(tmp_path: Path, size: str) -> None:
    """Such as a tie in the last column of a wide table, which is out of sight on a phone."""
    table = Table(
        "Winners",
        "tab:winners",
        (Column("Architecture"), *(Column(f"Mode {at}", "number") for at in range(9)), Column("Winner")),
        tuple(
            (f"1*{at}", *(90.25,) * 9, winner) for at, winner in enumerate(("full", "Tie: none/decay/output"))
        ),
    )
    page = replace(page_of(tmp_path), sections=(Section("Winners", (), (), (table,)),))
    script = (
        SCRIPT
        % """
      const rows = [...document.querySelectorAll("tbody tr")];
      done({ heights: rows.map(row => Math.round(row.getBoundingClientRect().height)) });"""
    )
    found = browsed(tmp_path, page, script, size)
    assert found["errors"] == []
    assert len(set(found["heights"])) == 1 < min(found["heights"])


@NEEDS
def test_a_text_stands_off_the_number_before_it(tmp_path: Path) -> None:
    """The one is aligned to the right and the other to the left, so their columns would touch."""
    columns = (Column("Name"), Column("Number", "count"), Column("Promoted"), Column("Rule"))
    table = Table("Candidates", "tab:candidates", columns, (("a", 12, "yes", "always"),))
    page = replace(page_of(tmp_path), sections=(Section("Stages", (), (), (table,)),))
    script = (
        SCRIPT
        % """
      const room = cell => parseFloat(getComputedStyle(cell).paddingLeft);
      const cells = [...document.querySelectorAll("tbody td")].map(room);
      done({ cells, heads: [...document.querySelectorAll("th button")].map(room) });"""
    )
    found = browsed(tmp_path, page, script)
    for number, text, other in (found["cells"][1:], found["heads"][1:]):
        assert text >= 2 * number
        assert other == number


@NEEDS
@pytest.mark.parametrize(("rows", "scrolls"), [(25, False), (60, True)])
def test_only_a_long_table_scrolls_on_its_own(tmp_path: Path, rows: int, scrolls: bool) -> None:
    """A box that hides the last row or two is in the way."""
    script = (
        SCRIPT
        % """
      const box = document.querySelector(".scroll");
      done({ scrolls: box.scrollHeight > box.clientHeight });"""
    )
    table = Table("Rows", "tab:rows", (Column("Name"),), tuple((f"row {at}",) for at in range(rows)))
    page = replace(page_of(tmp_path), sections=(Section("Rows", (), (), (table,)),))
    assert browsed(tmp_path, page, script) == {"errors": [], "scrolls": scrolls}


SENTENCES = Table(
    "What the runs say",
    "tab:answers",
    (Column("Claim"), Column("Shown"), Column("Evidence")),
    (("A memory helps", "no, not shown", "Evidence in a sentence that has many words. " * 5),),
)


@NEEDS
@pytest.mark.parametrize("size", ["390,800", "1280,900"])
def test_sentences_of_a_table_are_in_sight(tmp_path: Path, size: str) -> None:
    """On a phone a row is a block with the headings in it, since a column of sentences has no room beside
    two others.
    """
    page = replace(page_of(tmp_path), sections=(Section("Answers", (), (), (SENTENCES,)),))
    script = (
        SCRIPT
        % """
      const cells = [...document.querySelectorAll("tbody td")];
      const boxes = cells.map(cell => cell.getBoundingClientRect());
      done({ right: boxes.map(box => box.right), width: boxes[2].width,
        heads: cells.map(cell => getComputedStyle(cell, "::before").content) });"""
    )
    found = browsed(tmp_path, page, script, size)
    assert found["errors"] == []
    assert max(found["right"]) <= int(size.partition(",")[0])
    assert found["width"] >= 250
    phone = ['"Claim: "', '"Shown: "', '"Evidence: "']
    assert found["heads"] == (phone if size.startswith("390") else ["none"] * 3)


@NEEDS
@pytest.mark.parametrize("size", ["1280,900", "2200,1200"])
def test_no_column_of_a_table_of_means_is_cut_on_a_usual_screen(tmp_path: Path, size: str) -> None:
    """Six incomplete means with their deviations and two winners have room beside the contents."""
    means = tuple(MeanSd(61.34, 21.0, 2, 10) for _ in range(6))
    columns = (
        Column("Architecture"),
        *(Column(name, "mean_sd") for name in ("None", "Decay", "Dropout", "Full", "Hidden", "Output")),
        Column("Winner"),
        Column("Winner (test)"),
    )
    lines = tuple((f"1*{at}", *means, "Tie: none/decay", "Tie: all but hidden") for at in range(30))
    table = Table("Means", "tab:means", columns, lines, "The note.")
    page = replace(page_of(tmp_path), sections=(Section("Numbers", (), (), (table,)),))
    script = (
        SCRIPT
        % """
      const box = document.querySelector(".scroll");
      done({ wide: box.scrollWidth, room: box.clientWidth,
        size: parseFloat(getComputedStyle(box.querySelector("table")).fontSize) });"""
    )
    found = browsed(tmp_path, page, script, size)
    assert found["errors"] == []
    assert found["wide"] <= found["room"]
    assert found["size"] >= 9.6  # pixels; smaller letters could not be read


@NEEDS
def test_the_line_between_rows_spans_every_cell(tmp_path: Path) -> None:
    """Also the first one, which stays at the left: with collapsed borders it left its line behind."""
    script = (
        SCRIPT
        % """
      const cells = [...document.querySelectorAll(".sortable tbody td")];
      const styles = cells.map((cell) => getComputedStyle(cell));
      done({ lines: [...new Set(styles.map((style) => style.borderTopWidth))],
        models: [...new Set(styles.map((style) => style.borderCollapse))],
        first: styles[0].position });"""
    )
    found = browsed(tmp_path, page_of(tmp_path), script)
    assert found == {"errors": [], "lines": ["1px"], "models": ["separate"], "first": "sticky"}


@NEEDS
def test_a_phone_says_that_a_figure_continues_and_keeps_rows_low(tmp_path: Path) -> None:
    """A figure is as wide there as its letters need, with nothing at its edge that says so. A cell that is
    out of sight takes one line, and lines between rows are those of every cell, also of one that stays.
    """
    columns = (Column("Architecture"), Column("Seeds", "count"), Column("Answer"))
    rows = tuple((f"1*{at}", 3, "not significantly different from it") for at in range(3))
    table = Table(
        "Answers", "tab:answers", (*columns, Column("Last", "count")), tuple((*each, 1) for each in rows)
    )
    page = page_of(tmp_path)
    page = replace(page, sections=(replace(page.sections[0], tables=(table,)),))
    script = (
        SCRIPT
        % """
      const body = document.querySelector(".sortable").tBodies[0];
      done({ hint: document.querySelector(".sideways").getBoundingClientRect().height > 0,
        high: body.rows[0].getBoundingClientRect().height,
        lines: [...body.rows[1].cells].map(cell => parseFloat(getComputedStyle(cell).borderTopWidth) > 0),
        apart: getComputedStyle(body.parentNode).borderCollapse });"""
    )
    phone, screen, wide = (browsed(tmp_path, page, script, f"{size},900") for size in (390, 1280, 2200))
    assert (phone["hint"], screen["hint"], wide["hint"]) == (True, False, False)
    assert max(phone["high"], wide["high"]) < 40
    for found in (phone, screen, wide):
        assert found["errors"] == []
        assert found["lines"] == [True] * 4
        assert found["apart"] == "separate"


@NEEDS
@pytest.mark.parametrize("size", ["1280,900", "1600,900", "2200,1200"])
def test_a_table_of_ten_columns_is_no_wider_than_the_page(tmp_path: Path, size: str) -> None:
    """One whose names are long was a few pixels wider, so that its last column was cut at the edge."""
    numbers = [
        Column(name, "number") for name in ("sd", "Train (%)", "Validation (%)", "Best epoch", "Epochs")
    ]
    columns = (
        Column("Activation"), Column("Architecture"), Column("n", "count"), Column("Test (%)", "interval"),
        *numbers, Column("Final thresholds"),
    )  # fmt: skip
    row = (
        "DecayingRescaledReLU(schedule=exponential)", "1*512, 1*256, 1*128, 1*64", 3,
        Interval(89.84, 72.25, 100.0), 7.08, 90.88, 89.31, 23.3, 26.7, "0.631, -0.113, -0.053, -0.009",
    )  # fmt: skip
    page = page_of(tmp_path)
    table = Table("Results", "tab:results", columns, (row,) * 3)
    page = replace(page, sections=(replace(page.sections[0], tables=(table,)),))
    script = (
        SCRIPT
        % """
      const box = document.querySelector(".table .scroll");
      done({ beyond: box.scrollWidth - box.clientWidth });"""
    )
    assert browsed(tmp_path, page, script, size) == {"errors": [], "beyond": 0}
