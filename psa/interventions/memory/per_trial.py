"""Functions computed trial by trial on a CPU and all at once on a GPU, with results independent of the pack.

Sums, exponentials and products use other code at other lengths and alignments, so a trial in the middle of a
tensor may be rounded otherwise than alone. A trial in a tensor of its own cannot. The searches of a memory
take milliseconds per trial, so the cost of a loop over trials is negligible.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

RowFunction = Callable[..., tuple[Tensor, ...]]


def per_trial(work: RowFunction, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return work(*tensors) of a function of tensors [n, ...] that treats the n trials independently."""
    if not needs_isolation(tensors[0].device):
        return work(*tensors)
    rows = range(len(tensors[0]))
    parts = [work(*(isolated_row(tensor, row) for tensor in tensors)) for row in rows]
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))


def needs_isolation(device: torch.device) -> bool:
    """Return True if trials are computed one by one on a device."""
    return device.type == "cpu"


def isolated_row(tensor: Tensor, row: int) -> Tensor:
    """Return a copy of one row, [1, ...], in memory of its own (which starts on a 64-byte boundary)."""
    return tensor[row : row + 1].clone(memory_format=torch.contiguous_format)
