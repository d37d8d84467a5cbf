"""Rows of a pack whose next epoch is the same to the bit: it is trained once, and the result is copied.

A row's epoch follows from its weights (and moments), its seed and loop, and its rates alone, so rows that are
equal in these stay equal. In a grid of all modes that is mode `decay` beside `none` where the decay is too
weak to change a float32, and the first loop of all modes without dropout until a unit is ablated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from psa.engine.batches import RowSettings
from psa.engine.device_pack import EpochBuffers
from psa.nn.stacked import StackedParams


def find_equal_rows(epoch: EpochBuffers, settings: Sequence[RowSettings]) -> list[int]:
    """Return, for each row of an epoch that is about to be trained, the index of the first row equal to it.

    settings: of each row, as the epoch uses them.
    """
    seen: dict[RowSettings, list[int]] = {}
    found = []
    buffers = [epoch.active, *epoch.carried.values(), *epoch.accepted.values()]
    for row, setting in enumerate(settings):
        others = seen.setdefault(setting, [])
        first = next(
            (other for other in others if all(_equal_bits(each, row, other) for each in buffers)), row
        )
        if first == row:
            others.append(row)
        found.append(first)
    return found


def gather_rows(epoch: EpochBuffers, places: Sequence[int]) -> EpochBuffers:
    """Return the buffers of an epoch with row places[i] at position i."""
    if list(places) == list(range(len(epoch.active))):
        return epoch
    carried, accepted = (
        {name: buffer[list(places)] for name, buffer in buffers.items()}
        for buffers in (epoch.carried, epoch.accepted)
    )
    return replace(epoch, active=epoch.active[list(places)], carried=carried, accepted=accepted)


def _equal_bits(rows: StackedParams, one: int, other: int) -> bool:
    """Compare two rows by their bits, which tell a negative zero from zero and find equal NaNs equal."""
    return all(torch.equal(part[one].view(torch.int32), part[other].view(torch.int32)) for part in rows.parts)
