"""The report of activations, its run folders and the API of experiments, from one tiny grid trained once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from processes import until
from safetensors.numpy import load_file

from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.stop import StopRequest
from psa.experiment import Experiment, Results
from psa.experiments.grid import load_grid
from psa.probes.distributions import _Values
from psa.reports.activations import report
from psa.reports.activations.arms import arms_of, of_done, rows_of, train_accuracies, varying, with_seen
from psa.reports.activations.run_folders import run_folders, run_name
from psa.reports.activations.tables import comparisons, results_table
from psa.reports.activations.text import dead_arms_text
from psa.reports.contract import ReportContext
from psa.reports.rendering.tables import Bold
from psa.storage.records.record import encode_record, storable
from psa.storage.store import Store

GRID = """
study = "activations"
name = "tiny"
meta_loops = 3
seeds = "0..1"
[base]
arch = "1*6"
digits = [0, 1]
val_size = 59000
[axes]
activation = ["ReLU", "JumpReLU(initial=0.5)"]
dropout = [0.0, 0.1]
"""
BASE: dict[str, Any] = {"arch": "1*6", "digits": [0, 1], "val_size": 59_000}
ACTIVATIONS = ["ReLU", "JumpReLU(initial=0.5)"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder in which `psa sweep` has trained the grid."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "grid.toml").write_text(GRID)
    words = ["--data-dir", str(data_dir), "--model-dir", str(folder / "models")]
    words += ["--results-dir", str(folder / "results"), "--workers", "1"]
    assert run(PSA, ["sweep", str(folder / "grid.toml"), *words]) == 0
    return folder


@pytest.fixture(scope="module")
def store(home: Path) -> Store:
    """What it stored."""
    return Store(home / "models", home / "results")


@pytest.fixture(scope="module")
def reported(home: Path) -> Path:
    """The folder of its report, with run folders."""
    words = ["--model-dir", str(home / "models"), "--results-dir", str(home / "results")]
    words += ["--output-dir", str(home / "out"), "--grid", str(home / "grid.toml"), "--runs"]
    assert run(PSA, ["report", "tiny", *words]) == 0
    return home / "out" / "tiny"


def tiny(**changes: Any) -> Experiment:
    """The grid again, from Python."""
    settings: dict[str, Any] = {
        "name": "tiny", "base": BASE, "epochs": 3, "seeds": 2,
        "axes": {"activation": ACTIVATIONS, "dropout": [0.0, 0.1]},
    }  # fmt: skip
    return Experiment("activations", **(settings | changes))


def ran(experiment: Experiment, folder: Path, data_dir: Path) -> Results:
    """Run in a folder by one worker."""
    return experiment.run(
        1, data_dir=data_dir, model_dir=folder / "models", results_dir=folder / "results", quiet=True
    )


# The report


@pytest.mark.slow
def test_one_page_with_its_tables_and_figures(reported: Path) -> None:
    """Results, comparisons, thresholds; curves, comparison, thresholds; each as files of its own."""
    names = {path.name for path in reported.iterdir()}
    assert {f"{table}.md" for table in ("results", "paired", "thresholds")} <= names
    assert {
        f"{name}.png" for name in ("training_accuracy", "training_loss", "comparison", "thresholds")
    } <= names
    page = (reported.with_suffix(".html")).read_text()
    assert "8 of 8" in page
    assert "expected trials" not in page
    assert "With fewer than 3 seeds in common there is a difference" in page


def test_every_number_of_the_results_is_that_of_the_records(reported: Path, store: Store, home: Path) -> None:
    """Mean test accuracy of ReLU without dropout, computed here from the records."""
    trials = [each for each in load_grid(home / "grid.toml").trials if each.model.dropout == 0][:2]
    records = [store.read(trial) for trial in trials]
    percents = [100 * r["finals"]["test"]["correct"] / r["samples"]["test"] for r in records if r is not None]
    line = next(
        line for line in (reported / "results.csv").read_text().splitlines() if line.startswith("ReLU")
    )
    assert float(line.split(",")[4]) == pytest.approx(sum(percents) / 2)


@pytest.mark.slow
def test_a_missing_arm_is_said(home: Path, store: Store) -> None:
    """Asked for and not trained: the page says which, and its row has n = 0."""
    words = ["--model-dir", str(home / "models"), "--results-dir", str(home / "results")]
    longer = home / "longer.toml"
    longer.write_text(GRID.replace('"ReLU",', '"ReLU", "Tanh",'))
    code = run(PSA, ["report", "tiny", *words, "--output-dir", str(home / "more"), "--grid", str(longer)])
    assert code == 0
    page = (home / "more" / "tiny.html").read_text()
    assert "4 of 12 expected trials have no result (4 missing)" in page
    assert "Without any trial: Tanh, dropout 0; Tanh, dropout 0.1" in page


def test_arms_are_compared_with_relu_of_the_same_dropout(home: Path, store: Store) -> None:
    """And with nothing else; the same seeds against each other."""
    frame = Experiment("activations", name="tiny", base=BASE, seeds=2, epochs=3, axes={
        "activation": ACTIVATIONS, "dropout": [0.0, 0.1]}).results(
        model_dir=store.models, results_dir=store.results).frame  # fmt: skip
    found = comparisons(arms_of(frame, ("activation", "dropout")))
    assert [(each.arm.settings["dropout"], each.base.settings) for each in found] == [
        (dropout, {"activation": "ReLU", "dropout": dropout}) for dropout in (0.0, 0.1)
    ]
    assert all(each.found.n == 2 for each in found)


def test_an_interval_of_two_seeds_is_not_printed(store: Store) -> None:
    """It is up to 12.7 standard deviations wide: there are means alone, and the best is not bold."""
    results = tiny().results(model_dir=store.models, results_dir=store.results)
    assert "[" not in results.markdown()
    assert "**" not in results.markdown()
    arms = arms_of(results.frame, ("activation", "dropout"))
    assert "[" not in results_table(arms, ("activation", "dropout")).markdown()


def test_a_bold_mean_is_explained(store: Store) -> None:
    """The note explains a bold mean, that of the arm which is best by validation, only where one is bold."""
    keys = ("activation", "dropout")
    arms = arms_of(tiny().results(model_dir=store.models, results_dir=store.results).frame, keys)
    more = [
        replace(arm, rows=pd.concat([arm.rows, arm.rows.head(1).assign(seed=2)]), seeds=(0, 1, 2))
        for arm in arms
    ]
    said = (
        "Bold: the arm with the greatest mean validation accuracy, whether or not it differs significantly."
    )
    for table in (results_table(arms, keys), results_table(more, keys)):
        marked = any(isinstance(cell, Bold) for row in table.rows for cell in row)
        assert marked == (said in table.note)
    assert marked


def test_thresholds_and_training_accuracy_are_seen_in_every_epoch(store: Store) -> None:
    """Thresholds from before training on and of the LKG; training accuracy after each epoch."""
    seen = load_probe_frame(store, ["tiny"])
    learned = seen[seen["probe"] == "thresholds"]
    for _, part in learned.groupby("id", observed=True):
        assert sorted(part["loop"].dropna()) == [0, 1, 2, 3]
        assert part["loop"].isna().sum() == 1
        assert float(part[part["loop"] == 0]["value"].iloc[0]) == 0.5
    assert learned["id"].nunique() == 4
    assert len(train_accuracies(seen)) == 8 * 3


def test_a_diverged_network_is_stored_and_has_no_bins() -> None:
    """Of what is not finite there is no histogram, and a state can hold what was seen of it."""
    assert storable({"threshold": [float("nan"), 0.5], "correct": [3, None]}) == {
        "threshold": [None, 0.5],
        "correct": [3, None],
    }
    values = _Values()
    values.add(torch.tensor([1.0, float("inf"), float("nan")]))
    assert sum(values.facts()["counts"]) == 0


# Run folders


def test_every_trial_has_a_folder_with_a_readable_name(reported: Path, home: Path) -> None:
    """Architecture, activation, dropout, seed and digest; all of its files."""
    names = {path.name for path in (reported / "runs").iterdir()}
    trials = load_grid(home / "grid.toml").trials
    assert names == {run_name(trial) for trial in trials}
    assert any(name.startswith("1x6_jumprelu-initial0.5_dropout0.1_s01_") for name in names)
    for name in names:
        files = {path.name for path in (reported / "runs" / name).iterdir()}
        expected = {
            "best_model.safetensors",
            "final_model.safetensors",
            "run_stats.json",
            "training_curves.png",
        }
        expected |= {"weight_distributions.png", "activation_distributions.png"}
        assert files == expected | ({"threshold_values.png"} if "jumprelu" in name else set())


def test_the_best_model_is_the_lkg_and_the_final_one_that_of_the_last_epoch(
    reported: Path, home: Path, store: Store
) -> None:
    """To the bit; both load as ordinary files of the same names."""
    for trial in load_grid(home / "grid.toml").trials:
        state = store.state_file(trial).load()
        assert state is not None
        folder = reported / "runs" / run_name(trial)
        for file, kept in (("best_model", state.lkg), ("final_model", state.carried["active"])):
            tensors = load_file(folder / f"{file}.safetensors")
            assert tensors.keys() == kept.keys()
            assert all(tensors[name].tobytes() == kept[name].tobytes() for name in kept)


def test_run_stats_are_strict_json_with_everything_in_them(reported: Path, home: Path) -> None:
    """No NaN; a number per epoch; shapes, signs and sums as the weights and activations have them."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    for trial in load_grid(home / "grid.toml").trials:
        folder = reported / "runs" / run_name(trial)
        stats = json.loads((folder / "run_stats.json").read_text(), parse_constant=refuse)
        assert all(len(values) == 3 for values in stats["curves"].values())
        assert stats["metadata"]["environment"]["numpy"]
        assert stats["weights"]["final_model_epoch"] == 3
        weight = stats["weight_analysis"]["hidden.0.weight"]
        tensor = load_file(folder / "best_model.safetensors")["hidden.0.weight"]
        assert (weight["shape"], weight["num_params"]) == ([6, 784], 6 * 784)
        assert weight["mean"] == pytest.approx(float(tensor.mean()), abs=1e-6)
        assert weight["percent_negative"] == pytest.approx(100 * float((tensor < 0).mean()))
        after = stats["activation_analysis"]["hidden.0"]["after"]
        assert after["sum_min"] <= after["sum_mean"] <= after["sum_max"]
        assert bool(stats["thresholds"]) == trial.model.activation.learns  # type: ignore[union-attr]
        best = stats["final_metrics"]["best_epoch"]
        assert stats["curves"]["val_loss"][best - 1] == min(stats["curves"]["val_loss"])


