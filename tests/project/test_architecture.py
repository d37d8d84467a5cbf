"""House rules that no linter knows: who imports whom, what planning loads, where chance comes from."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from paths import ROOT

FILES = sorted(path for package in ("psa", "cloud") for path in (ROOT / package).rglob("*.py"))
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / "psa")]

MOST_LINES = 299
MOST_ENTRIES = {ROOT / "psa": 16}  # of any other folder 13


def name_of(path: Path) -> str:
    """`psa.specs.shapes` of its file; a package is its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in FILES}


def imports(path: Path) -> Iterator[str]:
    """The modules a file imports anywhere in it, also for types only; `psa.x`, not `psa.x.name`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides what it names"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else str(node.module)


def named(path: Path) -> str:
    """A test's name for a file."""
    return str(path.relative_to(ROOT))


def test_no_files_import_each_other_in_a_circle() -> None:
    """Contracts of import-linter know packages beside each other, and this also a package and what is in it.

    Left out is the front door, psa/__init__.py, which loads its names when they are asked for.
    """
    imported = {name: set(imports(path)) & set(MODULES) for name, path in MODULES.items() if name != "psa"}
    tuple(TopologicalSorter(imported).static_order())  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    """What is longer holds two things."""
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=named)
def test_a_folder_can_be_seen_at_a_glance(folder: Path) -> None:
    """What is larger holds two things. Not counted: what only caches are left of, and the empty py.typed."""
    left = [path for path in folder.iterdir() if path.is_dir() and not any(path.rglob("*.py"))]
    entries = {path.name for path in folder.iterdir() if path not in left} - {"py.typed"}
    assert len(entries) <= MOST_ENTRIES.get(folder, 13), sorted(entries)


PLANNING = ("psa.core", "psa.specs", "psa.storage", "psa.execution", "psa.experiments", "psa.cli")
# What trains, what trains again, and the listeners whose libraries bring much with them.
TRAINING = (
    "psa.execution.replay",
    *(
        f"psa.execution.worker.{name}"
        for name in ("__main__", "benchmark", "halving", "record", "run", "server")
    ),
    *(f"psa.experiments.tracking.{name}" for name in ("mlflow", "tensorboard", "trackio", "wandb")),
)


