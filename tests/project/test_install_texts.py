"""Texts that say how to install something: they reach this project or what it declares, and nothing else.

`psa` on the package index is another project's. Whoever typed `pip install 'psa[ray]'` ran its setup.py.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from psa.core import extras

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
TEXTS = sorted(
    path
    for pattern in (
        "*.md", "Makefile", ".env.example", "docs/*.md", "docs/*.ipynb", "reproduction/*", "tools/*",
        "psa/**/*.py", "cloud/**/*.py", "scripts/**/*.py", "benchmarks/**/*.py",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and path != Path(__file__)
)  # fmt: skip
INSTALL = re.compile(
    r"\b(?:pip3?|uv|pipx|poetry|conda|mamba|easy_install|uvx)\s+(?:tool\s+|pip\s+)?"
    r"(?:install|download|wheel|add|run --with)\s+([^`\n;&]*)"
)
HOME = ROOT / "psa/core/extras.py"  # the one place of the source that puts such a line together
EXTRAS_OPTION = re.compile(r"(?:EXTRAS=|--extras )(?:\"([\w ]+)\"|([\w-]+))")


def strangers(line: str) -> list[str]:
    """Return what the install commands in a line name, but for paths, options and requirements files."""
    found = []
    for match in INSTALL.finditer(line):
        arguments = EXTRAS_OPTION.sub("", match[1]).split(" (")[0]
        words = [word.strip("\"'.,:)\\") for word in re.split(r"\s+", arguments)]
        files = {words[i + 1] for i, word in enumerate(words[:-1]) if word in {"-r", "--requirement"}}
        raw = [word.strip("\"'") for word in re.split(r"\s+", arguments)]
        found += [
            word
            for word, plain in zip(words, raw, strict=True)
            if word and not plain.startswith(("-", "./", "/", ".[")) and word not in files
        ]
    return found


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("pip install 'psa[ray]'", ["psa[ray]"]),
        ('  - pip install "psa[ray]"', ["psa[ray]"]),
        ("python -m pip install -U psa", ["psa"]),
        ("pip download psa", ["psa"]),
        ("uv add psa", ["psa"]),
        ("uv pip install psa", ["psa"]),
        ("poetry add psa", ["psa"]),
        ("conda install -y psa", ["psa"]),
        ("Install it: pip install {name}", ["{name}"]),
        ("pip install ./a-1.0-py3-none-any.whl psa", ["psa"]),
        ('pip install "./a-1.0-py3-none-any.whl[ray]"', []),
        ("pip install --editable '/some/where[ray]'", []),
        ("python -m pip install --quiet -r requirements.txt", []),
        ('`poetry install --extras "ray aws"`', []),
    ],
)
def test_the_rule_knows_a_name_from_a_path(line: str, named: list[str]) -> None:
    """A test that could not fail would prove nothing."""
    assert strangers(line) == named


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_installs_a_distribution_by_name(path: Path) -> None:
    """README, docs, notebooks, messages, help and comments."""
    if path != HOME:
        assert [name for line in path.read_text().splitlines() for name in strangers(line)] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_extra_that_a_text_names_exists(path: Path) -> None:
    """In `make install EXTRAS=...` and `poetry install --extras ...`, and where a message asks for one."""
    text = path.read_text()
    named = {name for match in EXTRAS_OPTION.findall(text) for name in " ".join(match).split()}
    if path.is_relative_to(ROOT / "psa") or path.is_relative_to(ROOT / "cloud"):
        named |= set(re.findall(r"how_to_install\(\"(\w+)\"\)", text))
    assert named <= EXTRAS | {"all"}


def installations(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[str]:
    """Return what is said in a checkout that make set up, in one with another environment, from a wheel."""
    monkeypatch.setattr(extras, "__file__", str(folder / "psa/core/extras.py"))
    said = [extras.how_to_install("ray")]
    for name in ("Makefile", "pyproject.toml"):
        (folder / name).touch()
    said.append(extras.how_to_install("ray"))
    monkeypatch.setattr(sys, "prefix", str(folder / ".venv"))
    said.append(extras.how_to_install("ray"))
    monkeypatch.chdir(folder)
    return [*said, extras.how_to_install("ray")]


def test_messages_name_a_command_for_every_kind_of_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that works where psa was installed in this way, from the folder in which it is typed."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    wheel, own, elsewhere, here = installations(monkeypatch, folder)
    assert wheel == (
        f'Install it with: pip install "./{extras.WHEEL}[ray]" (make wheel builds that file in a checkout)'
    )
    assert own == f"Install it with: {sys.executable} -m pip install --editable '{folder}[ray]'"
    assert elsewhere == f"Install it with: make -C '{folder}' install EXTRAS=ray"
    assert here == "Install it with: make install EXTRAS=ray"


def test_the_distribution_has_a_name_of_its_own() -> None:
    """Commands and packages keep theirs; the wheel is called as the texts call it."""
    assert PROJECT["name"] == extras.DISTRIBUTION == "persistent-stochastic-ablation"
    name = PROJECT["name"].replace("-", "_")
    assert f"{name}-{PROJECT['version']}-py3-none-any.whl" == extras.WHEEL
    for path in TEXTS:
        for wheel in re.findall(r"\bpersistent_stochastic_ablation-[^\s\"'\[:]+\.whl", path.read_text()):
            assert wheel == extras.WHEEL, path
