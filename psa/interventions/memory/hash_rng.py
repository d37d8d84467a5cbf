"""Draws of the memory as hashes of counters: no state, no order, the same in every pack.

The counter identifies the draw (a sample's number, an arrival's number), so neither the size of a batch
nor its place in an epoch matters. 64-bit, because arrivals are counted over a whole training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from psa.core.rng import stream_key

# The increment and the two multipliers of SplitMix64 (Steele, Lea and Flood 2014), as signed numbers.
_STEP: Final = 0x9E3779B97F4A7C15 - 2**64
_MIX_1: Final = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2: Final = 0x94D049BB133111EB - 2**64


def keys_of(seeds: Sequence[int], purpose: str, loops: Sequence[int], device: torch.device) -> Tensor:
    """Return the keys of the draws of each (seed, purpose, loop), int64 [T]."""
    words = [stream_key(seed, purpose, loop)[24:32] for seed, loop in zip(seeds, loops, strict=True)]
    numbers = [int.from_bytes(word, "little", signed=True) for word in words]
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def random_bits(keys: Tensor, *counters: Tensor) -> Tensor:
    """Return 63 random bits, int64, for each key and counters, all broadcast against each other."""
    mixed = keys
    for counter in counters:
        mixed = _mixed(mixed + (counter + 1) * _STEP)
    return mixed.bitwise_and(2**63 - 1)


def integers(draws: Tensor, bound: Tensor) -> Tensor:
    """Return uniform integers in [0, bound); the bias is below bound / 2**63."""
    return draws % bound


def uniform(draws: Tensor) -> Tensor:
    """Return uniform float32 in [0, 1), multiples of 2**-24."""
    return (draws >> 39).to(torch.float32) * 2.0**-24


def _mixed(numbers: Tensor) -> Tensor:
    """Apply SplitMix64's finaliser; products wrap as two's complement on every device."""
    numbers = (numbers ^ _shifted(numbers, 30)) * _MIX_1
    numbers = (numbers ^ _shifted(numbers, 27)) * _MIX_2
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, places: int) -> Tensor:
    """Shift right and bring in zeros."""
    return (numbers >> places).bitwise_and(2 ** (64 - places) - 1)
