"""psa.nn: what was asked for is what is built, and a stacked network is an ordinary one for every trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from helpers import arms
from scipy.stats import binom, kstest
from torch import Tensor, nn

from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.engine.batches import RowSettings
from psa.engine.device_pack import fresh_state
from psa.engine.train_step import DropoutPlan, cross_entropy
from psa.nn.dense import Dense
from psa.nn.dropout import Dropout
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.model import Family, PublishedModelSpec
from psa.specs.shapes import shape_of

FAMILIES: tuple[Family, ...] = ("simplemlp", "resmlp")
CPU = torch.device("cpu")
# Deep, one neuron wide, changing widths, the inputs' own width in front, behind and alone.
SHAPES = ("1*8", "3*5", "5*1", "2*4, 1*9, 2*3", "1*784", "1*784, 2*6", "1*6, 1*784, 1*2")


def model(family: Family, arch: str, dropout: float = 0.0) -> PublishedModelSpec:
    """A model spec from the short form of an arch."""
    return PublishedModelSpec(family=family, arch=Arch.coerce(arch), dropout=dropout)


def pack_of(net: Dense, seeds: Sequence[int]) -> StackedParams:
    """The initial rows of several seeds, one below the other."""
    return StackedParams.stacked([net.initial(seed) for seed in seeds])


def forward(
    net: Dense,
    rows: StackedParams,
    images: Tensor,
    gradients: StackedParams | None = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """Logits [T, B, classes] of one batch that all trials read."""
    logits = net.bind(rows, gradients)(Inputs.same_for_all(images, len(rows)), dropout)
    return logits.transpose(1, 2)


def number(step: int) -> Tensor:
    """The number of a step as the network is told it."""
    return torch.tensor(step, dtype=torch.int32)


def dropout_of(p: float, seeds: Sequence[int] = (0,), loop: int = 1, step: int = 0) -> Dropout:
    """The dropout of one batch for a pack of these seeds."""
    rows = [RowSettings(seed=seed, loop=loop, dropout=p, lr=1e-3, weight_decay=0.0) for seed in seeds]
    found = DropoutPlan(rows, CPU).at(number(step))
    assert found is not None
    return found


class Plain(nn.Module):
    """SimpleMLP as one would write it."""

    def __init__(self, widths: Sequence[int], drop: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([784, *widths]))
        self.drops = nn.ModuleList(drop() for _ in widths)
        self.output = nn.Linear(widths[-1], 10)

    def forward(self, h: Tensor) -> Tensor:
        """Logits [B, 10] of h [B, 784]."""
        for linear, drop in zip(self.hidden, self.drops, strict=True):
            h = drop(torch.relu(linear(h)))
        logits: Tensor = self.output(h)
        return logits


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int, drop: nn.Module) -> None:
        super().__init__()
        self.enter, self.leave, self.drop = nn.Linear(width, width), nn.Linear(width, width), drop

    def forward(self, x: Tensor) -> Tensor:
        """As wide as x."""
        return torch.relu(x + self.leave(self.drop(torch.relu(self.enter(x)))))


class Stack(nn.Module):
    """Blocks of one width, behind a projection where the width before them is another."""

    def __init__(self, inputs: int, width: int, depth: int, drop: Callable[[], nn.Module]) -> None:
        super().__init__()
        if inputs != width:
            self.project, self.drop = nn.Linear(inputs, width), drop()
        self.blocks = nn.ModuleList(Block(width, drop()) for _ in range(depth))

    def forward(self, h: Tensor) -> Tensor:
        """B x width."""
        if hasattr(self, "project"):
            h = self.drop(torch.relu(self.project(h)))
        for block in self.blocks:
            h = block(h)
        return h


class Residual(nn.Module):
    """ResMLP as one would write it."""

    def __init__(self, widths: Sequence[int], drop: Callable[[], nn.Module]) -> None:
        super().__init__()
        starts = [at for at in range(len(widths)) if at == 0 or widths[at] != widths[at - 1]]
        stacks, inputs = [], 784
        for start, end in zip(starts, [*starts[1:], len(widths)], strict=True):
            stacks.append(Stack(inputs, widths[start], end - start, drop))
            inputs = widths[start]
        self.stacks = nn.ModuleList(stacks)
        self.output = nn.Linear(inputs, 10)

    def forward(self, h: Tensor) -> Tensor:
        """Logits [B, 10] of h [B, 784]."""
        for stack in self.stacks:
            h = stack(h)
        logits: Tensor = self.output(h)
        return logits


def ordinary(net: Dense, row: StackedParams, drop: Callable[[], nn.Module] = nn.Dropout) -> nn.Module:
    """An ordinary module that has loaded an unstacked row, strictly."""
    kind = Plain if net.family == "simplemlp" else Residual
    module = kind(net.arch.widths, drop)
    module.load_state_dict(net.unstack(row), strict=True)
    return module


class Masked(nn.Module):
    """In place of nn.Dropout: multiplies with the masks that a pack's dropout gives to one trial."""

    def __init__(self, dropout: Dropout, trial: int, layer: int) -> None:
        super().__init__()
        self.dropout, self.trial, self.layer = dropout, trial, layer

    def forward(self, h: Tensor) -> Tensor:
        """Like h."""
        batch, width = h.shape
        return h * self.dropout.mask(self.layer, width, batch)[self.trial].T


