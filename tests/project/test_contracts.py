"""The contracts that extensions implement: documented, each with an example that runs, and kept by all."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run, trial
from made_up import some_record
from paths import ROOT

from psa.data.splits import Splits
from psa.engine.policies import Policy
from psa.engine.probing import ArrayProbe, EpochObserver, Probe, TrainingProbe
from psa.execution.backend import BACKENDS, Backend, BackendOptions
from psa.execution.cost_model import CostModel
from psa.execution.local import LocalBackend
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.experiments.study import Study, study_names
from psa.experiments.tracking.base import Tracker
from psa.experiments.tracking.trackers import TrackerGroup
from psa.reports.contract import Report
from psa.specs.data import DataSpec
from psa.specs.probes import PROBES
from psa.specs.trial import Pack
from psa.storage.store import Store

REPORTS = [f"psa.reports.{path.parent.name}.report" for path in (ROOT / "psa/reports").glob("*/report.py")]
# Where each contract is implemented: a class, or a module where a contract is one of modules.
PLACES: dict[type, list[str]] = {
    Backend: list(BACKENDS.values()),
    Study: [f"psa.experiments.studies.{name}" for name in sorted(study_names())],
    Probe: list(PROBES.values()),
    TrainingProbe: [PROBES["gradients_online"]],
    EpochObserver: ["psa.probes.gradients:Followed"],
    ArrayProbe: [PROBES["gradients"]],
    Report: sorted(REPORTS),
    Policy: ["psa.engine.policies:RatchetPolicy", "psa.engine.policies:KeepPolicy"],
    Tracker: [
        "psa.experiments.tracking.mlflow:MLflow",
        "psa.experiments.tracking.tensorboard:TensorBoard",
        "psa.experiments.tracking.trackio:Trackio",
        "psa.experiments.tracking.wandb:WeightsAndBiases",
    ],
}
SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example):\n((?:    .*\n|\n)+)", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+): \S", re.MULTILINE)


def implementation(place: str) -> Any:
    """The class or module at `module:name` or `module`."""
    module, _, name = place.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:  # of an extra
        pytest.skip(f"{error.name} is not installed")
    return getattr(found, name) if name else found


def methods(contract: type) -> dict[str, Callable[..., Any]]:
    """The public methods and properties of a contract."""
    found = {name: getattr(value, "fget", value) for name, value in vars(contract).items()}
    return {name: value for name, value in found.items() if inspect.isfunction(value) and name[0] != "_"}


def sections(text: str | None) -> dict[str, str]:
    """The blocks of a docstring by title."""
    return dict(SECTION.findall(inspect.cleandoc(text or "") + "\n"))


def entries(text: str | None, title: str) -> set[str]:
    """The names that a block explains."""
    return set(ENTRY.findall(sections(text).get(title, "")))


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters of a function or method, but for self."""
    signature = inspect.signature(function)
    return {name: each for name, each in signature.parameters.items() if name != "self"}


EVERY_METHOD = [
    pytest.param(contract, name, id=f"{contract.__name__}.{name}")
    for contract in PLACES
    for name in methods(contract)
]


@pytest.mark.parametrize(("contract", "name"), EVERY_METHOD)
def test_a_method_says_what_it_takes_and_gives(contract: type, name: str) -> None:
    """Args names every parameter and no other; what is returned or yielded has its block."""
    method = methods(contract)[name]
    assert entries(method.__doc__, "Args") == set(parameters(method))
    returns = str(method.__annotations__["return"])
    wanted = {"None": set()}.get(
        returns, {"Yields" if re.match("Iterator|Generator", returns) else "Returns"}
    )
    assert sections(method.__doc__).keys() & {"Returns", "Yields"} == wanted


@pytest.mark.parametrize("contract", PLACES, ids=lambda contract: contract.__name__)
def test_a_contract_says_what_it_is_built_of(contract: type) -> None:
    """The docstring of the class explains its attributes and the arguments of its constructor."""
    own = vars(contract)
    assert entries(contract.__doc__, "Attributes") == set(own.get("__annotations__", {}))
    init = contract.__init__
    named = set(parameters(init)) if init.__module__ == contract.__module__ else set()
    assert entries(contract.__doc__, "Args") == named