# The API


@pytest.mark.slow
def test_the_api_makes_the_records_of_the_grid(
    home: Path, store: Store, tmp_path: Path, data_dir: Path
) -> None:
    """Byte for byte those of `psa sweep`; and on the sweep's own folder there is nothing left to do."""
    part = tiny(axes={"activation": ["JumpReLU(initial=0.5)"], "dropout": [0.1]})
    found = ran(part, tmp_path, data_dir)
    assert len(part) == len(found.frame) == 2
    for trial in part.grid.trials:
        ours = (tmp_path / "results" / f"{trial.id}.json").read_bytes()
        assert ours == store.record_path(trial).read_bytes()
    before = {path: path.stat().st_mtime_ns for path in store.record_paths()}
    again = ran(tiny(), home, data_dir)
    assert {path: path.stat().st_mtime_ns for path in store.record_paths()} == before
    assert set(again.frame["status"]) == {"done"}


def test_results_render(store: Store) -> None:
    """A frame with a row per trial; a table in Markdown and LaTeX; print says the same."""
    found = tiny().results(model_dir=store.models, results_dir=store.results)
    assert len(found.frame) == 8
    assert found.frame["train"].between(0, 100).all()
    table = found.summary()
    assert [column.name for column in table.columns][:3] == ["Activation", "Dropout", "n"]
    assert [row[0] for row in table.rows] == ["ReLU", "ReLU", *["JumpReLU(initial=0.5)"] * 2]
    assert "JumpReLU(initial=0.5)" in str(found)
    assert "toprule" in found.latex()


