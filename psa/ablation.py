"""Persistent stochastic ablation: which neuron is damaged before an epoch, always on a copy of the LKG.

none, decay, dropout: nothing is damaged. output: a neuron of the last linear layer. full: a layer chosen
uniformly among all linear layers, then a neuron in it. hidden: a neuron chosen uniformly among those of the
hidden set, and its outgoing column is zeroed as well. In a residual network the skip connection still
carries such a unit: the column is that of the next linear layer only, as in the published study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psa.nets.layers import Layout
from psa.nets.shapes import Shape
from psa.streams import stream
from psa.trial import Mode


@dataclass(frozen=True)
class Unit:
    """A neuron: the linear layer that computes it, its number in it, and whether its readers go too."""

    layer: int
    number: int
    outgoing: bool


def _nothing(shape: Shape, draws: np.random.Generator) -> None:
    return None


def _output(shape: Shape, draws: np.random.Generator) -> Unit:
    last = len(shape.linears) - 1
    return Unit(last, int(draws.integers(shape.linears[last].outputs)), outgoing=False)


def _full(shape: Shape, draws: np.random.Generator) -> Unit:
    layer = int(draws.integers(len(shape.linears)))
    return Unit(layer, int(draws.integers(shape.linears[layer].outputs)), outgoing=False)


def _hidden(shape: Shape, draws: np.random.Generator) -> Unit:
    ends = np.cumsum([shape.linears[layer].outputs for layer in shape.hidden])
    place = int(draws.integers(ends[-1]))
    which = int(np.searchsorted(ends, place, side="right"))
    layer = shape.hidden[which]
    return Unit(layer, place - int(ends[which]) + shape.linears[layer].outputs, outgoing=True)


CHOICES: dict[Mode, Callable[[Shape, np.random.Generator], Unit | None]] = {
    "none": _nothing,
    "decay": _nothing,
    "dropout": _nothing,
    "full": _full,
    "hidden": _hidden,
    "output": _output,
}


def choose(mode: Mode, shape: Shape, seed: int, loop: int) -> Unit | None:
    """The neuron to damage before `loop` (from 1), a function of its arguments alone.

    None in the modes that damage nothing, and always before loop 1: there is no good state to perturb yet.
    """
    if loop == 1:
        return None
    return CHOICES[mode](shape, stream(seed, "ablate", loop))


def damage(copy: Tensor, layout: Layout, units: Sequence[Unit | None]) -> None:
    """Zero the units, one per row at most, in `copy` [T, size]: incoming weights, bias, and readers."""
    places = [
        row * copy.stride(0) + _places(layout, unit) for row, unit in enumerate(units) if unit is not None
    ]
    if places:
        copy.view(-1).index_fill_(0, torch.from_numpy(np.concatenate(places)).to(copy.device), 0.0)


def _places(layout: Layout, unit: Unit) -> np.ndarray:
    """Where in a row the numbers of a unit lie (weights are stored [inputs, outputs])."""
    linear = layout.linears[unit.layer]
    start = layout.weight_at[unit.layer] + unit.number
    incoming = np.arange(start, start + linear.inputs * linear.outputs, linear.outputs)
    bias = np.array([layout.bias_at[unit.layer] + unit.number])
    if not unit.outgoing:
        return np.concatenate([incoming, bias])
    reader = layout.linears[unit.layer + 1]
    start = layout.weight_at[unit.layer + 1] + unit.number * reader.outputs
    return np.concatenate([incoming, bias, np.arange(start, start + reader.outputs)])
