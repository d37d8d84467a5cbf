"""psa.interventions.selection: which units a loop ablates, and how a history names them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from psa.interventions.ablation import Unit, choose_unit
from psa.interventions.selection import select_units, units_text
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import Shape, shape_of
from psa.specs.training import Ablation

LIKELY = 1e-3


def shape(arch: str = "1*4, 1*8", family: str = "resmlp") -> Shape:
    """The shape of a small network."""
    return shape_of(PublishedModelSpec.model_validate({"family": family, "arch": Arch.coerce(arch)}))


@pytest.mark.parametrize("mode", ["full", "hidden", "output"])
def test_the_first_unit_is_the_published_one(mode: str) -> None:
    """Several units begin with the one that is ablated alone, and none comes twice."""
    for loop in range(2, 40):
        (one,) = select_units(Ablation(mode=mode), mode, shape(), 3, loop)
        some = select_units(Ablation(mode=mode, units=5), mode, shape(), 3, loop)
        assert one == some[0] == choose_unit(mode, shape(), 3, loop)  # type: ignore[arg-type]
        assert len(set(some)) == len(some) == 5


def test_several_units_are_uniform() -> None:
    """Two of mode hidden: every unit is as likely as any other to be among them."""
    layers = shape("1*3, 1*7", "simplemlp")
    found: Counter[tuple[int, int]] = Counter()
    for loop in range(2, 5002):
        for unit in select_units(Ablation(mode="hidden", units=2), "hidden", layers, 3, loop):
            found[unit.layer, unit.number] += 1
    assert len(found) == 10
    assert chisquare(list(found.values())).pvalue > LIKELY


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.25, 8), (0.5, 16), (1.0, 32)])
def test_a_share_is_of_the_targets_of_the_mode(share: float, count: int) -> None:
    """Rounded, and at least one, of the 32 units of the hidden set."""
    found = select_units(Ablation(mode="hidden", share=share), "hidden", shape(), 1, 2)
    assert len(found) == count


def test_layers_and_blocks_are_taken_whole() -> None:
    """All units of a layer; both layers of a block, without the weights that read it."""
    layers = shape()
    some = select_units(Ablation(mode="hidden", target="layer"), "hidden", layers, 1, 2)
    (layer,) = {unit.layer for unit in some}
    assert sorted(unit.number for unit in some) == list(range(layers.linears[layer].outputs))
    assert all(unit.outgoing for unit in some)
    block = select_units(Ablation(mode="hidden", target="block"), "hidden", layers, 1, 2)
    first, second = sorted({unit.layer for unit in block})
    assert (layers.linears[first].role, layers.linears[second].role) == ("enter", "leave")
    assert second == first + 1
    assert not any(unit.outgoing for unit in block)


def test_a_fixed_choice_is_one_choice() -> None:
    """The same units in every loop, others for another seed; none in loop 1."""
    fixed = Ablation(mode="hidden", choice="fixed", units=2)
    found = {select_units(fixed, "hidden", shape(), 3, loop) for loop in range(2, 30)}
    assert len(found) == 1
    assert len({select_units(fixed, "hidden", shape(), seed, 2) for seed in range(20)}) > 10
    assert select_units(fixed, "hidden", shape(), 3, 1) == ()


def test_ranks_take_the_extremes() -> None:
    """The least and the most, layers by their mean; equal scores are decided by the loop's stream."""
    layers = shape("1*4", "simplemlp")
    scores = [np.array([3.0, 1.0, 2.0, 4.0]), np.arange(10, dtype=np.float64)]
    least = Ablation(mode="hidden", choice="least_weight", units=2)
    most = Ablation(mode="full", choice="most_weight")
    assert [unit.number for unit in select_units(least, "hidden", layers, 1, 2, scores)] == [1, 2]
    assert select_units(most, "full", layers, 1, 2, scores) == (Unit(1, 9, outgoing=False),)
    layer = Ablation(mode="full", choice="least_weight", target="layer")
    assert {unit.layer for unit in select_units(layer, "full", layers, 1, 2, scores)} == {0}
    equal = [np.zeros(4), np.zeros(10)]
    one = Ablation(mode="hidden", choice="least_weight")
    assert len({select_units(one, "hidden", layers, 1, loop, equal) for loop in range(2, 40)}) == 4


def test_units_as_text() -> None:
    """Layers in order, whole ones by a word; nothing is None."""
    layers = shape("1*4", "simplemlp")
    assert units_text([], layers) is None
    some = [Unit(1, 3, outgoing=False), Unit(0, 2, outgoing=True), Unit(1, 0, outgoing=False)]
    assert units_text(some, layers) == "0:2 1:0,3"
    assert units_text([Unit(0, at, outgoing=True) for at in (3, 1, 0, 2)], layers) == "0:all"
