"""docs/architecture.md: the files that a trial passes, and the walks of a newcomer, followed in the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest
from paths import ROOT

PAGE = ROOT / "docs/architecture.md"
STEP = re.compile(r"( *)(?:\d+\.|-) \[([^\]]+)\]\(\.\./([^)]+)\) ((?:`[\w.]+`(?:, )?)+): \S.*[^,]$")
LISTED = re.compile(r" *(?:\d+\.|-) ")


@dataclass
class Step:
    """A line of a walk: a file, the functions that are read in it, and the step that calls the first."""

    depth: int
    file: str
    link: str
    functions: tuple[str, ...]
    callers: list[Step] = field(default_factory=list)


def section(title: str) -> str:
    """The text below a heading, up to the next one of its level or above."""
    level, text = title.partition(" ")[0], PAGE.read_text()
    _, _, rest = text.partition(f"\n{title}\n")
    assert rest, title
    return re.split(rf"^#{{1,{len(level)}}} ", rest, flags=re.MULTILINE)[0]


def steps(text: str) -> list[Step]:
    """The steps of a list. What is indented is called from above and returns; a line in the list without a
    link stands for something stored, behind which the reading begins anew.
    """
    found: list[Step] = []
    above: list[Step] = []
    for line in text.splitlines():
        if not LISTED.match(line):
            continue
        match = STEP.fullmatch(line)
        if match is None:
            assert "](" not in line, f"no step: {line}"
            above = []
            continue
        step = Step(len(match[1]), match[2], match[3], tuple(re.findall(r"`([\w.]+)`", match[4])))
        siblings = [each for each in above if each.depth == step.depth]
        parent = next((each for each in reversed(above) if each.depth < step.depth), None)
        step.callers = siblings + [parent] * (parent is not None) if step.depth else siblings[-1:]
        above = [each for each in above if each.depth <= step.depth] + [step]
        found.append(step)
    return found


@cache
def parsed(file: str) -> ast.Module:
    """The syntax tree of a file of the project."""
    return ast.parse((ROOT / file).read_text())


def defined(file: str, name: str) -> ast.AST:
    """The function or class of that name; `a.b` is a method, or a function within a function."""
    node: ast.AST = parsed(file)
    for part in name.split("."):
        inside = [
            each for each in ast.iter_child_nodes(node)
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and each.name == part
        ]  # fmt: skip
        assert inside, f"{file} defines no {name}"
        node = inside[0]
    return node


def mentioned(file: str, name: str) -> Iterator[str]:
    """Every name that a function uses or imports, and the words of the constants of its file that it uses."""
    constants = {
        node.targets[0].id if isinstance(node, ast.Assign) else node.target.id: node.value.value
        for node in parsed(file).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant)
    }  # fmt: skip
    for node in ast.walk(defined(file, name)):
        match node:
            case ast.Name():
                yield node.id
                yield from re.findall(r"\w+", str(constants.get(node.id, "")))
            case ast.Attribute():
                yield node.attr
            case ast.ImportFrom():
                yield from (alias.name for alias in node.names)


def reached(step: Step) -> None:
    """Assert that each function is used by one before it: in this step, or in one that calls it."""
    known = {
        name for caller in step.callers for each in caller.functions for name in mentioned(caller.file, each)
    }
    for number, function in enumerate(step.functions):
        defined(step.file, function)
        if step.callers or number:
            last = function.rpartition(".")[2]
            assert last in known, f"{step.file}: nothing before it uses {function}"
        known |= set(mentioned(step.file, function))


def follow(text: str) -> None:
    """Assert of every step of a list that it is reached."""
    for step in steps(text):
        reached(step)


WALKS = [
    "### From `psa train --lr` to the optimizer",
    "### From `mode` in a TOML file to the ablation",
    "### From a loop to a LaTeX cell",
]


@pytest.mark.parametrize("title", ["## The life of a trial", *WALKS])
def test_a_step_names_a_file_and_its_functions(title: str) -> None:
    """Every link leads to the file it shows, and the file defines what is named behind it."""
    for step in steps(section(title)):
        assert step.file == step.link
        for function in step.functions:
            defined(step.file, function)


@pytest.mark.parametrize("title", WALKS)
def test_every_step_is_reached_from_the_one_before(title: str) -> None:
    """Its function stands in the body of the function that the walk comes from."""
    assert len(steps(section(title))) >= 6
    follow(section(title))


@pytest.mark.parametrize("title", WALKS)
def test_no_walk_goes_back_into_a_file_that_it_left(title: str) -> None:
    """What a file has to say is read in one place of the walk."""
    files = [step.file for step in steps(section(title))]
    assert sorted(files) == sorted(set(files))


def test_a_trial_passes_twelve_files() -> None:
    """Each once, on a line of its own."""
    files = [step.file for step in steps(section("## The life of a trial"))]
    assert len(files) == len(set(files)) == 12


def test_a_step_that_nothing_leads_to_is_noticed() -> None:
    """The rules above see a wrong file, an unknown function, and one that is not called from there."""
    text = (
        "1. [psa/engine/loop.py](../psa/engine/loop.py) `run_loops`, `_train_one`: a loop.\n"
        "   - [psa/engine/policies.py](../psa/engine/policies.py) `RatchetPolicy.begin_epoch`: begins it.\n"
        "2. [psa/engine/train_step.py](../psa/engine/train_step.py) `train_epoch`: trains it.\n"
    )
    follow(text)
    for wrong in (
        text.replace("`train_epoch`", "`padded`").replace("`run_loops`, `_train_one`", "`row_of`"),
        text.replace("RatchetPolicy.begin_epoch", "RatchetPolicy.start"),
        text.replace("`train_epoch`", "`batch_sizes`").replace(", `_train_one`", ""),
    ):
        with pytest.raises(AssertionError):
            follow(wrong)
