"""What a Python user meets first: the names of `psa` itself, and `python -m psa`."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

import psa

AS_SCRIPT = ("-c", "from psa.cli.app import main; main()")


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the checkout."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_psa_loads_no_library() -> None:
    """It takes milliseconds; what a name needs is loaded with the name."""
    done = python(
        "-c", "import sys; before = set(sys.modules); import psa; print(*set(sys.modules) - before)"
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "psa" in loaded
    assert loaded <= {"psa", *sys.stdlib_module_names}
    assert [name for name in done.stdout.split() if name.startswith("psa.")] == []


def test_trial_and_store_load_no_torch() -> None:
    """The two names that plan, and look up what is stored."""
    done = python(
        "-c", "import sys; from psa import Store, Trial; print({'torch', 'pandas'} & set(sys.modules))"
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize(("name", "module"), sorted(psa._MODULES.items()))
def test_a_public_name_is_that_of_its_module(name: str, module: str) -> None:
    """Asked for once or twice."""
    value = getattr(importlib.import_module(module), name)
    assert getattr(psa, name) is value
    assert getattr(psa, name) is value
    assert value.__module__ == module


def test_the_public_names_are_listed() -> None:
    """For dir, for completion and for `from psa import *`."""
    assert {*psa._MODULES, "__version__"} == set(psa.__all__)
    assert set(psa.__all__) <= set(dir(psa))


def test_type_checkers_see_the_same_names() -> None:
    """They read the imports that Python skips."""
    tree = ast.parse((ROOT / "psa/__init__.py").read_text())
    skipped = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in skipped.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == psa._MODULES


def test_another_name_is_no_attribute() -> None:
    """The error is Python's own."""
    with pytest.raises(AttributeError, match="module 'psa' has no attribute 'Experimnt'"):
        _ = psa.Experimnt
    with pytest.raises(ImportError, match="cannot import name 'Experimnt' from 'psa'"):
        exec("from psa import Experimnt")  # noqa: S102 - the text stands here


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [[], ["train", "--help"], ["--version"], ["trian"], ["train", "--no-such-option"], ["plan"]]
)
def test_python_m_psa_is_psa(arguments: list[str]) -> None:
    """The same words and the same exit code; usage lines and hints name the command that was typed."""
    module, script = python("-m", "psa", *arguments), python(*AS_SCRIPT, *arguments)
    assert module.returncode == script.returncode
    for said, expected in ((module.stdout, script.stdout), (module.stderr, script.stderr)):
        assert said.replace("python -m psa", "psa") == expected
    assert ("python -m psa" in module.stdout + module.stderr) == (arguments != ["--version"])


def test_completion_is_that_of_the_script(tmp_path: Path) -> None:
    """A shell completes `psa`, however its completion was installed."""
    done = python("-m", "psa", "--install-completion", HOME=str(tmp_path), SHELL="/bin/bash")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".local/share/bash-completion/completions/psa").is_file()
