"""psa.interventions.ablation: exactly what the definition names is zeroed, in a copy, chosen as the
definition says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import arms, run, trial
from scipy.stats import chisquare
from torch import Tensor

from psa.data.splits import Splits
from psa.engine import device_pack
from psa.engine.device_pack import fresh_state
from psa.engine.policies import policy_for
from psa.interventions.ablation import CHOICES, Unit, ablate, choose_unit
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.model import Family, PublishedModelSpec
from psa.specs.shapes import Shape, shape_of
from psa.specs.training import MODES, Mode
from psa.specs.trial import Trial

FAMILIES: tuple[Family, ...] = ("simplemlp", "resmlp")
DAMAGING: tuple[Mode, ...] = ("full", "hidden", "output")
SHAPES = ("1*8", "3*5", "6*1", "2*4, 1*9, 2*3", "1*784", "1*3, 1*784, 1*2")
DRAWS = 20_000
LIKELY = 1e-3  # a p-value that a right choice stays above; the draws are pinned, so it does so for ever


def net_of(family: Family, arch: str) -> Dense:
    """A network on ten classes."""
    return Dense(PublishedModelSpec(family=family, arch=Arch.coerce(arch)), 10)


def bits(tensor: Tensor) -> Tensor:
    """The bits of a tensor, so that -0.0 and NaN are compared as well."""
    return tensor.contiguous().view(torch.int32)


def same_bits(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether two states hold the same bits under the same names."""
    return one.keys() == other.keys() and all(torch.equal(bits(one[name]), bits(other[name])) for name in one)


# The definition, in names: which linear layers there are, in the order in which they compute.


def linears_of(family: Family, widths: tuple[int, ...]) -> list[str]:
    """The names of the linear layers, written down from the definition of the two families."""
    if family == "simplemlp":
        return [f"hidden.{number}" for number in range(len(widths))] + ["output"]
    names, width, stack, block = [], 784, -1, 0
    for number, wanted in enumerate(widths):
        if number == 0 or wanted != widths[number - 1]:
            stack, block = stack + 1, 0
            if wanted != width:
                names.append(f"stacks.{stack}.project")
        names += [f"stacks.{stack}.blocks.{block}.enter", f"stacks.{stack}.blocks.{block}.leave"]
        block, width = block + 1, wanted
    return [*names, "output"]


def damaged(state: dict[str, Tensor], names: list[str], mode: Mode, unit: Unit | None) -> dict[str, Tensor]:
    """The state after the damage, by the definition: W[i,:] = 0, b[i] = 0, in mode hidden W_next[:,i] = 0."""
    after = {name: tensor.clone() for name, tensor in state.items()}
    if unit is not None:
        after[f"{names[unit.layer]}.weight"][unit.number, :] = 0
        after[f"{names[unit.layer]}.bias"][unit.number] = 0
        if mode == "hidden":
            after[f"{names[unit.layer + 1]}.weight"][:, unit.number] = 0
    return after


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_exactly_what_the_definition_names_becomes_zero(family: Family, arch: str, mode: Mode) -> None:
    """Loop after loop: the row, the bias and, in mode hidden, the next column; no other bit changes."""
    net = net_of(family, arch)
    names = linears_of(family, net.arch.widths)
    assert [linear.name for linear in net.shape.linears] == names
    row = net.initial(1)
    before = net.unstack(row)
    for loop in range(2, 42 if net.shape.parameters < 100_000 else 12):
        unit = choose_unit(mode, net.shape, 1, loop)
        assert (unit is None) == (mode not in DAMAGING)
        copy = row.clone()
        ablate(copy, net.layout, [unit])
        assert same_bits(net.unstack(copy), damaged(before, names, mode, unit))


