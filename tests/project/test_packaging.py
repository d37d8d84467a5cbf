"""The project as it is locked, set up, installed and called."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from paths import ROOT
from set_up import load_tool

import psa

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]


def make(*arguments: str) -> str:
    """What make says; a make that runs these tests lends it no flags and no variables."""
    lent = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "ARGS", "TESTED", "PYTHON"}
    plain = {name: value for name, value in os.environ.items() if name not in lent}
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=plain, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def environment() -> ModuleType:
    """tools/environment.py, which no package holds."""
    return load_tool("environment")


def test_lock_holds_one_version_of_each_package() -> None:
    """Two versions of one package cannot be installed with --no-deps, nor side by side."""
    locked = Counter(
        package["name"] for package in tomllib.loads((ROOT / "poetry.lock").read_text())["package"]
    )
    assert locked["torch"] == 1
    assert {name for name, versions in locked.items() if versions > 1} == set()


def test_plain_installation_holds_no_cloud_library() -> None:
    """The core runs where ray, boto3, sagemaker and dotenv were never installed."""
    names = {re.split(r"[^\w-]", line, maxsplit=1)[0] for line in PROJECT["project"]["dependencies"]}
    assert "torch" in names
    assert not names & {"ray", "boto3", "sagemaker", "dotenv", "python-dotenv", "stamina"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_entry_point_is_callable(script: str) -> None:
    """Every command the installation lays leads to a function."""
    module, _, function = SCRIPTS[script].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_one_version_number() -> None:
    """The package and the file for citations say the version that is built."""
    assert psa.__version__ == PROJECT["project"]["version"]
    assert f"version: {psa.__version__}" in (ROOT / "CITATION.cff").read_text().splitlines()


def test_poetry_keeps_its_environment_in_the_project() -> None:
    """`poetry run train` finds the .venv that make laid, and the other way round."""
    assert tomllib.loads((ROOT / "poetry.toml").read_text()) == {"virtualenvs": {"in-project": True}}


def test_poetry_is_pinned_to_what_wrote_the_lock() -> None:
    """Set-up reads the lock with the Poetry that wrote it, and installs that Poetry's whole tree by name."""
    lines = (ROOT / "tools" / "poetry.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; .+)?", pin)] == []
    version = re.match(r"# .* by Poetry (\S+) ", (ROOT / "poetry.lock").read_text().splitlines()[0])
    assert version is not None
    assert f"poetry=={version[1]}" in pins


@pytest.mark.slow
def test_help_lists_targets_that_exist() -> None:
    """`make` alone lists the targets; each can be planned, and names only files that are there."""
    targets = [line.split()[1] for line in make().splitlines()]
    assert {"train", "test", "check"} <= set(targets)
    for target in targets:
        planned = make("--dry-run", target)
        assert {name for name in re.findall(r"tools/\w+\.py", planned) if not (ROOT / name).exists()} == set()


def test_train_sets_up_no_extra() -> None:
    """`make train` installs the plain dependencies alone; `make test` adds what the tests need."""
    assert re.search(r"--(group|extra)", make("--dry-run", "train")) is None
    assert "--group=dev" in make("--dry-run", "test")


def test_options_of_a_target_can_be_replaced() -> None:
    """ARGS takes the place of a target's own options, `make check TESTED=1` leaves out the tests alone."""
    assert make("--dry-run", "train", "ARGS=--arch 3*8").splitlines()[-1].endswith(" run train --arch 3*8")
    whole, rest = (make("--dry-run", "check", *more).splitlines() for more in ([], ["TESTED=1"]))
    assert (
        [line for line in whole if line not in rest] == [line for line in whole if "-m pytest" in line] != []
    )


def test_supported_pythons_are_the_same_everywhere(environment: ModuleType) -> None:
    """pyproject.toml, the Makefile and the set-up agree on the range."""
    first, end = environment.SUPPORTED
    wanted = f">={environment.dotted(first)},<{environment.dotted(end)}"
    assert PROJECT["project"]["requires-python"] == wanted
    assert f"{first} <= sys.version_info < {end}" in (ROOT / "Makefile").read_text()


def test_stamp_counts_for_the_same_sources_only(environment: ModuleType, tmp_path: Path) -> None:
    """A stamp made from something else, or torn, says that nothing is installed."""
    venv = environment.Environment(tmp_path)
    assert venv.extent("this lock") == set()
    venv.seal("this lock", {"plain", "--with=dev"})
    assert venv.extent("this lock") == {"plain", "--with=dev"}
    assert venv.extent("another lock") == set()
    venv.stamp.write_text(venv.stamp.read_text()[:-3])
    assert venv.extent("this lock") == set()


def test_unfinished_environment_is_made_again(environment: ModuleType, tmp_path: Path) -> None:
    """A folder without an interpreter, or whose making was cut short, is no environment."""
    assert environment.Environment(tmp_path).version() is None
    working = environment.Environment(Path(sys.prefix))
    assert working.version() == sys.version_info[:2]
    working.unfinished = tmp_path / "unfinished"
    working.unfinished.touch()
    assert working.version() is None


def test_half_laid_packages_are_forgotten(environment: ModuleType, tmp_path: Path) -> None:
    """After a kill, what pip had not finished is installed again; what it had finished stays."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name in ("whole-1.dist-info", "torn-1.dist-info", "~hole-0.dist-info", "~hole", "whole"):
        (packages / name).mkdir(parents=True)
        (packages / name / "METADATA").touch()
    (packages / "whole-1.dist-info" / "INSTALLER").write_text("pip\n")
    environment.Environment(tmp_path).sweep()
    assert {left.name for left in packages.iterdir()} == {"whole", "whole-1.dist-info"}


def test_linter_settings_ask_for_no_new_installation(
    environment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up follows the parts of pyproject.toml that an installation depends on, and no others."""
    text = (ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    needs = []
    for version in (
        text,
        text.replace("line-length = 1", "line-length = 9"),
        text.replace('"numpy>', '"numpi>'),
    ):
        (tmp_path / "pyproject.toml").write_text(version)
        needs.append(environment.needs())
    assert needs[0] == needs[1] != needs[2]


@pytest.mark.slow
def test_the_page_says_how_much_is_published() -> None:
    """By the bundles, not by hand."""
    done = subprocess.run([sys.executable, "tools/published_page.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_page_on_performance_is_that_of_the_measured_rows() -> None:
    """The numbers are those of benchmarks/measured, not typed."""
    done = subprocess.run([sys.executable, "tools/benchmark_page.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_every_command_starts_in_psa() -> None:
    """Another package called cloud may stand before psa's own on Python's path; then the command says so."""
    assert all(target.startswith("psa.") for target in SCRIPTS.values())
