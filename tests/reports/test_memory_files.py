"""Files of the earlier memory study: each number again, by a few lines, from the records and the samples."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import some_record, some_state
from scipy import stats

from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.analysis.sample_details import load_sample_details
from psa.core.errors import CorruptFileError
from psa.experiments.studies.memory import Settings, from_settings
from psa.reports.contract import ReportContext
from psa.reports.memory import report
from psa.reports.memory.comparisons import comparisons_of
from psa.reports.memory.listings import comparison_tests, epoch_logs
from psa.reports.memory.runs import build_runs
from psa.specs.trial import Trial
from psa.storage.array_file import Arrays
from psa.storage.store import Store

SEEDS = (11, 22, 33)
EPOCHS = 4
VALIDATION, TEST = 1_000, 2_000
# hidden layers of the network that each epoch trains, and its parameters by hand: 784 inputs, 10 classes
WIDTHS = ([16, 16], [20, 20, 20], [20, 20, 20], [24, 24, 24, 24])


def parameters(widths: list[int]) -> int:
    """Weights and biases, layer by layer."""
    sizes = [784, *widths, 10]
    return sum(a * b + b for a, b in itertools.pairwise(sizes))


def event(epoch: int) -> dict[str, Any]:
    """A growth after an epoch, as records have it."""
    old, new = WIDTHS[epoch - 1], WIDTHS[epoch]
    return {
        "epoch": epoch, "global_step": 10 * epoch, "grew": True, "trigger_reason": f"reason {epoch}",
        "old_hidden_sizes": old, "new_hidden_sizes": new, "param_count_before": parameters(old),
        "param_count_after": parameters(new), "val_accuracy_at_trigger": 0.5,
    }  # fmt: skip


def stored(folder: Path) -> tuple[Store, list[Trial]]:
    """Records of a growing memory and its plain network, over three seeds."""
    store, trials = Store(folder / "models", folder / "results"), []
    for method in ("hybrid", "nn"):
        for at, seed in enumerate(SEEDS):
            settings = {"arch": "2*16", "method": method, "growing": True, "grow_width": 4}
            probes = ("train_accuracy", "sample_details") if method == "hybrid" else ()
            trial = from_settings(Settings.model_validate({**settings, "probes": probes}), seed)
            trials.append(trial)
            store.write(trial, _record(trial, method, at), {"train_samples_per_second": 100.0})
    return store, trials


def _record(trial: Trial, method: str, at: int) -> dict[str, Any]:
    record = some_record(EPOCHS, trial)
    correct = [500 + 100 * epoch + 7 * at for epoch in range(EPOCHS)]
    record["history"] |= {
        "correct": correct, "kept": [True] * EPOCHS, "loss": [2.0 / (epoch + 1) for epoch in range(EPOCHS)],
        "train_loss": [3.0 / (epoch + 1) for epoch in range(EPOCHS)],
    }  # fmt: skip
    record["samples"] = {"train": 5_000, "validation": VALIDATION, "test": TEST, "zero_r_validation": 110}
    record["finals"]["bounty"] = {"correct": correct[-1], "loop": EPOCHS}
    right = {"hybrid": (1800, 1815, 1790), "nn": (1780, 1760, 1775)}[method][at]
    record["finals"]["test"] = {"correct": right, "loss": 0.3}
    record["events"] = [event(1), event(3)]
    built = {"family": "mlp", "arch": "[4*24]", "parameters": parameters(WIDTHS[3])}
    record["built"] = {**built, "initial": built | {"arch": "[2*16]", "parameters": parameters(WIDTHS[0])}}
    if method == "hybrid":
        loops = range(EPOCHS + 1)
        fitted = [{"correct": [1_000 * loop], "total": [5_000]} for loop in loops]
        traced = [{"purity": [loop / 10], "distance": [None if loop < 1 else 1 / loop]} for loop in loops]
        record["probes"] = {
            "train_accuracy": {"places": {}, "loops": fitted, "last": fitted[-1]},
            "retrieval": {"places": {}, "loops": traced, "last": _last()},
            "toggle": {"places": {"": ["validation", "test"]}, "loops": [{}] * 5, "last": _toggle()},
        }
    return record


def _last() -> dict[str, list[float]]:
    names = ("acted", "purity", "top1", "distance", "gate", "magnitude", "relative")
    return {name: [0.5, 0.25] for name in names} | {"size": [60.0], "bytes": [9_000.0]}


def _toggle() -> dict[str, list[float]]:
    counts = ("helped", "harmed", "neutral", "strong_help", "strong_harm", "with_correct", "without_correct")
    return {name: [100, 200] for name in counts} | {
        "samples": [VALIDATION, TEST], "mean": [0.1, 0.2], "std": [1.0, 2.0], "histogram.test": [0] * 17,
    }  # fmt: skip


def listed(folder: Path) -> dict[str, bytes]:
    """The files of the page."""
    store, trials = stored(folder)
    rows = load_records_frame(store, [], trials)
    context = ReportContext(folder / "page", observed=load_probe_frame(store), store=store)
    return report.listings(rows, context)


def test_the_log_of_epochs_has_losses_growth_and_the_retrieval_trace(tmp_path: Path) -> None:
    """A row for each epoch of each run; a size holds from the epoch after a growth on."""
    rows = [*csv.DictReader(io.StringIO(listed(tmp_path)["epoch_logs.csv"].decode()))]
    assert len(rows) == 2 * len(SEEDS) * EPOCHS
    mine = [row for row in rows if row["method"] == "hybrid" and row["seed"] == "22"]
    assert [row["epoch"] for row in mine] == ["1", "2", "3", "4"]
    for epoch, row in enumerate(mine, 1):
        assert float(row["val_accuracy"]) == pytest.approx(100 * (400 + 100 * epoch + 7) / VALIDATION)
        assert float(row["val_loss"]) == pytest.approx(2 / epoch)
        assert float(row["train_loss"]) == pytest.approx(3 / epoch)
        assert float(row["train_accuracy"]) == pytest.approx(100 * 1_000 * epoch / 5_000)
        assert float(row["retrieval_purity"]) == pytest.approx(epoch / 10)
        assert float(row["retrieval_distance"]) == pytest.approx(1 / epoch)
        widths = WIDTHS[epoch - 1]
        assert int(row["parameter_count"]) == parameters(widths)
        assert (int(row["depth"]), int(row["width"])) == (len(widths), max(widths))
        assert row["growth_reason"] == (f"reason {epoch}" if epoch in (1, 3) else "")
        assert row["growth_triggered"] == str(epoch in (1, 3))
    plain = next(row for row in rows if row["method"] == "nn")
    assert plain["retrieval_purity"] == plain["train_accuracy"] == ""
    assert "retrieval_gate" not in plain  # nothing has it


def test_records_of_other_runs_and_absent_measurements_are_left_out(tmp_path: Path) -> None:
    """Only the given runs have rows, and columns exist only for quantities that one of them measured."""
    store, trials = stored(tmp_path)
    records = list(store.records.all())
    runs = build_runs(load_records_frame(store, [], trials), ReportContext(tmp_path, store=store))
    plain = runs[runs["method"] == "nn"]
    assert 0 < len(plain) < len(runs)
    logs = epoch_logs(records, plain)
    assert set(logs["id"]) == set(plain["id"])
    assert not [name for name in logs if name == "train_accuracy" or name.startswith("retrieval_")]
    assert len(epoch_logs(records, runs.head(0))) == 0


def test_comparison_tests_are_scipys(tmp_path: Path) -> None:
    """Means, deviations, interval, p and Cohen's d from the six accuracies."""
    (row,) = csv.DictReader(io.StringIO(listed(tmp_path)["comparison_tests.csv"].decode()))
    one, other = (np.array(each) / TEST * 100 for each in ((1800, 1815, 1790), (1780, 1760, 1775)))
    difference, found = one - other, {key: row[key] for key in ("metric", "n")}
    assert found == {"metric": "test_accuracy", "n": "3"}
    assert row["config_a"].startswith("hybrid growing 2*16")
    assert row["config_b"].startswith("nn growing 2*16")
    test = stats.ttest_rel(one, other)
    low, high = test.confidence_interval(0.95)
    expected = {
        "mean_a": one.mean(), "std_a": one.std(ddof=1), "mean_b": other.mean(), "std_b": other.std(ddof=1),
        "mean_diff_a_minus_b": difference.mean(), "ci95_low": low, "ci95_high": high,
        "p_value": test.pvalue, "p_value_adjusted": test.pvalue,
        "effect_size_d": difference.mean() / difference.std(ddof=1),
    }  # fmt: skip
    assert {name: float(row[name]) for name in expected} == pytest.approx(expected)


