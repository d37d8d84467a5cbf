"""psa.interventions.memory.retrieval, intervention and targets, each against a few lines that are obviously
right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memories import CPU, memory
from torch import Tensor

from psa.interventions.memory import hash_rng, retrieval
from psa.interventions.memory.bank import Bank, Entries, of_length_1
from psa.interventions.memory.injection import gate_of, inject
from psa.interventions.memory.targets import Centroids, Dims, per_sample, picked, stored, target_values
from psa.probes.memory import _facts
from psa.probes.predictions import Predictions
from psa.specs.memory import Gate, Retrieval, Target


def filled(draws: np.random.Generator, sizes: list[int], capacity: int, dims: int, grid: bool) -> Bank:
    """Memories of these sizes; on a grid many distances are equal."""
    bank = Bank(len(sizes), capacity, dims, 2, CPU)
    for row, size in enumerate(sizes):
        keys = draws.integers(0, 2, size=(size, dims)) if grid else draws.normal(size=(size, dims))
        bank.keys[row, :size] = torch.from_numpy(keys.astype(np.float32))
        bank.values[row, :size] = torch.from_numpy(draws.normal(size=(size, 2)).astype(np.float32))
        bank.labels[row, :size] = torch.from_numpy(draws.integers(3, size=size))
        bank.size[row] = size
    bank.most = max(sizes)
    return bank


@settings(max_examples=80, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    k=st.integers(1, 9),
    dims=st.integers(1, 6),
    queries=st.integers(1, 7),
    grid=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_search_finds_the_nearest_and_of_equal_ones_the_lowest_slots(
    sizes: list[int], k: int, dims: int, queries: int, grid: bool, seed: int
) -> None:
    """As sorting all by (distance, slot) does; on a grid, where sums are exact, to the slot."""
    draws = np.random.default_rng(seed)
    bank = filled(draws, sizes, 40, dims, grid)
    asked = (
        draws.integers(0, 2, size=(len(sizes), dims, queries))
        if grid
        else draws.normal(size=(len(sizes), dims, queries))
    )
    query = torch.from_numpy(asked.astype(np.float32))
    found = retrieval.search_memory(bank, query, k, "euclidean")
    for row, size in enumerate(sizes):
        every = bank.keys[row, :size].double().numpy()
        for at in range(queries):
            distance = np.sqrt(((every - query[row, :, at].double().numpy()) ** 2).sum(axis=1))
            order = np.lexsort((np.arange(size), distance))[:k]
            valid = found.valid[row, at]
            assert valid.tolist() == [place < size for place in range(k)]
            mine = found.distance[row, at][valid].numpy()
            assert np.allclose(mine, distance[order], atol=1e-6)
            assert np.all(np.diff(mine) >= 0)
            if grid:
                assert found.slots[row, at][valid].tolist() == order.tolist()


@pytest.mark.parametrize("dims", [3, 16, 80, 128])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_copies_of_an_entry_are_found_in_the_order_of_their_slots(dims: int, metric: str) -> None:
    """Nine copies of each key all over the memory: the same score wherever they lie, so the lowest slots."""
    draws = np.random.default_rng(dims)
    bank = filled(draws, [450, 450], 450, dims, grid=False)
    bank.keys[:, :450] = of_length_1(bank.keys[:, :50]).repeat(1, 9, 1)
    queries = bank.keys[:, :33].transpose(1, 2) + 0.01 * torch.from_numpy(draws.random((dims, 1))).float()
    found = retrieval.search_memory(bank, of_length_1(queries.transpose(1, 2)).transpose(1, 2), 4, metric)
    first = torch.arange(33).unsqueeze(1)
    assert torch.equal(found.slots[0], first + torch.arange(4) * 50)
    assert torch.equal(found.slots[1], first + torch.arange(4) * 50)


def test_cosine_compares_directions() -> None:
    """1 - cos of vectors of any length, once keys and queries have length 1."""
    draws = np.random.default_rng(5)
    bank = filled(draws, [20], 20, 4, grid=False)
    keys, query = bank.keys[0, :20].clone(), torch.from_numpy(draws.normal(size=(1, 4, 3)).astype(np.float32))
    bank.keys[:] = of_length_1(bank.keys)
    found = retrieval.search_memory(bank, of_length_1(query.transpose(1, 2)).transpose(1, 2), 5, "cosine")
    similar = torch.nn.functional.cosine_similarity(keys[:, :, None], query, dim=1)
    expected = (1 - similar).sort(dim=0)
    assert torch.allclose(found.distance[0], expected.values[:5].T, atol=1e-6)
    assert torch.equal(found.slots[0], expected.indices[:5].T)


def test_a_query_finds_itself_at_distance_0() -> None:
    """However long the vectors are: distances of the chosen are computed without cancellation."""
    bank = filled(np.random.default_rng(1), [64], 64, 16, grid=False)
    bank.keys *= 1000
    found = retrieval.search_memory(bank, bank.keys[:, :64].transpose(1, 2), 2, "euclidean")
    assert found.slots[0, :, 0].tolist() == list(range(64))
    assert found.distance[0, :, 0].tolist() == [0.0] * 64


@pytest.mark.parametrize("weighting", ["uniform", "inverse_distance", "softmax"])
def test_weights_add_up_to_1_and_fall_with_distance(weighting: Any) -> None:
    """The formulas of the three weightings; entries that were not found weigh nothing."""
    distance = torch.tensor([[[0.5, 1.0, 2.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0]]])
    valid = torch.tensor([[[True, True, True], [True, True, False], [False, False, False]]])
    found = retrieval.NearestEntries(torch.zeros_like(valid, dtype=torch.int64), distance, valid)
    temperature = {"temperature": 0.5} if weighting == "softmax" else {}
    weights = retrieval.weights_of(found, Retrieval(weighting=weighting, **temperature))
    d = distance[0, 0]
    raw = {"uniform": d * 0 + 1, "inverse_distance": 1 / (d + 1e-8), "softmax": torch.exp(-d / 0.5)}[
        weighting
    ]
    assert torch.allclose(weights[0, 0], raw / raw.sum())
    assert weights[0].sum(dim=1).tolist() == pytest.approx([1, 1, 0])
    assert weights[0, 1, 2] == 0
    assert weights[0, 1, 0] == pytest.approx({"uniform": 0.5}.get(weighting, 1.0), abs=3e-3)


def test_what_is_retrieved_is_the_weighted_sum_of_values() -> None:
    """r, mean distance, purity and agreement of the nearest; NaN where nothing was found."""
    bank = filled(np.random.default_rng(2), [9, 0], 9, 3, grid=False)
    found = retrieval.search_memory(bank, torch.zeros(2, 3, 4), 3, "euclidean")
    weights = retrieval.weights_of(found, Retrieval(weighting="uniform"))
    r = retrieval.retrieved(bank, found, weights)
    slots = found.slots[0, 0]
    assert torch.allclose(r[0, :, 0], bank.values[0, slots].mean(dim=0))
    assert r[1].abs().sum() == 0
    labels = bank.labels[0, slots[:1]].expand(2, 4)
    share, first = retrieval.retrieval_purity(bank, found, labels)
    assert share[0, 0] == pytest.approx(float((bank.labels[0, slots] == labels[0, 0]).float().mean()))
    assert first[0].tolist() == [1.0] * 4
    assert retrieval.mean_distance(found)[0, 0] == pytest.approx(float(found.distance[0, 0].mean()))
    for each in (share, first, retrieval.mean_distance(found)):
        assert torch.isnan(each[1]).all()


def test_the_random_control_draws_by_sample_among_the_live() -> None:
    """With replacement, each as often; in another order, or in parts, the same sample draws the same."""
    bank = filled(np.random.default_rng(2), [10, 0], 16, 3, grid=False)
    keys = hash_rng.keys_of([4, 5], "control", [1, 1], CPU)
    samples = torch.arange(3000).expand(2, -1)
    found = retrieval.drawn(bank, keys, samples, 4)
    counts = np.bincount(found.slots[0].flatten().numpy(), minlength=10)
    assert len(counts) == 10
    assert counts.min() > 1050
    assert counts.max() < 1350
    assert found.valid[0].all()
    assert not found.valid[1].any()
    again = retrieval.drawn(bank, keys, samples.flip(1)[:, :7], 4)
    assert torch.equal(again.slots, found.slots.flip(1)[:, :7])
    old = Bank(1, 4, 3, 2, CPU, ttl_steps=2)
    for step in range(6):
        old.now += 1
        one = torch.ones(1, 1, 3)
        old.put(torch.tensor([[step % 4]]), Entries(one, one[..., :2], torch.tensor([[step]])))
        old.arrived += 1
    drawn = retrieval.drawn(old, keys[:1], samples[:1], 4)
    assert set(old.labels[0][drawn.slots].flatten().tolist()) == {4, 5}


def applied(spec: Any, h: Tensor, r: Tensor, gate: float = 1.0, on: bool = True) -> Tensor:
    """h' of one trial whose first five dimensions may change."""
    shape = (1, h.shape[2])
    dims = torch.arange(5).unsqueeze(0)
    return inject(spec, h, r, dims, torch.full(shape, gate), torch.full(shape, on))[0]


