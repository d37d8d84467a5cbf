"""The reports under results/reports follow from the bundles under results/published, by one command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from psa.storage.records.record_store import RecordStore
from tools.committed_pages import PAGES, PUBLISHED, REPORTS

TABLES = (".csv", ".md", ".tex")  # figures are drawn with the fonts of a machine


def tables(folder: Path) -> dict[str, bytes]:
    """The tables of a report, by name; its rows are the bundle once more."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in TABLES and path.stem != "rows"
    }


def without_csv(found: dict[str, bytes]) -> dict[str, bytes]:
    """The tables whose numbers are rounded."""
    return {name: content for name, content in found.items() if not name.endswith(".csv")}


def folder_of(name: str) -> Path:
    """The folder of a committed report's pages."""
    return ROOT / REPORTS / PAGES[name].folder


def test_every_committed_page_is_one_of_them() -> None:
    """None is left behind without a command that writes it, and none is missing."""
    found = {path.parent for path in (ROOT / REPORTS).rglob("*.html")}
    assert found == {folder_of(name) for name in PAGES}
    assert {page.bundle for page in PAGES.values()} <= {path.stem for path in (ROOT / PUBLISHED).iterdir()}


def test_reports_of_a_user_are_left_out_of_the_repository() -> None:
    """The README writes one into a clone; the committed ones are not ignored."""
    listed = subprocess.run(
        ["git", "ls-files", REPORTS], cwd=ROOT, check=False, capture_output=True, text=True
    )
    if listed.returncode or not listed.stdout:
        pytest.skip("needs a clone that git may read")

    def ignored(path: Path) -> bool:
        return subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0

    assert ignored(ROOT / REPORTS / "smoke_simplemlp.html")
    assert ignored(ROOT / REPORTS / "smoke_simplemlp" / "heatmaps.png")
    tracked = [ROOT / line for line in listed.stdout.splitlines() if line.endswith(".html")]
    assert tracked
    assert not any(map(ignored, tracked))


def psa(*arguments: str) -> None:
    """Run psa in the checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "psa", *arguments],
        cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr  # a slow machine prints progress there


def records(place: Path) -> set[str]:
    """The records of a results tree or of a bundle, as JSON."""
    return {json.dumps(record, sort_keys=True) for record in RecordStore(place).all()}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_committed_page_follows_from_its_bundle(name: str, tmp_path: Path, data_dir: Path) -> None:
    """Every table, byte by byte; where trials are trained first, on the kind of CPU of their bundle."""
    page, trees = PAGES[name], []
    if page.trained:
        folders = {"results": tmp_path / "results", "model": tmp_path / "models", "data": data_dir}
        trees = [word for name, folder in folders.items() for word in (f"--{name}-dir", str(folder))]
        psa(*page.training(trees))
        if records(tmp_path / "results") - records(ROOT / PUBLISHED / f"{page.bundle}.parquet"):
            pytest.skip("the records of the bundle are of another kind of CPU")
    psa(*page.arguments(tmp_path / "pages", trees))
    tmp_path = tmp_path / "pages"
    pages = sorted(path.name for path in tmp_path.glob("*.html"))
    alone = [each.folder for each in PAGES.values()].count(PAGES[name].folder) == 1
    there = sorted(path.name for path in folder_of(name).glob("*.html"))
    assert pages == (there if alone else [page for page in there if page in pages])
    for page in pages:
        written, committed = tables(tmp_path / Path(page).stem), tables(folder_of(name) / Path(page).stem)
        assert written
        if PAGES[name].trained:  # sums of all digits depend on the number of threads
            written, committed = map(without_csv, (written, committed))
        assert written == committed