def test_any_field_is_an_axis() -> None:
    """Also one that no column of records has."""
    experiment = Experiment("glonet", base={"features": 8}, axes={"num_layers": (3, 4)}, epochs=1, seeds=[5])
    assert [trial.seed for trial in experiment.grid.trials] == [5, 5]
    settings = {"arch": "1*2", "mode": "none", "family": "simplemlp"}
    assert len(Experiment("ablation", base=settings, axes={"split_seed": range(3)}, seeds="0..3")) == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"base": {"arch": "1*6", "activatoin": "ReLU"}},
            "unknown key 'activatoin'. Did you mean activation",
        ),
        ({"axes": {"activation": ["RuLU"]}}, "unknown name 'RuLU'. Did you mean ReLU"),
        ({"axes": {"activation": []}}, "axes.activation must have at least one value, got none"),
        ({"axes": {"lr": ["fast"]}}, "lr must be a valid number, got 'fast'"),
        ({"name": "My Experiment"}, "name must be up to 40 of a-z, 0-9, - and _, got 'My Experiment'"),
        ({"epochs": 0}, "epochs must be a whole number of at least 1, got 0"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"seeds": 2.5}, "seeds must be a number (3), a list ([0, 7]) or a range ('0..9'), got 2.5"),
        ({"base": [1]}, "base must be a mapping, got [1]"),
        ({"axes": {"arch": ["1*6"]}}, "arch must be set in one place, got axes and base"),
    ],
)
def test_a_mistake_is_one_clear_error(changes: dict[str, Any], said: str) -> None:
    """What is wrong, where, and the nearest right name; before anything is trained."""
    with pytest.raises(UserError) as caught:
        tiny(**changes)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_ctrl_c_leaves_what_the_next_call_goes_on_from(tmp_path: Path, data_dir: Path) -> None:
    """It is raised once workers have saved; afterwards signals are as before, and the rest is trained."""
    experiment = Experiment("activations", name="stopped", base=BASE, epochs=100_000, seeds=1)
    before = signal.getsignal(signal.SIGINT)

    def stop_it() -> None:
        try:
            until(lambda: list((tmp_path / "models").rglob("lkg.safetensors")))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=stop_it, daemon=True)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        ran(experiment, tmp_path, data_dir)
    watcher.join()
    assert signal.getsignal(signal.SIGINT) is before
    assert not list((tmp_path / "results").rglob("s00-*.json"))
    shorter = Experiment("activations", name="stopped", base=BASE, epochs=1, seeds=1)
    assert list(ran(shorter, tmp_path, data_dir).frame["status"]) == ["done"]


