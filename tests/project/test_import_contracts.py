"""The contracts of import-linter in pyproject.toml: they hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
# contract, a file, and an import that it must not have
PLANTED = (
    ("psa-layers", "psa/core/rng.py", "from psa.specs.trial import Trial"),
    ("psa-layers", "psa/nn/dense.py", "from psa.data.splits import Split"),
    ("psa-layers", "psa/engine/loop.py", "def late(): from psa.execution.worker.run import run_pack"),
    ("psa-layers", "psa/newcomer.py", ""),
    ("cloud-layers", "cloud/aws/errors.py", "from cloud.ray.backend import RayBackend"),
    ("no-cloud", "psa/reports/wording.py", "import cloud.cache"),
    ("no-cloud", "psa/execution/backend.py", "def late(): import boto3"),
    ("light-base", "psa/storage/store.py", "def late(): import torch"),
    ("planning", "psa/cli/console.py", "import torch.nn"),
    ("records-only", "psa/analysis/stats.py", "from psa.engine.loop import run_loops"),
    ("reports-read", "psa/reports/wording.py", "from psa.execution.worker.run import run_pack"),
    ("studies-apart", "psa/reports/glonet/claims.py", "from psa.reports.memory.runs import build_runs"),
    ("acyclic", "psa/core/errors.py", "from psa.core.files import file_error"),
)


def linted(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages of a folder."""
    options = [f"--contract={contract}" for contract in contracts]
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    command = [sys.executable, "-c", script, "--no-cache", *options]
    env = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("psa", "cloud"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.fixture
def planted(copy: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The packages with one more import, at the end of a file."""
    name, line = request.param
    path = copy / name
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n{line}\n")
    yield copy
    path.unlink() if before is None else path.write_text(before)


def test_the_contracts_are_kept() -> None:
    """What `make lint` runs."""
    done = linted(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("contract", "planted"),
    [(contract, (name, line)) for contract, name, line in PLANTED],
    ids=[f"{contract}-{name}" for contract, name, _ in PLANTED],
    indirect=["planted"],
)
def test_a_contract_breaks_at_a_planted_import(contract: str, planted: Path) -> None:
    """In a function, too."""
    done = linted(planted, contract)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 kept, 1 broken" in done.stdout


def test_each_contract_has_its_planted_import() -> None:
    """None is left out that could not fail."""
    assert {contract["id"] for contract in CONTRACTS} == {contract for contract, _, _ in PLANTED}
