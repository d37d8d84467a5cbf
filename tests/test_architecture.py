"""House rules that no linter knows: who imports whom, what planning loads, where chance comes from."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in (ROOT / "psa").rglob("*.py"))

# A file imports only from rows above its own; a row ends with |.
ROWS = """
psa|
psa.core psa.core.errors psa.core.extras psa.core.formatting psa.core.process psa.core.rng psa.core.stop|
psa.core.cloud_package psa.core.files psa.core.text_file|
psa.core.file_locks psa.core.stored_files psa.core.toml|
psa.core.parsing|
psa.specs psa.specs.arch psa.specs.probes|
psa.specs.activation psa.specs.base|
psa.specs.data psa.specs.growth psa.specs.model psa.specs.training|
psa.specs.memory psa.specs.memory_sites psa.specs.shapes|
psa.specs.trial|
psa.data psa.data.datasets|
psa.data.sources|
psa.data.download|
psa.data.splits|
psa.nn psa.nn.dropout psa.nn.stacked|
psa.nn.activations psa.nn.layers|
psa.nn.conv|
psa.nn.dense|
psa.storage psa.storage.array_file psa.storage.helper_files psa.storage.records psa.storage.records.bundle
psa.storage.records.divergence psa.storage.records.schema|
psa.storage.layout psa.storage.records.record psa.storage.sweep_registry psa.storage.trial_state|
psa.storage.checkpoint psa.storage.records.trial_record|
psa.storage.records.record_store|
psa.storage.records.bundling psa.storage.verification|
psa.storage.store|
psa.storage.locks|
psa.storage.retention|
psa.interventions psa.interventions.ablation psa.interventions.growth psa.interventions.memory
psa.interventions.memory.hash_rng psa.interventions.memory.per_trial|
psa.interventions.memory.bank|
psa.interventions.memory.eviction psa.interventions.memory.retrieval psa.interventions.memory.targets|
psa.interventions.memory.injection|
psa.interventions.memory.hidden_memory|
psa.interventions.memory.hook|
psa.engine psa.engine.batches psa.engine.cuda_graph psa.engine.save_interval|
psa.engine.optimizer|
psa.engine.device_pack psa.engine.train_step|
psa.engine.probing psa.engine.scoring|
psa.engine.loop|
psa.engine.policies|
psa.probes psa.probes.gradients psa.probes.layer_trace psa.probes.metrics psa.probes.predictions
psa.probes.train_accuracy|
psa.probes.calibration psa.probes.distributions psa.probes.embedding_knn psa.probes.layers
psa.probes.memory|
psa.execution psa.execution.cgroups psa.execution.gradient_storage psa.execution.worker
psa.execution.worker.protocol psa.execution.worker.record|
psa.execution.cost_model|
psa.execution.eta psa.execution.machine psa.execution.packing psa.execution.worker.benchmark|
psa.execution.backend psa.execution.devices psa.execution.worker.run|
psa.execution.replay psa.execution.worker.pool psa.execution.worker.server|
psa.execution.local psa.execution.worker.__main__|
psa.execution.worker.start|
psa.experiments psa.experiments.planning psa.experiments.studies psa.experiments.tracking
psa.experiments.tracking.base|
psa.experiments.study psa.experiments.tracking.mlflow psa.experiments.tracking.tensorboard|
psa.experiments.grid_file psa.experiments.studies.ablation psa.experiments.studies.activations
psa.experiments.studies.glonet psa.experiments.studies.gradients psa.experiments.studies.memory
psa.experiments.tracking.trackers|
psa.experiments.grid psa.experiments.search|
psa.experiments.promotion psa.experiments.search_log|
psa.experiments.sweep|
psa.analysis psa.analysis.frame_schema psa.analysis.gradients psa.analysis.gradients.factored
psa.analysis.gradients.vmap psa.analysis.probe_frame psa.analysis.regimes psa.analysis.stats|
psa.analysis.gradients.file psa.analysis.gradients.label_agreement psa.analysis.gradients.metric_space
psa.analysis.published psa.analysis.records_frame|
psa.analysis.gradients.export psa.analysis.gradients.kmeans|
psa.analysis.gradients.cluster_metrics psa.analysis.gradients.tsne|
psa.reports.ablation psa.reports.ablation.figures psa.reports.ablation.reproduction
psa.reports.activations psa.reports.glonet psa.reports.glonet.figures psa.reports.glonet.networks
psa.reports.gradients psa.reports.gradients.measurements psa.reports.memory psa.reports.plotting
psa.reports.plotting.style psa.reports.rendering psa.reports.rendering.latex
psa.reports.wording|
psa.reports psa.reports.activations.arms psa.reports.glonet.layer_use psa.reports.gradients.figures
psa.reports.gradients.sample_figures psa.reports.memory.figures psa.reports.plotting.labels
psa.reports.rendering.tables|
psa.reports.rendering.paired|
psa.reports.ablation.cells psa.reports.ablation.figures.design_space psa.reports.activations.curves
psa.reports.activations.tables psa.reports.glonet.tables psa.reports.gradients.tables
psa.reports.rendering.html psa.reports.search|
psa.reports.ablation.aggregates psa.reports.ablation.matching psa.reports.ablation.numbers
psa.reports.ablation.published psa.reports.activations.comparison psa.reports.activations.run_figures
psa.reports.activations.temperatures psa.reports.contract psa.reports.glonet.claims
psa.reports.glonet.figures.panels psa.reports.gradients.text psa.reports.rendering.pdf|
psa.reports.ablation.curves psa.reports.ablation.effects psa.reports.ablation.figures.aggregate
psa.reports.ablation.figures.map_marks psa.reports.ablation.figures.published
psa.reports.activations.run_folders psa.reports.activations.text psa.reports.glonet.figures.accuracy
psa.reports.glonet.figures.curves psa.reports.glonet.figures.layers psa.reports.gradients.report
psa.reports.memory.runs|
psa.reports.ablation.figures.curves psa.reports.ablation.figures.maps
psa.reports.ablation.figures.size_map psa.reports.ablation.figures.winner_map
psa.reports.ablation.markdown psa.reports.activations.report psa.reports.glonet.report
psa.reports.memory.comparisons|
psa.reports.ablation.figures.figure_set psa.reports.ablation.tables psa.reports.memory.hypotheses|
psa.reports.ablation.report psa.reports.memory.report|
psa.cli psa.cli.checkpoint_folder psa.cli.commands psa.cli.console psa.cli.options psa.cli.shadowed|
psa.cli.commands.bundle psa.cli.commands.clean psa.cli.commands.dataset psa.cli.commands.export_gradients
psa.cli.commands.plan psa.cli.commands.report psa.cli.commands.verify psa.cli.record_options
psa.cli.run_options|
psa.cli.commands.fetch psa.cli.commands.search psa.cli.commands.status psa.cli.commands.train
psa.cli.commands.train_study psa.cli.named.figures psa.cli.named.tables psa.cli.sweep_view|
psa.cli.app psa.cli.commands.sweep|
psa.cli.named|
psa.experiment|
"""
ROW = {name: number for number, row in enumerate(ROWS.split("|")) for name in row.split()}
# Within one row, or downwards inside a function: allowed only with a reason.
EXCEPTIONS: dict[tuple[str, str], str] = {}
LONG: dict[str, str] = {}


def name_of(path: Path) -> str:
    """`psa.specs.shapes` of its file; a package is its own name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[str]:
    """The modules a file imports anywhere in it, also for types only; `psa.x`, not `psa.x.name`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides its row"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in ROW else str(node.module)


def named(path: Path) -> str:
    """A test's name for a file."""
    return str(path.relative_to(ROOT))