def test_rows_of_missing_trials_are_those_of_their_network(store: Store, home: Path) -> None:
    """Where no grid is named, a hole gets the settings of its neighbours, and no arm of its own."""
    frame = load_records_frame(store, ["tiny"])
    rows = rows_of(frame)
    assert set(rows["dropout"]) == {0.0, 0.1}
    assert not rows["lr"].isna().any()


def test_what_is_not_done_takes_part_in_nothing(store: Store) -> None:
    """Of a trial that is too short neither training accuracy nor thresholds are shown."""
    rows, seen = rows_of(load_records_frame(store, ["tiny"])), load_probe_frame(store, ["tiny"])
    rows["status"] = rows["status"].astype("str").mask(rows["seed"] == 1, "unfinished")
    found = with_seen(rows, seen)
    assert set(found[found["train"].notna()]["seed"]) == {0}
    assert set(found[found["thresholds"].notna()]["seed"]) == {0}
    left = of_done(seen, rows)
    assert left is not None
    assert set(left["id"].astype(str)) == set(rows[rows["seed"] == 0]["id"].astype(str))


@pytest.mark.slow
def test_a_trial_without_any_finite_loss_has_no_results(store: Store, tmp_path: Path) -> None:
    """It diverged: counted, its arm named, and no number of its initial weights is anywhere."""
    copy = Store(store.models, tmp_path / "results")
    shutil.copytree(store.results, copy.results)
    lost = tiny().grid.trials[0]
    record = store.read(lost)
    assert record is not None
    empty = {name: [None] * 3 for name in ("loss", "train_loss")} | {"kept": [False] * 3}
    record["history"] |= empty
    record["finals"] |= {"bounty": {"correct": -1, "loop": 0}}
    copy.record_path(lost).write_bytes(encode_record(record))
    grid = tiny().grid
    frame = load_records_frame(copy, ["tiny"], grid.trials)
    row = frame[frame["id"].astype(str) == lost.id].iloc[0]
    assert row["status"] == "diverged"
    assert row[["bounty", "test", "test_loss"]].isna().all()
    context = ReportContext(tmp_path, observed=load_probe_frame(copy, ["tiny"]), store=copy)
    page = report.page(frame, context, report.tables(frame, context), {})
    assert "1 of 8 expected trials has no result (1 diverged)" in page.warnings[0]
    assert page.warnings[1].endswith("without any accuracy: ReLU, dropout 0.")
    files = dict(run_folders(frame, copy))[run_name(lost)]
    assert "best_model.safetensors" not in files
    finals = json.loads(files["run_stats.json"])["final_metrics"]
    assert finals["best_val_acc"] is finals["test_acc"] is finals["train_acc"] is None