def raised(function: Any) -> set[str]:
    """The exceptions that a function raises itself or says that it raises."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    calls = [each.exc for each in ast.walk(tree) if isinstance(each, ast.Raise)]
    names = {call.func.id for call in calls if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}
    said = re.findall(r"Raises (?:pydantic\.)?(\w+)", function.__doc__ or "")
    return names | set(said)


EVERY_PLACE = [
    pytest.param(contract, place, id=f"{contract.__name__}-{place}")
    for contract, places in PLACES.items()
    for place in places
]


@pytest.mark.slow
@pytest.mark.parametrize(("contract", "place"), EVERY_PLACE)
def test_every_implementation_keeps_its_contract(contract: type, place: str) -> None:
    """The same parameters in the same order, all attributes, and no error that the contract does not name."""
    found = implementation(place)
    assert all(hasattr(found, name) for name in getattr(contract, "__annotations__", {}))
    if contract is Backend:
        assert list(parameters(found.__init__)) == list(parameters(Backend.__init__))
    for name, method in methods(contract).items():
        mine = getattr(found, name)
        if isinstance(vars(contract)[name], property):
            assert isinstance(mine, str | property)
            continue
        assert matching(method, mine), name
        assert raised(mine) <= entries(method.__doc__, "Raises"), name


def matching(method: Callable[..., Any], mine: Callable[..., Any]) -> bool:
    """Whether a function can be called as the contract is: further parameters have a default."""
    wanted, there = parameters(method), parameters(mine)
    common = list(there.items())[: len(wanted)]
    same = [name for name, _ in common] == list(wanted)
    typed = all(wanted[name].annotation in (each.annotation, "Any") for name, each in common if same)
    optional = all(each.default is not each.empty for each in list(there.values())[len(wanted) :])
    return same and typed and optional


def test_a_method_that_asks_for_more_is_noticed() -> None:
    """The comparison above is not blind to order, number or type."""

    def method(self: Any, a: int, b: Any) -> None: ...

    def same(self: Any, a: int, b: str, c: int = 0) -> None: ...

    def more(self: Any, a: int, b: str, c: int) -> None: ...

    def turned(self: Any, b: str, a: int) -> None: ...

    def other(self: Any, a: str, b: str) -> None: ...

    assert matching(method, same)
    assert not any(matching(method, each) for each in (more, turned, other))


def example(contract: type) -> dict[str, Any]:
    """Run the example in the docstring of a contract; the names that it leaves."""
    module = importlib.import_module(contract.__module__)
    parsed = doctest.DocTestParser().get_doctest(
        inspect.cleandoc(contract.__doc__ or ""), dict(vars(module)), contract.__name__, None, None
    )
    assert parsed.examples
    result = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF).run(parsed, clear_globs=False)
    assert result.failed == 0
    return {name: value for name, value in parsed.globs.items() if vars(module).get(name) is not value}


@pytest.mark.parametrize("contract", PLACES, ids=lambda contract: contract.__name__)
def test_the_example_runs_and_keeps_the_contract(contract: type) -> None:
    """It has all of the attributes and methods, with the parameters that the contract names."""
    left = example(contract)
    made = [value for value in left.values() if inspect.isclass(value) and value.__name__ != "Settings"]
    found = made[-1] if contract not in (Study, Report) else type("Module", (), left)
    assert all(hasattr(found, name) for name in getattr(contract, "__annotations__", {}))
    for name, method in methods(contract).items():
        if not isinstance(vars(contract)[name], property):
            assert list(parameters(getattr(found, name))) == list(parameters(method)), name


def test_the_example_of_a_policy_stops_early(small: Splits) -> None:
    """It trains: to the first loop that is no better, and then no further."""
    policy = example(Policy)["HillClimb"]()
    (state,), _ = run([trial("1*4", lr=0.3)], small, 40, policy=policy)
    assert state.history["kept"] == [True] * (state.loops - 1) + [False]
    assert state.loops < 40


def test_the_examples_of_probes_observe(small: Splits) -> None:
    """Numbers after every loop, a file of the first epoch and one of the LKG."""
    follower = example(TrainingProbe)["BatchSizes"]
    follower.follow.__globals__["Sizes"] = example(EpochObserver)["Sizes"]
    whole = type("Whole", (example(Probe)["WeightNorm"], example(ArrayProbe)["Weights"], follower), {})
    files: dict[str, Any] = {}
    (state,), ((_, _, last, kept),) = run(
        [trial("1*4")],
        small,
        2,
        probes=[whole()],
        keep=lambda state, name, arrays: files.update({name: arrays}),
    )
    assert [len(each["norm"]) for each in state.observed["weight_norm"]] == [1, 1, 1]
    assert last["weight_norm"]["norm"] == [pytest.approx(rest_norm(files["weight_norm-final-2"]))]
    assert files["weight_norm-1"]["size"].tolist() == [64] * 9 + [24]
    assert list(kept) == ["weight_norm-final-2"]


def rest_norm(arrays: dict[str, Any]) -> float:
    """The norm of the array `rest`."""
    return float(torch.from_numpy(arrays["rest"]).norm())


def test_the_example_of_a_tracker_is_told_once(tmp_path: Path) -> None:
    """A finished trial reaches it, and the same record does not reach it again."""
    store, one = Store(tmp_path / "models", tmp_path / "results"), trial("1*1")
    store.write(one, some_record(3, one), {})
    tracker = example(Tracker)["Scores"]()
    assert tracker.logged_loops(one) == -1
    TrackerGroup([tracker], store).log_finished([one], 3)
    assert tracker.logged_loops(one) == 3
    assert tracker.scores[one.id][1]["test_accuracy"] == pytest.approx(10.03)


# The order of events.

LETTERS = {"begun": "b", "loop": "l", "died": "x", "done": "D", "failed": "F"}
ORDER = re.compile(r"((bl*)?x)*(bl*)?[DF]")
FACTS = {
    "begun": {"left"}, "loop": {"loop", "trained", "best", "mean", "trial"}, "died": {"error"},
    "done": {"trained", "elsewhere", "failed"}, "failed": {"error"}, "tick": set(),
}  # fmt: skip


def in_order(events: Iterable[WorkerEvent], packs: Iterable[Pack]) -> dict[int, str]:
    """The events of each pack as letters, checked against the contract."""
    found: dict[int, str] = defaultdict(str)
    for event in events:
        assert event.facts.keys() == FACTS[event.kind]
        found[id(event.pack)] += LETTERS.get(event.kind, "")
    assert found.keys() == {id(pack) for pack in packs}
    assert all(ORDER.fullmatch(text) for text in found.values()), found
    return found


def packs() -> list[Pack]:
    """One that can be trained, and one whose probe asks for a layer that there is not."""
    data = DataSpec(val_size=59_000, train_size=500, test_size=100)
    good = [trial("1*4", seed=seed).changed(data=data) for seed in (0, 1)]
    bad = trial("1*4").changed(data=data, probes=("gradients_online(layers=nowhere)",))
    return [Pack(trials=tuple(good), horizon=2), Pack(trials=(bad,), horizon=2)]


@pytest.fixture(params=["local", "the example"])
def launched(
    request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path
) -> tuple[list[WorkerEvent], list[Pack], Store, str]:
    """The events of a backend that trains some packs."""
    store, machine = Store(tmp_path / "models", tmp_path / "results"), Machine(data_dir, "cpu")
    kind = LocalBackend if request.param == "local" else example(Backend)["InProcess"]
    backend: Backend = kind(
        store, machine, CostModel.of_machine(store.models, "cpu"), BackendOptions(workers=1)
    )
    asked = packs() if request.param == "local" else packs()[:1]
    jobs = backend.plan(asked)
    assert len(list(backend.preview(jobs))) == 1
    assert not (tmp_path / "results").exists()
    return list(backend.launch(jobs)), asked, store, request.param


@pytest.mark.slow
def test_events_come_in_the_order_of_the_contract(
    launched: tuple[list[WorkerEvent], list[Pack], Store, str],
) -> None:
    """Begun, loops, done; a pack that fails ends with failed; what is done is stored by then."""
    events, asked, store, name = launched
    found = in_order(events, asked)
    assert [found[id(pack)] for pack in asked] == (["bllD", "bF"] if name == "local" else ["D"])
    done = next(event for event in events if event.kind == "done")
    assert (done.facts["trained"], done.facts["failed"]) == (2, {})
    assert len(store.progress(asked[0].trials, 2).done) == 2


def test_what_comes_out_of_order_is_noticed() -> None:
    """The check above rejects a loop before its begin, an end that is none, and a pack without one."""
    asked = packs()

    def stream(*kinds: str) -> list[WorkerEvent]:
        return [WorkerEvent(kind, asked[0], dict.fromkeys(FACTS[kind], 0)) for kind in kinds]

    assert in_order(stream("begun", "loop", "died", "tick", "begun", "loop", "done"), asked[:1])
    for kinds in (
        ("loop", "done"),
        ("begun", "loop"),
        ("begun", "done", "loop"),
        ("begun", "done", "failed"),
    ):
        with pytest.raises(AssertionError):
            in_order(stream(*kinds), asked[:1])
    with pytest.raises(AssertionError):
        in_order(stream("begun", "done"), asked)


def test_the_contract_names_every_event_that_a_sweep_takes_in() -> None:
    """Each kind stands in `Backend.launch` with its facts, and no other does."""
    text = sections(Backend.launch.__doc__)["Yields"]
    documented = dict(re.findall(r"^    (\w+): (.+(?:\n      .+)*)", text, re.MULTILINE))
    handled: set[str] = set()
    for path in ("psa/cli/output/sweep_view.py", "psa/experiments/sweep.py"):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.MatchValue | ast.Compare):
                handled |= {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    handled = {kind for kind in handled if isinstance(kind, str)} - {"all", "none"}
    assert documented.keys() == handled | {"taken"}
    for kind, facts in FACTS.items():
        assert set(re.findall(r"(\w+): ", " ".join(documented[kind].split()))) == facts
