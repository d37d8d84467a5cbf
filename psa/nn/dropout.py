"""Dropout masks as hashes of an element's position, so that every device and every pack draws the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
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
        """Return the masks of some layers of this width, [layers, n, width, batch]."""
        places = _mixed(self._place + _layer_terms(chosen, self.keys.device))  # layers x n
        by = self._masks_by_numpy if places.device.type == "cpu" else self._masks_by_torch
        return by(places, width * batch).view(*places.shape, width, batch)

    def _masks_by_torch(self, places: Tensor, count: int) -> Tensor:
        element = torch.arange(count, dtype=torch.int32, device=places.device).mul_(_ELEMENT)
        bits = _mixed(element + places.unsqueeze(2))
        return (bits >= self.threshold.view(-1, 1)).to(torch.float32).mul_(self.scale.view(-1, 1))

    def _masks_by_numpy(self, places: Tensor, count: int) -> Tensor:
        """Return the same masks in a third to a half of the time, a seventh of that of a deep narrow network:
        torch shifts signed numbers only, which takes a further pass, its comparisons are slow, and a block
        here stays in the cache.
        """
        terms = places.numpy().view(np.uint32).reshape(-1, 1)
        threshold, scale = (
            np.tile(each.numpy().reshape(-1, 1), (len(places), 1)) for each in (self.threshold, self.scale)
        )
        masks = np.empty((len(terms), count), np.float32)
        block = max(1, _IN_CACHE // len(terms))
        for start in range(0, count, block):
            part = slice(start, start + block)
            bits = _elements(count)[part] + terms
            shifted = np.empty_like(bits)
            for shift, factor in ((16, _MIX_1), (13, _MIX_2)):
                bits ^= np.right_shift(bits, shift, out=shifted)
                bits *= np.uint32(factor % 2**32)
            bits ^= np.right_shift(bits, 16, out=shifted)
            np.multiply(bits.view(np.int32) >= threshold, scale, out=masks[:, part])
        return torch.from_numpy(masks)


_HASHED_AT_ONCE: Final = 1 << 17  # elements; half a MB of bits
_IN_CACHE: Final = 1 << 15  # elements that a CPU hashes from beginning to end before the next

# Odd constants: multiples of the golden ratio and the two multipliers of MurmurHash3's final mix.
_STEP: Final = -1640531535
_LAYER: Final = 0x85EBCA77
_ELEMENT: Final = -1640531535
_MIX_1: Final = -2048144789
_MIX_2: Final = -1028477387


@lru_cache(maxsize=64)
def _elements(count: int) -> NDArray[np.uint32]:
    """Return the terms of the elements of a mask."""
    terms = np.arange(count, dtype=np.uint32) * np.uint32(_ELEMENT % 2**32)
    terms.flags.writeable = False
    return terms


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
