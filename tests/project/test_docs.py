"""README and docs do what they say: every console line and every Python block is run, every link exists.

Each page runs in an environment that holds what the page has told its reader to install, and nothing else.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cyclopts import App
from paths import ROOT
from reader import Reader

from psa.analysis.records_frame import load_records_frame
from psa.analysis.stats import Values, paired
from psa.cli import app as cli
from psa.cli.named import figures, tables
from psa.core.extras import WHEEL
from psa.experiments.grid import load_grid
from psa.experiments.studies.ablation import Settings
from psa.reports.ablation.arms.pairs import histories_after, pairs_of
from psa.reports.wording import FALL
from psa.specs.activation import Activation
from psa.specs.model import NetworkSpec
from psa.specs.trial import Trial
from psa.storage.records.record_store import RecordStore

PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")),
    *sorted((ROOT / "docs").glob("*.md")),
]
DOCS = sorted((ROOT / "docs").glob("*.md"))
# docs/extending.md changes the program, so that tests/project/test_extending.py runs it in a copy
RUN_HERE = [
    page
    for page in DOCS
    if page.name != "extending.md" and re.search(r"^```(console|python)$", page.read_text(), re.MULTILINE)
]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
EVERY_COMMAND = re.findall(r"^\$ (.+)$", README, re.MULTILINE)
ACTIVATE = "source .venv/bin/activate"


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the environments that the pages ask for."""
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def reader(tmp_path: Path, data_dir: Path, environments: Path) -> Reader:
    """A reader in a folder that has the data and the grids, who has installed nothing yet."""
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    (tmp_path / "reproduction").symlink_to(ROOT / "reproduction")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/published").symlink_to(ROOT / "results/published")
    return Reader(tmp_path, environments)


@pytest.fixture
def ready(reader: Reader) -> Reader:
    """A reader who has followed the README's section on the start, and installed no extra."""
    reader.type("make train")
    reader.type(ACTIVATE)
    return reader


@pytest.mark.slow
def test_the_readme_can_be_followed_from_top_to_bottom(reader: Reader) -> None:
    """Every console line and every Python block of the README, in its order, without error."""
    assert EVERY_COMMAND[0] == "make train"
    for kind, block in BLOCK.findall(README):
        if kind == "python":
            assert "| hidden |" in reader.python(block)
        elif kind == "console":
            for command in re.findall(r"^\$ (.+)$", block, re.MULTILINE):
                reader.type(command)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE, ids=lambda page: page.name)
def test_every_block_of_the_docs_runs(page: Path, ready: Reader) -> None:
    """In the order of the page, without error."""
    said = ""
    for kind, block in BLOCK.findall(page.read_text()):
        if kind == "python":
            ready.program += block
            if "print(" in block:
                said += ready.python(ready.program)
        elif kind == "console":
            for command in re.findall(r"^\$ (.+)$", block, re.MULTILINE):
                ready.type(command)
    if page.name == "train.md":
        assert "output.weight" in said
    if page.name == "activations.md":
        assert "6 trials" in said
        assert "| JumpReLU(initial=0.5) | 0.1     |   2 |" in said


NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.name)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, ready: Reader) -> None:
    """Its code cells in order, as one program in an empty folder; it is stored without outputs."""
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    # each cell as the notebook runs it: all of them share their names
    ready.python(f"names = {{}}\nfor cell in {code!r}:\n    exec(cell, names)")
    if notebook.name == "gradients.ipynb":
        assert len(list((ready.folder / "results/notebook").glob("*.png"))) == 4
    else:
        assert len(list((ready.folder / "results/first").rglob("s*.machine.json"))) == 9


@pytest.mark.slow
def test_make_train_prints_what_the_readme_shows(ready: Reader) -> None:
    """The options of `make train` train a network; two loops of them are enough to see it.

    Accuracies may differ in the last digits between kinds of processor, the neurons do not.
    """
    makefile = (ROOT / "Makefile").read_text()
    options = re.search(r"^train: ARGS = (.+)$", makefile, re.MULTILINE)
    assert options is not None
    shorter, changed = re.subn(r"--meta-loops \d+", "--meta-loops 2", options[1])
    assert changed == 1
    printed = re.findall(r"^Loop .+$", ready.type(f"train {shorter}"), re.MULTILINE)
    shown = re.findall(r"^Loop .+$", README, re.MULTILINE)
    number = re.compile(r"[\d.]+(?= %)")
    assert len(shown) == 2
    for line, sample in zip(printed, shown, strict=True):
        assert number.sub("", line) == number.sub("", re.sub(r"Loop +(\d+)/10", r"Loop \1/2", sample))
        for value, other in zip(number.findall(line), number.findall(sample), strict=True):
            assert float(value) == pytest.approx(float(other), abs=0.5)
    assert (ready.folder / "models/first-run/mnist_lkg.safetensors").exists()


EXTRAS = {
    "ray": "psa sweep reproduction/smoke.toml --backend ray",
    "search": "psa search reproduction/search.toml",
    "rehearse": "psa rehearse -- psa status reproduction/smoke.toml",
    "aws": "psa sweep reproduction/smoke.toml --backend sagemaker --dry-run",
    "tensorboard": "psa sweep reproduction/smoke.toml --tensorboard runs",
    "mlflow": "psa sweep reproduction/smoke.toml --mlflow runs",
    "pdf": "psa report smoke --pdf",
}


