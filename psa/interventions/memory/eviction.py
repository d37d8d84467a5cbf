"""Eviction: the slots of arriving entries, and so the entries that a full memory replaces.

A batch is treated at once: its members have the same age, and none of them can have been retrieved yet, so
their order does not affect usage or helpfulness. Each rule is the rule for one arrival after the other, with
the replaced entries chosen among those that were there before the batch; under fifo and reservoir, where the
order counts, the result is the same as one by one. Of a batch larger than the memory only the last ones stay
(except under reservoir, where every arrival has the same chance).

none: nothing is replaced, and an arrival too many is an error. ttl, fifo: the oldest. reservoir: algorithm R
(Vitter 1985). usage: the least retrieved. helpfulness: the least useful. helpfulness_age: the least
(1 - w) u' - w a', u' the usefulness scaled to 0..1 and a' the age as a share of the greatest. Ties: the
oldest, then the lowest slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from psa.core.errors import UserError
from psa.interventions.memory.bank import Bank
from psa.interventions.memory.hash_rng import integers, random_bits
from psa.specs.memory import EvictionPolicy

Score = Callable[[Bank, Tensor, float], Tensor]


def slots_for(bank: Bank, kept: Tensor, forgetting: EvictionPolicy, keys: Tensor) -> Tensor:
    """Return slots [T, B] for the arrivals `kept` (bool [T, B]); `capacity` for those that are not stored.

    keys: int64 [T], of the reservoir's draws. Counts the arrivals. Raises UserError under policy none.
    """
    if forgetting.policy == "reservoir":
        slots = _reservoir(bank, kept, keys)
    elif forgetting.policy in SCORES:
        slots = _in_place_of_the_least(bank, kept, forgetting)
    else:
        slots = _ring(bank, kept)
        if forgetting.policy == "none" and bank.most + kept.shape[1] > bank.capacity:
            _refuse_too_many(bank, kept)
    bank.arrived += kept.sum(dim=1)
    return slots


def _ranked(kept: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Return each arrival's number among those kept, from 0; and whether it is one of the last `capacity`."""
    rank = kept.cumsum(dim=1) - 1
    surplus = kept.sum(dim=1, keepdim=True) - capacity
    return rank, kept & (rank >= surplus)


def _ring(bank: Bank, kept: Tensor) -> Tensor:
    rank, staying = _ranked(kept, bank.capacity)
    return torch.where(staying, (bank.arrived.unsqueeze(1) + rank) % bank.capacity, bank.capacity)


def _refuse_too_many(bank: Bank, kept: Tensor) -> None:
    if bool((bank.size + kept.sum(dim=1) > bank.capacity).any()):
        raise UserError(
            f"memory_size must hold all entries with forgetting none, got {bank.capacity:,}",
            "Raise it or choose another forgetting",
        )


def _reservoir(bank: Bank, kept: Tensor, keys: Tensor) -> Tensor:
    number = bank.arrived.unsqueeze(1) + kept.cumsum(dim=1)  # from 1
    drawn = integers(random_bits(keys.unsqueeze(1), number), number.clamp(min=1))
    slots = torch.where(number <= bank.capacity, number - 1, drawn)
    slots = torch.where(kept & (slots < bank.capacity), slots, bank.capacity)
    # Of several arrivals with the same slot the last one gets it.
    order = torch.arange(kept.shape[1], device=kept.device).expand_as(slots)
    last = torch.full((len(bank), bank.capacity + 1), -1, device=kept.device, dtype=torch.int64)
    last.scatter_reduce_(1, slots, order, "amax")
    return torch.where(last.gather(1, slots) == order, slots, bank.capacity)


def _in_place_of_the_least(bank: Bank, kept: Tensor, forgetting: EvictionPolicy) -> Tensor:
    rank, staying = _ranked(kept, bank.capacity)
    free = bank.capacity - bank.size.unsqueeze(1)
    rank = rank % bank.capacity  # an arrival too many takes the place of the first of its batch
    slots = bank.size.unsqueeze(1) + rank
    if bank.most + kept.shape[1] > bank.capacity:
        order = _least_first(bank, forgetting)
        victim = order.gather(1, (rank - free).clamp_(min=0))
        slots = torch.where(rank < free, slots, victim)
    return torch.where(staying, slots, bank.capacity)


def _least_first(bank: Bank, forgetting: EvictionPolicy) -> Tensor:
    """Return the slots [T, C] sorted by score, age and number; those not in use come last."""
    live = bank.live()
    score = SCORES[forgetting.policy](bank, live, forgetting.age_weight)
    score = torch.where(live, score, torch.inf)
    # One stable sort by (score, insert step): floats are ordered as their bits are, negative ones turned.
    raw = (score + 0.0).view(torch.int32)
    raw = raw ^ ((raw >> 31) & 0x7FFFFFFF)
    both = (raw.to(torch.int64) << 32) + bank.insert_step[:, : bank.capacity]
    return both.sort(dim=1, stable=True).indices


def _usage(bank: Bank, live: Tensor, weight: float) -> Tensor:
    return bank.retrieved[:, : bank.capacity].to(torch.float32)


def _helpfulness(bank: Bank, live: Tensor, weight: float) -> Tensor:
    return bank.usefulness[:, : bank.capacity]


def _helpfulness_age(bank: Bank, live: Tensor, weight: float) -> Tensor:
    useful = bank.usefulness[:, : bank.capacity]
    least = torch.where(live, useful, torch.inf).amin(dim=1, keepdim=True)
    shifted = useful - least
    span = torch.where(live, shifted, 0.0).amax(dim=1, keepdim=True)
    age = (bank.now.unsqueeze(1) - bank.insert_step[:, : bank.capacity]).to(torch.float32)
    oldest = torch.where(live, age, 0.0).amax(dim=1, keepdim=True)
    # Where all are equal the share is 0 / 1.
    useful_share = shifted / torch.where(span > 0, span, 1.0)
    age_share = age / torch.where(oldest > 0, oldest, 1.0)
    return useful_share * (1 - weight) - age_share * weight


SCORES: Final[Mapping[str, Score]] = {
    "usage": _usage,
    "helpfulness": _helpfulness,
    "helpfulness_age": _helpfulness_age,
}
