"""Diverged networks: NaN and infinity in every policy, pack, resume, record and command."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from helpers import EXPLODING, kept_trial, net_trial, run, trial
from made_up import some_record, some_state
from memories import memory
from processes import train_in_process

from psa.analysis.frame_schema import trials_of
from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, TRAIN
from psa.cli.app import run as command
from psa.data.splits import Splits
from psa.engine import loop as engine
from psa.engine.batches import RowSettings
from psa.engine.device_pack import fresh_state
from psa.engine.train_step import evaluate
from psa.execution.machine import Machine
from psa.execution.packing import groups_of
from psa.execution.worker.record import build_record
from psa.execution.worker.run import run_pack
from psa.execution.worker.server import loop_facts
from psa.experiment import Experiment
from psa.experiments.grid import load_grid
from psa.experiments.tracking.base import curves
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.reports.contract import ReportContext
from psa.specs.trial import Pack, Trial
from psa.storage.records.divergence import diverged, diverged_after, diverged_loops, training_diverged
from psa.storage.records.record import bounty_after, encode_record
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.retention import delete_checkpoints
from psa.storage.store import Store
from psa.storage.trial_state import TrialState, decode_state, encode_state

POLICIES: dict[str, Callable[..., Trial]] = {
    "ratchet": trial,
    "keep": kept_trial,
    "patience": lambda arch, **changes: kept_trial(arch, patience=3, **changes),
    "sgd": lambda arch, **changes: kept_trial(arch, optimizer="sgd", **changes),
}
PARTS: dict[str, Callable[[StackedParams, torch.Tensor], None]] = {
    "a weight that is NaN": lambda rows, _: rows.first[0].fill_(math.nan),
    "an infinite weight that no logit shows": lambda rows, _: rows.rest[0, :1].fill_(-math.inf),
    "an infinite training loss": lambda _, loss: loss[0].fill_(math.inf),
}


def record_from(state: TrialState, splits: Splits, test: engine.TestResult) -> dict[str, Any]:
    """The record of a trial as it is read back from its file."""
    net = Dense(state.trial.model, splits.classes)
    return decode_trial_record(encode_record(build_record(state, net, splits, test)), "it")


def finite(state: TrialState) -> bool:
    """Return True if all numbers of the LKG are."""
    return all(np.isfinite(tensor).all() for tensor in state.lkg.values())


def poison(monkeypatch: pytest.MonkeyPatch, seed: int, loop: int, how: Callable[..., None]) -> None:
    """Spoil the rows of that seed, at the end of one of their epochs."""
    sound = engine.train_epoch

    def spoiled(net: Dense, rows: Sequence[RowSettings], active: StackedParams, *rest: Any) -> torch.Tensor:
        loss = sound(net, rows, active, *rest)
        for at, row in enumerate(rows):
            if (row.seed, row.loop) == (seed, loop):
                how(active[at : at + 1], loss[at : at + 1])
        return loss

    monkeypatch.setattr(engine, "train_epoch", spoiled)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("part", PARTS)
def test_a_loop_that_is_not_finite_is_never_kept(
    policy: str, part: str, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loop 2 of the first of two trials: rejected, shown, and nothing of it reaches the other trial."""
    trials = [POLICIES[policy]("1*16", seed=1), POLICIES[policy]("1*16", seed=2)]
    (alone,), _ = run(trials[1:], small, 2)
    poison(monkeypatch, 1, 2, PARTS[part])
    (lost, beside), tests = run(trials, small, 2)
    assert lost.history["kept"] == [True, False]
    assert diverged_loops(lost.history) == [2]
    assert finite(lost)
    assert lost.lkg_loop == 1
    assert encode_state(beside) == encode_state(alone)
    # ordinary training without patience has no other result than its last epoch
    last = policy in ("keep", "sgd")
    record = record_from(lost, small, tests[0])
    assert diverged(record) == training_diverged(lost.trial.method, lost.history, 1) == last
    assert [diverged_after(record, loops) for loops in (1, 2)] == [False, last]
    assert (bounty_after(record, 2) == 0) == last


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["ratchet", "keep", "patience"])
def test_where_the_first_loop_diverges_the_initial_weights_are_the_lkg(policy: str, small: Splits) -> None:
    """In a pack and alone, with their own score; a kill after any loop changes no bit."""
    trials = [POLICIES[policy](EXPLODING, seed=seed, lr=lr) for seed, lr in ((1, 10.0), (2, 1e-4), (3, 10.0))]
    states, tests = run(trials, small, 3)
    net = Dense(trials[0].model, small.classes)
    for at in (0, 2):
        state, initial = states[at], net.initial(trials[at].seed)
        correct, loss = evaluate(net, initial.repeat(2), small.val)
        assert (state.lkg_loop, state.best_correct, state.best_loss) == (0, int(correct[0]), float(loss[0]))
        assert all(
            np.array_equal(state.lkg[name], tensor.numpy()) for name, tensor in net.unstack(initial).items()
        )
        assert state.history["kept"] == [False] * 3
        assert state.history["loss"] == state.history["train_loss"] == [None] * 3
        assert diverged(record_from(state, small, tests[at]))
        (alone,), alone_tests = run([trials[at]], small, 3)
        assert encode_state(alone) == encode_state(state)
        assert alone_tests[0] == tests[at]
    assert not diverged(record_from(states[1], small, tests[1]))
    resumed = [fresh_state(each, net, 3) for each in trials]
    for loops in (1, 2, 3):
        resumed, again = run(trials, small, loops, states=resumed)
        resumed = [decode_state(encode_state(state), "it") for state in resumed]
    assert [encode_state(state) for state in resumed] == [encode_state(state) for state in states]
    assert again == tests


