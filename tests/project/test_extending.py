"""docs/extending.md: its blocks, written into a copy of the project, do what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
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


def write(block: str, folder: Path) -> None:
    """A block where its first line says."""
    place, _, text = block.partition("\n")
    match = re.fullmatch(r"# (\S+), (new|at the end|in place of the line)", place)
    assert match is not None, place
    path = folder / match[1]
    if match[2] == "new":
        assert not path.exists()
        path.write_text(text)
        return
    before = path.read_text()
    if match[2] == "at the end":
        path.write_text(before + text)
        return
    begins = text.partition(" = ")[0]
    after, count = re.subn(rf"^{begins} = .*\n", lambda _: text, before, flags=re.MULTILINE)
    assert count == 1
    path.write_text(after)


@pytest.fixture
def project(tmp_path: Path, data_dir: Path) -> Path:
    """A copy of the package, with the grids and the data beside it."""
    shutil.copytree(ROOT / "psa", tmp_path / "psa", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "reproduction").symlink_to(ROOT / "reproduction")
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    return tmp_path


def records(folder: Path) -> list[dict[str, object]]:
    """Every record that was made."""
    paths = (folder / "results").rglob("s*.json")
    return [json.loads(path.read_bytes()) for path in paths if ".machine." not in path.name]


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_every_example_is_short_and_runs(section: str, project: Path) -> None:
    """Fewer than 40 lines of code each, imports included."""
    blocks = BLOCK.findall(SECTIONS[section])
    code = "".join(text for kind, text in blocks if kind == "python")
    assert 2 <= len([line for line in code.splitlines() if line.strip()]) < 40
    for kind, text in blocks:
        if kind != "sh":
            write(text, project)
            continue
        for command in text.splitlines():
            start = [sys.executable, "-c", "from psa.cli.app import main; main()", *shlex.split(command)[1:]]
            done = subprocess.run(
                start, cwd=project, env={**os.environ, "PYTHONPATH": str(project)},
                capture_output=True, text=True, check=False, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, f"{command}: {done.stderr}"
            assert "Traceback" not in done.stdout + done.stderr
    made = records(project)
    assert made
    if section == "A probe":
        (record,) = made
        shares = record["probes"]["dead_units"]["last"]["share"]  # type: ignore[index]
        assert len(shares) == 2
        assert all(0 <= share <= 1 for share in shares)
    if section == "An ablation mode":
        assert any("input" in record["history"]["mode"] for record in made)  # type: ignore[index]


def test_the_page_covers_what_one_may_add() -> None:
    """A mode, a probe, a network, a study."""
    assert list(SECTIONS) == ["An ablation mode", "A probe", "A network", "A study"]
