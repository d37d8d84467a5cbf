"""Distributions of the weights and activations of the LKG: moments and histograms."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from psa.engine.probing import ProbeInput
from psa.nn.dense import Dense
from psa.nn.layers import effective
from psa.nn.precision import sum_dtype
from psa.probes.base import LkgProbe
from psa.probes.layer_trace import hidden_layers, ignore, trace_layers
from psa.storage.trial_state import Observation

BINS: Final = 60
_ZERO: Final = 1e-8  # smaller numbers count as zero
_SAMPLES: Final = 1_000  # samples of the validation split whose activations are observed
_MOMENTS: Final = ("mean", "std", "min", "max", "sparsity", "negative")


@dataclass
class _Values:
    """The values of one tensor, gathered batch by batch."""

    parts: list[Tensor] = field(default_factory=list)

    def add(self, values: Tensor) -> None:
        self.parts.append(values.flatten().cpu().to(torch.float64))

    def facts(self) -> dict[str, list[float]]:
        """Return the moments, the norm, and a histogram of BINS equal bins between minimum and maximum."""
        values = torch.cat(self.parts)
        low, high = float(values.min()), float(values.max())
        spread = math.isfinite(low) and math.isfinite(high) and high > low  # a diverged network has no bins
        counts = torch.histc(values, BINS, low, high) if spread else torch.zeros(BINS)
        return {
            "moments": [
                float(values.mean()),
                float(values.std(correction=0)),
                low,
                high,
                float((values.abs() < _ZERO).double().mean()),
                float((values < 0).double().mean()),
            ],
            "norm": [float(values.norm())],
            "counts": counts.to(torch.int64).tolist(),
        }


class Distributions(LkgProbe):
    """Moments (mean, std, min, max, share of zeros, share below zero), L2 norm and histogram counts of every
    parameter tensor, and of every hidden layer before and after its activation, over the first 1,000
    validation samples. sum: what a layer's outputs sum to, the mean, least and greatest over samples.

    Quantities read `weights.NAME.moments`, `before.LAYER.counts`, `after.LAYER.moments`; a histogram has 60
    equal bins between the min and the max of its moments. A memory does not act.
    """

    name = "distributions"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the names of the moments and of the sums, in order."""
        return {"moments": list(_MOMENTS), "sum": ["mean", "least", "greatest"]}

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        return dict(self._facts(probe_input, row))

    def _facts(self, probe_input: ProbeInput, row: int) -> Iterator[tuple[str, list[float]]]:
        for name, tensor in _acting(probe_input, row).items():
            yield from _named(f"weights.{name}", tensor)
        found: dict[str, _Values] = defaultdict(_Values)
        sums: dict[int, list[Tensor]] = defaultdict(list)
        names = {layer: probe_input.net.shape.linears[layer].name for layer in hidden_layers(probe_input)}

        def watch(layer: int, before: Tensor, after: Tensor) -> None:
            found[f"before.{names[layer]}"].add(before)
            found[f"after.{names[layer]}"].add(after)
            sums[layer].append(after.sum(dim=0, dtype=sum_dtype(after.device)))

        some = probe_input.splits.val.first(_SAMPLES)
        trace_layers(probe_input, some, row, watch, ignore)
        for name, values in found.items():
            yield from ((f"{name}.{fact}", numbers) for fact, numbers in values.facts().items())
        for layer, parts in sums.items():
            total = torch.cat(parts)
            yield f"after.{names[layer]}.sum", [float(total.mean()), float(total.min()), float(total.max())]


def _acting(probe_input: ProbeInput, row: int) -> dict[str, Tensor]:
    """Return every parameter tensor; of a simplex layer the effective weights."""
    one = probe_input.weights[row : row + 1]
    plan = probe_input.net.bind(one, loops=probe_input.loops[row : row + 1]).plan
    names = {f"{linear.name}.weight": number for number, linear in enumerate(probe_input.net.shape.linears)}
    return {
        name: effective(plan[names[name]][0])[0] if name in names else tensor
        for name, tensor in probe_input.net.layout.tensors(one).items()
    }


def _named(name: str, tensor: Tensor) -> Iterator[tuple[str, list[float]]]:
    values = _Values()
    values.add(tensor)
    yield from ((f"{name}.{fact}", numbers) for fact, numbers in values.facts().items())
