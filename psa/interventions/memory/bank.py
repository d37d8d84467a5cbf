"""The entries of T memories, in tensors that are allocated once and written slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from psa.core.errors import CorruptFileError
from psa.interventions.memory.per_trial import per_trial
from psa.specs.memory import footprint_bytes

ALIGNED: Final = 16  # slots; every trial's keys and values then start on a 64-byte boundary
EPSILON: Final = 1e-8
STALE: Final = 0.005  # freshness lost per step

ENTRY_FIELDS: Final = ("keys", "values", "labels", "insert_step", "retrieved", "usefulness", "fresh_step")
COUNTERS: Final = ("size", "arrived", "now")


@dataclass(frozen=True)
class Entries:
    """Arrivals of one step: keys [T, B, dk], values [T, B, dv], labels int64 [T, B]."""

    keys: Tensor
    values: Tensor
    labels: Tensor


class Bank:
    """T memories of `capacity` slots. A slot beyond all others takes what is not to be kept.

    keys [T, S, dk], values [T, S, dv]; int64 labels, insert_step; int32 retrieved, fresh_step; float32
    usefulness, all [T, S]. size: slots in use; arrived: entries ever offered (see
    psa.interventions.memory.eviction); now: finished steps; int64 [T]. ttl_steps: an entry can be retrieved
    in that many steps after its own. most: no memory has more slots in use, known without asking the device.
    """

    def __init__(
        self,
        trials: int,
        capacity: int,
        key_dims: int,
        value_dims: int,
        device: torch.device,
        ttl_steps: int | None = None,
    ) -> None:
        self.capacity, self.ttl_steps = capacity, ttl_steps
        slots = -(-(capacity + 1) // ALIGNED) * ALIGNED
        self.keys = torch.zeros(trials, slots, key_dims, device=device)
        self.values = torch.zeros(trials, slots, value_dims, device=device)
        self.labels = torch.zeros(trials, slots, dtype=torch.int64, device=device)
        self.insert_step = torch.zeros(trials, slots, dtype=torch.int64, device=device)
        self.retrieved = torch.zeros(trials, slots, dtype=torch.int32, device=device)
        self.usefulness = torch.zeros(trials, slots, device=device)
        self.fresh_step = torch.zeros(trials, slots, dtype=torch.int32, device=device)
        self.size, self.arrived, self.now = torch.zeros(3, trials, dtype=torch.int64, device=device).unbind()
        self.most = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def rows(self) -> Tensor:
        """int64 [T, 1]: the trials, to index slots [T, n] with."""
        return torch.arange(len(self), device=self.keys.device).unsqueeze(1)

    def live(self, rows: slice = slice(None), slots: int | None = None) -> Tensor:
        """Return True for each of the first `slots` slots (default: capacity) with an unexpired entry,
        bool [n, slots].
        """
        slots = self.capacity if slots is None else slots
        inside = torch.arange(slots, device=self.keys.device) < self.size[rows].unsqueeze(1)
        if self.ttl_steps is None:
            return inside
        return inside & (self.now[rows].unsqueeze(1) - self.insert_step[rows, :slots] < self.ttl_steps)

    def put(self, slots: Tensor, entries: Entries) -> None:
        """Write arrivals to slots [T, B]; a slot of `capacity` means: not kept. No slot may occur twice."""
        at = (self.rows, slots)
        self.keys[at], self.values[at], self.labels[at] = entries.keys, entries.values, entries.labels
        self.insert_step[at] = self.now.unsqueeze(1).expand_as(slots)
        self.fresh_step[at] = self.now.unsqueeze(1).expand_as(slots).to(torch.int32)
        self.retrieved[at] = 0
        self.usefulness[at] = 0.0
        self._empty_the_last_slot()
        self.size.copy_(torch.maximum(self.size, self._highest(slots)))
        self.most = min(self.capacity, self.most + slots.shape[1])

    def _highest(self, slots: Tensor) -> Tensor:
        """Return one more than the highest slot written, [T]; slots are first filled in order."""
        return torch.where(slots < self.capacity, slots + 1, 0).amax(dim=1)

    def _empty_the_last_slot(self) -> None:
        """Zero the last slot: a NaN or infinity there would spread through products with weight 0."""
        self.keys[:, self.capacity] = 0
        self.values[:, self.capacity] = 0

    def book(self, slots: Tensor, counted: Tensor, right: Tensor) -> None:
        """Note a retrieval in training: slots [T, B, k], those `counted`, and whose answers were `right`.

        Each entry's count rises by one per retrieval, its usefulness by one for a right answer and falls by
        one for a wrong one. Sums of whole numbers: their order does not matter.
        """
        at = torch.where(counted, slots, self.capacity).flatten(1)
        ones = torch.ones_like(at, dtype=torch.int32)
        self.retrieved.scatter_add_(1, at, ones)
        sign = torch.where(right, 1.0, -1.0).unsqueeze(2).expand_as(slots).flatten(1)
        self.usefulness.scatter_add_(1, at, sign)

    def refresh(self, slots: Tensor, entries: Entries, key: float, value: float, lengths: Lengths) -> None:
        """Move entries towards arrivals: old = key x old + (1 - key) x new, one arrival after the other.

        slots: [T, B], `capacity` where an arrival refreshes nothing. Every arrival was matched to the memory
        as it was before the batch; those that share an entry act in their order, the last one's label stays.
        """
        later, total = _ranks(slots)
        for buffer, arrivals, share in ((self.keys, entries.keys, key), (self.values, entries.values, value)):
            self._average(buffer, slots, arrivals, share, (later, total))
        at = (self.rows, torch.where(later == 0, slots, self.capacity))
        if lengths.keys:
            self.keys[at] = of_length_1(self.keys[at])
        if lengths.values:
            self.values[at] = of_length_1(self.values[at])
        self.labels[at] = entries.labels
        self.fresh_step[at] = self.now.unsqueeze(1).expand_as(slots).to(torch.int32)
        self._empty_the_last_slot()

    def _average(
        self, buffer: Tensor, slots: Tensor, arrivals: Tensor, share: float, ranks: tuple[Tensor, Tensor]
    ) -> None:
        """Set buffer[t, slot] = share^n old + sum of (1 - share) share^(number of later ones) arrival."""
        later, total = ranks
        # Powers from a table: a vectorised pow rounds otherwise than a scalar one.
        powers = torch.tensor([share**number for number in range(slots.shape[1] + 1)], dtype=torch.float32)
        powers = powers.to(buffer.device)
        # Only the last arrival of an entry scales it: two writes to one slot have no order.
        at = (self.rows, torch.where(later == 0, slots, self.capacity))
        buffer[at] = buffer[at] * powers[total].unsqueeze(2)
        weighted = arrivals * (powers[later] * (1 - share)).unsqueeze(2)
        flat = (slots + self.rows * buffer.shape[1]).flatten()
        buffer.view(-1, buffer.shape[2]).index_add_(0, flat, weighted.flatten(0, 1))

    def snapshot(self, row: int) -> dict[str, np.ndarray]:
        """Return the content of one memory for a state file: entries [size, ...] and counters []."""
        size = int(self.size[row])
        held = {name: getattr(self, name)[row, :size].cpu().numpy().copy() for name in ENTRY_FIELDS}
        return held | {name: getattr(self, name)[row].cpu().numpy().copy() for name in COUNTERS}

    def restore(self, row: int, held: Mapping[str, np.ndarray]) -> None:
        """Take over a snapshot. Raises CorruptFileError where it does not fit."""
        if set(held) != {*ENTRY_FIELDS, *COUNTERS}:
            raise CorruptFileError(f"memory: fields {sorted(held)}")
        size = int(held["size"])
        for name in (*ENTRY_FIELDS, *COUNTERS):
            mine, theirs = getattr(self, name), torch.from_numpy(np.array(held[name]))
            shape = (size, *mine.shape[2:]) if name in ENTRY_FIELDS else ()
            if size > self.capacity or theirs.shape != shape or theirs.dtype != mine.dtype:
                raise CorruptFileError(f"memory: {name} is {theirs.dtype} {tuple(theirs.shape)} for {shape}")
            if name in ENTRY_FIELDS:
                mine[row] = 0
                mine[row, :size] = theirs.to(mine.device)
            else:
                mine[row] = theirs.to(mine.device)
        self.most = max(self.most, size)

    def take(self, rows: Sequence[int]) -> Bank:
        """Return some of the memories as a new bank."""
        some = object.__new__(Bank)
        some.capacity, some.ttl_steps, some.most = self.capacity, self.ttl_steps, self.most
        for name in (*ENTRY_FIELDS, *COUNTERS):
            setattr(some, name, getattr(self, name)[list(rows)])
        return some

    def put_back(self, rows: Sequence[int], some: Bank) -> None:
        """Copy memories that `take` returned back to their places."""
        for name in (*ENTRY_FIELDS, *COUNTERS):
            getattr(self, name)[list(rows)] = getattr(some, name)[: len(rows)]
        self.most = max(self.most, some.most)

    def statistics(self, row: int) -> dict[str, float]:
        """Return size, bytes, and means over the live entries of age, count, usefulness and freshness."""
        live = self.live()[row].cpu()
        now, size = int(self.now[row]), int(live.sum())
        footprint = footprint_bytes(size, self.keys.shape[2], self.values.shape[2])
        means = {
            "age": now - self.insert_step[row],
            "retrieved": self.retrieved[row],
            "usefulness": self.usefulness[row],
            "freshness": 1 - STALE * (now - self.fresh_step[row]),
        }
        nothing = {"size": float(size), "bytes": float(footprint)}
        if not size:
            return nothing
        held = {name: each[: self.capacity].cpu()[live].to(torch.float64) for name, each in means.items()}
        return nothing | {f"mean_{name}": float(each.mean()) for name, each in held.items()}


@dataclass(frozen=True)
class Lengths:
    """The normalisation of a bank: True where keys or values are kept at length 1."""

    keys: bool
    values: bool


def of_length_1(vectors: Tensor) -> Tensor:
    """Return each vector [T, n, d] divided by its length + 1e-8; the zero vector stays."""
    return per_trial(lambda x: (x / (torch.linalg.vector_norm(x, dim=2, keepdim=True) + EPSILON),), vectors)[
        0
    ]


def _ranks(slots: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each of slots [T, B], the count of later places with the same slot, and of all."""
    ordered, order = slots.sort(dim=1, stable=True)
    start = torch.searchsorted(ordered, ordered)
    end = torch.searchsorted(ordered, ordered, right=True)
    later = end - 1 - torch.arange(slots.shape[1], device=slots.device)
    back = torch.empty_like(slots)
    return back.scatter(1, order, later), back.scatter(1, order, end - start)
