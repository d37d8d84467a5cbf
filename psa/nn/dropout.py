"""Dropout masks as hashes of an element's position, so that every device and every pack draws the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor


class Dropout:
    """Dropout in one batch for some `rows` of a pack, drawn by hashing counters.

    rows: a slice, or int64 [n]. keys: int32 [n], one per row, of (seed, loop). threshold: int32 [n, 1, 1], a
    hash at or above it keeps the element. scale: float32 [n, 1, 1], 1 / (1 - p). step: int32 [], the number
    of the batch within the epoch; a tensor, so that a step that is played back draws anew. layers: the width
    of each layer that drops, so that several masks can be made at once; what they hold does not depend on it.
    """

    def __init__(
        self,
        rows: slice | Tensor,
        keys: Tensor,
        threshold: Tensor,
        scale: Tensor,
        step: Tensor,
        layers: Mapping[int, int] | None = None,
    ) -> None:
        self.rows, self.keys, self.threshold, self.scale = rows, keys, threshold, scale
        self.layers = layers or {}
        self._place = keys + step * _STEP
        self._ready: dict[int, Tensor] = {}
        self._shape = (0, 0)

    def mask(self, layer: int, width: int, batch: int) -> Tensor:
        """Return the mask [n, width, batch]: 0 where dropped, `scale` where kept."""
        if self._shape != (width, batch) or layer not in self._ready:
            # A deep narrow network would spend its time on a dozen tiny operations a layer: the masks of
            # several layers are hashed at once, as many as stay in the cache.
            count = max(1, _HASHED_AT_ONCE // (len(self.keys) * width * batch))
            alike = [at for at, size in self.layers.items() if at >= layer and size == width][:count]
            chosen = tuple(alike) if layer in alike else (layer,)
            self._ready = dict(zip(chosen, self._masks(chosen, width, batch), strict=True))
            self._shape = (width, batch)
        return self._ready[layer]

    def _masks(self, chosen: tuple[int, ...], width: int, batch: int) -> Tensor:
        device = self.keys.device
        places = _mixed(self._place + _layer_terms(chosen, device))  # layers x n
        element = torch.arange(width * batch, dtype=torch.int32, device=device).mul_(_ELEMENT)
        bits = _mixed(element.view(width, batch) + places.view(len(chosen), -1, 1, 1))
        return (bits >= self.threshold).to(torch.float32).mul_(self.scale)


_HASHED_AT_ONCE: Final = 1 << 17  # elements; half a MB of bits

# Odd constants: multiples of the golden ratio and the two multipliers of MurmurHash3's final mix.
_STEP: Final = -1640531535
_LAYER: Final = 0x85EBCA77
_ELEMENT: Final = -1640531535
_MIX_1: Final = -2048144789
_MIX_2: Final = -1028477387


@lru_cache(maxsize=4096)
def _layer_terms(layers: tuple[int, ...], device: torch.device) -> Tensor:
    """Return terms int32 [layers, 1], cached: no tensor can be copied to a GPU while a step is recorded."""
    numbers = torch.tensor(layers, dtype=torch.int64).mul_(_LAYER)
    return numbers.to(torch.int32).unsqueeze(1).to(device)


def _mixed(bits: Tensor) -> Tensor:
    """Apply MurmurHash3's finaliser to int32, in place. Products wrap as two's complement on every device."""
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    bits *= _MIX_1
    bits ^= (bits >> 13).bitwise_and_(0x7FFFF)
    bits *= _MIX_2
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits
