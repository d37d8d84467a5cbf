"""The memories of T trials at one site: the pieces in the order in which a training step needs them.

Forward: retrieve, change h. After the backward pass: book the retrieval, update, store. An evaluation only
goes forward, and leaves no trace.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psa.core.errors import CorruptFileError
from psa.interventions.memory import eviction, hash_rng, retrieval, targets
from psa.interventions.memory.bank import Bank, Entries, Lengths
from psa.interventions.memory.injection import InjectionEffect, gate_of, inject
from psa.specs.memory import Memory


@dataclass(frozen=True)
class Trace:
    """The trace of one batch: h [T, width, B] before the change, the entries found, and the effect.

    found and effect are None if no trial's memory acts in this epoch. on: bool [T, B], True where entries
    were found and applied.
    """

    h: Tensor
    found: retrieval.NearestEntries | None
    effect: InjectionEffect | None
    on: Tensor


class HiddenMemory:
    """The memories of trials that share one spec, on vectors of one width.

    seeds: one per trial. width: of the site when the trial began. classes: of the data.
    """

    def __init__(
        self, spec: Memory, seeds: Sequence[int], width: int, classes: int, device: torch.device
    ) -> None:
        self.spec, self.seeds, self.device = spec, tuple(seeds), device
        self.dims = targets.Dims.of(spec, width, seeds, device)
        count, affected = len(seeds), self.dims.affected.shape[1]
        ttl = spec.forgetting.ttl_steps
        self.bank = Bank(count, spec.capacity, self.dims.query.shape[1], affected, device, ttl)
        self.centroids: targets.Centroids | None = None
        if spec.target.construction == "class_centroid":
            momentum = spec.target.centroid_momentum
            self.centroids = targets.Centroids(count, classes, affected, momentum, device)
        self._reservoir = hash_rng.keys_of(seeds, "reservoir", [0] * count, device)
        self.begin([1] * count)

    def begin(self, epochs: Sequence[int]) -> None:
        """Set the epoch (from 1) that each trial trains next, or after which it is evaluated."""
        spec = self.spec
        self._random = hash_rng.keys_of(self.seeds, "control", epochs, self.device)
        self._refresh = hash_rng.keys_of(self.seeds, "refresh", epochs, self.device)
        self._alpha = self._tensor([spec.alpha(epoch) for epoch in epochs], torch.float32)
        self._fills = self._tensor([spec.fills(epoch) for epoch in epochs], torch.bool)
        self._any_fills = any(spec.fills(epoch) for epoch in epochs)
        self._acts, self._any_acts = {}, {}
        for training in (True, False):
            acts = [spec.acts(epoch, training) for epoch in epochs]
            self._acts[training] = self._tensor(acts, torch.bool)
            self._any_acts[training] = any(acts)

    def _tensor(self, values: Sequence[float], kind: torch.dtype) -> Tensor:
        return torch.tensor(values, dtype=kind, device=self.device)

    def forward(self, h: Tensor, samples: Tensor, training: bool) -> tuple[Tensor, Trace]:
        """Return h' for h [T, width, B], and its trace. Changes no memory.

        samples: int64 [T, B], the samples' numbers in the data set, by which the random control draws.
        """
        nobody = torch.zeros(samples.shape, dtype=torch.bool, device=self.device)
        if not self._any_acts[training]:
            return h, Trace(h.detach(), None, None, nobody)
        spec = self.spec
        if spec.control == "random":
            found = retrieval.drawn(self.bank, self._random, samples, spec.retrieval.k)
            weights = retrieval.even_weights(found)
        else:
            found = self._nearest(h)
            weights = retrieval.weights_of(found, spec.retrieval)
        on = found.valid[..., 0] & self._acts[training].unsqueeze(1)
        gate = torch.ones(samples.shape, device=self.device)
        if spec.mode == "gated":
            distance = torch.where(on, retrieval.mean_distance(found), 0.0)
            gate = gate_of(spec.gate, self._alpha, distance)
        r = retrieval.retrieved(self.bank, found, weights)
        changed, effect = inject(spec, h, r, self.dims.affected, gate, on)
        return changed, Trace(h.detach(), found, effect, on)

    def observed(self, trace: Trace, labels: Tensor) -> dict[str, Tensor]:
        """Return values per sample for records, float32 [T, B]; to call before `learn`. labels: int64 [T, B].

        distance (mean over the entries found), purity, top1 (see retrieval_purity): NaN where nothing was
        found and applied, distance 0 in the random control. gate, magnitude, relative: see InjectionEffect.
        """
        nothing = torch.zeros(labels.shape, device=self.device)
        missing = torch.full_like(nothing, torch.nan)
        if trace.found is None or trace.effect is None:
            named = {"distance": missing, "purity": missing, "top1": missing}
            return named | {"gate": nothing, "magnitude": nothing, "relative": nothing}
        share, first = retrieval.retrieval_purity(self.bank, trace.found, labels)
        named = {"distance": retrieval.mean_distance(trace.found), "purity": share, "top1": first}
        named = {name: torch.where(trace.on, value, missing) for name, value in named.items()}
        effect = trace.effect
        return named | {"gate": effect.gate, "magnitude": effect.magnitude, "relative": effect.relative}

    def _nearest(self, h: Tensor) -> retrieval.NearestEntries:
        queries = targets.queries_of(h, self.dims, self.spec.retrieval)
        return retrieval.search_memory(self.bank, queries, self.spec.retrieval.k, self.spec.retrieval.metric)

    def learn(
        self,
        trace: Trace,
        gradient: Tensor | None,
        losses: Tensor,
        right: Tensor,
        labels: Tensor,
        samples: Tensor,
    ) -> Tensor:
        """Record the retrieval of a training step, and update or store entries. Return the number of new
        entries, int64 [T].

        gradient: [T, width, B], of each sample's own loss at h as it came (see targets.per_sample); may be
        None unless values are made of it. losses: [T, B]. right: bool [T, B], of the predictions made with
        the memory. labels, samples: int64 [T, B].
        """
        if trace.found is not None:
            self.bank.book(trace.found.slots, trace.found.valid & trace.on.unsqueeze(2), right)
        if not self._any_fills:
            self.bank.now += 1
            return torch.zeros(len(self.seeds), dtype=torch.int64, device=self.device)
        kept = targets.stored(self.spec.insertion, losses) & self._fills.unsqueeze(1)
        entries = self._entries(trace, gradient, labels)
        merging = self._to_refresh(trace, kept, samples)
        self.bank.now += 1
        if self.spec.refresh is not None and merging is not None:
            lengths = Lengths(self.spec.retrieval.normalize_keys, self.spec.retrieval.normalize_values)
            self.bank.refresh(merging, entries, self.spec.refresh.key, self.spec.refresh.value, lengths)
            kept = kept & (merging == self.bank.capacity)
        slots = eviction.slots_for(self.bank, kept, self.spec.forgetting, self._reservoir)
        self.bank.put(slots, entries)
        return kept.sum(dim=1)

    def _entries(self, trace: Trace, gradient: Tensor | None, labels: Tensor) -> Entries:
        spec, affected = self.spec, self.dims.affected
        h = targets.picked(trace.h, affected)
        means = None
        if self.centroids is not None:
            # A trial that stores nothing yet learns no class means either.
            held, seen = self.centroids.means, self.centroids.seen
            self.centroids.update(h, labels)
            fills = self._fills.view(-1, 1, 1)
            self.centroids.means = torch.where(fills, self.centroids.means, held)
            self.centroids.seen = torch.where(fills[..., 0], self.centroids.seen, seen)
            means = self.centroids.of(labels)
        own = None if gradient is None else targets.picked(gradient, affected)
        values = targets.target_values(spec.target, h, own, means, spec.retrieval.normalize_values)
        return Entries(targets.target_keys(trace.h, self.dims, spec.retrieval), values, labels)

    def _to_refresh(self, trace: Trace, kept: Tensor, samples: Tensor) -> Tensor | None:
        """Return slots [T, B] of the entries to update, `capacity` for arrivals that update none."""
        if self.spec.refresh is None:
            return None
        refresh = self.spec.refresh
        draws = hash_rng.uniform(hash_rng.random_bits(self._refresh.unsqueeze(1), samples))
        searched = self.spec.control != "random" and trace.found is not None
        found = trace.found if searched else None
        if found is None:
            found = self._nearest(trace.h)
        near = found.valid[..., 0] & (found.distance[..., 0] <= refresh.distance)
        return torch.where(kept & near & (draws < refresh.rate), found.slots[..., 0], self.bank.capacity)

    def snapshot(self, row: int) -> dict[str, np.ndarray]:
        """Return the content of one trial's memory for its state file."""
        held = self.bank.snapshot(row)
        if self.centroids is not None:
            held["centroids"] = self.centroids.means[row].cpu().numpy().copy()
            held["centroids_seen"] = self.centroids.seen[row].cpu().numpy().copy()
        return held

    def restore(self, row: int, held: Mapping[str, np.ndarray]) -> None:
        """Take over a snapshot. Raises CorruptFileError where it does not fit."""
        rest = dict(held)
        if self.centroids is not None:
            for name, mine in (("centroids", self.centroids.means), ("centroids_seen", self.centroids.seen)):
                theirs = rest.pop(name, None)
                if theirs is None or theirs.shape != tuple(mine.shape[1:]):
                    raise CorruptFileError(f"memory: {name} is missing or of another shape")
                mine[row] = torch.from_numpy(theirs.copy()).to(mine)
        self.bank.restore(row, rest)

    def take(self, rows: Sequence[int]) -> HiddenMemory:
        """Return the memories of some trials; `begin` must follow."""
        some = object.__new__(HiddenMemory)
        some.spec, some.device = self.spec, self.device
        some.seeds = tuple(self.seeds[row] for row in rows)
        some.dims, some.bank = self.dims.take(rows), self.bank.take(rows)
        some.centroids = None if self.centroids is None else self.centroids.take(rows)
        some._reservoir = self._reservoir[list(rows)]
        return some

    def put_back(self, rows: Sequence[int], some: HiddenMemory) -> None:
        """Copy memories that `take` returned back to their places; further ones are dropped."""
        self.bank.put_back(rows, some.bank)
        if self.centroids is not None and some.centroids is not None:
            self.centroids.means[list(rows)] = some.centroids.means[: len(rows)]
            self.centroids.seen[list(rows)] = some.centroids.seen[: len(rows)]
