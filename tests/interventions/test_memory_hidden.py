"""psa.interventions.memory.hidden_memory: whole trainings, alone and in packs, stored and restored; what
leaves no trace.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import CLASSES, CPU, WIDTH, memory, stacked, step_of, trained

from psa.core.errors import CorruptFileError
from psa.interventions.memory import per_trial, retrieval
from psa.interventions.memory.hidden_memory import HiddenMemory

CENTROID = {"value": "absolute", "construction": "class_centroid"}
VARIED: list[dict[str, Any]] = [
    {},
    {"retrieval": {"metric": "cosine", "weighting": "inverse_distance"}, "forgetting": {"policy": "usage"}},
    {"gate": {"uncertainty": True, "schedule": "linear_warmup"}, "forgetting": {"policy": "helpfulness"}},
    {"target": CENTROID, "mode": "overwrite", "forgetting": {"policy": "reservoir"}},
    {"refresh": {"rate": 0.8, "distance": 1.5}, "forgetting": {"policy": "helpfulness_age"}},
    {"control": "random", "forgetting": {"policy": "ttl", "ttl_steps": 2}, "refresh": {"distance": 2.0}},
    {"insertion": "loss_above_mean", "affected": {"selection": "random"}, "warmup_epochs": 1},
    {"query": {"source": "projection", "dims": 7}, "mode": "residual", "clip": 0.03},
]


def state(hidden: HiddenMemory, row: int) -> dict[str, Any]:
    """All that one trial's memory holds, as bytes."""
    return {name: (value.dtype.str, value.tobytes()) for name, value in hidden.snapshot(row).items()}


@pytest.mark.slow
@pytest.mark.parametrize("changes", VARIED, ids=str)
@pytest.mark.parametrize(("size", "width"), [(8, 12), (13, 9), (1, 10), (3, 33)])
def test_packing_changes_nothing(changes: dict[str, Any], size: int, width: int) -> None:
    """What comes out, and what is held, has the same bits alone, in a pack, and at any position."""
    spec = memory(**changes)
    hidden, outputs = trained(spec, [7], 9, size, width)
    alone, held = outputs[0].view(torch.int32), state(hidden, 0)
    for seeds in ([7, 8], [8, 7], [3, 4, 5, 7, 6, 9, 2]):
        pack, together = trained(spec, seeds, 9, size, width)
        row = seeds.index(7)
        assert torch.equal(together[row].view(torch.int32), alone)
        assert state(pack, row) == held
        assert not torch.equal(together[(row + 1) % len(seeds)], together[row])