def test_every_file_has_its_row() -> None:
    """A new file is put in its place on purpose, and no row names a file that is gone."""
    assert {name_of(path) for path in FILES} == set(ROW)


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_imports_only_from_rows_above_it(path: Path) -> None:
    """Nothing below feeds anything above; what the layers share moves up."""
    name = name_of(path)
    for imported in imports(path):
        if imported.split(".")[0] == "psa" and (name, imported) not in EXCEPTIONS:
            assert ROW[imported] < ROW[name], f"{name} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=named)
def test_the_library_knows_no_cloud_and_no_tests(path: Path) -> None:
    """psa works without cloud/, scripts/ and tests/, and imports neither ray nor an AWS client."""
    forbidden = {
        "cloud",
        "scripts",
        "tools",
        "benchmarks",
        "tests",
        "ray",
        "boto3",
        "botocore",
        "sagemaker",
        "pytest",
    }
    assert not forbidden & {imported.split(".")[0] for imported in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    """At most 300 lines, or a reason."""
    lines = len(path.read_text().splitlines())
    assert (lines > 300) == (named(path) in LONG), f"{named(path)} has {lines} lines"


PLANNING = ("psa.core", "psa.specs", "psa.storage")


def test_planning_loads_nothing_heavy() -> None:
    """All that the commands import at once: no torch, no ray, no boto3, nothing for tables and figures."""
    heavy = {"torch", "torchvision", "ray", "boto3", "pandas", "scipy", "sklearn", "matplotlib", "pickle5"}
    planning = [name for name in ROW if name.startswith(PLANNING)]
    planning += [
        "psa.execution.packing",
        "psa.execution.machine",
        "psa.execution.backend",
        "psa.experiments.grid",
        "psa.cli.console",
        "psa.cli.app",
    ]
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
    "path", [path for path in FILES if not name_of(path).startswith(SPEAKING)], ids=named
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


@pytest.mark.parametrize("path", FILES, ids=named)
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
