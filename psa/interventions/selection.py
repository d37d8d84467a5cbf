"""The selection of what a loop ablates: units, layers or residual blocks; one or several; by chance or rank.

A target is a unit, a linear layer (`layer`: all its units) or a residual block (`block`: all units of its two
layers; the skip connection then carries the input of the block on unchanged, and the weights that read it
stay). A mode has the targets of `psa.specs.training.settings.target_groups`. A loop ablates `units` of them,
or `share` of them rounded to the nearest number, at least one.

random: a stream of this seed and loop draws one target after the other, each uniformly among those left, and
units in mode full uniformly among the layers that have any left, then within the layer. The first unit is
that of the published study. fixed: the same draw in every loop. least_X, most_X: those of the least or the
greatest score X of the LKG that the loop begins from (see psa.interventions.unit_scores); a layer or a block
has the mean score of its units. The same stream decides between equal scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from psa.core.rng import generator
from psa.interventions.ablation import Unit, choose_unit
from psa.specs.shapes import Shape
from psa.specs.training import Ablation
from psa.specs.training.settings import target_groups

Scores = Sequence[NDArray[np.float64]]
Place = tuple[int, int]  # a layer, and a unit in it
Places = tuple[Place, ...]


def select_units(
    ablation: Ablation, mode: str, shape: Shape, seed: int, loop: int, scores: Scores = ()
) -> tuple[Unit, ...]:
    """Return the units that `loop` (from 1) ablates in a mode; none in loop 1 and in modes without ablation.

    scores: of the units of every linear layer, [outputs] each, where the choice ranks them.
    """
    stream = 0 if ablation.choice == "fixed" else loop
    if not ablation.several and ablation.choice in ("random", "fixed"):
        unit = None if loop == 1 else choose_unit(mode, shape, seed, stream)
        return () if unit is None else (unit,)
    if loop == 1 or mode == "none":
        return ()
    targets = _targets(ablation, mode, shape)
    count = ablation.units
    if ablation.share is not None:
        count = max(1, round(ablation.share * sum(map(len, targets))))
    draws = generator(seed, "ablate", stream)
    if ablation.choice in ("random", "fixed"):
        chosen = _drawn(targets, count, draws)
    else:
        order, _, _ = ablation.choice.partition("_")
        chosen = _ranked([each for pool in targets for each in pool], count, draws, scores, order)
    outgoing = mode == "hidden" and ablation.target != "block"
    return tuple(Unit(layer, number, outgoing) for target in chosen for layer, number in target)


def units_text(units: Sequence[Unit], shape: Shape) -> str | None:
    """Return units as text, `0:3,17 2:all`: by layer, in rising order; None for none."""
    layers: dict[int, list[int]] = {}
    for unit in units:
        layers.setdefault(unit.layer, []).append(unit.number)
    shown = {
        layer: "all" if len(some) == shape.linears[layer].outputs else ",".join(map(str, sorted(some)))
        for layer, some in sorted(layers.items())
    }
    return " ".join(f"{layer}:{text}" for layer, text in shown.items()) or None


def _targets(ablation: Ablation, mode: str, shape: Shape) -> list[list[Places]]:
    """Return the targets of a mode in pools, each with its units. A draw chooses a pool, then a target in it:
    units of mode full have a pool per layer, all others share one.
    """
    groups = target_groups(shape, mode, ablation.target)
    units = [
        tuple((layer, number) for layer in group for number in range(shape.linears[layer].outputs))
        for group in groups
    ]
    if ablation.target != "unit":
        return [units]
    pools: list[list[Places]] = [[(unit,) for unit in layer] for layer in units]
    return pools if mode == "full" else [[unit for pool in pools for unit in pool]]


def _drawn(pools: list[list[Places]], count: int, draws: np.random.Generator) -> list[Places]:
    """Draw targets without replacement: the pool uniformly among those that have any left."""
    found: list[Places] = []
    while len(found) < count:
        pool = pools[int(draws.integers(len(pools)))] if len(pools) > 1 else pools[0]
        at = int(draws.integers(len(pool)))
        found.append(pool[at])
        pool[at] = pool[-1]
        pool.pop()
        pools = [each for each in pools if each]
    return found


def _ranked(
    targets: list[Places], count: int, draws: np.random.Generator, scores: Scores, order: str
) -> list[Places]:
    """Return the targets of the least or the greatest mean score; equal ones in an order that is drawn."""
    shuffled = draws.permutation(len(targets))
    means = np.array([np.mean([scores[layer][unit] for layer, unit in targets[at]]) for at in shuffled])
    best = np.argsort(means if order == "least" else -means, kind="stable")[:count]
    return [targets[shuffled[at]] for at in best]
