"""Changes of the weights of ablated units, in a copy of the LKG.

The weights of a unit are its incoming ones and its bias, and in mode hidden also those that read it; each is
changed once, however many units it belongs to. With a = `amount`:

zero: 0. reset: new initial weights, those of a whole network drawn for this seed and loop. noise: w + a s z
with z ~ N(0, 1) and s = 1 / sqrt(inputs), the bound of the initial weights of the layer. scale: a w. shrink:
sign(w) max(|w| - a m, 0), soft thresholding (Donoho 1995), where m is the mean of |w| over the changed
weights of this matrix, or the changed biases of this layer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psa.core.rng import generator
from psa.interventions.ablation import Unit, ablate
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.training import Ablation

_Array = NDArray[np.float32]
_Change = Callable[[_Array, float, _Array], _Array]


def change_units(
    copy: StackedParams,
    net: Dense,
    ablations: Sequence[Ablation],
    names: Sequence[tuple[int, int]],
    units: Sequence[tuple[Unit, ...]],
) -> None:
    """Change the weights of the units of each row of `copy` in place.

    ablations, names, units: of each row, its settings, its seed and loop, and the units to change.
    """
    alone = [len(some) == 1 and each.change == "zero" for some, each in zip(units, ablations, strict=True)]
    ablate(copy, net.layout, [some[0] if one else None for some, one in zip(units, alone, strict=True)])
    for row, some in enumerate(units):
        if some and not alone[row]:
            _change_row(copy[row : row + 1], net, ablations[row], names[row], some)


def _change_row(
    row: StackedParams, net: Dense, ablation: Ablation, name: tuple[int, int], units: Collection[Unit]
) -> None:
    """Change the weights of the units of one row, layer by layer, a matrix before its biases."""
    change, layout = _change_of(ablation, name), net.layout
    fresh = net.initial(*name) if ablation.change == "reset" else row
    for number, linear in enumerate(net.shape.linears):
        own = [unit.number for unit in units if unit.layer == number]
        read = [unit.number for unit in units if unit.outgoing and unit.layer == number - 1]
        places = torch.zeros(linear.outputs, linear.inputs, dtype=torch.bool)
        places[own] = True
        places[:, read] = True
        biases = torch.zeros(linear.outputs, 1, dtype=torch.bool)
        biases[own] = True
        bound = linear.inputs**-0.5
        for of, chosen in ((layout.weight, places), (layout.bias, biases)):
            if chosen.any():
                _change_places(of(row, number)[0], of(fresh, number)[0], chosen, bound, change)


def _change_places(into: Tensor, fresh: Tensor, places: Tensor, bound: float, change: _Change) -> None:
    """Change the values at some places of a matrix; on the CPU, so that every device has the same."""
    values, drawn = (each.cpu()[places].numpy() for each in (into, fresh))
    into[places.to(into.device)] = torch.from_numpy(change(values, bound, drawn)).to(into.device)


def _change_of(ablation: Ablation, name: tuple[int, int]) -> _Change:
    """Return the change as a function of the old values, the bound of the layer, and fresh initial values."""
    amount, draws = np.float32(ablation.amount or 0.0), generator(name[0], "perturb", name[1])

    def noise(values: _Array, bound: float, fresh: _Array) -> _Array:
        return values + amount * np.float32(bound) * draws.standard_normal(values.shape, dtype=np.float32)

    def shrink(values: _Array, bound: float, fresh: _Array) -> _Array:
        least = amount * np.float32(np.abs(values).mean(dtype=np.float64))
        return np.sign(values) * np.maximum(np.abs(values) - least, np.float32(0))

    changes: dict[str, _Change] = {
        "zero": lambda values, bound, fresh: np.zeros_like(values),
        "reset": lambda values, bound, fresh: fresh,
        "noise": noise,
        "scale": lambda values, bound, fresh: amount * values,
        "shrink": shrink,
    }
    return changes[ablation.change]