@pytest.mark.slow
def test_a_command_without_its_extra_says_how_to_install_it(ready: Reader) -> None:
    """In an environment that has none: one line with a command that reaches this project alone."""
    for extra, command in EXTRAS.items():
        done = ready.run(command)
        assert done.returncode == 2, f"{command}: {done.stdout}{done.stderr}"
        (line,) = done.stderr.splitlines()
        named = {"search": "ray"}.get(extra, extra)  # Ray is looked for first
        assert line.endswith(f"-m pip install --editable '{ROOT}[{named}]'"), line


PSA = {"psa", "train", "clean", "clean-all"}
PLAIN_SHELL = {
    "scp",
    "ssh",
}  # cannot run here: the wheel that they name is compared with the one that is built
SLURM = {"sinfo", "squeue"}  # tests/cloud/test_slurm.py runs that page on a cluster
SHELL_LINES = [
    (page, line)
    for page in (*DOCS, ROOT / "README.md")
    if page.name != "extending.md"
    for kind, block in BLOCK.findall(page.read_text())
    if kind == "sh"
    for line in block.splitlines()
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), SHELL_LINES, ids=lambda part: getattr(part, "name", None))
def test_lines_that_need_a_cluster_or_an_account_are_understood(page: Path, line: str) -> None:
    """They cannot run here: commands and options are bound, and the grids and the targets they name exist."""
    words = shlex.split(line)
    if words[0] in PSA:
        assert understood(words)
        for word in words:
            assert not word.startswith("reproduction/") or (ROOT / word).is_file(), word
    elif words[0] == "ray":
        scripts = pytest.importorskip("ray.scripts.scripts", reason="the extra ray is not installed")
        assert scripts.cli.commands[words[1]].make_context("ray", words[2:]).params
    elif words[0] == "nice":
        assert os.access(ROOT / words[3], os.X_OK)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[0] == "python":
        shown = subprocess.run(
            [sys.executable, ROOT / words[1], "--help"], capture_output=True, text=True, check=True
        )
        assert all(word in shown.stdout for word in words if word.startswith("--"))
    elif words[0] in SLURM:
        assert page.name == "slurm.md"
    elif words[0] == "aws":
        assert aws_faults(words) == ""
    else:
        assert words[0] in PLAIN_SHELL
        assert WHEEL in line


def aws_faults(words: list[str]) -> str:
    """Return what the API model of AWS finds wrong with a command: its options and their values."""
    if words[1:3] == ["s3", "mb"]:
        return "" if re.fullmatch(r"s3://[\w-]+", words[3]) and words[4:5] in ([], ["--region"]) else "target"
    botocore = pytest.importorskip("botocore", reason="the extra aws is not installed")
    session = pytest.importorskip("botocore.session").get_session()
    service = session.get_service_model(words[1].removesuffix("api"))
    names = {botocore.xform_name(name, "-"): name for name in service.operation_names}
    shape = service.operation_model(names[words[2]]).input_shape
    members = {f"--{botocore.xform_name(member, '-')}": member for member in shape.members}
    given = {members[option]: aws_value(text) for option, text in zip(words[3::2], words[4::2], strict=True)}
    return str(
        pytest.importorskip("botocore.validate").ParamValidator().validate(given, shape).generate_report()
    )


def aws_value(text: str) -> object:
    """Return the value of an option: JSON, the short form `Key=true,Other=false`, or a text."""
    if text.startswith("{"):
        return json.loads(text)
    pairs = [part.split("=") for part in text.split(",")] if "=" in text else []
    return {key: {"true": True, "false": False}[value] for key, value in pairs} if pairs else text


LIFECYCLE = "s3api put-bucket-lifecycle-configuration --bucket b --lifecycle-configuration"
ACCESS = "s3api put-public-access-block --bucket b --public-access-block-configuration"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f"{LIFECYCLE} '{{\"Rule\": 1}}'", 'Unknown parameter in LifecycleConfiguration: "Rule"'),
        (f"{ACCESS} BlockAcls=true", 'Unknown parameter in PublicAccessBlockConfiguration: "BlockAcls"'),
        ("s3 mb my-bucket", "target"),
    ],
)
def test_a_command_that_aws_would_refuse_is_found(line: str, fault: str) -> None:
    """A key that the API does not have, and a bucket without its scheme."""
    assert fault in aws_faults(["aws", *shlex.split(line)])


