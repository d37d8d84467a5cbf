"""The cost of a hidden-state memory: early and late insertions of 100,000 entries, and a step's search.

    python benchmarks/memory.py

One thread, one trial: 80 + 64 dimensions, batches of 128. A bank that copied itself for every batch would
become slower as it fills; the last column shows that this one does not.
"""

from __future__ import annotations

import statistics
import time

import torch

from psa.interventions.memory import hash_rng, retrieval
from psa.interventions.memory.bank import Bank, Entries
from psa.interventions.memory.eviction import slots_for
from psa.specs.memory import EvictionPolicy

CPU = torch.device("cpu")
ARRIVALS, BATCH, KEYS, VALUES = 100_000, 128, 80, 64
RULES = {
    "none": EvictionPolicy(policy="none"),
    "ttl": EvictionPolicy(policy="ttl", ttl_steps=100),
    "fifo": EvictionPolicy(policy="fifo"),
    "reservoir": EvictionPolicy(policy="reservoir"),
    "usage": EvictionPolicy(policy="usage"),
    "helpfulness": EvictionPolicy(policy="helpfulness"),
    "helpfulness_age": EvictionPolicy(policy="helpfulness_age"),
}


def insertions(rule: EvictionPolicy, capacity: int) -> list[float]:
    """Return the seconds of each batch."""
    bank = Bank(1, capacity, KEYS, VALUES, CPU, rule.ttl_steps)
    keys = hash_rng.keys_of([1], "reservoir", [0], CPU)
    draws = torch.Generator().manual_seed(1)
    vectors = torch.randn(1, BATCH, KEYS, generator=draws)
    arrivals = Entries(vectors, vectors[..., :VALUES], torch.zeros(1, BATCH, dtype=torch.int64))
    kept = torch.ones(1, BATCH, dtype=torch.bool)
    seconds = []
    for _ in range(ARRIVALS // BATCH):
        begun = time.perf_counter()
        bank.now += 1
        bank.put(slots_for(bank, kept, rule, keys), arrivals)
        seconds.append(time.perf_counter() - begun)
    return seconds


def searches(size: int) -> float:
    """Return the seconds of the fastest search of a batch among `size` entries, 8 neighbours."""
    bank = Bank(1, size, KEYS, VALUES, CPU)
    draws = torch.Generator().manual_seed(1)
    bank.keys[:, :size] = torch.randn(1, size, KEYS, generator=draws)
    bank.size += size
    bank.most = size
    queries = torch.randn(1, KEYS, BATCH, generator=draws)
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        found = retrieval.search_memory(bank, queries, 8, "euclidean")
        retrieval.retrieved(bank, found, retrieval.even_weights(found))
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def main() -> None:
    """Print both tables."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"{ARRIVALS:,} arrivals in batches of {BATCH}, milliseconds per batch (median of a hundred)")
    print(f"{'policy':16} {'capacity':>9} {'into full':>10} {'last':>8} {'ratio':>6}")
    for policy, rule in RULES.items():
        capacity = ARRIVALS if policy == "none" else 20_000
        seconds = insertions(rule, capacity)
        start = 0 if policy == "none" else -(-capacity // BATCH)
        early = statistics.median(seconds[start : start + 100]) * 1e3
        late = statistics.median(seconds[-100:]) * 1e3
        print(f"{policy:16} {capacity:9,} {early:10.3f} {late:8.3f} {late / early:6.2f}")
    for size in (1_000, 20_000):
        print(f"search among {size:,}: {searches(size) * 1e3:.1f} ms per batch of {BATCH}")


if __name__ == "__main__":
    main()
