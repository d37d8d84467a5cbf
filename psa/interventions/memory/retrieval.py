"""Retrieval: the search for entries near a query, their weights and weighted sum. Banks do not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from psa.interventions.memory.bank import ALIGNED, EPSILON, Bank
from psa.interventions.memory.hash_rng import integers, random_bits
from psa.interventions.memory.per_trial import isolated_row, needs_isolation, per_trial
from psa.specs.memory import Retrieval

SCORES_AT_ONCE: Final = 1 << 27  # of a search on a GPU: half a GB


@dataclass(frozen=True)
class NearestEntries:
    """The entries that B queries of T trials found, nearest first.

    slots: int64 [T, B, k]. distance: float32 [T, B, k]. valid: bool [T, B, k], False where a memory has fewer
    than k entries; distance is then 0.
    """

    slots: Tensor
    distance: Tensor
    valid: Tensor


def search_memory(bank: Bank, queries: Tensor, k: int, metric: str) -> NearestEntries:
    """Return the k nearest live entries of queries [T, dk, B]; ties go to the lowest slot.

    Candidates are ranked by ||k||^2 - 2 q k (or -q k for cosine, whose keys and queries have length 1), one
    product for all; the distances of the k chosen are then computed without cancellation and ordered anew,
    so that a query finds itself at distance 0.
    """
    if needs_isolation(queries.device):
        blocks = [slice(row, row + 1) for row in range(len(bank))]
    else:
        size = max(1, SCORES_AT_ONCE // (queries.shape[2] * max(1, bank.most)))
        blocks = [slice(start, start + size) for start in range(0, len(bank), size)]
    parts = [_block(bank, rows, queries, k, metric) for rows in blocks]
    return NearestEntries(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _block(bank: Bank, rows: slice, queries: Tensor, k: int, metric: str) -> tuple[Tensor, Tensor, Tensor]:
    alone = needs_isolation(queries.device)
    # On a CPU how many slots are looked at is a matter of the trial alone: it decides which kernel runs.
    used = int(bank.size[rows]) if alone else bank.most
    slots = -(-max(used, k + 1) // ALIGNED) * ALIGNED
    queries = (isolated_row(queries, rows.start) if alone else queries[rows]).transpose(1, 2).contiguous()
    keys = bank.keys[rows, :slots]
    live = bank.live(rows, slots)
    lengths = keys.square().sum(dim=2) if metric == "euclidean" else 0.0
    base = torch.where(live, lengths, torch.inf).unsqueeze(1).expand(-1, queries.shape[1], -1)
    factor = -2.0 if metric == "euclidean" else -1.0
    scores = torch.baddbmm(base, queries, keys.transpose(1, 2), alpha=factor)
    chosen, valid = _least(scores, k)
    wanted = _gathered(bank.keys[rows], chosen)
    distance = torch.where(valid, _distance(queries.unsqueeze(2), wanted, metric), torch.inf)
    by_slot = chosen.sort(dim=2, stable=True).indices
    order = by_slot.gather(2, distance.gather(2, by_slot).sort(dim=2, stable=True).indices)
    valid = valid.gather(2, order)
    return chosen.gather(2, order), torch.where(valid, distance.gather(2, order), 0.0), valid


def _gathered(buffer: Tensor, slots: Tensor) -> Tensor:
    """Return the vectors [n, ..., d] of buffer [n, S, d] at slots [n, ...]."""
    first = (
        torch.arange(len(buffer), device=slots.device).view(-1, *[1] * (slots.dim() - 1)) * buffer.shape[1]
    )
    return buffer.view(-1, buffer.shape[2])[(slots + first).flatten()].view(*slots.shape, -1)


def _distance(queries: Tensor, keys: Tensor, metric: str) -> Tensor:
    if metric == "euclidean":
        return (queries - keys).square().sum(dim=3).sqrt()
    similarity: Tensor = (queries * keys).sum(dim=3)
    return (1 - similarity).clamp_(min=0)


def _least(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return slots [n, B, k] of the k least scores [n, B, slots], and which are finite. Ties: lowest slot.

    topk picks any of equal scores. One more than k shows whether that matters, which is rare: only then, and
    only for those queries, are scores and slots packed into whole numbers, all different.
    """
    values, chosen = torch.topk(scores, k + 1, dim=2, largest=False)
    tied = ~(values[..., k] > values[..., k - 1])
    chosen, values = chosen[..., :k], values[..., :k]
    if bool(tied.any()):
        raw = scores[tied].view(torch.int32)
        raw = (raw ^ ((raw >> 31) & 0x7FFFFFFF)).to(torch.int64) << 32
        unique = raw + torch.arange(scores.shape[2], device=scores.device)
        chosen = chosen.clone()
        chosen[tied] = torch.topk(unique, k, dim=1, largest=False).indices
        values = scores.gather(2, chosen)
    return chosen, torch.isfinite(values)


