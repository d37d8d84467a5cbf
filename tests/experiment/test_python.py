"""Experiments from Python: what a notebook shows, the frames, the selection, the options of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from plugin_files import forgotten, loaded, plugin_file

from psa import Experiment, Store
from psa.core.errors import UserError
from psa.experiment import Results
from psa.experiments.tracking.base import curves

SMALL: dict[str, Any] = {"arch": "1*2", "digits": [0, 1], "val_size": 59_000, "lr": 1e-2}


def declared(**changes: Any) -> Experiment:
    """Two modes of a tiny network with three seeds."""
    settings: dict[str, Any] = {
        "name": "api", "base": SMALL, "axes": {"mode": ["none", "hidden"]}, "epochs": 2, "seeds": 3,
    }  # fmt: skip
    return Experiment("ablation", **(settings | changes))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Results:
    """Trained once by one worker."""
    folder = tmp_path_factory.mktemp("api")
    return declared().run(
        1, data_dir=data_dir, model_dir=folder / "models", results_dir=folder / "results", quiet=True
    )


def test_an_experiment_and_its_results_say_what_they_are(results: Results) -> None:
    """In a shell by one line, in a notebook by a table."""
    assert repr(declared()) == "Experiment('api', study='ablation', trials=6)"
    assert "<td>none, hidden</td>" in declared()._repr_html_()
    assert repr(results).startswith("Results(Experiment('api', study='ablation', trials=6), results_dir=")
    shown = results._repr_html_()
    assert shown.count("<tr") == 3
    assert "hidden" in shown
    assert "n = 3 seeds per row" in shown


def test_there_is_a_frame_per_trial_and_one_per_epoch(results: Results) -> None:
    """Both with the axes, so that pandas can group by them."""
    assert len(results.frame) == 6
    assert results.frame[["lr", "batch_size", "dropout"]].dtypes.map(pd.api.types.is_numeric_dtype).all()
    assert len(results.epochs) == 12
    assert list(results.epochs.columns[:3]) == ["id", "mode", "seed"]
    last = results.epochs.groupby("id", observed=True)["lkg"].last()
    bounty = results.frame.set_index("id")["bounty"]
    assert [*last.sort_index()] == [*bounty.sort_index()]


def test_an_axis_that_no_frame_holds_is_in_both(tmp_path: Path, data_dir: Path) -> None:
    """Such as a probe list or a variant."""
    variants = {"small": {"train_size": 200}, "large": {"train_size": 400}}
    made = declared(axes={}, base={**SMALL, "mode": "none"}, variants=variants, seeds=1, epochs=1).run(
        1, data_dir=data_dir, model_dir=tmp_path / "m", results_dir=tmp_path / "r", quiet=True
    )
    assert sorted(made.frame["variant"]) == sorted(made.epochs["variant"]) == ["large", "small"]


def test_the_best_is_chosen_on_validation(results: Results) -> None:
    """Of equal trials the first of the experiment; never by the test split."""
    best = results.best(6)
    assert best["bounty"].is_monotonic_decreasing
    assert results.best()["id"].tolist() == best["id"].tolist()[:1]
    assert results.best(by="bounty_loop")["bounty_loop"].item() == results.frame["bounty_loop"].min()
    with pytest.raises(UserError, match="by must be a column with values, got train, which no trial has"):
        results.best(by="train")
    for by in ("test", "test_loss"):
        with pytest.raises(UserError, match="A selection on the test split"):
            results.best(by=by)
    with pytest.raises(UserError, match="Did you mean bounty"):
        results.best(by="bountty")
    with pytest.raises(UserError, match="n must be at least 1, got 0"):
        results.best(0)


def test_stages_of_different_lengths_are_all_in_the_results(tmp_path: Path, data_dir: Path) -> None:
    """Promoted trials, too: the best trial is among them, and no mean is over two lengths."""
    stages = [
        {"name": "short", "meta_loops": 1, "seeds": [0, 1, 2]},
        {"name": "long", "meta_loops": 4, "seeds": [0], "promote": {"best": 1}},
    ]
    base = {name: value for name, value in SMALL.items() if name != "lr"} | {"mode": "none"}
    axes = {"lr": [1e-2, 1e-4]}
    made = Experiment("ablation", name="staged", base=base, axes=axes, stages=stages).run(
        1, data_dir=data_dir, model_dir=tmp_path / "m", results_dir=tmp_path / "r", quiet=True
    )
    assert (made.frame["status"] == "done").all()
    assert sorted(made.frame["loops"]) == [1, 1, 1, 1, 1, 4]
    assert made.best()["loops"].tolist() == [4]
    table = made.summary()
    at = [column.name for column in table.columns].index
    assert [(row[at("lr")], row[at("n")], row[at("Epochs")]) for row in table.rows] == [
        ("0.01", 2, 1.0), ("0.0001", 3, 1.0), ("0.01", 1, 4.0),
    ]  # fmt: skip
    assert table.note.startswith("n = up to 3 seeds per row. Compare only rows with equal numbers of epochs.")
    longest = [max(len(line.get_xdata()) for line in panel.lines) for panel in made.plot().axes]
    assert longest == [4, 1]


@pytest.mark.parametrize("column", ["accuracy", "lkg", "loss", "train_loss"])
def test_a_column_is_drawn_over_the_epochs(results: Results, column: str) -> None:
    """A panel per mode, a thin line per seed and a thick one for the mean; a notebook shows it as PNG."""
    figure = results.plot(column)
    panels = [ax for ax in figure.axes if ax.has_data()]
    assert [ax.get_title(loc="left") for ax in panels] == ["mode none", "mode hidden"]
    lines = [line for line in panels[0].lines if len(line.get_xdata()) == 2]
    assert len(lines) == 4
    mean = np.mean([line.get_ydata() for line in lines[:3]], axis=0)
    assert lines[3].get_ydata() == pytest.approx(mean)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_an_unknown_column_is_named(results: Results) -> None:
    """With the nearest one."""
    with pytest.raises(UserError, match="Did you mean accuracy"):
        results.plot("accurcy")


class Kept:
    """A tracker that keeps what it is given."""

    name = "Kept"

    def __init__(self) -> None:
        self.seen: dict[str, dict[str, float]] = {}

    def logged_loops(self, trial: Any) -> int:
        """Return -1 for all but what was kept."""
        return 2 if trial.id in self.seen else -1

    def log_trial(self, trial: Any, record: Any) -> None:
        """Keep the results."""
        self.seen[trial.id] = curves(record).finals


def test_trackers_of_the_user_receive_every_trial(results: Results, data_dir: Path) -> None:
    """Also those that were finished before."""
    kept, store = Kept(), results.store
    again = declared().run(
        1, data_dir=data_dir, model_dir=store.models, results_dir=store.results, trackers=[kept], quiet=True
    )
    assert set(kept.seen) == set(again.frame["id"])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"backend": "lokal"}, "backend: unknown backend 'lokal'. Did you mean local"),
        ({"backend_": "ray"}, "run: unknown option 'backend_'"),
        ({"adress": "auto"}, "run: unknown option 'adress'. Did you mean address"),
        ({"max_cost": 5}, "--max-cost must be left out with --backend local"),
        ({"max_cost": "5"}, "max_cost must be a number of dollars above 0, got '5'"),
        ({"max_cost": -1.0}, "max_cost must be a number of dollars above 0, got -1.0"),
        ({"keep_weights": "bset"}, "keep_weights: unknown value 'bset'. Did you mean best"),
        ({"pack_size": 0}, "pack_size must be at least 1 or None, got 0"),
    ],
)
def test_a_wrong_option_is_one_clear_error(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    """Before any folder is made."""
    with pytest.raises(UserError) as caught:
        declared().run(model_dir=tmp_path / "models", results_dir=tmp_path / "results", **how)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


class ReLU:
    """Stands for torch.nn.ReLU."""


class JumpReLU:
    """Stands for a class with parameters."""


def test_names_and_forms_of_the_earlier_runner_are_understood() -> None:
    """They declare the same trials."""
    base = {"hidden_dims": [6, 4], "dropout_prob": 0.2, "learning_rate": 1e-3, "early_stopping_patience": 3}
    axes = {"activation": [(ReLU, {}), (JumpReLU, {"initial": 0.5}), ReLU]}
    earlier = Experiment("activations", base=base, axes={"activation": axes["activation"][:2]}, epochs=1)
    ours = Experiment(
        "activations",
        base={"arch": "1*6, 1*4", "dropout": 0.2, "lr": 1e-3, "patience": 3},
        axes={"activation": ["ReLU", "JumpReLU(initial=0.5)"]},
        epochs=1,
    )
    assert [trial.digest for trial in earlier.grid.trials] == [trial.digest for trial in ours.grid.trials]
    lists = Experiment("activations", axes={"hidden_dims": [[6, 4], [8]]}, epochs=1)
    assert [str(trial.model.arch) for trial in lists.grid.trials] == ["[1*6, 1*4]", "[1*8]"]


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"epochs": 5}, "epochs must be left out of the settings. Write Experiment(..., epochs=50)"),
        ({"experiment_type": "vanilla"}, "simplex='all', scaling='simplex'"),
        ({"hidden_dims": [5], "arch": "1*5"}, "arch must be set once, got hidden_dims beside it"),
    ],
)
def test_an_earlier_name_without_a_successor_says_what_to_write(base: dict[str, Any], said: str) -> None:
    """In place of the nearest name by its letters."""
    with pytest.raises(UserError) as caught:
        Experiment("activations", base=base)
    assert said in str(caught.value)


def test_results_are_read_without_training(results: Results) -> None:
    """By another process, later."""
    store = results.store
    again = declared().results(model_dir=store.models, results_dir=store.results)
    assert str(again) == str(results)
    assert isinstance(again.store, Store)


def test_a_backend_of_a_plugin_trains(tmp_path: Path, data_dir: Path) -> None:
    """By its name, as with `psa sweep --backend`."""
    text = """
    from psa import register_backend
    from psa.execution.local import LocalBackend

    class Careful(LocalBackend):
        pass

    def register():
        register_backend("careful", Careful)
    """
    places: dict[str, Any] = {"model_dir": tmp_path / "m", "results_dir": tmp_path / "r", "quiet": True}
    with loaded(plugin_file(tmp_path, text)):
        made = declared(axes={}, base=SMALL | {"mode": "none"}, seeds=1, epochs=1).run(
            1, backend="careful", data_dir=data_dir, **places
        )
    assert made.frame["status"].tolist() == ["done"]


def test_a_study_may_come_from_a_plugin_of_the_experiment(tmp_path: Path) -> None:
    """Its file is loaded before its name is read."""
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from psa import register_study\n"
        "from psa.experiments.study import DataSettings\n"
        "from psa.specs.model import NetworkSpec\n"
        "from psa.specs.training import StandardTraining\n"
        "from psa.specs.trial import Trial\n"
        "class Width(DataSettings):\n"
        "    width: int = 8\n"
        "def made(settings, seed, name):\n"
        "    model = NetworkSpec(family='mlp', arch=f'1*{settings.width}')\n"
        "    shared = {'study': name, 'kind': 'activations', 'data': settings.data, 'seed': seed}\n"
        "    return Trial(model=model, method=StandardTraining(), **shared)\n"
        "def register():\n"
        "    register_study('widths', Width, made)\n"
    )
    with forgotten():
        made = Experiment("widths", plugins=[plugin], axes={"width": [2, 8]}, seeds=2)
        assert len(made) == 4
        assert {trial.model.arch.label for trial in made.grid.trials} == {"1*2", "1*8"}
