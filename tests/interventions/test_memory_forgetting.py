"""psa.interventions.memory.bank and forgetting: who stays, against twins that go arrival by arrival."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from psa.core.errors import CorruptFileError, UserError
from psa.interventions.memory import hash_rng
from psa.interventions.memory.bank import Bank, Entries, Lengths
from psa.interventions.memory.eviction import slots_for
from psa.specs.memory import EvictionPolicy

CPU = torch.device("cpu")
POLICIES = ["none", "ttl", "fifo", "reservoir", "usage", "helpfulness", "helpfulness_age"]


def rule(policy: str) -> EvictionPolicy:
    """A policy with what it needs."""
    return EvictionPolicy.model_validate({"policy": policy} | ({"ttl_steps": 3} if policy == "ttl" else {}))


@dataclass
class Entry:
    """One entry of the twin; its value is the number of its arrival."""

    number: int
    step: int
    count: int = 0
    useful: float = 0.0


class Twin:
    """One memory as a list of slots, one arrival after the other, in plain Python."""

    def __init__(self, policy: str, capacity: int, seed: int) -> None:
        self.policy, self.capacity = policy, capacity
        self.key = hash_rng.keys_of([seed], "reservoir", [0], CPU)
        self.slots: list[Entry] = []
        self.arrived = 0

    def score(self, entry: Entry, present: list[Entry], now: int) -> float:
        """What the least of leaves."""
        if self.policy == "usage":
            return entry.count
        if self.policy == "helpfulness":
            return entry.useful
        if self.policy == "helpfulness_age":
            useful = [each.useful for each in present]
            span, oldest = max(useful) - min(useful), max(now - each.step for each in present)
            share = np.float32(entry.useful - min(useful)) / np.float32(span) if span else np.float32(0)
            age = np.float32(now - entry.step) / np.float32(oldest) if oldest else np.float32(0)
            return float(share * np.float32(0.5) - age * np.float32(0.5))
        return entry.number  # the oldest

    def add(self, numbers: list[int], now: int) -> None:
        """A batch, arrival by arrival; victims are of those there before, while there are any."""
        before = list(self.slots)
        for number in numbers:
            self.arrived += 1
            entry = Entry(number, now)
            if len(self.slots) < self.capacity:
                self.slots.append(entry)
                continue
            if self.policy == "reservoir":
                draw = int(hash_rng.random_bits(self.key, torch.tensor(self.arrived))[0]) % self.arrived
                if draw < self.capacity:
                    self.slots[draw] = entry
                continue
            present = [each for each in before if each in self.slots]
            if self.policy in ("ttl", "fifo", "none") or not present:
                victim = min(self.slots, key=lambda each: each.number)
            else:
                victim = min(
                    present,
                    key=lambda each: (self.score(each, before, now), each.step, self.slots.index(each)),
                )
            self.slots[self.slots.index(victim)] = entry


def offer(bank: Bank, numbers: torch.Tensor, kept: torch.Tensor, policy: str, keys: torch.Tensor) -> None:
    """Arrivals whose keys, values and labels are their numbers."""
    values = numbers.unsqueeze(2).to(torch.float32)
    bank.now += 1
    bank.put(slots_for(bank, kept, rule(policy), keys), Entries(values, values, numbers))


@pytest.mark.slow
@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=40, deadline=None)
@given(
    capacity=st.integers(1, 12),
    size=st.integers(1, 16),
    steps=st.integers(1, 8),
    seed=st.integers(0, 2**40),
)
def test_each_policy_keeps_what_its_rule_says(
    policy: str, capacity: int, size: int, steps: int, seed: int
) -> None:
    """The same entries in the same slots as the twin, for two memories with different arrivals and luck."""
    draws = np.random.default_rng(seed)
    if policy == "none":
        capacity = size * steps
    twins = [Twin(policy, capacity, seed + row) for row in range(2)]
    bank = Bank(2, capacity, 1, 1, CPU, rule(policy).ttl_steps)
    keys = hash_rng.keys_of([seed, seed + 1], "reservoir", [0, 0], CPU)
    for step in range(steps):
        numbers = torch.arange(size).expand(2, -1) + step * size
        kept = torch.from_numpy(draws.random((2, size)) < 0.8)
        offer(bank, numbers, kept, policy, keys)
        for row, twin in enumerate(twins):
            twin.add(numbers[row][kept[row]].tolist(), step + 1)
            assert bank.labels[row, : len(twin.slots)].tolist() == [each.number for each in twin.slots]
            assert int(bank.size[row]) == len(twin.slots) <= capacity
        used(bank, twins, draws)


def used(bank: Bank, twins: list[Twin], draws: np.random.Generator) -> None:
    """Some retrievals, noted in the bank and in the twins."""
    slots = torch.from_numpy(draws.integers(bank.capacity, size=(2, 5, 2)))
    right = torch.from_numpy(draws.random((2, 5)) < 0.6)
    counted = slots < bank.size.view(-1, 1, 1)
    bank.book(slots, counted, right)
    for row, twin in enumerate(twins):
        for sample in range(5):
            for slot in slots[row, sample].tolist():
                if slot < len(twin.slots):
                    twin.slots[slot].count += 1
                    twin.slots[slot].useful += 1 if right[row, sample] else -1
        size = len(twin.slots)
        assert bank.retrieved[row, :size].tolist() == [each.count for each in twin.slots]
        assert bank.usefulness[row, :size].tolist() == [each.useful for each in twin.slots]


def survivors(policy: str, capacity: int = 8, seed: int = 0) -> frozenset[int]:
    """Which of 32 arrivals stay where the memory cannot hold them all, entries having served unequally."""
    bank = Bank(1, capacity, 1, 1, CPU, rule(policy).ttl_steps)
    keys = hash_rng.keys_of([seed], "reservoir", [0], CPU)
    for step in range(8):
        numbers = torch.arange(4).unsqueeze(0) + 4 * step
        offer(bank, numbers, torch.ones(1, 4, dtype=torch.bool), policy, keys)
        slots = torch.arange(capacity).view(1, -1, 1)
        held = bank.labels[:, :capacity]
        bank.book(slots, (slots < bank.size) & (held % 3 != 0).unsqueeze(2), held % 4 != 1)
    return frozenset(bank.labels[0, :capacity][bank.live()[0]].tolist())


def test_no_two_policies_keep_the_same() -> None:
    """When memory is short each of the six rules that forget has its own survivors."""
    kept = {policy: survivors(policy) for policy in POLICIES if policy not in ("none", "ttl")}
    assert len(set(kept.values())) == len(kept)
    assert kept["fifo"] == frozenset(range(24, 32))
    assert survivors("ttl", 20) == frozenset(range(20, 32)) != survivors("fifo", 20)


def test_none_refuses_what_it_cannot_hold() -> None:
    """No silent fifo."""
    with pytest.raises(UserError, match="memory_size must hold all entries with forgetting none"):
        survivors("none")
    assert survivors("none", 32) == frozenset(range(32))


def test_an_expired_entry_is_not_live_though_nothing_took_its_place() -> None:
    """An entry can be retrieved in ttl_steps steps after its own, also where no more arrive."""
    bank = Bank(1, 8, 1, 1, CPU, ttl_steps=3)
    offer(
        bank,
        torch.tensor([[7]]),
        torch.ones(1, 1, dtype=torch.bool),
        "ttl",
        torch.zeros(1, dtype=torch.int64),
    )
    alive = []
    for _ in range(5):
        alive.append(int(bank.live().sum()))
        bank.now += 1
    assert alive == [1, 1, 1, 0, 0]


def test_a_reservoir_is_a_uniform_sample() -> None:
    """Each of 60 arrivals stays as often as any other (chi-square over 3,000 streams, batches of 7)."""
    trials, arrivals, capacity = 3000, 60, 10
    bank = Bank(trials, capacity, 1, 1, CPU)
    keys = hash_rng.keys_of(range(trials), "reservoir", [0] * trials, CPU)
    for start in range(0, arrivals, 7):
        numbers = torch.arange(start, min(start + 7, arrivals)).expand(trials, -1)
        offer(bank, numbers, torch.ones_like(numbers, dtype=torch.bool), "reservoir", keys)
    counts = np.bincount(bank.labels[:, :capacity].flatten().numpy(), minlength=arrivals)
    assert counts.sum() == trials * capacity
    assert chisquare(counts).pvalue > 1e-3
    pairs = bank.labels[:, :capacity].sort(dim=1).values
    assert all(len(set(row)) == capacity for row in pairs[:200].tolist())


def test_hashed_draws_are_uniform_and_apart() -> None:
    """Integers and shares by chi-square; another seed, purpose or counter is another draw."""
    keys = hash_rng.keys_of([1, 2], "control", [1, 1], CPU)
    draws = hash_rng.random_bits(keys.unsqueeze(1), torch.arange(50_000))
    assert chisquare(np.bincount(hash_rng.integers(draws, torch.tensor(37)).flatten().numpy())).pvalue > 1e-3
    shares = hash_rng.uniform(draws).flatten().numpy()
    assert shares.min() >= 0
    assert shares.max() < 1
    assert chisquare(np.histogram(shares, 64, (0, 1))[0]).pvalue > 1e-3
    assert len(set(draws.flatten().tolist())) == 100_000
    assert abs(np.corrcoef(shares[:50_000], shares[50_000:])[0, 1]) < 0.02


@settings(max_examples=60, deadline=None)
@given(
    slots=st.lists(st.integers(0, 6), min_size=1, max_size=20),
    share=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_refresh_is_one_arrival_after_the_other(slots: list[int], share: float, seed: int) -> None:
    """Entries that several arrivals of a batch update end where a loop would take them; slot 6 is none."""
    draws = np.random.default_rng(seed)
    bank = Bank(1, 6, 3, 2, CPU)
    whole = torch.ones(1, 6, dtype=torch.bool)

    def made(count: int) -> Entries:
        sizes = ((1, count, 3), (1, count, 2))
        keys, values = (torch.from_numpy(draws.normal(size=size).astype(np.float32)) for size in sizes)
        return Entries(keys, values, torch.from_numpy(draws.integers(9, size=(1, count))))

    bank.put(slots_for(bank, whole, rule("fifo"), torch.zeros(1, dtype=torch.int64)), made(6))
    expected = {name: getattr(bank, name)[0, :6].numpy().copy() for name in ("keys", "values", "labels")}
    arrivals = made(len(slots))
    for at, slot in enumerate(slots):
        if slot < 6:
            for name, part in (("keys", 0.5), ("values", share)):
                new = getattr(arrivals, name)[0, at].numpy()
                expected[name][slot] = part * expected[name][slot] + (1 - part) * new
            expected["labels"][slot] = arrivals.labels[0, at]
    bank.now += 4
    bank.refresh(torch.tensor([slots]), arrivals, 0.5, share, Lengths(keys=False, values=False))
    for name, value in expected.items():
        assert np.allclose(getattr(bank, name)[0, :6].numpy(), value, rtol=1e-5, atol=1e-6), name
    assert bank.fresh_step[0, :6].tolist() == [4 if slot in slots else 0 for slot in range(6)]
    assert bank.insert_step[0, :6].tolist() == [0] * 6


def test_refreshed_keys_keep_length_1() -> None:
    """A mean of unit vectors is shorter; searches by normalised keys need it brought back."""
    bank = Bank(1, 2, 2, 1, CPU)
    first = Entries(torch.tensor([[[1.0, 0.0]]]), torch.ones(1, 1, 1), torch.tensor([[0]]))
    bank.put(torch.tensor([[0]]), first)
    other = Entries(torch.tensor([[[0.0, 1.0]]]), torch.ones(1, 1, 1), torch.tensor([[1]]))
    bank.refresh(torch.tensor([[0]]), other, 0.5, 0.5, Lengths(keys=True, values=False))
    assert bank.keys[0, 0].tolist() == pytest.approx([0.5**0.5, 0.5**0.5])


def test_the_cost_of_a_batch_does_not_grow_with_what_is_held() -> None:
    """Nothing is allocated anew: the tensors of the first batch are those of the last."""
    bank = Bank(2, 64, 3, 3, CPU)
    places_before = {name: getattr(bank, name).data_ptr() for name in ("keys", "values", "labels", "size")}
    for step in range(40):
        numbers = torch.arange(8).expand(2, -1) + 8 * step
        values = torch.ones(2, 8, 3)
        slots = slots_for(bank, numbers >= 0, rule("usage"), torch.zeros(2, dtype=torch.int64))
        bank.now += 1
        bank.put(slots, Entries(values, values, numbers))
    assert {name: getattr(bank, name).data_ptr() for name in places_before} == places_before


def counters(bank: Bank, row: int) -> dict[str, Any]:
    """A snapshot as plain lists."""
    return {name: value.tolist() for name, value in bank.snapshot(row).items()}


def test_a_snapshot_restores_to_any_row_and_refuses_another_shape() -> None:
    """Into a row of a larger bank, where others hold more; a field too few or too short is a damaged file."""
    bank = Bank(1, 6, 1, 1, CPU)
    whole = torch.ones(1, 4, dtype=torch.bool)
    zero = torch.zeros(1, dtype=torch.int64)
    for step in range(3):
        offer(bank, torch.arange(4).unsqueeze(0) + 4 * step, whole, "fifo", zero)
    held = bank.snapshot(0)
    wide = Bank(3, 6, 1, 1, CPU)
    wide.restore(1, held)
    assert counters(wide, 1) == counters(bank, 0)
    assert counters(wide.take([1]), 0) == counters(bank, 0)
    assert wide.live().sum(dim=1).tolist() == [0, 6, 0]
    for broken in (
        {name: value for name, value in held.items() if name != "keys"},
        held | {"keys": held["keys"][:-1]},
        held | {"labels": held["labels"].astype(np.float32)},
        held | {"size": np.array(7)},
    ):
        with pytest.raises(CorruptFileError):
            wide.restore(0, broken)


def test_statistics_are_of_the_live_entries() -> None:
    """Size, bytes, mean age; an empty memory has no means."""
    bank = Bank(2, 6, 4, 2, CPU)
    values = torch.ones(2, 2, 4)
    for _ in range(2):
        bank.now += 1
        kept = torch.tensor([[True, True], [False, False]])
        slots = slots_for(bank, kept, rule("fifo"), torch.zeros(2, dtype=torch.int64))
        bank.put(slots, Entries(values, values[..., :2], torch.zeros(2, 2, dtype=torch.int64)))
    assert bank.statistics(0) == {
        "size": 4.0,
        "bytes": 4 * (24.0 + 28),
        "mean_age": 0.5,
        "mean_retrieved": 0.0,
        "mean_usefulness": 0.0,
        "mean_freshness": pytest.approx(1 - 0.0025),
    }
    assert bank.statistics(1) == {"size": 0.0, "bytes": 0.0}


def test_late_batches_find_the_same_work_as_early_ones() -> None:
    """Operations counted: a batch into a full memory runs as many as any other into a full memory."""
    bank = Bank(1, 32, 2, 2, CPU)
    counts = []
    for step in range(12):
        numbers = torch.arange(8).unsqueeze(0) + 8 * step
        with torch.profiler.profile() as profile:
            offer_wide(bank, numbers)
        counts.append(sum(event.count for event in profile.key_averages()))
    assert all(one == other for one, other in pairwise(counts[5:]))


def offer_wide(bank: Bank, numbers: torch.Tensor) -> None:
    """Arrivals with keys of two dimensions."""
    values = numbers.unsqueeze(2).to(torch.float32).expand(-1, -1, 2)
    slots = slots_for(bank, numbers >= 0, rule("helpfulness_age"), torch.zeros(1, dtype=torch.int64))
    bank.put(slots, Entries(values, values, numbers))