def drawn(bank: Bank, keys: Tensor, samples: Tensor, k: int) -> NearestEntries:
    """Draw k live entries for each of samples int64 [T, B], with replacement, distance 0: the random control.

    keys: int64 [T], of the draws. A draw depends on the sample's number, not on its place in a batch.
    """
    live = bank.live().sum(dim=1).view(-1, 1, 1)
    number = torch.arange(k, device=samples.device)
    picks = integers(random_bits(keys.view(-1, 1, 1), samples.unsqueeze(2), number), live.clamp(min=1))
    if bank.ttl_steps is not None:
        # The live ones are the last arrivals in a ring.
        picks = (bank.arrived.view(-1, 1, 1) - 1 - picks) % bank.capacity
    return NearestEntries(picks, torch.zeros(picks.shape, device=picks.device), (live > 0).expand_as(picks))


def weights_of(found: NearestEntries, retrieval: Retrieval) -> Tensor:
    """Return weights (see Retrieval), float32 [T, B, k]: of sum 1 over the entries found, 0 elsewhere."""

    def work(distance: Tensor, valid: Tensor) -> tuple[Tensor]:
        if retrieval.weighting == "uniform":
            raw = torch.ones_like(distance)
        elif retrieval.weighting == "inverse_distance":
            raw = 1 / (distance + EPSILON)
        else:
            # From the nearest, which makes the greatest weight exp(0) and never 0 / 0.
            raw = torch.exp((distance[..., :1] - distance) / retrieval.temperature)
        raw = torch.where(valid, raw, 0.0)
        return (raw / raw.sum(dim=2, keepdim=True).clamp_(min=torch.finfo(raw.dtype).tiny),)

    return per_trial(work, found.distance, found.valid)[0]


def even_weights(found: NearestEntries) -> Tensor:
    """Return the weights of the random control: the same for all."""
    return found.valid.to(torch.float32) / found.valid.shape[2]


def retrieved(bank: Bank, found: NearestEntries, weights: Tensor) -> Tensor:
    """Return r [T, dv, B], the sum over the entries of weight x value."""
    total = torch.zeros(*found.slots.shape[:2], bank.values.shape[2], device=weights.device)
    # One entry after the other, product and sum apart: every element is rounded alike wherever it lies.
    for number in range(found.slots.shape[2]):
        total += _gathered(bank.values, found.slots[..., number]) * weights[..., number].unsqueeze(2)
    return total.transpose(1, 2).contiguous()


def mean_distance(found: NearestEntries) -> Tensor:
    """Return the mean distance of the entries found, float32 [T, B]; NaN where there are none."""
    return per_trial(lambda d, v: (d.sum(dim=2) / v.sum(dim=2),), found.distance, found.valid)[0]


def retrieval_purity(bank: Bank, found: NearestEntries, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the share of the entries found with the query's label, and whether the nearest has it; else NaN.

    labels: int64 [T, B]. Both float32 [T, B].
    """
    same = bank.labels[bank.rows.unsqueeze(2), found.slots] == labels.unsqueeze(2)
    count = found.valid.sum(dim=2)
    share = (same & found.valid).sum(dim=2).to(torch.float32) / count
    first = torch.where(count > 0, same[..., 0].to(torch.float32), torch.nan)
    return share, first
