"""The predictions of one trial on a split, with its memory or without, which several probes share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from psa.data.splits import Split
from psa.engine.probing import ProbeInput
from psa.engine.train_step import EVALUATION_BATCH
from psa.interventions.memory.hook import MemoryHook
from psa.nn.shared_products import Inputs
from psa.probes.base import SPLITS


@dataclass(frozen=True)
class Predictions:
    """The predictions for N samples: loss (nats), answer, greatest probability and label of each; memory: the
    values of HiddenMemory.observed, empty without a memory.
    """

    losses: NDArray[np.float64]
    answers: NDArray[np.int64]
    confidence: NDArray[np.float64]
    labels: NDArray[np.int64]
    memory: dict[str, NDArray[np.float64]]

    @property
    def correct(self) -> NDArray[np.bool_]:
        """True for each sample that is classified correctly."""
        return np.asarray(self.answers == self.labels)


@torch.no_grad()
def predict(probe_input: ProbeInput, split: Split, row: int, with_memory: bool = True) -> Predictions:
    """Return the predictions of one trial, computed beside a copy of itself for the same bits in any pack."""
    loops = [probe_input.loops[row]] * 2
    bound = probe_input.net.bind(probe_input.weights[[row, row]], loops=loops)
    site = probe_input.memory_site if with_memory else None
    if site is not None:
        site = site.take([row, row])
        site.begin(loops)
    parts: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(split), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        labels = split.labels[part].expand(2, -1)
        visit = None if site is None else MemoryHook(site, split.index[part].expand(2, -1), training=False)
        inputs = Inputs.same_for_all(split.images[part], 2)
        log_p = torch.log_softmax(bound(inputs, change=None if visit is None else visit.change), dim=1)[0]
        seen = {
            "losses": -log_p.gather(0, labels[:1])[0],
            "answers": log_p.argmax(dim=0),
            "confidence": log_p.exp().amax(dim=0),
            **({} if visit is None else {f"memory.{k}": v[0] for k, v in visit.observed(labels).items()}),
        }
        for name, values in seen.items():
            parts.setdefault(name, []).append(values)
    made = {name: torch.cat(values).cpu().numpy() for name, values in parts.items()}
    return Predictions(
        made["losses"].astype(np.float64),
        made["answers"],
        made["confidence"].astype(np.float64),
        split.labels.cpu().numpy(),
        {
            name.removeprefix("memory."): values.astype(np.float64)
            for name, values in made.items()
            if name.startswith("memory.")
        },
    )


def both_splits(probe_input: ProbeInput) -> tuple[tuple[str, Split], ...]:
    """Return validation and test, both of which a probe may read in `last`."""
    return tuple(zip(SPLITS, (probe_input.splits.val, probe_input.splits.test), strict=True))


def finite_rows(values: Iterable[float]) -> list[float | None]:
    """Return numbers as JSON can hold them: None (missing) for those that are not finite."""
    return [float(value) if math.isfinite(value) else None for value in values]