@pytest.mark.parametrize("changes", VARIED, ids=str)
def test_all_trials_at_once_are_close_to_one_by_one(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way a GPU is used, walked on the CPU: the same up to rounding."""
    seeds = [3, 4, 7]
    one_by_one, expected = trained(memory(**changes), seeds)
    for module in (per_trial, retrieval):
        monkeypatch.setattr(module, "needs_isolation", lambda device: False)
    together, outputs = trained(memory(**changes), seeds)
    assert torch.allclose(outputs, expected, atol=1e-5)
    assert torch.equal(together.bank.labels, one_by_one.bank.labels)
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", 1)
    assert torch.allclose(trained(memory(**changes), seeds)[1], expected, atol=1e-5)


@pytest.mark.parametrize("changes", VARIED, ids=str)
def test_a_resumed_memory_goes_on_to_the_same_bits(changes: dict[str, Any]) -> None:
    """Stored after five steps, restored into another row of another pack, which drops a trial on the way."""
    spec, seeds = memory(**changes), [7, 8]
    hidden, _ = trained(spec, seeds, 5)
    other = HiddenMemory(spec, [5, 8, 7], WIDTH, CLASSES, CPU)
    for row, seed in enumerate(seeds):
        other.restore(other.seeds.index(seed), hidden.snapshot(row))
    other = other.take([2, 1])
    for each in (hidden, other):
        each.begin([2, 2])
    for step in range(5, 9):
        one, two = (step_of(each, step)[0] for each in (hidden, other))
        assert torch.equal(one.view(torch.int32), two.view(torch.int32))
    assert all(state(hidden, row) == state(other, row) for row in (0, 1))


@pytest.mark.parametrize("changes", VARIED, ids=str)
def test_an_evaluation_leaves_no_trace(changes: dict[str, Any]) -> None:
    """Forward passes, however many, change neither what is held nor what later steps do."""
    hidden, _ = trained(memory(**changes), [7])
    before = state(hidden, 0)
    given_ = stacked([7], 77, 20)
    outputs = [hidden.forward(given_["h"], given_["samples"], training=False)[0] for _ in range(2)]
    assert torch.equal(*outputs)
    assert state(hidden, 0) == before


@settings(max_examples=25, deadline=None)
@given(parts=st.lists(st.integers(1, 9), min_size=1, max_size=5), which=st.integers(0, len(VARIED) - 1))
def test_an_evaluation_does_not_depend_on_the_size_of_its_batches(parts: list[int], which: int) -> None:
    """A sample finds and draws the same in any company (to rounding)."""
    hidden, _ = trained(memory(**VARIED[which]), [7])
    given_ = stacked([7], 77, sum(parts))
    whole, _ = hidden.forward(given_["h"], given_["samples"], training=False)
    cut = [
        hidden.forward(h, samples, training=False)[0]
        for h, samples in zip(given_["h"].split(parts, 2), given_["samples"].split(parts, 1), strict=True)
    ]
    assert torch.allclose(torch.cat(cut, dim=2), whole, atol=1e-6)


@pytest.mark.parametrize("target", [{}, CENTROID], ids=["delta", "absolute"])
@pytest.mark.parametrize(
    "changes",
    [
        {"control": "inactive"},
        {"strength": 0.0},
        {"clip": 0.0},
        {"gate": {"alpha": 0.0}},
        {"warmup_epochs": 99},
    ],
    ids=str,
)
def test_an_arm_that_does_nothing_has_the_bits_of_no_memory(changes: dict[str, Any], target: Any) -> None:
    """The controls and the zeros of every sweep give h itself; the memory fills all the same."""
    hidden, outputs = trained(memory(target=target, **changes), [7])
    plain = [stacked([7], step, 8)["h"] for step in [*range(9), 10_000]]
    assert torch.equal(outputs.view(torch.int32), torch.cat(plain, dim=2).view(torch.int32))
    assert int(hidden.bank.size[0]) == 24


def test_an_empty_memory_changes_nothing() -> None:
    """The first step finds nothing, whatever the values would be."""
    for changes in VARIED:
        _, outputs = trained(memory(**changes), [7], 1)
        assert torch.equal(outputs[..., :8], stacked([7], 0, 8)["h"])


def test_an_active_memory_changes_what_it_may_and_says_how_much() -> None:
    """Only affected dimensions; the effect is that of the published study times the batch size it lost."""
    hidden, outputs = trained(memory(), [7])
    plain = torch.cat([stacked([7], step, 8)["h"] for step in [*range(9), 10_000]], dim=2)
    assert torch.equal(outputs[:, 5:], plain[:, 5:])
    assert not torch.equal(outputs[:, :5], plain[:, :5])
    given_ = stacked([7], 3, 8)
    changed, trace = hidden.forward(given_["h"], given_["samples"], training=True)
    assert trace.effect is not None
    length = (changed - given_["h"]).norm(dim=1)
    assert torch.allclose(trace.effect.magnitude, length, atol=1e-6)
    assert torch.allclose(trace.effect.relative, length / given_["h"].norm(dim=1), atol=1e-6)
    assert float(trace.effect.relative.mean()) > 1e-3


def test_what_is_observed_of_each_sample() -> None:
    """Distance, purity and effect where the memory acted; missing where it did not, not 0."""
    given_ = stacked([7, 8], 60, 8)
    hidden, _ = trained(memory(warmup_epochs=1), [7, 8])
    hidden.begin([1, 2])
    _, trace = hidden.forward(given_["h"], given_["samples"], training=False)
    seen = hidden.observed(trace, given_["labels"])
    assert all(torch.isnan(seen[name][0]).all() for name in ("distance", "purity", "top1"))
    assert all(float(seen[name][0].abs().sum()) == 0 for name in ("gate", "magnitude", "relative"))
    assert all(bool(torch.isfinite(value[1]).all()) for value in seen.values())
    assert float(seen["purity"][1].mean()) > 1 / 3  # classes lie apart in these vectors
    assert float(seen["gate"][1].mean()) == pytest.approx(0.4)
    idle, _ = trained(memory(control="inactive"), [7, 8])
    _, trace = idle.forward(given_["h"], given_["samples"], training=False)
    assert torch.isnan(idle.observed(trace, given_["labels"])["purity"]).all()


def test_retrievals_are_booked_in_training_where_the_memory_acts() -> None:
    """k per sample and step once there are entries; none in the inactive control or while warming up."""
    hidden, _ = trained(memory(capacity=200), [7], 4)
    assert int(hidden.snapshot(0)["retrieved"].sum()) == 3 * 8 * 3
    assert int(hidden.snapshot(0)["usefulness"].sum()) != 0
    for changes in ({"control": "inactive"}, {"warmup_epochs": 9}, {"train": False}):
        idle, _ = trained(memory(capacity=200, **changes), [7], 4)
        assert int(idle.snapshot(0)["retrieved"].sum()) == 0


def test_arms_that_fill_alike_hold_the_same_entries() -> None:
    """Active, random and inactive arms that see the same vectors store the same: they are paired."""
    kept = [
        trained(memory(control=control), [7])[0].snapshot(0) for control in ("none", "random", "inactive")
    ]
    for other in kept[1:]:
        assert np.array_equal(kept[0]["keys"], other["keys"])
        assert np.array_equal(kept[0]["values"], other["values"])


def test_a_refresh_stores_nothing_new() -> None:
    """With rate 1 and any distance every arrival after the first batch is taken up by an entry."""
    spec = memory(refresh={"rate": 1.0, "distance": 1e6})
    hidden = HiddenMemory(spec, [7], WIDTH, CLASSES, CPU)
    step_of(hidden, 0)
    before = hidden.snapshot(0)
    step_of(hidden, 1)
    after = hidden.snapshot(0)
    assert int(after["size"]) == int(after["arrived"]) == 8
    assert not np.array_equal(before["values"], after["values"])
    assert np.allclose(np.linalg.norm(after["keys"], axis=1), 1, atol=1e-5)
    assert set(after["insert_step"]) == {1}
    assert 2 in after["fresh_step"]


def test_two_trials_of_a_pack_may_be_in_different_epochs() -> None:
    """One warming up beside one that acts: each as if alone."""
    spec = memory(warmup_epochs=1, fill_during_warmup=False)
    hidden, _ = trained(spec, [7, 8])
    hidden.begin([1, 2])
    held = state(hidden, 0)["keys"]
    given_ = stacked([7, 8], 50, 8)
    changed, trace = hidden.forward(given_["h"], given_["samples"], training=True)
    assert torch.equal(changed[0], given_["h"][0])
    assert not torch.equal(changed[1], given_["h"][1])
    rest = [given_[name] for name in ("gradient", "losses", "right", "labels", "samples")]
    assert hidden.learn(trace, *rest).tolist() == [0, 8]
    assert state(hidden, 0)["keys"] == held


def test_a_damaged_snapshot_is_refused() -> None:
    """Class means are a part of it."""
    hidden, _ = trained(memory(target=CENTROID), [7])
    held = hidden.snapshot(0)
    held.pop("centroids")
    with pytest.raises(CorruptFileError, match="centroids"):
        hidden.restore(0, held)
