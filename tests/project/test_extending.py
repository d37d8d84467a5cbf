"""docs/extending.md: its blocks, written into an empty folder, do what it says. psa itself stays as it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

PAGE = ROOT / "docs/extending.md"
BLOCK = re.compile(r"^```(python|toml|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {
    part.splitlines()[0]: part for part in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
}
MOST_LINES = 39  # of code, imports included


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """An empty folder, but for the grids and the data."""
    (tmp_path / "reproduction").symlink_to(ROOT / "reproduction")
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    return tmp_path


def write(block: str, folder: Path) -> None:
    """A block into the file that its first line names."""
    place, _, text = block.partition("\n")
    match = re.fullmatch(r"# (\S+), new", place)
    assert match is not None, place
    path = folder / match[1]
    assert not path.exists()
    path.write_text(text)


def records(folder: Path) -> list[dict[str, object]]:
    """Every record that was made."""
    paths = (folder / "results").rglob("s*.json")
    return [json.loads(path.read_bytes()) for path in paths if ".machine." not in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_every_example_is_short_and_runs(section: str, folder: Path) -> None:
    """Fewer than 40 lines of code each, and none of them in psa."""
    for kind, text in BLOCK.findall(SECTIONS[section]):
        if kind != "sh":
            write(text, folder)
            continue
        for command in text.splitlines():
            start = [sys.executable, "-c", "from psa.cli.app import main; main()", *shlex.split(command)[1:]]
            done = subprocess.run(
                start, cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, check=False, timeout=600,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert "Traceback" not in done.stdout + done.stderr
    made = records(folder)
    assert made
    if section == "A probe":
        (record,) = made
        shares = record["probes"]["dead_units"]["last"]["share"]  # type: ignore[index]
        assert len(shares) == 2
        assert all(0 <= share <= 1 for share in shares)
    if section == "An ablation mode":
        assert any("input" in record["history"]["mode"] for record in made)  # type: ignore[index]
    if section == "A report":
        assert "scored/" in (folder / "results/reports/scored/bounties.md").read_text()
    if section == "A tracker":
        lines = (folder / "scores.csv").read_text().splitlines()
        assert sorted(line.split(",")[0] for line in lines) == sorted(str(record["id"]) for record in made)
    trains = section in ("An ablation mode", "A probe", "A network")
    assert any("plugins" in record["spec"] for record in made) == trains  # type: ignore[operator]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_example_is_short(section: str) -> None:
    """Blank lines do not count."""
    blocks = BLOCK.findall(SECTIONS[section])
    code = "".join(text for kind, text in blocks if kind == "python")
    assert 2 <= len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES


def test_the_page_covers_what_a_plugin_may_register() -> None:
    """A section for each registration function."""
    from psa import __all__ as names

    kinds = {
        "An ablation mode": "register_mode",
        "A probe": "register_probe",
        "A network": "register_family",
        "A data source": "register_data_source",
        "A study": "register_study",
        "A report": "register_report",
        "A tracker": "register_tracker",
        "A backend": "register_backend",
    }
    assert list(SECTIONS) == list(kinds)
    assert {name for name in names if name.startswith("register_")} == set(kinds.values())
    for section, function in kinds.items():
        assert function in SECTIONS[section]