ABSOLUTE = {"value": "absolute", "construction": "current_hidden"}
MODES = [
    memory(mode="residual", strength=0.7),
    memory(mode="overwrite", strength=0.7, target=ABSOLUTE),
    memory(mode="gated", strength=0.7),
    memory(mode="gated", strength=0.7, target=ABSOLUTE),
]


@pytest.mark.parametrize("spec", MODES, ids=lambda spec: f"{spec.mode}-{spec.target.value}")
def test_the_three_interventions(spec: Any) -> None:
    """As the formulas say, on the affected dimensions and on no other; through h flows what they say."""
    draws = torch.Generator().manual_seed(3)
    h = torch.randn(1, 12, 6, generator=draws, requires_grad=True)
    r = torch.randn(1, 5, 6, generator=draws, requires_grad=True)
    share = 0.3 if spec.mode == "gated" else 1.0
    absolute = spec.target.value == "absolute"
    changed = applied(spec, h, r, share)
    mine = h[:, :5]
    goal = mine + 0.7 * (r - mine) if absolute else mine + 0.7 * r
    assert torch.allclose(changed[:, :5], (1 - share) * mine + share * goal, atol=1e-6)
    assert torch.equal(changed[:, 5:], h[:, 5:])
    changed.sum().backward()
    assert r.grad is None
    assert h.grad is not None
    slope = 1 - share * 0.7 if absolute else 1.0
    assert h.grad[0, :5].flatten().tolist() == pytest.approx([slope] * 30)
    assert h.grad[0, 5:].flatten().tolist() == [1.0] * 42