def test_a_memory_beside_one_that_diverged_is_untouched(small: Splits) -> None:
    """Entries that a diverged network stores stay in its own memory."""
    trials = [net_trial(EXPLODING, seed, lr=lr) for seed, lr in ((1, 10.0), (2, 1e-4))]
    trials = [each.changed(memory=memory(mode="gated")) for each in trials]
    (lost, beside), tests = run(trials, small, 2)
    (alone,), alone_tests = run(trials[1:], small, 2)
    assert diverged(record_from(lost, small, tests[0]))
    assert finite(lost)
    assert encode_state(beside) == encode_state(alone)
    assert tests[1] == alone_tests[0]


def test_the_ratchet_goes_on_from_the_initial_weights(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first loop that diverged is one loop lost, not the trial."""
    poison(monkeypatch, 1, 1, PARTS["a weight that is NaN"])
    (state,), (test,) = run([trial("1*16", seed=1)], small, 3)
    assert state.history["kept"][:2] == [False, True]
    record = record_from(state, small, test)
    assert not diverged(record)
    assert diverged_after(record, 1)
    assert (bounty_after(record, 1), diverged_loops(record["history"])) == (0, [1])
    shown = curves(record)
    assert shown.finals["diverged_loops"] == 1
    assert "test_accuracy" in shown.finals
    assert "validation/lkg" not in shown.points[0][1]


@pytest.mark.parametrize("mode", ["none", "full"])
def test_the_twin_rejects_the_same_loops(mode: Any, small: Splits) -> None:
    """The slow twin, at a rate that explodes."""
    one = trial(EXPLODING, mode, 1, lr=10.0)
    (state,), (test,) = run([one], small, 2)
    twin = reference.train(one, small, 2)
    assert [row[1:3] for row in twin.rows] == list(
        zip(state.history["correct"], state.history["kept"], strict=True)
    )
    assert (twin.best, twin.test) == (state.best_correct, test.correct)
    assert all(
        np.array_equal(mine, theirs.numpy())
        for mine, theirs in zip(state.lkg.values(), twin.lkg, strict=True)
    )


def test_a_search_scores_a_trial_that_diverged_with_zero(
    small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Tune and the best line of a sweep see what every loop reports."""
    poison(monkeypatch, 1, 2, PARTS["a weight that is NaN"])
    heard: list[list[float]] = []
    best: list[str] = []

    def listen(reports: Sequence[engine.LoopReport]) -> None:
        heard.append([report.score for report in sorted(reports, key=lambda each: each.state.trial.seed)])
        best.append(loop_facts(reports)["trial"])

    trials = [kept_trial("1*16", 1), kept_trial("1*16", 2, lr=1e-6)]
    run(trials, small, 2, listen=listen)
    assert heard[0][0] > heard[0][1] > 0
    assert heard[1][0] == 0
    assert best == [trials[0].id, trials[1].id]


# Logits


def test_a_logit_that_no_loss_depends_on_counts(small: Splits) -> None:
    """A class that is never the label and whose logit is -inf leaves every loss finite."""
    one = trial("1*4")
    net = Dense(one.model, 10)
    weights = net.initial(1).repeat(2)
    split = small.val[small.val.labels != 3]
    finite_loss = evaluate(net, weights, split)[1]
    net.layout.bias(weights, len(net.layout.linears) - 1)[0, 3] = -math.inf
    loss = evaluate(net, weights, split)[1]
    assert finite_loss.isfinite().all()
    assert loss[0].isnan()
    assert loss[1] == finite_loss[1]


# What earlier versions stored


def old_record(**history: Any) -> dict[str, Any]:
    """A record as they wrote it of a network that diverged in loop 1: kept, and without any loss."""
    record = some_record(3)
    lost = {"loss": [None] * 3, "train_loss": [None] * 3, "kept": [True, False, False]}
    record["history"] = record["history"] | lost | history
    record["finals"] |= {"bounty": {"correct": 973, "loop": 1}, "test": {"correct": 980, "loss": None}}
    return record


OLD: dict[str, dict[str, Any]] = {
    "ratchet": old_record(),
    "later": old_record(
        loss=[2.0, None, None], train_loss=[2.0, None, None], correct=[10, 11, 11], kept=[True, True, False]
    )
    | {"finals": {**old_record()["finals"], "bounty": {"correct": 11, "loop": 2}}},
    "patience": old_record(kept=[False] * 3)
    | {
        "finals": {
            "bounty": {"correct": -1, "loop": 0},
            "test": {"correct": 980, "loss": 2.3},
            "stopped_early": True,
        }
    },
}


@pytest.mark.parametrize("name", OLD)
def test_an_old_record_keeps_its_bytes_and_is_read_as_diverged(name: str, tmp_path: Path) -> None:
    """It is sound, its trial is done, and neither kept weights nor listeners take it for a result."""
    store = Store(tmp_path / "models", tmp_path / "results")
    state = some_state(3)
    path = store.record_path(state.trial)
    content = encode_record(OLD[name])
    store.write(state.trial, OLD[name], {})
    assert path.read_bytes() == content
    assert all(finding.problem is None for finding in store.verify())
    survey = store.progress([state.trial], 3)
    assert (survey.done, survey.diverged) == ([state.trial], [state.trial])
    assert survey.counts == "1 of 1 trials done (1 diverged)"
    assert curves(OLD[name]).finals["diverged"] == 1
    assert "test_accuracy" not in curves(OLD[name]).finals
    assert bounty_after(OLD[name], 3) == 0
    sound = some_state(3, trial=state.trial.changed(seed=1))
    finals = some_record(3)["finals"] | {"bounty": {"correct": 900, "loop": 1}}
    store.write(sound.trial, some_record(3, sound.trial) | {"finals": finals}, {})
    for each in (state, sound):
        store.state_file(each.trial).save(each)
    delete_checkpoints(store, [state.trial, sound.trial], "best")
    assert [store.state_file(each.trial).path.exists() for each in (state, sound)] == [False, True]


@pytest.fixture
def here(tmp_path: Path, small: Splits, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and a corner of the data in the place of all of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("psa.execution.worker.run.load_splits", lambda *_, **__: small)
    return tmp_path


Capture = pytest.CaptureFixture[str]
EXPLODES = ("--arch", f"[{EXPLODING}]", "--lr", "10", "--batch-size", "64", "--model", "simplemlp")
SOUND = ("--arch", "[1*4]", "--lr", "1e-3", "--batch-size", "64", "--model", "simplemlp")


@pytest.mark.usefixtures("here")
def test_an_old_state_that_is_not_finite_is_refused_in_one_line(capsys: Capture) -> None:
    """`train` says so with exit code 2 and touches nothing; after what the hint says it trains anew."""
    assert command(TRAIN, [*SOUND, "--meta-loops", "1"]) == 0
    path = Path("models/mnist_lkg.safetensors")
    state = decode_state(path.read_bytes(), "it")
    state.lkg["output.bias"] = np.full_like(state.lkg["output.bias"], np.nan)
    path.write_bytes(encode_state(state))
    before = path.read_bytes()
    capsys.readouterr()
    assert command(TRAIN, [*SOUND, "--meta-loops", "1"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: the LKG in models/mnist_lkg.safetensors is not finite (loop 1 diverged")
    assert "`clean --model-dir models mnist_lkg.safetensors`" in err
    assert f"remove the record of {state.trial.id}" in err
    assert err.count("\n") == 1
    assert path.read_bytes() == before
    path.unlink()
    for record in Path("results").rglob("*.json"):
        record.unlink()
    assert command(TRAIN, [*SOUND, "--meta-loops", "1"]) == 0


# Commands


@pytest.mark.usefixtures("here")
def test_train_says_that_its_network_diverged(capsys: Capture) -> None:
    """Every loop and the end say so; no accuracy is shown as a result."""
    assert command(TRAIN, [*EXPLODES, "--meta-loops", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("current diverged | bounty ") == 2
    assert "new LKG" not in out
    assert "DIVERGED: in 2 of 2 loops" in out
    assert "test " not in out[out.index("DIVERGED") : out.index("Always")]


GRID = """
study = "{study}"
name = "lost"
meta_loops = 2
seeds = "0..1"
[base]
{base}
batch_size = 64
[axes]
{axes}
"""
NETWORKS = f'arch = ["1*4", "{EXPLODING}"]'
# settings, axes, and how many trials are asked; two of them diverge
STUDIES: dict[str, tuple[str, str, int]] = {
    "ablation": ('family = "simplemlp"\nmode = "none"\nlr = 10.0', NETWORKS, 4),
    "activations": ("", f"{NETWORKS}\nlr = [10.0, 1e-3]", 8),
    "glonet": ("features = 16\nlr = 10.0", 'model = ["MLP"]\nnum_layers = [2, 61]', 4),
    "memory": ("", f"{NETWORKS}\nlr = [10.0, 1e-3]", 8),
}


def trained(folder: Path, study: str) -> Any:
    """The grid of a study, trained in this process; the grid."""
    path = folder / "lost.toml"
    path.write_text(GRID.format(study=study, base=STUDIES[study][0], axes=STUDIES[study][1]))
    grid = load_grid(path)
    store = Store(folder / "models", folder / "results")
    for group in groups_of(grid.trials):
        run_pack(Pack(trials=tuple(group), horizon=2), store, Machine(folder, "cpu"))
    return grid


def test_a_sweep_and_its_status_count_what_diverged(here: Path, capsys: Capture) -> None:
    """They are done, so the exit code is 0; how many is said."""
    trained(here, "ablation")
    assert command(PSA, ["sweep", "lost.toml"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "4 of 4 trials done (2 diverged), 0 failed"
    assert command(PSA, ["status", "lost.toml"]) == 0
    assert "4 of 4 trials done (2 diverged)" in capsys.readouterr().out
    assert command(PSA, ["verify"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_a_report_leaves_out_what_diverged_and_says_how_many(study: str, here: Path, capsys: Capture) -> None:
    """The two trials that diverged take part in no mean, and the page counts them."""
    grid = trained(here, study)
    store = Store(here / "models", here / "results")
    frame = trials_of(load_records_frame(store, ["lost"], grid.trials))
    lost = frame[frame["status"] == "diverged"]
    assert len(lost) == 2
    assert lost["diverged_loops"].tolist() == [2, 2]
    assert lost[["bounty", "test", "test_loss"]].isna().all(axis=None)
    assert frame["diverged_loops"][frame["status"] == "done"].tolist() == [0] * (STUDIES[study][2] - 2)
    words = ["report", "lost", "--grid", "lost.toml"]
    assert command(PSA, words) == 0, capsys.readouterr()
    page = next(Path("results/reports").rglob("*.html")).read_text()
    assert "2 diverged" in page


POISONED: dict[str, tuple[str, str]] = {
    "activations": ("", 'activation = ["ReLU", "HectoSparseMax"]'),
    "activations, stochastic": ('simplex = "all"\nscaling = "simplex"', "temperature = [0.05, 1.0]"),
    "memory, growing": ("growing = true\ngrow_width = 2\ngrow_after = 0", 'method = ["nn", "hybrid"]'),
    "glonet": ("features = 4\nnum_layers = 3", 'model = ["MLP", "GloNet"]'),
    "gradients": ("", "dropout = [0.0, 0.1]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("study", POISONED)
def test_the_tables_of_a_report_are_those_without_the_trials_that_diverged(
    study: str, here: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both arms of a seed diverge from epoch 1 on: no number differs from what it is without them."""
    kind = study.partition(",")[0]
    arch = "" if kind == "glonet" else 'arch = "1*4"\n'
    text = GRID.format(study=kind, base=arch + POISONED[study][0], axes=POISONED[study][1])
    (here / "lost.toml").write_text(text)
    poison(monkeypatch, 1, 1, PARTS["a weight that is NaN"])
    train_in_process(here, data_dir, 2, here / "lost.toml")
    store, grid = Store(here / "models", here / "results"), load_grid(here / "lost.toml")
    shown = tables_of(store, grid, kind, data_dir)
    lost = [each for each in grid.trials if each.seed == 1]
    assert store.progress(grid.trials, 2).diverged == lost
    for each in lost:
        store.record_path(each).unlink()
    assert tables_of(store, grid, kind, data_dir) == shown
    assert shown


def tables_of(store: Store, grid: Any, kind: str, data_dir: Path) -> dict[str, str]:
    """Every table of the page of a study, with one word for trials that take part in nothing."""
    frame = load_records_frame(store, ["lost"], grid.trials)
    module = importlib.import_module(f"psa.reports.{kind}.report")
    context = ReportContext(
        store.results, observed=load_probe_frame(store, ["lost"]), store=store, data_dir=data_dir
    )
    found = {
        f"{number} {name}": table.csv()
        for number, (_, rows) in enumerate(module.parts(frame))
        for name, table in module.tables(rows, context).items()
    }
    return {
        name: re.sub("diverged|missing", "absent", text, flags=re.IGNORECASE) for name, text in found.items()
    }


def test_an_experiment_shows_what_diverged(here: Path) -> None:
    """In its frame, and below its summary."""
    trained(here, "activations")
    axes = {"arch": ["1*4", EXPLODING], "lr": [10.0, 1e-3]}
    experiment = Experiment("activations", name="lost", base={"batch_size": 64}, axes=axes, epochs=2, seeds=2)
    results = experiment.results(model_dir=here / "models", results_dir=here / "results")
    assert (results.frame["status"] == "diverged").sum() == 2
    assert str(results).splitlines()[-1].startswith("diverged: 2 of 8 trials")
