"""The precision of sums over many numbers."""

from __future__ import annotations

from typing import Final

import torch

_WITHOUT_FLOAT64: Final = frozenset({"mps"})  # types of devices; Apple GPUs have no float64


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type to sum in on a device: float64, which holds any sum of finite float32 numbers, or
    float32 where there is no other.
    """
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64