def test_planning_loads_nothing_heavy() -> None:
    """All that the commands import at once: no torch, no ray, no boto3, nothing for tables and figures."""
    heavy = {"torch", "torchvision", "ray", "boto3", "pandas", "scipy", "sklearn", "matplotlib", "pickle5"}
    planning = [name for name in MODULES if name.startswith(PLANNING) and name not in TRAINING]
    script = f"import sys, {', '.join(planning)}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "[]\n"


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call with the dotted name of what is called: `np.random.rand`, `.uniform_` of any value."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def dotted(node: ast.AST) -> str:
    """`a.b.c`; what is not a plain name is left out: `.c`."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


SPEAKING = ("psa.cli.app", "psa.cli.console", "psa.cli.commands")


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if not name_of(path).startswith(SPEAKING)], ids=named
)
def test_only_the_commands_print(path: Path) -> None:
    """Library code returns, logs and raises."""
    assert "print" not in {name for name, _ in calls(ast.parse(path.read_text()))}


UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE |= {"yaml", "ruamel", "xmlrpc"}
UNSAFE_CALLS = {
    "torch.load",
    "torch.save",
    "np.load",
    "np.save",
    "numpy.load",
    "numpy.save",
    "pd.read_pickle",
    "pandas.read_pickle",
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "tempfile.mktemp",
}
UNSAFE_METHODS = {"extractall", "read_pickle", "to_pickle", "unpack_archive"}
UNSAFE_OPTIONS = {"shell", "allow_pickle"}
ALL_FILES = [
    path for folder in ("psa", "cloud", "scripts", "tools") for path in (ROOT / folder).rglob("*.py")
]


def unsafe(source: str) -> list[str]:
    """What a source calls that could run what it is handed, or unpack it wherever it likes."""
    found = []
    for name, call in calls(ast.parse(source)):
        options = {option.arg for option in call.keywords if not _is_off(option.value)}
        if name in UNSAFE_CALLS or name.rpartition(".")[2] in UNSAFE_METHODS or options & UNSAFE_OPTIONS:
            found.append(name)
    return found


def _is_off(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("path", sorted(ALL_FILES), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled(path: Path) -> None:
    """No pickle, no shell and no code from a text anywhere, but for the published arrays of one checked wheel
    (psa.data.sources), which names what it may find in them.
    """
    if path != ROOT / "psa/data/sources.py":
        assert not UNSAFE & {name.split(".")[0] for name in imported_names(ast.parse(path.read_text()))}
    assert unsafe(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path)",
        "archive.extractall(folder)",
        "shutil.unpack_archive(path)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=asked)",
        "os.system(command)",
        "eval(text)",
        "pd.read_pickle(path)",
        "tempfile.mktemp()",
    ],
)
def test_the_search_for_what_is_unsafe_finds_it(source: str) -> None:
    """The rule above would see each of these, and not what only looks like them."""
    assert unsafe(source)
    assert unsafe("net.eval(); re.compile(text); subprocess.run(command, shell=False); execute(x)") == []


GENERATORS = {"Generator", "Philox", "PCG64", "SeedSequence", "BitGenerator"}
DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli"}
DRAWS |= {
    "normal",
    "multinomial",
    "poisson",
    "dropout",
    "seed",
    "manual_seed",
    "get_rng_state",
    "set_rng_state",
}
IN_PLACE = {"uniform_", "normal_", "random_", "bernoulli_", "exponential_", "geometric_", "log_normal_"}
CHANCE = {"secrets", "uuid"}


def uses_of_chance(source: str) -> list[str]:
    """Where a source draws from a generator that is not handed to it."""
    tree = ast.parse(source)
    found = [name for name in imported_names(tree) if name.split(".")[0] in CHANCE]
    for name, call in calls(tree):
        head, _, last = name.rpartition(".")
        module = head.split(".")[0]
        handed = any(keyword.arg == "generator" for keyword in call.keywords)
        drawn = last in IN_PLACE or (module in ("torch", "F", "nn") and last in DRAWS)
        of_numpy = module in ("np", "numpy") and head.endswith("random") and last not in GENERATORS
        of_python = head == "random" and (last != "Random" or not call.args)
        if of_numpy or of_python or name == "os.urandom" or (drawn and not handed):
            found.append(name)
    return found


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Every module named in an import; of `random`, also whether its parts are taken out of it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "secrets" if node.module == "random" else str(node.module)


# Names of temporary files are drawn, so that no two processes share one; no result depends on them.
DRAWS_OF_NAMES = {"psa.core.files": ["secrets"]}


@pytest.mark.parametrize("path", LIBRARY, ids=named)
def test_no_global_generator_is_used(path: Path) -> None:
    """Every draw is a function of (seed, purpose, loop): nothing draws from, seeds or stores global state."""
    assert uses_of_chance(path.read_text()) == DRAWS_OF_NAMES.get(name_of(path), [])


@pytest.mark.parametrize(
    "source",
    [
        "from random import shuffle",
        "random.shuffle(rows)",
        "random.Random()",
        "np.random.rand(3)",
        "np.random.default_rng()",
        "numpy.random.seed(1)",
        "torch.manual_seed(3)",
        "torch.cuda.manual_seed(3)",
        "torch.rand(3)",
        "torch.randperm(5)",
        "torch.nn.functional.dropout(x)",
        "F.dropout(x, 0.1)",
        "weight.uniform_(-1, 1)",
        "self.mask(x)[0].bernoulli_(0.5)",
        "os.urandom(4)",
    ],
)
def test_the_search_for_chance_finds_it(source: str) -> None:
    """The rule above would see each of these."""
    assert uses_of_chance(source)


@pytest.mark.parametrize(
    "source",
    [
        "torch.randperm(5, generator=torch.Generator().manual_seed(1))",
        "np.random.Generator(np.random.Philox(key=words))",
        "draws.random(3)",
        "random.Random(seed)",
        "weight.uniform_(-1, 1, generator=draws)",
    ],
)
def test_the_search_for_chance_lets_streams_pass(source: str) -> None:
    """A generator that is handed over is how it is meant to be."""
    assert uses_of_chance(source) == []


# The contracts of studies and reports, programs, and tables and figures whose package says whose they are.
SHARED_NAMES = {
    *("ALIASES", "STUDY", "Settings", "from_settings", "warnings"),
    *("QUESTION", "parts", "tables", "figures", "listings", "page", "runs"),
    *("logger", "main"),
    *("accuracy_table", "agreement_figure", "norms_figure", "paired_table"),
}


def _public_names(path: Path) -> Iterator[str]:
    """Yield the public functions, classes and constants of a file, without its entry points."""
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield from () if name.islower() else (name,)


def test_a_public_name_has_one_meaning() -> None:
    """A name that two files define stands for two things, and a reader cannot tell which."""
    places = defaultdict[str, list[str]](list)
    for path in FILES:
        for name in _public_names(path):
            if not name.startswith("_") and name not in SHARED_NAMES:
                places[name].append(name_of(path))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


QUESTIONS = re.compile(r"(What|Who|Whose|Whether|How|Which|Where|When|Why|Of)\b")


@pytest.mark.parametrize("path", FILES, ids=named)
def test_docstrings_state_and_do_not_ask(path: Path) -> None:
    """A docstring begins with a verb or a noun phrase, as in the documentation of PyTorch or Ray."""
    kinds = ast.Module | ast.FunctionDef | ast.ClassDef
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    texts = [ast.get_docstring(node) or "" for node in nodes]
    assert [text.partition("\n")[0] for text in texts if QUESTIONS.match(text)] == []


def test_no_test_takes_anything_from_another() -> None:
    """Test files do not import each other; helpers that several of them use are in tests/support."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    tests = {path.stem for path in files if path.name.startswith("test_")}
    taken = {named(path): {name.rpartition(".")[2] for name in imports(path)} & tests for path in files}
    assert {path: names for path, names in taken.items() if names} == {}