def test_the_next_layer_finds_every_trial_on_a_64_byte_boundary() -> None:
    """Whatever width and batch are: its products would otherwise depend on the place in the pack."""
    h, r, on = torch.ones(3, 7, 5), torch.ones(3, 5, 5), torch.ones(3, 5, dtype=torch.bool)
    changed, _ = inject(memory(), h, r, torch.arange(5).expand(3, -1), torch.ones(3, 5), on)
    assert [row.data_ptr() % 64 for row in changed] == [0, 0, 0]


@pytest.mark.parametrize("target", [ABSOLUTE, {}], ids=["absolute", "delta"])
@pytest.mark.parametrize(
    ("changes", "gate", "on"),
    [({"strength": 0.0}, 1.0, True), ({"clip": 0.0}, 1.0, True), ({}, 0.0, True), ({}, 1.0, False)],
    ids=["strength 0", "clip 0", "alpha 0", "off"],
)
def test_nothing_is_bit_for_bit_nothing(changes: dict[str, Any], gate: float, on: bool, target: Any) -> None:
    """Also of -0, and with retrieved values that are no numbers; the gradient passes unchanged."""
    h = torch.tensor([-0.0, 0.0, 1.5, -2.0, 1e-30, 3.0]).repeat(2).view(1, 12, 1).requires_grad_()
    changed = applied(memory(target=target, **changes), h, torch.full((1, 5, 1), torch.nan), gate, on)
    assert torch.equal(changed.detach().view(torch.int32), h.detach().view(torch.int32))
    changed.sum().backward()
    assert h.grad is not None
    assert torch.equal(h.grad, torch.ones_like(h))


def test_a_clip_bounds_every_change_and_the_effect_is_measured() -> None:
    """|h' - h| <= clip in each dimension; its length, and that as a share of ||h||."""
    spec = memory(mode="residual", clip=0.5)
    h, r = torch.ones(1, 12, 2), torch.full((1, 5, 2), -3.0)
    on = torch.tensor([[True, False]])
    changed, effect = inject(spec, h, r, torch.arange(5).unsqueeze(0), torch.ones(1, 2), on)
    assert changed[0, :, 0].tolist() == [0.5] * 5 + [1.0] * 7
    assert effect.magnitude[0].tolist() == pytest.approx([0.5 * 5**0.5, 0])
    assert effect.relative[0].tolist() == pytest.approx([0.5 * 5**0.5 / 12**0.5, 0])
    assert effect.gate[0].tolist() == [1.0, 0.0]


def test_a_vector_of_length_0_has_no_relative_change() -> None:
    """One sample whose units are all dead made the mean over all samples 1e34; it is left out of it."""
    h, r = torch.ones(1, 12, 3), torch.ones(1, 5, 3)
    h[0, :, :2] = 0
    on = torch.tensor([[True, False, True]])
    spec = memory(mode="residual")
    _, effect = inject(spec, h, r, torch.arange(5).unsqueeze(0), torch.ones(1, 3), on)
    assert effect.magnitude[0, 0] > 0
    assert effect.relative[0].isnan().tolist() == [True, False, False]
    assert effect.relative[0, 1] == 0
    values = {name: getattr(effect, name)[0].numpy() for name in ("gate", "magnitude", "relative")}
    nothing = np.zeros(3)
    found = dict.fromkeys(("distance", "purity", "top1"), nothing) | values
    told = _facts(Predictions(nothing, nothing, nothing, nothing, found))
    assert told["relative"] == pytest.approx(float(effect.relative[0, 1:].mean()))