def test_numbers_of_numpy_are_numbers() -> None:
    """How many seeds, which, and the values of an axis."""
    plain = tiny(seeds=3, axes={"dropout": [0.0, 0.5]})
    assert tiny(seeds=np.int64(3), axes={"dropout": np.array([0.0, 0.5])}).grid.trials == plain.grid.trials
    assert tiny(seeds=np.arange(3), axes={"dropout": [0.0, 0.5]}).grid.trials == plain.grid.trials


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"workers": 0}, "workers must be at least 1 or None, got 0"),
        ({"workers": 1.5}, "workers must be a whole number, got 1.5"),
        ({"device": "tpu"}, "device must be 'cpu' or 'cuda' or 'mps', got 'tpu'"),
    ],
)
def test_where_it_cannot_run_is_said_first(tmp_path: Path, how: dict[str, Any], said: str) -> None:
    """Before any folder is made."""
    with pytest.raises(UserError) as caught:
        tiny().run(model_dir=tmp_path / "models", results_dir=tmp_path / "results", **how)
    assert said in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_signals_of_another_thread_are_left_alone() -> None:
    """Only the main thread may handle them; elsewhere one enters and leaves without."""
    before, seen = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with StopRequest() as stop:
            seen.append((stop(), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [(False, True)]


def test_results_that_are_not_there_name_the_whole_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from another working directory, a relative name says nothing."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/results holds no record"):
        str(tiny().results())


def test_trials_of_two_splits_are_two_arms(store: Store) -> None:
    """They are never averaged."""
    rows = rows_of(load_records_frame(store, ["tiny"]))
    both = pd.concat([rows, rows.assign(split_seed=7, id=rows["id"].astype(str) + "x")], ignore_index=True)
    assert "split_seed" in varying(both)
    assert len(arms_of(both, varying(both))) == 2 * len(arms_of(rows, varying(rows)))


def test_seeds_that_learned_nothing_are_set_apart_from_the_setting_before_them() -> None:
    """Without brackets "temperature 1 2 of 3" read as a temperature of 12, or as two temperatures."""
    arm = SimpleNamespace(n=3, dead=lambda: 2, label=lambda keys: "Identity, temperature 1")
    found = SimpleNamespace(dead=[], there=[arm], keys=())
    (text,) = dead_arms_text(found)  # type: ignore[arg-type]
    assert text.startswith("In some seeds nothing was learned: Identity, temperature 1 (2 of 3). ")


def test_an_arm_that_learned_nothing_is_judged_at_its_best_epoch() -> None:
    """Single epochs may lie further from ZeroR, and "within" would deny those below it."""
    arm = SimpleNamespace(n=3, dead=lambda: 3)
    found = SimpleNamespace(dead=[arm], there=[arm], keys=(), zero_r=10.88, named=lambda arms: "Identity")
    (text,) = dead_arms_text(found)  # type: ignore[arg-type]
    assert "at its best epoch no seed of Identity was more than 1 point above ZeroR" in text
