"""Persistent stochastic ablation: the choice of a neuron, and its ablation in a copy of the LKG.

none, decay, dropout: nothing is ablated. output: a neuron of the last linear layer. full: a layer chosen
uniformly among all linear layers, then a neuron in it. hidden: a neuron chosen uniformly among those of the
hidden set, and its outgoing column is zeroed as well. In a residual network the skip connection still
carries such a unit: the column is that of the next linear layer only, as in the published study.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.core.plugins.identity import plugin_code
from psa.core.rng import generator
from psa.nn.stacked import Layout, StackedParams
from psa.specs.shapes import ChooseUnit, Shape, Unit
from psa.specs.training import MODE_PLUGINS, Mode

__all__ = ["CHOICES", "Unit", "ablate", "choose_unit"]  # a unit is what is ablated, and part of a shape


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


CHOICES: Final[dict[Mode, ChooseUnit]] = {
    "none": _nothing,
    "decay": _nothing,
    "dropout": _nothing,
    "full": _full,
    "hidden": _hidden,
    "output": _output,
}


def choose_unit(mode: Mode, shape: Shape, seed: int, loop: int) -> Unit | None:
    """Return the neuron to ablate before `loop` (from 1), a function of the arguments alone.

    None in the modes without ablation, and always before loop 1, when there is no good state to perturb yet.
    """
    if loop == 1:
        return None
    draws = generator(seed, "ablate", loop)
    if mode in CHOICES:
        return CHOICES[mode](shape, draws)
    with plugin_code(f"mode {mode!r}", MODE_PLUGINS.origin(mode)):
        unit = MODE_PLUGINS.get(mode)(shape, draws)
    return _checked(unit, shape, mode)


def _checked(unit: object, shape: Shape, mode: Mode) -> Unit | None:
    """Return what a plugin has chosen. Raises UserError unless it is a neuron of the network, or None."""
    if unit is None:
        return None
    last = len(shape.linears) - 1
    if (
        isinstance(unit, Unit)
        and all(isinstance(place, int | np.integer) for place in (unit.layer, unit.number))
        and 0 <= unit.layer <= last
        and 0 <= unit.number < shape.linears[unit.layer].outputs
        and not (unit.outgoing and unit.layer == last)
    ):
        # numbers of Python: histories are stored as JSON, which knows none of NumPy's
        return Unit(int(unit.layer), int(unit.number), bool(unit.outgoing))
    raise UserError(
        f"mode {mode!r} of plugin {MODE_PLUGINS.origin(mode)} must choose a Unit of the network or None, "
        f"got {quote(unit)}",
        f"Layers are 0 to {last}, and no weights read the last one",
    )


def ablate(copy: StackedParams, layout: Layout, units: Sequence[Unit | None]) -> None:
    """Zero at most one unit per row in `copy`: incoming weights, bias, and any weights that read it."""
    first, rest = [_NOWHERE], [_NOWHERE]
    for row, unit in enumerate(units):
        if unit is None:
            continue
        incoming, others = _places(layout, unit)
        if unit.layer == 0:
            first.append(row * copy.first.shape[1] + incoming)
        else:
            others = np.concatenate([incoming, others])
        rest.append(row * copy.rest.shape[1] + others)
    for part, places in ((copy.first, first), (copy.rest, rest)):
        part.view(-1).index_fill_(0, torch.from_numpy(np.concatenate(places)).to(part.device), 0.0)


_NOWHERE = np.empty(0, dtype=np.int64)


def _places(layout: Layout, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a unit's incoming weights in its part of a row; and those in `rest` of its bias
    and, if they are zeroed too, of the weights that read it (weights are stored [outputs, inputs]).
    """
    linear = layout.linears[unit.layer]
    start = layout.weight_at[unit.layer] + unit.number * linear.inputs
    incoming = np.arange(start, start + linear.inputs)
    bias = np.array([layout.bias_at[unit.layer] + unit.number])
    if not unit.outgoing:
        return incoming, bias
    reader = layout.linears[unit.layer + 1]
    start = layout.weight_at[unit.layer + 1] + unit.number
    readers = np.arange(start, start + reader.inputs * reader.outputs, reader.inputs)
    return incoming, np.concatenate([bias, readers])