def masked(net: Dense, dropout: Dropout, trial: int) -> Callable[[], nn.Module]:
    """Makes the dropout modules of one trial, in the order in which an ordinary module asks for them."""
    places = [number for number, linear in enumerate(net.shape.linears) if linear.role in ("hidden", "enter")]
    return iter([Masked(dropout, trial, place) for place in places]).__next__


# Sizes


@pytest.mark.parametrize(
    ("family", "arch", "parameters"),
    [
        ("resmlp", "32*4", 4_470),
        ("resmlp", "18*18", 26_632),
        ("resmlp", "1*2048", 10_020_874),
        ("simplemlp", "1*2048", 1_628_170),
    ],
)
def test_published_parameter_counts(family: Family, arch: str, parameters: int) -> None:
    """The counts that the published tables give."""
    assert shape_of(model(family, arch)).parameters == parameters


@pytest.mark.parametrize("width", [1, 2, 3, 7, 18, 115, 256, 783, 785, 2048])
@pytest.mark.parametrize("depth", [1, 2, 3, 18, 115])
def test_parameters_and_layers_follow_the_closed_formulas(depth: int, width: int) -> None:
    """L hidden layers of width W; a residual one has 2L + 2 linear layers, a plain one L + 1."""
    L, W = depth, width
    plain, residual = (shape_of(model(family, f"{L}*{W}")) for family in FAMILIES)
    assert plain.parameters == 785 * W + (L - 1) * (W * W + W) + 10 * (W + 1)
    assert residual.parameters == 785 * W + 2 * L * (W * W + W) + 10 * (W + 1)
    assert (len(plain.linears), len(residual.linears)) == (L + 1, 2 * L + 2)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_stack_as_wide_as_the_inputs_has_no_projection(depth: int) -> None:
    """[k*784] starts with its first block; behind another width it is projected to like any other."""
    names = [linear.name for linear in shape_of(model("resmlp", f"{depth}*784")).linears]
    assert len(names) == 2 * depth + 1
    assert names[0] == "stacks.0.blocks.0.enter"
    behind = shape_of(model("resmlp", f"1*6, {depth}*784")).linears
    assert [linear.name for linear in behind if linear.name.endswith("project")] == [
        "stacks.0.project",
        "stacks.1.project",
    ]


def test_equal_neighbours_are_one_stack() -> None:
    """[1*8, 1*8] is [2*8]: no projection between them."""
    assert shape_of(model("resmlp", "1*8, 1*8")) == shape_of(model("resmlp", "2*8"))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_what_is_counted_is_what_is_built(family: Family, arch: str) -> None:
    """The planned number of parameters, the record's, and the numbers that an ordinary module holds."""
    net = Dense(model(family, arch), 10)
    built = sum(parameter.numel() for parameter in ordinary(net, net.initial(0)).parameters())
    assert built == net.shape.parameters == net.described()["parameters"]


def test_fewer_classes_make_a_narrower_output() -> None:
    """With a digit filter the last layer has one output per digit that is left."""
    net = Dense(model("simplemlp", "1*8"), 3)
    assert net.unstack(net.initial(0))["output.weight"].shape == (3, 8)
    assert net.shape.parameters == 785 * 8 + 3 * 9


