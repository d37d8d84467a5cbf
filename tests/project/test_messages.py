"""Messages, help texts and docstrings say what must hold, and not what a value fails to be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("psa", "cloud") for path in (ROOT / package).rglob("*.py"))
# "there is no grid x.toml" is plain English, "'x' is no grid" is not.
NEGATED = re.compile(r"(?<!there )(?<!There )\bis no (?!longer\b|more\b|better\b|other\b)\S+")


def texts_in(source: str) -> Iterator[str]:
    """The texts of a module on one line each, a value in a text as {}."""
    tree = ast.parse(source)
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            values = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield " ".join("".join(map(str, values)).split())
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield " ".join(node.value.split())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_text_says_what_a_value_fails_to_be(path: Path) -> None:
    """Write "X must be A, got B"."""
    assert [text for text in texts_in(path.read_text()) if NEGATED.search(text)] == []


@pytest.mark.parametrize(
    "source",
    [
        'raise ValueError(f"{value!r} is no role")',
        'f"{where} " f"is no TOML: {error}"',
        'def f():\n    """Return it.\n\n    An empty one is\n    no error.\n    """',
    ],
)
def test_the_search_finds_such_texts(source: str) -> None:
    """In strings, in f-strings of several parts and over the lines of a docstring."""
    assert any(NEGATED.search(text) for text in texts_in(source))


@pytest.mark.parametrize(
    "text", ["there is no grid x", "Raise UserError where there is no record", "is no longer"]
)
def test_the_search_lets_plain_english_pass(text: str) -> None:
    """A thing that does not exist may be named as such."""
    assert NEGATED.search(text) is None
