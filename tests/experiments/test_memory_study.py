"""The study of memory and growth: its methods as trials, its grids, and what its probes see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from paths import ROOT

from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.engine.device_pack import DevicePack
from psa.engine.probing import ProbeInput
from psa.execution.cost_model import memory_bytes, trial_bytes
from psa.execution.worker.record import probes_for
from psa.experiments.grid import load_grid
from psa.experiments.studies.memory import METHODS, Settings, from_settings
from psa.interventions.growth import hidden_widths
from psa.nn.dense import Dense
from psa.probes.embedding_knn import embeddings, voted
from psa.probes.predictions import predict
from psa.reports.memory.runs import _memory
from psa.specs.growth import parameters
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState, encode_state

CPU = torch.device("cpu")


def trial(seed: int = 3, **settings: Any) -> Trial:
    """A small one of the study."""
    small = {"arch": "1*19, 1*14", "memory_size": 300, "batch_size": 64, "affected_dims": 9}
    return from_settings(Settings.model_validate(small | settings), seed)


def test_methods_are_networks_and_controls() -> None:
    """What each method trains, and that all of them are trials of their own."""
    made = {method: trial(method=method) for method in METHODS}
    assert len({each.digest for each in made.values()}) == len(METHODS)
    assert made["nn_large"].model.arch.widths == (38, 28)
    assert made["nn_extra_layer"].model.arch.widths == (19, 14, 14)
    assert made["embedding_knn"].probes == ("calibration", "confusion", "embedding_knn")
    controls = {name: each.memory.control for name, each in made.items() if each.memory is not None}
    assert controls == {"hybrid": "none", "hybrid_inactive": "inactive", "random_memory": "random"}
    assert trial(growing=True).growth is not None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"memory_mode": "overwrite"}, "choose residual"),
        ({"k": 301}, r"k must be at most memory_size \(300\), got 301"),
        ({"centroid_delta": True}, "centroid_delta must be left out unless target is class_centroid"),
        ({"growing": True, "max_width": 5, "grow_depth": 0}, "must leave room to grow"),
        ({"site": "hidden_9"}, "unknown site 'hidden_9'"),
        ({"query": "untouched", "affected_dims": 14}, "Lower affected_dims below 14"),
        ({"query": "projection", "projection_dims": 14}, "projection_dims must be below the 14 dimensions"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], said: str) -> None:
    """In the sentence of the part that refuses them."""
    with pytest.raises((ValueError, UserError), match=said):
        trial(**settings)


def test_the_grid_of_the_memory_has_the_published_variants() -> None:
    """a0 to a21 but for two that others are; none is another under a second name."""
    grid = load_grid(ROOT / "reproduction" / "memory.toml")
    names = {point.variant for point in grid.stages[0].points}
    assert names == {f"a{number}" for number in range(22) if number not in (2, 14)} | {"long_steps"}
    assert len({point.trial.digest for point in grid.stages[0].points}) == len(names)
    assert {point.trial.data.train_size for point in grid.stages[1].points} == {12_000}


def test_the_grid_of_growth_ends_at_the_published_size() -> None:
    """48*2 grows to 80*4 with 83,050 parameters, as many as its matched rival has."""
    grid = load_grid(ROOT / "reproduction" / "growth.toml")
    points = {point.variant: point.trial for point in grid.stages[0].points}
    assert points.keys() == {f"g{number}" for number in range(13)} | {"matched"}
    growth = points["g5"].growth
    assert growth is not None
    widths = growth.grown(growth.grown(points["g5"].model.arch.widths))
    assert widths == points["matched"].model.arch.widths == (80, 80, 80, 80)
    assert parameters(widths, 784, 10) == 83_050


def seen_in(states: list[TrialState], outcomes: list[Any], name: str) -> tuple[Any, Any]:
    """What a probe saw after each loop, and last, of the first trial."""
    return states[0].observed[name], outcomes[0].probes[name]


def test_what_probes_see_does_not_depend_on_the_pack(small: Splits) -> None:
    """Nor do they change the training: without any of them it is the same."""
    (alone,), (outcome,) = run([trial(3)], small, 2)
    together, outcomes = run([trial(8), trial(3)], small, 2)
    assert encode_state(together[1]) == encode_state(alone)
    assert outcomes[1].probes == outcome.probes
    (blind,), _ = run([trial(3).changed(probes=())], small, 2)
    assert all(np.array_equal(blind.lkg[name], tensor) for name, tensor in alone.lkg.items())
    assert all(np.array_equal(blind.memory[name], tensor) for name, tensor in alone.memory.items())


def test_a_memory_is_seen_at_work(small: Splits) -> None:
    """Before the first loop it finds nothing; later it holds what came, and every sample is accounted for."""
    states, outcomes = run([trial(step_size=5.0)], small, 2)
    each, last = seen_in(states, outcomes, "retrieval")
    assert each[0]["acted"] == [0.0]
    assert each[0]["distance"] == [None]
    assert each[2]["size"] == [300.0]
    assert each[2]["bytes"] == [300 * (4 * (14 + 9) + 28)]
    assert last["acted"] == [1.0, 1.0]
    assert last["gate"] == pytest.approx([0.4, 0.4])
    assert 0 < last["relative"][0] < 1
    _, toggled = seen_in(states, outcomes, "toggle")
    for at, samples in enumerate((300, 200)):
        assert toggled["samples"][at] == samples
        assert toggled["helped"][at] + toggled["harmed"][at] + toggled["neutral"][at] == samples
        assert toggled["with_correct"][1] == outcomes[0].correct
    assert sum(toggled["histogram.test"]) == 200
    assert toggled["distance.test"] == sorted(toggled["distance.test"])


def test_a_memory_that_never_acts_is_neutral(small: Splits) -> None:
    """Not noise around zero: the inactive control and a gate of 0 help and harm nobody."""
    for settings in ({"method": "hybrid_inactive"}, {"alpha": 0.0}):
        states, outcomes = run([trial(**settings)], small, 1)
        _, toggled = seen_in(states, outcomes, "toggle")
        assert toggled["neutral"] == [300, 200]
        assert toggled["mean"] == [0.0, 0.0]


def test_a_network_that_diverged_is_observed_as_it_began(small: Splits) -> None:
    """Its LKG is that of before the first loop, with answers that are counted as ever. What earlier versions
    observed of weights that were no numbers is read as missing.
    """
    wild = {"optimizer": "sgd", "lr": 10.0, "momentum": 0.99, "weight_decay": 10.0, "dropout": 0.0}
    states, outcomes = run([trial(**wild, batch_size=8)], small, 3)
    assert states[0].lkg_loop == 0
    assert all(np.isfinite(weights).all() for weights in states[0].lkg.values())
    _, calibration = seen_in(states, outcomes, "calibration")
    assert calibration["accuracy"][1] == outcomes[0].correct / 200
    _, toggled = seen_in(states, outcomes, "toggle")
    assert toggled["samples"] == [300, 200]
    assert toggled["with_correct"][1] == outcomes[0].correct
    unknown = {key: [None, None] for key in ("helped", "neutral", "mean")}
    row = _memory({"toggle": toggled | unknown})
    assert row["helped"] is None
    assert row["with_memory"] == 100 * outcomes[0].correct / 200


def test_answers_are_counted_by_class(small: Splits) -> None:
    """Confusion and calibration are of the very answers that the test counts."""
    states, outcomes = run([trial()], small, 2)
    _, confusion = seen_in(states, outcomes, "confusion")
    counts = np.array(confusion["counts"]).reshape(10, 10)
    assert counts.trace() == outcomes[0].correct
    assert counts.sum(axis=1).tolist() == np.bincount(small.test.labels, minlength=10).tolist()
    _, calibration = seen_in(states, outcomes, "calibration")
    assert calibration["accuracy"][1] == outcomes[0].correct / 200
    assert 0 < calibration["ece"][0] < 1


def test_the_nearest_embeddings_vote(small: Splits) -> None:
    """The probe is the sentence that describes it, written with a loop; ties go to the lowest class."""
    chosen = trial(method="embedding_knn")
    (state,), outcomes = run([chosen], small, 1)
    _, found = seen_in([state], outcomes, "embedding_knn")
    pack = DevicePack(Dense(chosen.model, 10), [state], CPU)
    probe_input = ProbeInput(pack.net, pack.lkg, [1], small)
    known, asked = (embeddings(probe_input, split, 0).numpy() for split in (small.train, small.test))
    labels = small.train.labels.numpy()
    answers = []
    for query in asked:
        nearest = np.argsort(((known - query) ** 2).sum(axis=1), kind="stable")[:8]
        answers.append(np.bincount(labels[nearest], minlength=10).argmax())
    right = int((np.array(answers) == small.test.labels.numpy()).sum())
    assert abs(found["correct"][1] - right) <= 1  # a distance may tie within rounding
    assert found["total"] == [300, 200]
    points = torch.tensor([[0.0], [0.1], [5.0]])
    assert voted(points, torch.tensor([4, 2, 1]), torch.zeros(1, 1), 10, 2).tolist() == [2]


def test_answers_with_and_without_the_memory_differ_by_the_memory(small: Splits) -> None:
    """Of a trial with one; without one there is nothing to switch off."""
    (state,), _ = run([trial(step_size=5.0)], small, 2)
    pack = DevicePack(Dense(state.trial.model, 10), [state], CPU)
    probe_input = ProbeInput(pack.net, pack.lkg, [2], small, pack.memories([0], [2]))
    one, other = (predict(probe_input, small.val, 0, with_memory=on) for on in (True, False))
    assert not np.array_equal(one.losses, other.losses)
    assert one.memory.keys() == {"distance", "purity", "top1", "gate", "magnitude", "relative"}
    assert not other.memory


def test_a_probe_of_a_memory_wants_a_memory() -> None:
    """Rather than to record nothing."""
    with pytest.raises(UserError, match="'toggle' observes a memory"):
        probes_for(trial(method="nn").changed(probes=("toggle",)))


def test_a_growing_network_is_observed_in_every_size(small: Splits) -> None:
    """Probes look at whatever it has become."""
    (state,), outcomes = run([trial(growing=True, grow_width=3, stop_epoch=3)], small, 3)
    assert hidden_widths(state.lkg) == (25, 20, 20, 20)
    assert sum(outcomes[0].probes["confusion"]["counts"]) == 200
    assert len(state.observed["retrieval"]) == 4


def test_a_memory_costs_what_it_holds() -> None:
    """Memory and disk are planned with full banks."""
    plain, with_memory = trial(method="nn"), trial(memory_size=100_000)
    entry = 4 * (14 + 9) + 28
    assert memory_bytes([with_memory] * 2) - memory_bytes([plain] * 2) == 2 * 4 * 100_000 * entry
    assert trial_bytes(with_memory, 3) - trial_bytes(plain, 3) == 2 * 100_000 * entry


@pytest.mark.parametrize(
    ("digits", "epochs"), [("", "2.5 epochs of 8,000"), ("digits=0,1", "12.5 epochs of 1,600")]
)
def test_it_is_said_when_a_memory_is_full(digits: str, epochs: str) -> None:
    """The remark counts the samples that are trained on, which a set of digits reduces."""
    grid = load_grid(ROOT / "reproduction/growth.toml", [digits] if digits else [])
    assert any(f"is full after {epochs} samples" in remark for remark in grid.warnings)


@pytest.mark.parametrize(("variant", "count"), [("g1", 1), ("g0", 0)])
def test_a_probe_that_sees_no_memory_is_named_in_the_plan(variant: str, count: int) -> None:
    """Its numbers are of another network than the scores beside them; without a memory nothing is said."""
    words = ["probes=train_accuracy,calibration"]
    grid = load_grid(ROOT / "reproduction/growth.toml", words, f"variant={variant}")
    said = "probe train_accuracy observes a network without its memory, unlike its scores"
    assert [remark for remark in grid.warnings if remark.startswith("probe ")] == [said] * count