@pytest.mark.parametrize("mode", DAMAGING)
def test_what_is_zeroed_is_the_positive_zero(mode: Mode) -> None:
    """Negative weights, infinities and NaN become +0.0 as well: multiplying by zero would not do."""
    net = net_of("resmlp", "2*4")
    row = net.initial(1)
    for part, value in zip(row.parts, (-np.inf, np.nan), strict=True):
        part.fill_(value)
    before = net.unstack(row)
    unit = choose_unit(mode, net.shape, 1, 2)
    ablate(row, net.layout, [unit])
    assert same_bits(net.unstack(row), damaged(before, linears_of("resmlp", (4, 4)), mode, unit))


def outgoing(shape: Shape) -> Counter[tuple[str, str]]:
    """How many neurons mode hidden chooses among, by the layer that has them and the one that reads them."""
    found: Counter[tuple[str, str]] = Counter()
    for layer in shape.hidden:
        pair = shape.linears[layer].name, shape.linears[layer + 1].name
        found[pair] += shape.linears[layer].outputs
    return found


def test_the_hidden_set_of_the_smallest_residual_network() -> None:
    """[1*8]: the 8 neurons that enter the block, read by those that leave it; these 8, read by the output."""
    block = "stacks.0.blocks.0"
    assert outgoing(net_of("resmlp", "1*8").shape) == {
        (f"{block}.enter", f"{block}.leave"): 8,
        (f"{block}.leave", "output"): 8,
    }


@pytest.mark.parametrize("arch", SHAPES)
def test_the_hidden_set_is_the_published_one(arch: str) -> None:
    """SimpleMLP: all but the output. ResMLP: all but the first linear layer and the output, so later
    projections are in it, and without an input projection it is the first block's entry that is not.
    """
    for family in FAMILIES:
        net = net_of(family, arch)
        names = linears_of(family, net.arch.widths)
        widths = {linear.name: linear.outputs for linear in net.shape.linears}
        chosen = names[:-1] if family == "simplemlp" else names[1:-1]
        following = dict(pairwise(names))
        assert outgoing(net.shape) == {(name, following[name]): widths[name] for name in chosen}