def test_the_configuration_of_a_cluster_has_keys_of_ray() -> None:
    """The block for `ray up`, against the schema that Ray comes with."""
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    schema = json.loads((Path(ray.__file__).parent / "autoscaler/ray-schema.json").read_text())
    block = re.search(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/cluster.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert block is not None
    keys = set(re.findall(r"^(\w+):", block[1], re.MULTILINE))
    assert keys == {"file_mounts", "setup_commands"}
    assert keys <= set(schema["properties"])


def test_the_grid_that_the_docs_show_is_a_grid(tmp_path: Path) -> None:
    """The first block of docs/grids.md, beside the list it names, resolves."""
    block = re.search(r"^```toml\n(.*?)^```$", (ROOT / "docs/grids.md").read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    (tmp_path / "shown.toml").write_text(block[1])
    (tmp_path / "configurations.txt").symlink_to(ROOT / "reproduction/configurations.txt")
    assert len(load_grid(tmp_path / "shown.toml").trials) == 98 * 2 * 2 * 10


def test_the_docs_name_every_setting_of_a_grid() -> None:
    """One that is added must be described."""
    page = (ROOT / "docs/grids.md").read_text()
    for key in Settings.model_fields:
        assert f"`{key}`" in page, key


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


def test_the_readme_is_short() -> None:
    """A reader sees what psa is for, and a first picture, without scrolling for long."""
    assert len(README.splitlines()) <= 150


TABLE = (ROOT / "docs/migration.md").read_text()
SUCCESSORS = [
    code
    for row in re.findall(r"^\| .+? \| (.+) \|$", TABLE, re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", row)
    if "/psa_" not in code
]
GIVEN = {"FILE": "some.safetensors"}
ELSEWHERE = ("from psa import Experiment", "sagemaker-...")  # a line of Python, and a family of commands


@pytest.mark.parametrize("command", [each for each in SUCCESSORS if each not in ELSEWHERE])
def test_what_took_the_place_of_an_earlier_command_is_one(command: str) -> None:
    """It is installed, and its options and values are understood; they are bound, not run."""
    words = [GIVEN.get(word, word) for word in shlex.split(command)]
    if words[0].startswith("scripts/"):
        assert (ROOT / words[0]).is_file()
        return
    assert Path(sys.executable).with_name(words[0]).exists()
    if words[0].startswith(("make-", "generate-", "sagemaker-", "analyze-")) and len(words) == 1:
        return  # without options there is nothing more to understand
    assert understood(words)


def named_app(name: str) -> App:
    """Return the app of a command of its own, such as make-convergence-plots."""
    function = name.replace("-", "_")
    module = figures if hasattr(figures, function) else tables
    return cli.command(name, getattr(module, function))


def understood(words: list[str]) -> bool:
    """Bind the options and values of a command, without running it."""
    name, tokens = (words[1], words[2:]) if words[0] == "psa" else (words[0], words[1:])
    known = name in cli._COMMANDS
    app, tokens = cli._of_study(cli.app_of(name), tokens) if known else (named_app(name), tokens)
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    return bool(bound.arguments or not tokens)


def test_the_table_has_every_earlier_program() -> None:
    """Of each of the five, and the commands that two of them name alike once each."""
    rows = re.findall(r"^\| (.+?) \|", TABLE, re.MULTILINE)[1:]
    for program in ("poetry run train", "GloNet", "activations", "gradients", "memory"):
        assert any(program in row for row in rows), program
    for name in ("clean-all", "analyze-dataset", "make-figure-heatmaps", "run_matrix.py", "MNIST_runner.py"):
        assert any(name in row for row in rows), name


def significant(family: str) -> set[tuple[str, str, str]]:
    """The architecture, mode and difference of every pair of a committed table with p (Holm) below 0.05."""
    table = ROOT / f"results/reports/digits/digits_{family}/paired.md"
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.read_text().splitlines()]
    return {
        (row[0], row[1], row[3].split()[0]) for row in rows if row[2:3] == ["10"] and float(row[5]) < 0.05
    }


def test_the_guide_names_every_significant_difference_on_the_digits() -> None:
    """Those of both committed tables, and no other."""
    guide = (ROOT / "docs/reproduction.md").read_text()
    rows = re.findall(r"^\| (plain|residual) (\S+) \|(.*)\|(.*)\|(.*)\|$", guide, re.MULTILINE)
    named = {
        (family, arch.replace("\\", ""), mode, cell.strip())
        for family, arch, *cells in rows
        for mode, cell in zip(("full", "hidden", "output"), cells, strict=True)
        if cell.strip()
    }
    families = {"plain": "simplemlp", "residual": "resmlp"}
    assert named == {(name, *each) for name, family in families.items() for each in significant(family)}


UNITS = {"h": 3600, "min": 60, "s": 1}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "reproduction").glob("*.toml")), ids=lambda path: path.stem)
def test_every_grid_is_in_the_guide_to_reproduction(path: Path, tmp_path: Path) -> None:
    """Once, with its number of trials and the time that `psa plan` estimates for two workers on CPUs."""
    if path.stem in ("smoke", "search"):
        pytest.skip("for tests, and of settings")
    guide = (ROOT / "docs/reproduction.md").read_text()
    (row,) = [line for line in guide.splitlines() if line.startswith(f"| `{path.name}`")]
    planned = subprocess.run(
        [
            sys.executable, "-m", "psa", "plan", path, "--json", "--workers", "2", "--device", "cpu",
            "--model-dir", tmp_path / "models", "--results-dir", tmp_path / "results",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first = json.loads(planned.stdout)["stages"][0]
    assert f"| {first['trials']:,} " in row
    amount, unit = row.split(" | ")[3].split()
    assert round(first["seconds"] / UNITS[unit]) == int(amount)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
def test_the_cost_of_the_whole_study_is_as_estimated(family: str, tmp_path: Path) -> None:
    """On SageMaker, in the guide to reproduction and in the README, by a command that needs no account."""
    folders = ["--model-dir", tmp_path / "models", "--results-dir", tmp_path / "results"]
    grid = ROOT / f"reproduction/{family}.toml"
    planned = subprocess.run(
        [sys.executable, "-m", "psa", "plan", grid, "--backend", "sagemaker", "--device", "cpu", *folders],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    hours, dollars = re.search(r"jobs: ([\d.]+) instance-hours, \$([\d.]+) ", planned.stdout).groups()
    cost = f"{float(hours):.0f} instance-hours, ${float(dollars):.0f}"
    guide = (ROOT / "docs/reproduction.md").read_text()
    assert cost in next(line for line in guide.splitlines() if line.startswith("| SageMaker, ml.c5.xlarge "))
    if family == "simplemlp":
        assert f"estimates {cost.replace(',', ' and')}." in README


@pytest.mark.slow
def test_the_page_on_clusters_counts_the_packs_of_the_published_study(tmp_path: Path) -> None:
    """To the nearest ten."""
    planned = subprocess.run(
        [
            sys.executable, "-m", "psa", "plan", ROOT / "reproduction/simplemlp.toml", "--backend", "ray",
            "--workers", "2", "--device", "cpu", "--json",
            "--model-dir", tmp_path / "models", "--results-dir", tmp_path / "results",
        ],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    packs = sum(each["packs"] for each in json.loads(planned.stdout)["stages"][0]["packs"])
    assert f"about {round(packs, -1)} packs" in (ROOT / "docs/cluster.md").read_text().replace("\n", " ")


def test_the_page_on_open_questions_says_what_was_measured() -> None:
    """Each row of its table is one of the committed tables; of all arms those that are better are named."""
    page = (ROOT / "docs/questions.md").read_text()
    shown = re.findall(
        r"^\| (.+) \| (8|40) \| (\d+) \| (\S+ \[.+\]) \| ([\d.]+) \| (\S+ \[.+\]) \| ([\d.]+) \|$",
        page,
        re.MULTILINE,
    )
    assert len(shown) >= 7
    measured = {loops: arms_minus_none(loops) for loops in ("8", "40")}
    tested = {loops: arms_minus_none(f"test_{loops}") for loops in ("8", "40")}
    for arm, loops, archs, *cells in shown:
        assert measured[loops][arm] == (archs, *cells[:2])
        assert tested[loops][arm] == (archs, *cells[2:])
    for arms in (measured, tested):
        assert significant_arms(arms, "+") == {("none, patience 3", "40")}
    worse = [sum(loops == "8" for _, loops in significant_arms(arms, "-")) for arms in (measured, tested)]
    text = " ".join(page.split())
    assert (
        f"After 8 loops {worse[0]} of {len(measured['8'])} arms are significantly worse than mode `none` by "
        f"validation accuracy and {worse[1]} by test accuracy"
    ) in text
    untested = [arm for arm, (*_, p) in measured["40"].items() if arm.startswith("hidden") and p == "n/a"]
    assert f"{NUMBER_WORDS[len(untested)]} others were promoted on one or two architectures" in text
    for group, ends in (("least_", (-0.13, -0.22)), ("most_", (-2.86, -4.34))):
        names = [f"hidden, choice {group.replace('_', ' ')}{score}" for score in SCORES]
        found = [float(measured["8"][arm][1].split()[0]) for arm in names]
        assert (max(found), min(found)) == ends
    assert "0.13 to 0.22 points, the most important neurons 2.86 to 4.34 points" in text


NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SCORES = ("weight", "activation", "gradient", "contribution")
Arms = dict[str, dict[str, tuple[str, str, str]]]


def significant_arms(arms: Arms, sign: str) -> set[tuple[str, str]]:
    """The arms, with their loops, of p below 0.05 after the correction and a difference of this sign."""
    return {
        (arm, loops)
        for loops, rows in arms.items()
        for arm, (_, difference, p) in rows.items()
        if difference.startswith(sign) and p != "n/a" and float(p.strip("<*")) < 0.05
    }


def test_the_page_on_open_questions_counts_the_copies_of_mode_none() -> None:
    """Among the promoted places, by the histories of the first stage; and those of each arm by its table."""
    text = " ".join((ROOT / "docs/questions.md").read_text().split())
    folder = ROOT / "results/reports/questions/questions_simplemlp_arms"
    with (folder / "stages.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["Rule"].startswith("best")]
    frame = load_records_frame(ROOT / "results/published/questions.parquet", ["questions"])
    histories = histories_after(frame[frame["seed"] < 2], 8)
    copies: Counter[str] = Counter()
    for row in rows:
        arch = row["Candidate"].partition("arch=")[2].strip("[]")
        pairs = pairs_of(histories, row["Arm"], "none")
        mine = pairs[pairs.index.get_level_values("arch").astype(str) == arch]
        copies[row["Arm"]] += int(len(mine) == 2 and (mine["arm"] == mine["base"]).all())
    assert f"Of the {len(rows)} places in the second stage, {copies.total()} went to arms" in text
    assert +copies == {
        "none, patience 3": 8, "none, lr rule width:16": 3, "hidden, choice least weight": 1,
    }  # fmt: skip
    same = {row[0]: row[-2] for row in table_rows(folder / "arms_minus_none_8.md")}
    assert [same[f"hidden, choice least {score}"] for score in SCORES] == ["7", "5", "5", "5"]
    assert "of the 24 trials of `hidden, choice least weight`, 7 have the results" in text


def arms_minus_none(name: str) -> dict[str, tuple[str, str, str]]:
    """The arms of the committed table: architectures, difference and corrected p."""
    folder = ROOT / "results/reports/questions/questions_simplemlp_arms"
    rows = table_rows(folder / f"arms_minus_none_{name}.md")
    return {arm: (archs, difference, holm) for arm, archs, difference, _, holm, *_ in rows}


def test_the_memory_page_says_what_was_measured() -> None:
    """Means and paired differences are those of the committed tables."""
    page = (ROOT / "docs/memory.md").read_text()
    arms = {
        arm: cells for name in ("growth", "memory") for arm, *cells in committed_rows(name, "consolidated")
    }
    means = re.findall(r"^\| .* \| (\w+) \| ([\d.]+) % \|$", page, re.MULTILINE)
    assert len(means) == 8
    for arm, mean in means:
        assert arms[arm][-1].startswith(f"{mean} ±")
    pairs = [row for name in ("growth", "memory") for row in committed_rows(name, "comparisons")]
    shown = re.findall(r"^\| (\w+) - (\w+): .* \| (\S+ \[.*\]) \|$", page, re.MULTILINE)
    assert len(shown) == 5
    assert {tuple(each) for each in shown} <= {tuple(row) for row in pairs}
    guide = (ROOT / "docs/reproduction.md").read_text()
    assert "{}, {}, {} and {} %".format(*(dict(means)[arm] for arm in ("g9", "g8", "g2", "g4"))) in guide
    for one, other, difference in shown[:2]:
        mean, low, high = re.findall(r"[+-][\d.]+", difference)
        assert f"{mean} compared with" in guide or f"{mean} points compared with" in guide, (one, other)
        assert f"({low} to {high})" in guide


def test_the_memory_page_says_how_far_each_variant_moves_hidden_vectors() -> None:
    """Every row of its table of variants, the gains within one network, and the cost of the vote."""
    page = (ROOT / "docs/memory.md").read_text()
    runs = pd.read_csv(ROOT / "results/reports/memory/memory/runs.csv")
    means = (
        runs[runs["images"] == 12_000]
        .assign(arm=lambda rows: rows["arm"].str.partition(":")[0])
        .groupby("arm")[["relative", "with_memory", "without_memory", "test"]]
        .mean()
    )
    shown = re.findall(r"^\| (\w+), .* \| ([\d.]+) % \| (\S+ \[.*\]) \|$", page, re.MULTILINE)
    pairs = {(one, other): difference for one, other, difference in committed_rows("memory", "comparisons")}
    assert [arm for arm, *_ in shown] == ["a1", "a3", "long_steps", "a6"]
    for arm, moved, difference in shown:
        assert f"{100 * means.loc[arm, 'relative']:.2g}" == moved
        assert pairs[arm, "a0"] == difference
    assert float(shown[-1][1]) == float(f"{100 * means['relative'].max():.2g}")
    moved = shown[-1][1]
    mean, low, high = re.findall(r"[+-][\d.]+", shown[-1][2])
    assert (
        f"moves hidden vectors by {moved} % of their length differs by {mean} points "
        f"from no memory ({low} to {high})"
    ) in (ROOT / "docs/reproduction.md").read_text()
    text, (a6, plain, vote) = " ".join(page.split()), (means.loc[arm] for arm in ("a6", "a0", "a21"))
    assert f"reach {a6['without_memory']:.2f} % instead of {a6['with_memory']:.2f} %" in text
    assert f"without a memory reaches {plain['test']:.2f} %" in text
    assert f"gains {vote['test'] - plain['test']:.2f} points over the output of the same network" in text


def committed_rows(name: str, table: str) -> Iterator[list[str]]:
    """The arms of the second stage with their test accuracy, or the compared arms with their difference."""
    for line in (ROOT / f"results/reports/memory/{name}/{table}.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if table == "consolidated" and cells[0].startswith("12,000 samples"):
            yield [cells[1].partition(":")[0], cells[5]]
        elif table == "comparisons" and len(cells) > 7:
            yield [cells[1].partition(":")[0], cells[2].partition(":")[0], cells[6]]


def test_the_page_on_activations_says_what_was_measured() -> None:
    """Each row of its table of layers is one of the committed tables; the guide names one of them."""
    page = (ROOT / "docs/activations.md").read_text()
    folder = ROOT / "results/reports/activation_study/architectures"
    found = {
        row["Architecture"]: (row["Test (%)"], row["Epochs"]) for row in named_rows(folder / "results.md")
    }
    pairs = {
        arm: (difference, holm) for arm, _, _, difference, _, holm, *_ in table_rows(folder / "paired.md")
    }
    shown = re.findall(
        r"^\| `([\d*, ]+)` \| ([\d,]+) \| (.+) \| (.*) \| (.*) \| ([\d.]+) \|$", page, re.MULTILINE
    )
    assert {layers: (test, epochs) for layers, _, test, _, _, epochs in shown} == found
    assert {layers: (minus, holm) for layers, _, _, minus, holm, _ in shown if minus} == pairs
    built = {
        Trial.model_validate(record["spec"]).model.arch.label: f"{record['built']['parameters']:,}"
        for record in RecordStore(ROOT / "results/published/architectures.parquet").all()
    }
    assert {layers: parameters for layers, parameters, *_ in shown} == built
    assert all(float(holm) > 0.05 for _, holm in pairs.values())  # "none is significantly better or worse"
    test, epochs = found["1*512, 1*256, 1*128, 1*64"]
    mean, low, high = re.findall(r"[\d.]+", test)
    guide = (ROOT / "docs/reproduction.md").read_text()
    assert f"{mean} % ({low} to {high}), with early stopping after {epochs} epochs" in guide


def test_the_page_on_activations_shows_the_committed_table_of_activations() -> None:
    """Every row of it, and what the text below says of them."""
    page = (ROOT / "docs/activations.md").read_text()
    folder = ROOT / "results/reports/activation_study/activations"
    found = {
        name: (test, sd, epochs) for name, _, _, test, sd, *_, epochs, _ in table_rows(folder / "results.md")
    }
    pairs = {arm: (minus, holm) for arm, _, _, minus, _, holm, *_ in table_rows(folder / "paired.md")}
    shown = re.findall(
        r"^\| `([A-Z][^`]+)` \| (\S+ \[.+\]) \| (.*) \| (.*) \| ([\d.]+) \|$", page, re.MULTILINE
    )
    assert {name: (test, epochs) for name, test, _, _, epochs in shown} == {
        name: (test, epochs) for name, (test, _, epochs) in found.items()
    }
    assert {name: (minus, holm) for name, _, minus, holm, _ in shown if minus} == pairs
    means = {name: float(test.partition(" ")[0]) for name, (test, _, _) in found.items()}
    significant = {name for name, (_, holm) in pairs.items() if holm == "<0.001" or float(holm) < 0.05}
    assert significant == {name for name, mean in means.items() if mean < 60}
    assert sum(mean <= 11.35 for mean in means.values()) == 5
    assert means["LayerwiseSoftmax"] == 11.35
    for name in ("LayerwiseSoftmax(temperature=0.5)", "LayerwiseSoftmax(scale=100)"):
        assert f"{means[name]} %" in page
    widest = max(found, key=lambda name: float(found[name][1]))
    assert f"`{widest}` depends most on the seed (standard deviation {found[widest][1]} points)" in page
    words = " ".join(page.split())
    dead = [trial for name, trials in activation_trials("activations").items() for trial in trials]
    dead = [trial for trial in dead if max(trial.curve) < 12]
    assert f"The {len(dead)} trials of the five activations" in words
    stops = [len(trial.curve) for trial in dead]
    assert f"stopped after {min(stops)} to {max(stops)} epochs, which does not show" in words
    late = {
        name: [trial for trial in trials if trial.best == len(trial.curve) == 30]
        for name, trials in activation_trials("activations").items()
    }
    assert f"In {sum(map(len, late.values()))} trials of five activations epoch 30 was the best" in words
    assert len([name for name, trials in late.items() if trials]) == 5
    sparse = activation_trials("activations")["SparseMax"]
    assert late["SparseMax"] == [min(sparse, key=lambda trial: max(trial.curve))]
    decaying = {
        name: trials for name, trials in activation_trials("activations").items() if name.startswith("Decay")
    }
    tested = sorted(trial.best for trials in decaying.values() for trial in trials)
    assert f"the tested weights are of epochs {tested[0]} to {tested[-1]}" in words
    scales = [Activation.coerce(name).scale_at(each.best) for name, of in decaying.items() for each in of]
    assert f"where it is {min(scales):.1f} to {max(scales):.1f}" in words
    fallen = [each for of in decaying.values() for each in of if max(each.curve) - each.curve[-1] >= FALL]
    assert (len(fallen), len([each for each in fallen if each.curve[-1] < 11])) == (4, 3)
    stops = [len(each.curve) for each in decaying["DecayingRescaledReLU(schedule=exponential)"]]
    assert f"The exponential schedule was stopped after {min(stops)} to {max(stops)} epochs" in words
    (seeds,) = {row[2] for row in table_rows(folder / "paired.md")}
    guide = (ROOT / "docs/reproduction.md").read_text()
    assert f"(without dropout, {seeds} seeds, {int(seeds) * len(found)} trials)" in guide


def test_the_page_on_gradients_shows_the_purities_of_the_committed_pages() -> None:
    """Over the seeds; delta alone does as well as the gradient, and the image alone does not."""
    page = (ROOT / "docs/gradients.md").read_text()
    views = {
        "gradient of the output layer": ("output layer, at length 1", "classes"),
        "gradient of the hidden layer": ("hidden layer, at length 1", "classes"),
        "its delta alone": ("hidden layer, delta alone", "classes"),
        "its input, the image, alone": ("hidden layer, input alone", "classes"),
        "gradient of the hidden layer, digits permuted": (
            "hidden layer, at length 1",
            "permuted classes",
        ),
    }
    shown = re.findall(r"^\| (.+) \| ([\d.]+ to [\d.]+) \| ([\d.]+ to [\d.]+) \|$", page, re.MULTILINE)
    assert [name for name, *_ in shown] == list(views)
    for at, digits in enumerate(("all", "6-8-9"), 1):
        folder = ROOT / f"results/reports/gradients_study/gradients_1x512-{digits}"
        with (folder / "agreement.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        for line in shown:
            view, target = views[line[0]]
            found = [
                float(row["Purity"])
                for row in rows
                if (row["Gradients"], row["Clusters compared with"]) == (view, target)
            ]
            assert len(found) == 3
            assert line[at] == f"{min(found):.3f} to {max(found):.3f}"


def test_the_page_on_gradients_says_how_much_single_runs_of_k_means_differ() -> None:
    """For each of its sets of digits: the least and the greatest purity of the committed tables."""
    page = (ROOT / "docs/gradients.md").read_text().replace("\n", " ")
    ranges = []
    for digits in ("all", "6-8-9"):
        folder = ROOT / f"results/reports/gradients_study/gradients_1x512-{digits}"
        with (folder / "starts.csv").open(newline="") as file:
            found = [float(row["Purity"]) for row in csv.DictReader(file)]
        ranges.append(f"{min(found):.2f} to {max(found):.2f}")
    every, some = ranges
    assert f"purities of {every} with all digits, and of {some} with the" in page
    guide = (ROOT / "docs/reproduction.md").read_text()
    assert f"k-means give {every} (with the digits 6, 8 and 9 alone {some})" in guide


def test_the_page_on_depth_says_what_was_measured() -> None:
    """Each row of its table is one of the committed tables; what is said of 100 layers and more holds."""
    page = (ROOT / "docs/glonet.md").read_text()
    folder = ROOT / "results/reports/glonet_study/glonet"
    tests = {(model, layers): test for model, _, layers, _, _, test, *_ in table_rows(folder / "accuracy.md")}
    pairs = {row[2]: row[4] for row in table_rows(folder / "paired.md")}
    shown = re.findall(r"^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.MULTILINE)
    assert {layers for layers, *_ in shown} == {layers for _, layers in tests}
    for layers, glonet, mlp, difference in shown:
        assert (tests["GloNet", layers], tests["MLP", layers]) == (glonet, mlp)
        assert pairs[layers] == difference
    assert {tests["MLP", layers] for layers in ("100", "200")} == {"11.35 ± 0.00"}
    deepest = tests["GloNet", "200"].partition(" ")[0]
    assert f"A GloNet reaches {deepest} % with 200" in (ROOT / "docs/reproduction.md").read_text()
    assert f"{float(tests['GloNet', '6'].partition(' ')[0]) - float(deepest):.1f} points below" in page
    assert min(row[5] for row in table_rows(folder / "paired.md")) == "0.250"
    curves = depth_curves("mlp", "he")
    shown = re.findall(r"^\| (\d+) \| ([\d.]+ ± [\d.]+) \| ([\d.]+ ± [\d.]+) \|$", page, re.MULTILINE)
    assert [layers for layers, *_ in shown] == ["50", "60", "80"]
    for layers, last, best in shown:
        ends = [[curve[-1] for curve in curves[int(layers)]], [max(curve) for curve in curves[int(layers)]]]
        assert [last, best] == [f"{np.mean(each):.2f} ± {np.std(each, ddof=1):.2f}" for each in ends]
    words = " ".join(page.split())
    seventh, *others = (f"{value:.2f}" for value in curves[50][0][6:])
    assert f"{seventh} % after epoch 7, then {', '.join(others[:-1])} and {others[-1]} %" in words
    assert f"from {max(curves[80][0]):.2f} to {curves[80][0][-1]:.2f} %" in words
    assert max(curves[80][1]) < 12  # "another stayed at chance"


def depth_records(arch: str = "") -> Iterator[tuple[NetworkSpec, dict[str, Any]]]:
    """The networks of the study of depth (of one arch, if it is named) and their records, by id."""
    records = RecordStore(ROOT / "results/published/glonet.parquet").all()
    for record in sorted(records, key=lambda each: str(each["id"])):
        network = Trial.model_validate(record["spec"]).model
        if isinstance(network, NetworkSpec) and arch in ("", network.arch.label):
            yield network, record


def depth_curves(family: str, init: str) -> dict[int, list[list[float]]]:
    """The validation accuracies in percent after each epoch of the networks of 128 features, by layers."""
    found: dict[int, list[list[float]]] = {}
    for network, record in depth_records():
        if network.arch.label.endswith("*128") and (network.family, network.init) == (family, init):
            curve = [100 * each / record["samples"]["validation"] for each in record["history"]["correct"]]
            found.setdefault(len(network.arch.widths) + 1, []).append(curve)
    return found


def depth_tests(model: str, init: str, arch: str) -> Values:
    """The test accuracies in percent of the seeds of a network."""
    found = [
        100 * record["finals"]["test"]["correct"] / record["samples"]["test"]
        for network, record in depth_records(arch)
        if (network.family, network.init) == (model.lower(), init)
    ]
    return np.array(found)


def test_the_page_on_depth_says_what_the_initial_weights_change() -> None:
    """Each row of its second table is of two committed tables; the guide repeats the row of 50 layers."""
    page = (ROOT / "docs/glonet.md").read_text()
    tests = {
        (init, model, layers): test
        for init, folder in (("he", "glonet_study"), ("he-cut", "initial_weights"))
        for model, _, layers, _, _, test, *_ in table_rows(
            ROOT / f"results/reports/{folder}/glonet/accuracy.md"
        )
    }
    shown = re.findall(r"^\| (\d+) \| (\w+) \| (.+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    cut = {(model, layers) for init, model, layers in tests if init == "he-cut"}
    assert {(model, layers) for layers, model, *_ in shown} == cut
    for layers, model, *means, difference in shown:
        assert tuple(means) == (tests["he", model, layers], tests["he-cut", model, layers])
        network = f"{int(layers) - 1}*128"
        found = paired(*(depth_tests(model, init, network) for init in ("he-cut", "he")))
        assert difference == f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
        assert found.low < 0 < found.high  # "every interval includes 0"
    wide = {(*key, tuple(seeds)) for key, seeds in accuracies_of_wide_networks().items()}
    assert wide == {
        ("GloNet", "he", 2, ("96.5", "96.3")),
        ("GloNet", "he-cut", 2, ("96.5", "96.9")),
        ("MLP", "he", 2, ("76.4", "71.8")),
        ("MLP", "he-cut", 10, ("11.3", "11.3", "11.3")),
    }
    for *_, seeds in wide - {("MLP", "he-cut", 10, ("11.3",) * 3)}:
        assert f"{' and '.join(seeds)} %" in page
    guide = (ROOT / "docs/reproduction.md").read_text()
    for model in ("GloNet", "MLP"):
        mean = tests["he-cut", model, "50"].partition(" ")[0]
        assert f"{mean} % for the {model}" in guide


def accuracies_of_wide_networks() -> dict[tuple[str, str, int], list[str]]:
    """The test accuracies in percent of the networks of 256 features, by model, weights and epochs."""
    found: dict[tuple[str, str, int], list[str]] = {}
    for network, record in depth_records("49*256"):
        model = "GloNet" if network.family == "glonet" else "MLP"
        share = record["finals"]["test"]["correct"] / record["samples"]["test"]
        found.setdefault((model, network.init, record["loops"]), []).append(f"{100 * share:.1f}")
    return found


def test_the_page_on_activations_shows_the_committed_table_of_stochastic_layers() -> None:
    """Every row of it, and what the text below says of them."""
    page = (ROOT / "docs/activations.md").read_text()
    rows = list(table_rows(ROOT / "results/reports/activation_study/stochastic/results.md"))
    found = [(row[0], row[2], row[4], row[-1]) for row in rows]
    shown = re.findall(r"^\| `(\S+)` \| ([\d.]+) \| (\S+ \[.+\]) \| ([\d.]+) \|$", page, re.MULTILINE)
    assert shown == found
    guide = (ROOT / "docs/reproduction.md").read_text()
    temperatures = ", ".join(dict.fromkeys(row[2] for row in rows))
    assert f"(temperatures {temperatures}, 3 seeds, {3 * len(rows)} trials)" in guide
    assert {row[3] for row in rows} == {"3"}
    tests = {(row[0], row[2]): float(row[4].partition(" ")[0]) for row in rows}
    trials = activation_trials("stochastic")
    changed = [
        abs(one.test - other.test)
        for at in ("0.01", "0.1", "1")
        for one, other in zip(trials[f"RescaledReLU(scale=100) {at}"], trials[f"Identity {at}"], strict=True)
    ]
    assert f"of no seed by more than {max(changed):.2f} points" in " ".join(page.split())
    first, second, third = trials["Identity 1"]
    words = " ".join(page.split())
    assert f"seeds 0 and 2 were stopped after {len(first.curve)} and {len(third.curve)} epochs" in words
    assert max(second.curve[:17]) < 12 < second.curve[17]
    assert (second.best, len(second.curve)) == (30, 30)
    assert f"a validation accuracy of {second.curve[-1]:.2f} %" in words
    stops = [len(each.curve) for each in trials["SparseMax(scale=100) 0.01"]]
    assert f"at 0.01 were stopped after {min(stops)} to {max(stops)} epochs" in words
    assert tests["SparseMax(scale=100)", "0.01"] < 11.35
    (widest,) = (row[5] for row in rows if row[0] == "Identity" and row[2] == "1")
    assert f"the seeds differ widely there (standard deviation {widest} points)" in words
    pairs = {
        row[0]: row for row in table_rows(ROOT / "results/reports/activation_study/stochastic/paired.md")
    }
    at = "SparseMax(scale=100), temperature "
    assert [pairs[at + value][-1] for value in ("0.01", "0.1", "1")] == [
        "lower",
        "higher",
        "not significantly different",
    ]
    assert pairs[f"{at}0.1"][3].startswith("+7.63 ")


@dataclass(frozen=True)
class ActivationTrial:
    """A stored trial: validation accuracies in percent after each epoch, tested epoch, test accuracy."""

    curve: list[float]
    best: int
    test: float


@cache
def activation_trials(bundle: str) -> dict[str, list[ActivationTrial]]:
    """The trials of a bundle by activation (and temperature), in the order of seeds."""
    found: dict[str, list[ActivationTrial]] = {}
    records = RecordStore(ROOT / f"results/published/{bundle}.parquet").all()
    for record in sorted(records, key=lambda each: int(each["spec"]["seed"])):
        finals, sizes = record["finals"], record["samples"]
        curve = [100 * each / sizes["validation"] for each in record["history"]["correct"]]
        test = 100 * finals["test"]["correct"] / sizes["test"]
        model = Trial.model_validate(record["spec"]).model
        assert isinstance(model, NetworkSpec)
        name = model.activation.label
        name += f" {model.temperature:g}" if bundle == "stochastic" else ""
        found.setdefault(name, []).append(ActivationTrial(curve, finals["bounty"]["loop"], test))
    return found


def named_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a committed Markdown table by the names of its columns."""
    heading = next(line for line in path.read_text().splitlines() if line.startswith("|"))
    names = [cell.strip() for cell in heading.strip("|").split("|")]
    for row in table_rows(path):
        yield dict(zip(names, row, strict=True))


def table_rows(path: Path) -> Iterator[list[str]]:
    """The rows of a committed Markdown table, without bold and escapes."""
    lines = [line for line in path.read_text().splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield [cell.strip().replace("\\", "").replace("**", "") for cell in line.strip("|").split("|")]
