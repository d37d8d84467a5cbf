"""The batches of a pack: an epoch is a permutation of tensors on the device, without a data loader.

Trials of one seed and loop read the same batch, which is gathered once for all of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from psa.core.rng import generator
from psa.data.splits import Split
from psa.nn.relu.compiled import is_installed
from psa.nn.shared_products import Inputs
from psa.specs.training import StandardTraining, effective_weight_decay
from psa.storage.records.history import accepted_loops
from psa.storage.trial_state import TrialState

_MANY_SAMPLES: Final = 100_000  # in an epoch of all groups; fewer do not repay the import of numba


@dataclass(frozen=True)
class RowSettings:
    """The settings of one row of a pack for one epoch.

    epochs: those behind the moments with which its optimiser begins.
    """

    seed: int
    loop: int
    dropout: float
    lr: float
    weight_decay: float
    momentum: float = 0.0
    epochs: int = 0


def row_of(state: TrialState) -> RowSettings:
    """Return the settings of a state's next loop."""
    trial = state.trial
    return RowSettings(
        seed=trial.seed,
        loop=state.loops + 1,
        dropout=trial.model.dropout,
        lr=trial.method.lr,
        weight_decay=effective_weight_decay(trial.method),
        momentum=trial.method.momentum if isinstance(trial.method, StandardTraining) else 0.0,
        epochs=epochs_behind(state),
    )


def epochs_behind(state: TrialState) -> int:
    """Return the epochs behind the moments with which the next loop begins: all in ordinary training; of the
    ratchet those that became the LKG, where its moments persist.
    """
    method = state.trial.method
    if isinstance(method, StandardTraining):
        return state.loops
    if method.optimizer_state == "fresh":
        return 0
    return sum(accepted_loops(state.history))


def batch_order(rows: Sequence[RowSettings]) -> list[int]:
    """Return the positions of `rows`, those of one (seed, loop) side by side, since they share their
    batches. Within a seed, rows of equal rate and decay are neighbours too.
    """
    return sorted(
        range(len(rows)),
        key=lambda at: (
            rows[at].seed,
            rows[at].loop,
            rows[at].lr,
            rows[at].weight_decay,
            rows[at].epochs,
            rows[at].dropout,
        ),
    )


def equal_runs(values: Sequence[object]) -> list[slice]:
    """Return the maximal slices of equal neighbours."""
    starts = [at for at in range(len(values)) if at == 0 or values[at] != values[at - 1]]
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], len(values)], strict=True)]


def _pixel_gatherer(split: Split, groups: int) -> Callable[[Any, Any], None] | None:
    """Return a function of places and of the samples to be written there, compiled by numba, or None.

    Samples are read at random from more memory than any cache holds, so that bytes are gathered and scaled in
    a third of the time of numbers (256 samples of MNIST, 2026-11: 34 in place of 120 us). The bits are equal.
    """
    pixels = split.pixels
    repaid = "numba" in sys.modules or groups * len(split) >= _MANY_SAMPLES
    if pixels is None or not repaid or not is_installed():
        return None
    from psa.nn.kernels import gather_pixels

    constants = pixels.scaling
    numbers = (np.float32(constants.divisor), np.float32(constants.offset), np.float32(constants.spread))
    values = pixels.values.numpy()
    return lambda places, into: gather_pixels(values, places, *numbers, into)


class Batches:
    """The batches of one epoch for the rows of a pack: a permutation for each run of one (seed, loop)."""

    def __init__(self, rows: Sequence[RowSettings], split: Split, batch_size: int) -> None:
        self.split, self.batch_size = split, batch_size
        draws = [(row.seed, row.loop) for row in rows]
        self.rows = tuple(equal_runs(draws))
        orders = [
            generator(draws[run.start][0], "shuffle", draws[run.start][1]).permutation(len(split))
            for run in self.rows
        ]
        device = split.images.device
        self.order = torch.from_numpy(np.stack(orders)).to(device)  # S x N
        self.group = torch.tensor(
            [group for group, run in enumerate(self.rows) for _ in range(run.start, run.stop)], device=device
        )

        self._gather_pixels = _pixel_gatherer(split, len(self.rows))

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def size(self, step: int) -> int:
        """Return the number of samples in batch `step`; the last batch may be smaller."""
        return min(self.batch_size, len(self.split) - step * self.batch_size)

    def chosen(self, step: int) -> Tensor:
        """Return the samples of batch `step`, int64 [S, B]."""
        return self.order[:, step * self.batch_size : (step + 1) * self.batch_size]

    def empty_inputs(self, size: int) -> Inputs:
        """Return the inputs of a batch of `size` samples, not yet filled."""
        images = self.split.images
        return Inputs(torch.empty(len(self.rows), size, images.shape[1], device=images.device), self.rows)

    def gather(self, chosen: Tensor, into: Inputs) -> Tensor:
        """Fill `into` with the S x B chosen samples; return their labels [T, B]."""
        places, x = chosen.reshape(-1), into.x.view(chosen.numel(), -1)
        if self._gather_pixels is None:
            torch.index_select(self.split.images, 0, places, out=x)
        else:
            self._gather_pixels(places.numpy(), x.numpy())
        labels = self.split.labels.index_select(0, places).view(chosen.shape)
        return labels.index_select(0, self.group)

    def numbers(self, chosen: Tensor) -> Tensor:
        """Return the numbers of the S x B chosen samples in their data set, int64 [T, B]."""
        return self.split.index[chosen][self.group]

    def __getitem__(self, step: int) -> tuple[Inputs, Tensor]:
        """Return the inputs and labels of batch `step`."""
        inputs = self.empty_inputs(self.size(step))
        return inputs, self.gather(self.chosen(step), inputs)
