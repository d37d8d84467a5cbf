"""README and docs do what they say: every console line and every Python block is run, every link exists."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from psa import cli
from psa.grid import load
from psa.studies.ablation import Settings

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()
# `make` sets up a machine; what it then runs is tested here by the same words that the Makefile uses.
MAKE = {"make train", "make test"}
EVERY_COMMAND = re.findall(r"^\$ (.+)$", README, re.MULTILINE)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A documented command, by the project's own environment."""
    words = shlex.split(command)
    assert words[:2] == ["poetry", "run"], command
    program = Path(sys.executable).with_name(words[2])
    assert program.exists(), f"{words[2]} is not an installed command"
    return subprocess.run(
        [program, *words[3:]], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def folder(tmp_path: Path, data_dir: Path) -> Path:
    """An empty working folder that has the data."""
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    (tmp_path / "reproduction").symlink_to(ROOT / "reproduction")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/published").symlink_to(ROOT / "results/published")
    return tmp_path


def test_the_readme_can_be_followed_from_top_to_bottom(folder: Path) -> None:
    """Every console line of the README runs, in its order, without error; so does its Python, while what
    the README begins with, a network that was trained, is still there.
    """
    commands = [command for command in EVERY_COMMAND if command not in MAKE]
    assert len(commands) >= 5
    training = next(command for command in commands if " train " in command)
    for command in commands:
        done = run(command, folder)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        if command == training:
            python_runs(folder)


def python_runs(folder: Path) -> None:
    """The Python blocks of the README, in a folder that holds a network."""
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "output.weight" in done.stdout


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_console_line_of_the_docs_runs(page: Path, folder: Path) -> None:
    """In the order of the page, without error; but for those that the README has, too."""
    for command in re.findall(r"^\$ (.+)$", page.read_text(), re.MULTILINE):
        if command not in EVERY_COMMAND:
            done = run(command, folder)
            assert done.returncode == 0, f"{command}: {done.stderr}"


def test_the_notebook_runs_from_top_to_bottom(folder: Path) -> None:
    """Its code cells in order, as one program in an empty folder; it is stored without outputs."""
    cells = json.loads((ROOT / "docs/gradients.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    # each cell as the notebook runs it: all of them share their names
    program = f"names = {{}}\nfor cell in {code!r}:\n    exec(cell, names)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert len(list((folder / "results/notebook").glob("*.png"))) == 4


def test_the_python_of_the_page_on_gradients_runs(folder: Path) -> None:
    """After the training that the page begins with."""
    page = (ROOT / "docs/gradients.md").read_text()
    training = re.search(r"^\$ (.+)$", page, re.MULTILINE)
    block = re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert training is not None
    assert block is not None
    assert run(training[1], folder).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", block[1]], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_grid_that_the_docs_show_is_a_grid(tmp_path: Path) -> None:
    """The first block of docs/grids.md, beside the list it names, resolves."""
    block = re.search(r"^```toml\n(.*?)^```$", (ROOT / "docs/grids.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    (tmp_path / "shown.toml").write_text(block[1])
    (tmp_path / "configurations.txt").symlink_to(ROOT / "reproduction/configurations.txt")
    assert len(load(tmp_path / "shown.toml").trials) == 98 * 2 * 2 * 10


def test_the_docs_name_every_setting_of_a_grid() -> None:
    """One that is added must be described."""
    page = (ROOT / "docs/grids.md").read_text()
    for key in Settings.model_fields:
        assert f"`{key}`" in page, key


def test_make_train_runs_what_the_makefile_says(folder: Path) -> None:
    """The options of `make train` train a network; two loops of them are enough to see it."""
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^train: ARGS = (.+)$", makefile, re.MULTILINE)
    assert options is not None
    shorter, changed = re.subn(r"--meta-loops \d+", "--meta-loops 2", options[1])
    assert changed == 1
    done = run(f"poetry run train {shorter}", folder)
    assert done.returncode == 0, done.stderr
    assert "Loop 2/2" in done.stdout
    assert (folder / "models/first-run/mnist_lkg.safetensors").exists()


def test_the_python_of_the_docs_runs(folder: Path) -> None:
    """The Python blocks of docs/activations.md, one after the other; what it quotes of others is `py`."""
    page = (ROOT / "docs/activations.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    done = subprocess.run(
        [sys.executable, "-c", "".join(blocks)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "6 trials" in done.stdout
    assert "| JumpReLU(initial=0.5) | 0.1     |   2 |" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_project_exist(page: Path) -> None:
    """No page points to a file that is not there."""
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_pages_exist(page: Path) -> None:
    """Every psa/... and tests/... path that a page names is a file of the project."""
    for path in re.findall(r"`((?:psa|cloud|tests|tools)/[\w./]+)`", page.read_text()):
        assert (ROOT / path).exists(), path


def test_the_readme_shows_a_real_result() -> None:
    """Its picture is a figure of the committed report."""
    (picture,) = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert (ROOT / picture).is_file()
    assert picture.startswith("results/reports/")


TABLE = README.partition("## The commands of the earlier programs")[2].partition("\n## ")[0]
SUCCESSORS = [
    code
    for row in re.findall(r"^\| .+? \| (.+) \|$", TABLE, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", row)
]
GIVEN = {"FILE": "some.safetensors"}
ELSEWHERE = ("psa.experiment", "sagemaker-...")  # a module, and a family of commands


@pytest.mark.parametrize("command", [each for each in SUCCESSORS if each not in ELSEWHERE])
def test_what_took_the_place_of_an_earlier_command_is_one(command: str) -> None:
    """It is installed, and its options and values are understood; they are bound, not run."""
    words = [GIVEN.get(word, word) for word in shlex.split(command)]
    assert Path(sys.executable).with_name(words[0]).exists()
    if words[0].startswith(("make-", "generate-", "sagemaker-", "analyze-")) and len(words) == 1:
        return  # without options there is nothing more to understand
    name, tokens = (words[1], words[2:]) if words[0] == "psa" else (words[0], words[1:])
    app, tokens = cli._of_study(cli.app_of(name), tokens)
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert bound.arguments or not tokens


def test_the_table_has_every_earlier_program() -> None:
    """Of each of the five, and the commands that two of them name alike once each."""
    rows = re.findall(r"^\| (.+?) \|", TABLE, re.MULTILINE)[1:]
    for program in ("poetry run train", "GloNet", "activations", "gradients", "memory"):
        assert any(program in row for row in rows), program
    for name in ("clean-all", "analyze-dataset", "make-figure-heatmaps", "run_matrix.py", "MNIST_runner.py"):
        assert any(name in row for row in rows), name


def test_every_grid_is_in_the_guide_to_reproduction() -> None:
    """With its number of trials as it is."""
    guide = (ROOT / "docs/reproduction.md").read_text()
    for path in sorted((ROOT / "reproduction").glob("*.toml")):
        if path.stem in ("smoke", "search"):
            continue  # for tests, and of settings
        row = next(line for line in guide.splitlines() if line.startswith(f"| `{path.name}`"))
        first = load(path).stages[0]
        assert f"| {len(first.points):,} " in row, row