def test_a_network_no_machine_could_hold_is_refused() -> None:
    """More than a thousand million parameters is a user's error, found without allocating anything."""
    with pytest.raises(UserError, match="parameters"):
        shape_of(model("resmlp", "10000*65536"))


# An ordinary network


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_an_unstacked_trial_loads_into_an_ordinary_module(family: Family, arch: str, splits: Splits) -> None:
    """Strictly, by names and shapes; on real images its logits are the pack's, to 1e-5."""
    net = Dense(model(family, arch), 10)
    rows = pack_of(net, [1, 2, 3])
    images = splits.test.images[:200]
    with torch.no_grad():
        logits = forward(net, rows, images)
        for trial in range(3):
            alone = ordinary(net, rows[trial : trial + 1]).eval()(images)
            assert torch.allclose(logits[trial], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_stack_undoes_unstack(family: Family, arch: str) -> None:
    """To the bit, NaN, infinities and negative zeros included."""
    net = Dense(model(family, arch), 10)
    rows = pack_of(net, [1, 2])
    odd = torch.tensor([math.nan, math.inf, -math.inf, -0.0])
    rows.first[1, :4] = odd
    net.layout.bias(rows, len(net.shape.linears) - 1)[1, :4, 0] = odd
    for trial in range(2):
        row = rows[trial : trial + 1]
        again = net.stack(net.unstack(row))
        for mine, theirs in zip(row.parts, again.parts, strict=True):
            assert torch.equal(mine.view(torch.int32), theirs.view(torch.int32))


def test_unstacked_tensors_are_copies() -> None:
    """Training on does not reach into a state that was handed out."""
    net = Dense(model("resmlp", "2*4"), 10)
    row = net.initial(0)
    state = {name: tensor.clone() for name, tensor in net.unstack(row).items()}
    handed_out = net.unstack(row)
    for part in row.parts:
        part.zero_()
    assert all(torch.equal(handed_out[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("name", ["hidden.0.weight", "output.bias"])
def test_a_state_that_does_not_fit_is_refused(name: str) -> None:
    """A missing tensor and one of another shape raise; nothing is broadcast or left out."""
    net = Dense(model("simplemlp", "1*4"), 10)
    state = net.unstack(net.initial(0))
    with pytest.raises(RuntimeError):
        net.stack(state | {name: torch.zeros(3, 3)})
    with pytest.raises(KeyError):
        net.stack({key: tensor for key, tensor in state.items() if key != name})


# Initial weights


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_weights_are_drawn_as_torch_draws_them(family: Family) -> None:
    """Weights and biases of every layer lie within +-1/sqrt(inputs) and are uniform there (KS test)."""
    net = Dense(model(family, "2*40, 1*90"), 10)
    states = [net.unstack(net.initial(seed)) for seed in range(20)]
    for linear in net.shape.linears:
        bound = 1 / math.sqrt(linear.inputs)
        for kind in ("weight", "bias"):
            drawn = torch.cat([state[f"{linear.name}.{kind}"].flatten() for state in states]).numpy()
            assert np.abs(drawn).max() <= bound
            assert kstest(drawn, "uniform", (-bound, 2 * bound)).pvalue > 1e-3


def test_initial_weights_are_spread_like_torchs_own() -> None:
    """Side by side with nn.Linear: the same least and greatest value and deviation, within 1 %."""
    torch.manual_seed(0)
    theirs = nn.Linear(784, 300).weight.detach()
    net = Dense(model("simplemlp", "1*300"), 10)
    ours = net.unstack(net.initial(0))["hidden.0.weight"]
    for measure in (torch.std, torch.max, torch.min):
        assert float(measure(ours)) == pytest.approx(float(measure(theirs)), rel=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_modes_of_a_seed_start_alike_and_seeds_differ(family: Family) -> None:
    """Comparisons between modes are paired; between seeds not one weight is the same."""
    trials = arms("2*6", [4, 5], family)
    net = Dense(trials[0].model, 10)
    first, *others = [net.stack(tensors(fresh_state(each, net, 1).lkg)) for each in trials]
    for other in others[:5]:
        assert all(torch.equal(a, b) for a, b in zip(first.parts, other.parts, strict=True))
    for other in others[5:]:
        one, two = net.unstack(first), net.unstack(other)
        assert all(torch.all(one[name] != two[name]) for name in one)


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """A state of numpy arrays as one of tensors."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


# Dropout


def test_dropping_everything_is_dropping_everything_in_an_ordinary_module(splits: Splits) -> None:
    """With p so near to 1 that all is dropped, the logits are those of nn.Dropout(1) in training.

    So the outputs of projections and inside blocks go, and what leaves a block stays.
    """
    images = splits.test.images[:50]
    nearly_one = 1 - 2.0**-32
    for family in FAMILIES:
        for arch in SHAPES:
            net = Dense(model(family, arch, nearly_one), 10)
            row = net.initial(3)
            module = ordinary(net, row, lambda: nn.Dropout(1.0)).train()
            with torch.no_grad():
                logits = forward(net, row, images, dropout=dropout_of(nearly_one))[0]
                assert torch.allclose(logits, module(images), rtol=1e-5, atol=1e-5), (family, arch)
                assert not torch.allclose(logits, module.eval()(images), atol=1e-2), (family, arch)


def transparent(net: Dense) -> StackedParams:
    """A row whose first layer gives ones, whatever the image, and whose others hand on what they get."""
    state = net.unstack(net.layout.zeros(1))
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.shape[1] != 784:
            tensor.copy_(torch.eye(*tensor.shape))
    state[f"{net.shape.linears[0].name}.bias"].fill_(1)
    return net.stack(state)


def values_of(family: Family, depth: int) -> dict[float, float]:
    """What a transparent network of width 10 gives under dropout of 1/2, and how often, by the definition."""
    if family == "simplemlp":  # a factor 0 or 2 at every layer
        return {0.0: 1 - 0.5**depth, 2.0**depth: 0.5**depth}
    shares = {0.0: 0.5}  # the projection's; then each block multiplies by 1 or by 1 + 2, and drops nothing
    for blocks in range(depth + 1):
        shares[2.0 * 3.0**blocks] = 0.5 * math.comb(depth, blocks) * 0.5**depth
    return shares


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_where_the_definition_puts_it(family: Family, depth: int, splits: Splits) -> None:
    """SimpleMLP: behind every hidden ReLU. ResMLP: behind projections and inside blocks, not behind them.

    Seen in the values that a network shows which otherwise hands on ones: each place has its own factor,
    and each value comes as often as independent places would make it (to 5 standard errors).
    """
    net = Dense(model(family, f"{depth}*10", 0.5), 10)
    row, samples = transparent(net), 2000
    with torch.no_grad():
        shown = forward(net, row, splits.test.images[:samples], dropout=dropout_of(0.5))
        without = forward(net, row, splits.test.images[:samples])
    assert without.unique().tolist() == [1.0 if family == "simplemlp" else 2.0**depth]
    values, counts = shown.unique(return_counts=True)
    expected, draws = values_of(family, depth), 10 * samples
    assert values.tolist() == sorted(expected)
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        share = expected[value]
        assert abs(count / draws - share) < 5 * math.sqrt(share * (1 - share) / draws)


@pytest.mark.parametrize("p", [1e-9, 0.01, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_dropout_drops_the_share_it_should(p: float) -> None:
    """Within the 99.99 % binomial interval for each seed; what is kept is scaled by 1 / (1 - p)."""
    masks = dropout_of(p, seeds=range(8)).mask(1, 64, 500)
    assert masks.shape == (8, 64, 500)
    assert set(masks.unique().tolist()) <= {0.0, float(np.float32(1 / (1 - p)))}
    low, high = binom.interval(0.9999, 64 * 500, p)
    for mask in masks:
        assert low <= int((mask == 0).sum()) <= high


def test_every_rate_a_trial_may_have_can_be_drawn() -> None:
    """Up to the last number below 1, at which all is dropped, and down to almost 0."""
    for p, share in ((math.nextafter(1.0, 0.0), 1.0), (1 - 1e-12, 1.0), (1e-300, 0.0)):
        assert PublishedModelSpec(dropout=p).dropout == p
        mask = dropout_of(p).mask(0, 64, 500)
        assert float((mask == 0).float().mean()) == share


def test_each_row_has_the_rate_of_its_trial() -> None:
    """In one pack: none at p = 0, a tenth at .1, a half at .5, each as if alone."""
    rates = [0.1, 0.0, 0.5, 0.0, 0.0, 0.9]
    rows = [
        RowSettings(seed=seed, loop=2, dropout=p, lr=1e-3, weight_decay=0.0) for seed, p in enumerate(rates)
    ]
    net = Dense(model("simplemlp", "1*10"), 10)
    pack = transparent(net).repeat(len(rows))
    images = torch.zeros(500, 784)
    with torch.no_grad():
        shown = forward(net, pack, images, dropout=DropoutPlan(rows, CPU).at(number(4)))
        for at, row in enumerate(rows):
            alone = forward(net, pack[at : at + 1], images, dropout=DropoutPlan([row], CPU).at(number(4)))
            assert torch.equal(shown[at], alone[0])
            assert float((shown[at] == 0).float().mean()) == pytest.approx(row.dropout, abs=0.04)


def test_a_pack_without_dropout_has_none() -> None:
    """Where no trial has any, nothing is drawn at all."""
    rows = [RowSettings(seed=0, loop=1, dropout=0.0, lr=1e-3, weight_decay=0.0)] * 2
    assert DropoutPlan(rows, CPU).at(number(0)) is None


def test_masks_differ_and_are_uncorrelated() -> None:
    """Between layers, steps, loops and seeds: no correlation beyond 5 standard errors, in any pair."""
    places = [(seed, loop, step, layer) for seed in (0, 1) for loop in (1, 2) for step in (0, 1, 195)
              for layer in (0, 1, 37)]  # fmt: skip
    masks = [
        dropout_of(0.5, [seed], loop, step).mask(layer, 40, 256).flatten().numpy()
        for seed, loop, step, layer in places
    ]
    size = 40 * 256
    for one, other in combinations(masks, 2):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(size)


@pytest.mark.parametrize("layers", [(0,), (3, 4, 5)])
@pytest.mark.parametrize("count", [1, 80, 1 << 17])
def test_masks_of_the_processor_are_those_of_a_gpu(layers: tuple[int, ...], count: int) -> None:
    """NumPy on the processor and torch elsewhere draw the same bits."""
    keys = torch.tensor([5, -(2**31), 2**31 - 1], dtype=torch.int32)
    threshold = torch.tensor([0, -(2**31), 2**30], dtype=torch.int32).view(-1, 1, 1)
    scale = torch.tensor([2.0, 1.0, 1.3]).view(-1, 1, 1)
    dropout = Dropout(slice(0, 3), keys, threshold, scale, torch.tensor(7, dtype=torch.int32))
    places = torch.arange(3 * len(layers), dtype=torch.int32).view(-1, 3) * 123_456_789
    by_numpy, by_torch = dropout._masks_by_numpy(places, count), dropout._masks_by_torch(places, count)
    assert torch.equal(by_numpy.view(by_torch.shape), by_torch)
    assert len(by_numpy.unique()) > 1


def test_within_a_mask_neighbours_are_uncorrelated() -> None:
    """Between an element and those 1 to 20 behind it, and those of the next unit: nothing either."""
    for p in (0.1, 0.5):
        mask = dropout_of(p).mask(0, 100, 256)[0].flatten().numpy()
        for lag in (*range(1, 21), 255, 256, 257, 512):
            assert abs(np.corrcoef(mask[:-lag], mask[lag:])[0, 1]) < 5 / math.sqrt(len(mask))


def test_units_and_samples_are_dropped_alike() -> None:
    """No unit and no sample is dropped more often than others (chi-square over both margins)."""
    dropped = (dropout_of(0.25).mask(3, 200, 256)[0] == 0).numpy()
    for margin, size in ((0, 200), (1, 256)):
        deviations = (dropped.sum(axis=margin) - 0.25 * size) / math.sqrt(size * 0.25 * 0.75)
        chi_square = float((deviations**2).sum())
        freedom = len(deviations)
        assert abs(chi_square - freedom) < 4 * math.sqrt(2 * freedom)


def test_the_hash_is_the_one_that_stored_trials_were_made_with() -> None:
    """One mask pinned, kept elements as 1: another hash would be other trials."""
    kept = dropout_of(0.5, [7], loop=3, step=2).mask(1, 4, 16)[0] > 0
    assert ["".join(str(int(each)) for each in unit) for unit in kept] == [
        "0001111010100011",
        "0011000111110110",
        "0000110011000001",
        "1000100100101111",
    ]


def test_a_mask_is_a_function_of_its_place() -> None:
    """The order in which masks are asked for, and the rest of the pack, change no element."""
    asked = [(0, 5, 64), (1, 5, 64), (2, 9, 64), (3, 9, 64), (5, 5, 64), (6, 5, 64), (7, 5, 64)]
    alone = {place: dropout_of(0.3, [8], 2, 5).mask(*place)[0] for place in asked}
    for seeds in ([8], [7, 8], [8, 1, 2, 3]):
        for order in (asked, asked[::-1], asked[::2] + asked[1::2]):
            dropout = dropout_of(0.3, seeds, 2, 5)
            for place in order:
                assert torch.equal(dropout.mask(*place)[seeds.index(8)], alone[place])


@pytest.mark.slow
def test_steps_and_layers_of_an_epoch_never_share_a_mask() -> None:
    """No two of 196 steps x 40 layers begin alike: a repeated mask would be a repeated start."""
    starts = set()
    for step in range(196):
        dropout = dropout_of(0.5, step=step)
        for layer in range(40):
            starts.add(tuple(dropout.mask(layer, 8, 8)[0].flatten().tolist()))
    assert len(starts) == 196 * 40


# Gradients


@pytest.mark.slow
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_gradients_are_those_of_autograd(family: Family, arch: str, p: float, splits: Splits) -> None:
    """Of the mean cross-entropy of a batch, for each trial of a pack, with and without dropout, to 1e-5."""
    net = Dense(model(family, arch, p), 10)
    seeds = [1, 2]
    rows, images, labels = pack_of(net, seeds), splits.train.images[:64], splits.train.labels[:64]
    gradients = rows.zeros_like()
    dropout = dropout_of(p, seeds) if p else None
    logits = forward(net, rows, images, gradients, dropout).transpose(1, 2)
    losses, gradient = cross_entropy(logits.detach(), labels.expand(len(seeds), -1))
    logits.backward(gradient)
    for trial in range(len(seeds)):
        drop = masked(net, dropout_of(p, seeds), trial) if p else nn.Dropout
        module = ordinary(net, rows[trial : trial + 1], drop)
        module.train(mode=p > 0)
        loss = nn.functional.cross_entropy(module(images), labels)
        loss.backward()
        assert float(losses[trial]) / 64 == pytest.approx(float(loss.detach()), rel=1e-5)
        stacked = net.unstack(gradients[trial : trial + 1])
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            assert torch.allclose(stacked[name], parameter.grad, rtol=1e-5, atol=1e-5), name


def test_trials_that_read_other_samples_get_their_own_gradients(splits: Splits) -> None:
    """Groups of neighbours share a batch; each trial's gradients are those of its own group's samples."""
    net = Dense(model("resmlp", "1*784, 1*6"), 10)
    rows = pack_of(net, [1, 2, 3])
    x = torch.stack([splits.train.images[:32], splits.train.images[32:64]])
    labels = torch.stack([splits.train.labels[:32], splits.train.labels[:32], splits.train.labels[32:64]])
    gradients = rows.zeros_like()
    logits = net.bind(rows, gradients)(Inputs(x, (slice(0, 2), slice(2, 3))), None)
    logits.backward(cross_entropy(logits.detach(), labels)[1])
    for trial, group in enumerate((0, 0, 1)):
        module = ordinary(net, rows[trial : trial + 1]).eval()
        nn.functional.cross_entropy(module(x[group]), labels[trial]).backward()
        stacked = net.unstack(gradients[trial : trial + 1])
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            assert torch.allclose(stacked[name], parameter.grad, rtol=1e-5, atol=1e-5), name


def test_gradients_are_written_not_accumulated(splits: Splits) -> None:
    """A second pass leaves what the first pass of a fresh buffer would leave: each layer is used once."""
    net = Dense(model("resmlp", "2*4"), 10)
    rows, images, labels = net.initial(0), splits.train.images[:16], splits.train.labels[:16].expand(1, -1)
    gradients = rows.zeros_like()
    seen = []
    for _ in range(2):
        logits = forward(net, rows, images, gradients).transpose(1, 2)
        logits.backward(cross_entropy(logits.detach(), labels)[1])
        seen.append(gradients.clone())
    for one, two in zip(seen[0].parts, seen[1].parts, strict=True):
        assert torch.equal(one, two)
