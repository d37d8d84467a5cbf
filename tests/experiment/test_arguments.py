"""Arguments of the public Python API: a mistake is a UserError, and never an error of a library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import some_record

import psa
from psa import Experiment, Store, load_records_frame
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions
from psa.experiment import Results
from psa.experiments.sweep import Sweep

BASE = {"arch": "1*2", "mode": "none"}
WRONG: dict[str, Any] = {
    "whole": 3, "fraction": 1.5, "negative": -1, "object": object(), "list": [1], "nested": [[1]],
    "mapping": {3: 1},
    "tuple as key": {(1,): 2}, "bytes": b"x", "text": "x", "empty": (), "no text": "", "truth": True,
    "not a number": float("nan"), "function": len, "none": None,
}  # fmt: skip
FRAME = pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]})
DATA: dict[str, Any] = {
    "ragged samples": ([[1, 2], [3]], [0, 1]), "ragged labels": ([[1.0]], [[1], [1, 2]]), "numbers": (3, 4),
    "split": ([[1.0], [2.0]], [0, 1], 3), "labels of a frame": (FRAME, [1]), "no labels": (FRAME, None),
    "split of a frame": (FRAME, "y", [1]), "ragged labels of a frame": (FRAME, [[1], [2, 3]]),
}  # fmt: skip
EXPERIMENT = ("name", "base", "axes", "variants", "epochs", "seeds", "stages", "data", "plugins")
RUN = (
    "workers",
    "backend",
    "device",
    "data_dir",
    "model_dir",
    "results_dir",
    "trackers",
    "keep_weights",
    "pack_size",
)
OPTIONS = tuple(BackendOptions.__dataclass_fields__.keys() - {"workers"})


def experiment(**changes: Any) -> Experiment:
    """One tiny trial."""
    settings: dict[str, Any] = {"base": BASE, "name": "api", "epochs": 2, "seeds": 1}
    return Experiment("ablation", **(settings | changes))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    """The result of the trial, in an empty folder in which nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Sweep, "run", lambda *_: 0)
    made = experiment()
    (trial,) = made.grid.trials
    Store("models", "results").write(trial, some_record(2, trial), {})
    return made.results()


def refused(call: Callable[[], object]) -> str:
    """The message of a call that is refused, "" for one that is accepted; any other error is raised."""
    try:
        call()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_argument_is_one_clear_line(value: str, results: Results) -> None:
    """Every function of the Python API refuses an argument of a wrong type with a UserError."""
    wrong, tried = WRONG[value], results.experiment
    assert isinstance(tried, Experiment)
    settings = dict.fromkeys(EXPERIMENT, experiment) | dict.fromkeys(RUN + OPTIONS, tried.run)
    calls: list[Callable[[], object]] = [
        *(lambda key=key, call=call: call(**{key: wrong}) for key, call in settings.items()),
        *(lambda key=key: tried.results(**{key: wrong}) for key in ("model_dir", "results_dir")),
        lambda: Experiment(wrong, base=BASE), lambda: psa.load(wrong),
        lambda: psa.load("a/b", model_dir=wrong),
        lambda: Store(wrong, "x"), lambda: Store("x", wrong), lambda: load_records_frame(wrong),
        lambda: load_records_frame("results", wrong), lambda: psa.load_plugin(wrong),
        lambda: results.best(wrong),
        lambda: results.best(by=wrong), lambda: results.load(wrong), lambda: results.plot(wrong),
    ]  # fmt: skip
    for call in calls:
        assert "\n" not in refused(call)


@pytest.mark.parametrize("what", DATA)
def test_wrong_data_are_one_clear_line(what: str) -> None:
    """Arrays that NumPy or pandas would refuse, too."""
    assert refused(lambda: experiment(base={"arch": "1*2"}, data=DATA[what])).startswith("data: ")


def test_the_messages_say_what_must_hold(results: Results) -> None:
    """And what was given."""
    tried = results.experiment
    assert isinstance(tried, Experiment)
    wrong: Any = 3
    for call, said in (
        (lambda: experiment(axes={3: [1]}), "axes must have names as keys, got 3."),
        (lambda: experiment(stages=wrong), "stages must be a list, got 3."),
        (lambda: experiment(base=BASE, data=([[1, 2], [3]], [0, 1])), "data: X must be an array, got list ("),
        (lambda: results.load(wrong), "trial must be a trial, its id, or one row of a frame, got 3."),
        (lambda: results.load(results.best()), "trial must be a trial, its id, or one row of a frame, got "),
        (lambda: psa.load(wrong), "trial must be a string or a path, got 3"),
        (lambda: results.best(wrong / 2), "n must be a whole number, got 1.5."),
        (lambda: results.best(by=wrong), "by: unknown column 3."),
        (lambda: tried.run(model_dir=wrong), "model_dir must be a string or a path, got 3"),
        (lambda: tried.run(trackers=[wrong]), "trackers must have name, logged_loops, log_trial, got 3."),
        (lambda: tried.run(backend=wrong), "backend: unknown backend 3."),
        (lambda: tried.run(wokers=1), "run: unknown option 'wokers'. Did you mean workers?"),
        (lambda: experiment(epochs=0), "epochs must be a whole number of at least 1, got 0"),
        (lambda: experiment(epochs="5"), "epochs must be a whole number of at least 1, got '5'"),
        (lambda: experiment(seeds=-1), "seeds must be at least 1, got -1"),
    ):
        assert refused(call).startswith(said)