def test_the_gate_closes_with_distance() -> None:
    """clip(a g + bias, 0, 1)."""
    distance, alpha = torch.tensor([[0.0, 1.0, 40.0]]), torch.tensor([0.8])
    assert gate_of(Gate(alpha=0.8), alpha, distance).tolist()[0] == pytest.approx([0.8] * 3)
    unsure = Gate(alpha=0.8, uncertainty=True, temperature=2.0, bias=-0.1)
    expected = [0.8 * 0.5 - 0.1, 0.8 / (1 + np.exp(0.5)) - 0.1, 0.0]
    assert gate_of(unsure, alpha, distance).tolist()[0] == pytest.approx(expected)


def test_values_by_construction() -> None:
    """The five things that an entry may hold."""
    h, g, c = (torch.full((1, 2, 3), value) for value in (2.0, 0.5, 7.0))
    for construction, value, expected in [
        ("current_hidden", "absolute", 2.0),
        ("grad_delta", "delta", -0.05),
        ("grad_target", "absolute", 1.95),
        ("class_centroid", "absolute", 7.0),
        ("class_centroid", "delta", 5.0),
    ]:
        target = Target.model_validate({"construction": construction, "value": value})
        made = target_values(target, h, g, c)
        assert made.shape == (1, 3, 2)
        assert made.flatten().tolist() == pytest.approx([expected] * 6)
    with pytest.raises(ValueError, match="gradient"):
        target_values(Target(), h, None, None)
    with pytest.raises(ValueError, match="means"):
        target_values(Target(construction="class_centroid"), h, None, None)


def test_an_entry_does_not_depend_on_the_company_of_its_sample() -> None:
    """The gradient of a sample's own loss, from that of the mean of batches of any size."""
    draws = torch.Generator().manual_seed(1)
    weight = torch.randn(3, 12, generator=draws)
    h = torch.randn(1, 12, 16, generator=draws)
    labels = torch.arange(16) % 3

    def gradient(count: int) -> Tensor:
        part = h[..., :count].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy((weight @ part[0]).T, labels[:count])
        return per_sample(torch.autograd.grad(loss, part)[0])

    assert torch.allclose(gradient(16)[..., :5], gradient(5), atol=1e-6)
    assert float(gradient(16).norm(dim=1).mean()) > 0.1


def test_class_means_start_at_the_first_batch_and_move_on() -> None:
    """The first batch with a class sets its mean; classes that are absent stay."""
    means = Centroids(1, 3, 2, 0.75, CPU)
    means.update(torch.tensor([[[1.0, 3.0], [2.0, 4.0]]]), torch.tensor([[1, 1]]))
    assert means.means[0].tolist() == [[0, 0], [2, 3], [0, 0]]
    means.update(torch.tensor([[[6.0, 8.0], [7.0, 1.0]]]), torch.tensor([[1, 0]]))
    assert means.means[0].tolist() == [[8, 1], [3, 4], [0, 0]]
    assert means.of(torch.tensor([[0, 1, 1]]))[0].tolist() == [[8, 3, 3], [1, 4, 4]]
    assert means.seen[0].tolist() == [True, True, False]


def test_dimensions_are_fixed_by_spec_and_seed() -> None:
    """first, random, untouched, projection; another seed draws others."""
    first = Dims.of(memory(query={"source": "untouched"}), 12, [1, 2], CPU)
    assert first.affected.tolist() == [[0, 1, 2, 3, 4]] * 2
    assert first.query.tolist() == [[5, 6, 7, 8, 9, 10, 11]] * 2
    spec = memory(affected={"selection": "random"}, query={"source": "projection", "dims": 4})
    drawn = Dims.of(spec, 12, [1, 2, 1], CPU)
    assert torch.equal(drawn.affected[0], drawn.affected[2])
    assert not torch.equal(drawn.affected[0], drawn.affected[1])
    assert not torch.equal(drawn.query[0], drawn.query[1])
    assert [len(set(row)) for row in drawn.query.tolist()] == [4] * 3
    h = torch.arange(24.0).view(1, 12, 2)
    assert picked(h, drawn.query[:1])[0, :, 0].tolist() == [2.0 * at for at in drawn.query[0].tolist()]
    assert Dims.of(memory(affected={"dims": 99}), 12, [1], CPU).affected.shape == (1, 12)


def test_hard_samples_only() -> None:
    """loss_above_mean stores what the network found harder than the batch on average."""
    losses = torch.tensor([[1.0, 2.0, 6.0], [1.0, 1.0, 1.0]])
    assert stored("loss_above_mean", losses).tolist() == [[False, False, True], [False] * 3]
    assert stored("always", losses).all()