def test_two_seeds_have_no_effect_size(tmp_path: Path) -> None:
    """As they have no interval: their mean over their scatter says nothing."""
    store, trials = stored(tmp_path)
    some = [trial for trial in trials if trial.seed != 33]
    context = ReportContext(tmp_path, store=store)
    runs = build_runs(load_records_frame(store, [], some), context)
    (row,) = comparison_tests(runs, comparisons_of(runs)).to_dict("records")
    assert row["n"] == 2
    assert np.isnan([row[name] for name in ("ci95_low", "p_value", "effect_size_d")]).all()


def details(seed: int) -> Arrays:
    """Arrays as the probe stores them with a memory, for 30 validation and 50 test samples."""
    draws, found = np.random.default_rng(seed), Arrays()
    for split, count in (("validation", 30), ("test", 50)):
        whole = {name: draws.integers(10, size=count) for name in ("index", "digit", "label", "prediction")}
        whole["prediction_without"] = draws.integers(10, size=count)
        names = ("loss", "loss_without", "confidence", "distance", "purity", "top1", "gate", "magnitude")
        real = {name: draws.random(count).astype(np.float32) for name in names}
        real["distance"][:3] = np.nan
        found |= {f"{split}.{name}": values for name, values in {**whole, **real}.items()}
    return found