def units(mode: Mode, shape: Shape, names: Iterator[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """How often each (layer, neuron) is chosen over many (seed, loop)."""
    found: Counter[tuple[int, int]] = Counter()
    for seed, loop in names:
        unit = choose_unit(mode, shape, seed, loop)
        assert unit is not None
        assert unit.outgoing == (mode == "hidden")
        found[unit.layer, unit.number] += 1
    return found


def expected_shares(mode: Mode, shape: Shape) -> dict[tuple[int, int], float]:
    """The probability of each (layer, neuron) by the definition."""
    sizes = [linear.outputs for linear in shape.linears]
    if mode == "output":
        return {(len(sizes) - 1, i): 1 / sizes[-1] for i in range(sizes[-1])}
    if mode == "full":
        return {(layer, i): 1 / len(sizes) / size for layer, size in enumerate(sizes) for i in range(size)}
    total = sum(sizes[layer] for layer in shape.hidden)
    return {(layer, i): 1 / total for layer in shape.hidden for i in range(sizes[layer])}


@pytest.mark.parametrize("vary", ["loop", "seed"])
@pytest.mark.parametrize("mode", DAMAGING)
@pytest.mark.parametrize(("family", "arch"), [("simplemlp", "2*4, 1*30, 1*2"), ("resmlp", "1*3, 1*20")])
def test_choices_are_uniform_as_defined(family: Family, arch: str, mode: Mode, vary: str) -> None:
    """full: over layers, then over neurons. hidden: over neurons. output: over outputs. By chi-square over
    20,000 draws, over the loops of one seed and over the seeds of one loop.
    """
    shape = net_of(family, arch).shape
    names = ((5, loop) if vary == "loop" else (loop, 5) for loop in range(2, DRAWS + 2))
    found = units(mode, shape, names)
    shares = expected_shares(mode, shape)
    assert found.keys() <= shares.keys()
    observed = [found[unit] for unit in shares]
    assert chisquare(observed, [share * DRAWS for share in shares.values()]).pvalue > LIKELY


def test_the_uniformity_test_can_fail() -> None:
    """The draws of mode full are far from neuron-uniform, those of hidden far from layer-uniform."""
    shape = net_of("simplemlp", "2*4, 1*30, 1*2").shape
    found = units("full", shape, ((5, loop) for loop in range(2, 2002)))
    sizes = [linear.outputs for linear in shape.linears]
    by_neuron = [size / sum(sizes) * 2000 for size in sizes]
    by_layer = [sum(count for (at, _), count in found.items() if at == layer) for layer in range(len(sizes))]
    assert chisquare(by_layer, by_neuron).pvalue < 1e-12


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_damaged_before_loop_1(mode: Mode) -> None:
    """There is no good state to perturb yet; from loop 2 on the three damaging modes damage every time."""
    shape = net_of("resmlp", "2*4").shape
    assert all(choose_unit(mode, shape, seed, 1) is None for seed in range(200))
    hit = [choose_unit(mode, shape, seed, loop) is not None for seed in range(20) for loop in range(2, 12)]
    assert all(hit) if mode in DAMAGING else not any(hit)


@pytest.mark.parametrize("mode", DAMAGING)
def test_a_choice_is_a_function_of_its_names(mode: Mode) -> None:
    """Asked again, backwards and in between others, it is the same."""
    shape = net_of("resmlp", "2*4, 1*9").shape
    asked = [(seed, loop) for seed in range(5) for loop in range(2, 12)]
    first = {name: choose_unit(mode, shape, *name) for name in asked}
    for name in reversed(asked):
        choose_unit("full", shape, name[1], name[0] + 2)
        assert choose_unit(mode, shape, *name) == first[name]


@pytest.mark.parametrize("mode", DAMAGING)
def test_rates_batches_and_studies_are_no_part_of_a_choice(mode: Mode) -> None:
    """Trials that share mode, network and seed are hit at the same neuron, whatever else they are."""
    base = trial("2*4, 1*9", mode, 3, "resmlp")
    others: list[dict[str, object]] = [
        {},
        {"study": "another"},
        {"method": {"policy": "ratchet", "lr": 0.5, "batch_size": 7}},
        {"data": {"split_seed": 1, "scaling": "unit"}},
    ]
    for change in others:
        each = Trial.model_validate(base.model_dump() | change)
        net = Dense(each.model, each.data.classes)
        state = fresh_state(each, net, 9)
        state.loops, state.best_correct, state.lkg_loop = 6, 17, 4
        hit = policy_for(each, net, None).perturb(net.initial(3), [state])  # type: ignore[arg-type, attr-defined]
        assert hit == [(choose_unit(mode, net.shape, 3, 7),)]


@pytest.mark.parametrize("mode", DAMAGING)
def test_choices_vary(mode: Mode) -> None:
    """From loop to loop, from seed to seed and from mode to mode another neuron is hit."""
    shape = net_of("simplemlp", "1*500").shape
    loops = {choose_unit(mode, shape, 3, loop) for loop in range(2, 102)}
    seeds = {choose_unit(mode, shape, seed, 7) for seed in range(100)}
    fewest = 9 if mode == "output" else 40
    assert min(len(loops), len(seeds)) >= fewest


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_a_pack_is_damaged_as_its_trials_would_be_one_by_one(family: Family, arch: str) -> None:
    """All modes and several seeds in one call: every row has the bits it gets alone, padding included."""
    net = net_of(family, arch)
    jobs = [(mode, seed) for seed in range(4) for mode in MODES]
    rows = StackedParams.stacked([net.initial(seed) for _, seed in jobs])
    chosen = [choose_unit(mode, net.shape, seed, 5) for mode, seed in jobs]
    together = rows.clone()
    ablate(together, net.layout, chosen)
    for at, unit in enumerate(chosen):
        alone = rows[at : at + 1].clone()
        ablate(alone, net.layout, [unit])
        for mine, theirs in zip(alone.parts, together[at : at + 1].parts, strict=True):
            assert torch.equal(bits(mine), bits(theirs))


def test_every_mode_has_a_choice() -> None:
    """The registry and the vocabulary of trials name the same six."""
    assert set(CHOICES) == set(MODES)


# In the engine


def watch(
    monkeypatch: pytest.MonkeyPatch,
    seen: Callable[[device_pack.DevicePack, list[int], device_pack.EpochBuffers], None],
) -> None:
    """Call `seen` with the pack, its rows and what an epoch starts from."""
    from psa.engine.policies import RatchetPolicy

    true_begin = RatchetPolicy.begin_epoch

    def begin_epoch(
        self: RatchetPolicy, pack: device_pack.DevicePack, rows: list[int], settings: list[object]
    ) -> device_pack.EpochBuffers:
        before = pack.lkg.clone()
        epoch = true_begin(self, pack, rows, settings)  # type: ignore[arg-type]
        for mine, theirs in zip(before.parts, pack.lkg.parts, strict=True):
            assert torch.equal(bits(mine), bits(theirs)), "the LKG itself was damaged"
        seen(pack, rows, epoch)
        return epoch

    monkeypatch.setattr(RatchetPolicy, "begin_epoch", begin_epoch)


@pytest.mark.parametrize("family", FAMILIES)
def test_damage_never_adds_up_and_never_reaches_the_lkg(
    family: Family, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before each of six loops of all modes: what is trained is the LKG with this loop's one damage, the
    LKG is untouched by it, and the books name the neuron.
    """
    trials = arms("2*4, 1*6", [3, 4], family)
    loops = dict.fromkeys([each.id for each in trials], 0)

    def seen(pack: device_pack.DevicePack, rows: list[int], epoch: device_pack.EpochBuffers) -> None:
        names = linears_of(family, pack.net.arch.widths)
        for at, row in enumerate(rows):
            each = pack.states[row].trial
            loops[each.id] = pack.states[row].loops + 1  # asked twice where rows are equal
            unit = choose_unit(each.intervention.mode, pack.net.shape, each.seed, loops[each.id])
            lkg = pack.net.unstack(pack.lkg[row : row + 1])
            expected = damaged(lkg, names, each.intervention.mode, unit)
            assert same_bits(pack.net.unstack(epoch.active[at : at + 1]), expected)

    watch(monkeypatch, seen)
    states, _ = run(trials, small, 6)
    for state in states:
        assert loops[state.trial.id] == 6
        assert (state.history["layer"][0], state.history["unit"][0]) == (None, None)
        for loop in range(2, 7):
            unit = choose_unit(
                state.trial.intervention.mode, shape_of(state.trial.model), state.trial.seed, loop
            )
            booked = state.history["layer"][loop - 1], state.history["unit"][loop - 1]
            assert booked == ((None, None) if unit is None else (unit.layer, unit.number))


def test_the_policy_damages_the_loop_that_comes_next() -> None:
    """A trial with seven finished loops is damaged as loop 8 demands, whatever the others of the pack did."""
    trials = arms("1*30", [1, 2], modes=DAMAGING)
    net = net_of("simplemlp", "1*30")
    states = [fresh_state(each, net, 20) for each in trials]
    for at, state in enumerate(states):
        state.loops = 7 + at
    policy = policy_for(trials[0], net, None)  # type: ignore[arg-type]
    copy = StackedParams.stacked([net.initial(each.seed) for each in trials])
    units_hit = policy.perturb(copy, states)  # type: ignore[attr-defined]
    for at, (each, (unit,)) in enumerate(zip(trials, units_hit, strict=True)):
        assert unit == choose_unit(each.intervention.mode, net.shape, each.seed, 8 + at)
        alone = net.initial(each.seed)
        ablate(alone, net.layout, [unit])
        assert torch.equal(alone.rest, copy[at : at + 1].rest)
        assert torch.equal(alone.first, copy[at : at + 1].first)