def with_details(folder: Path) -> tuple[Store, list[Trial], Arrays]:
    """The records of which one has its samples beside a state with a memory."""
    store, trials = stored(folder)
    trial, arrays = trials[0], details(1)
    file = store.state_file(trial)
    entry = file.keep(trial, f"sample_details-{EPOCHS}", arrays)
    record = _record(trial, "hybrid", 0) | {"files": {f"sample_details-{EPOCHS}": entry}}
    file.path.unlink(missing_ok=True)
    for path in store.results.rglob(f"*{trial.digest[:6]}*"):
        path.unlink()
    store.write(trial, record, {})
    return store, trials, arrays


def test_details_are_the_samples_that_were_kept(tmp_path: Path) -> None:
    """A row per sample; the change of the loss by the memory; none without the probe or the file."""
    store, trials, arrays = with_details(tmp_path)
    records = {record["id"]: record for record in store.records.all()}
    found = load_sample_details(store, records[trials[0].id])
    assert found is not None
    assert list(found["split"]) == ["validation"] * 30 + ["test"] * 50
    test = found[found["split"] == "test"]
    assert np.array_equal(test["prediction"], arrays["test.prediction"])
    change = arrays["test.loss"].astype(np.float64) - arrays["test.loss_without"]
    assert test["loss_change"].to_numpy() == pytest.approx(change)
    assert test["distance"].isna().sum() == 3
    assert load_sample_details(store, records[trials[1].id]) is None
    (path,) = store.models.rglob("*.arrays.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CorruptFileError, match="is not the file that was recorded"):
        load_sample_details(store, records[trials[0].id])
    path.unlink()
    assert load_sample_details(store, records[trials[0].id]) is None


@pytest.mark.slow
def test_every_run_has_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Metrics, epochs and curves for each; samples and their figures for the one that kept them, unless their
    file is damaged.
    """
    store, trials, arrays = with_details(tmp_path)
    state = some_state(EPOCHS, trial=trials[0])
    state.memory = {
        "size": np.array(60), "now": np.array(40), "arrived": np.array(200),
        "insert_step": np.arange(60) % 40, "retrieved": np.arange(60), "usefulness": np.arange(60) - 20.0,
    }  # fmt: skip
    monkeypatch.setattr(store, "load_state", lambda trial: state if trial.id == trials[0].id else None)
    rows = load_records_frame(store, [], trials)
    folders = dict(report.runs(rows, ReportContext(tmp_path, store=store)))
    assert len(folders) == len(trials)
    name = f"hybrid_2x16_growing_s11_{trials[0].digest[:6]}"
    plain = next(files for each, files in folders.items() if each.startswith("nn_2x16_growing_s11"))
    assert set(plain) == {"metrics.json", "epoch_logs.csv", "training_curves.png", "training_curves.txt"}
    pictures = {
        "training_curves", "loss_delta_histogram", "retrieval_distance_vs_benefit", "memory_insert_step_hist",
        "memory_usefulness_vs_usage",
    }  # fmt: skip
    files = folders[name]
    assert set(files) - set(plain) == {"details.csv"} | {
        f"{each}{ending}" for each in pictures - {"training_curves"} for ending in (".png", ".txt")
    }
    assert all(files[f"{each}.png"].startswith(b"\x89PNG") for each in pictures)
    samples = [*csv.DictReader(io.StringIO(files["details.csv"].decode()))]
    assert [int(row["index"]) for row in samples if row["split"] == "test"] == list(arrays["test.index"])
    metrics = json.loads(files["metrics.json"])
    assert metrics["growth"]["parameter_count_timeline"] == [parameters(widths) for widths in WIDTHS]
    assert metrics["toggle_eval"]["test"] == {
        name: values[1] for name, values in _toggle().items() if "." not in name
    }
    assert metrics["final_metrics"]["test"] == pytest.approx(100 * 1800 / TEST)
    assert [epoch["val_loss"] for epoch in metrics["epoch_logs"]] == pytest.approx([2, 1, 2 / 3, 0.5])
    (path,) = store.models.rglob("*.arrays.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = dict(report.runs(rows, ReportContext(tmp_path, store=store)))
    assert again.keys() == folders.keys()
    assert set(again[name]) == set(plain)
    assert f"{trials[0].id} has no samples and no entries: " in caplog.text
