"""psa.engine.train_step: one epoch and one evaluation of a pack, seen from each of its trials."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from psa.core.errors import Interrupted
from psa.core.rng import generator
from psa.data.splits import Split, Splits, load_splits
from psa.engine import batches as train_batches
from psa.engine import train_step
from psa.engine.batches import Batches, RowSettings, batch_order
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import batch_sizes, count_correct, cross_entropy, evaluate, train_epoch
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.training import LEAST_DECAY

ROW = RowSettings(seed=1, loop=1, dropout=0.0, lr=1e-3, weight_decay=0.0)


def numbered(count: int) -> Split:
    """A split whose images and labels are their own numbers."""
    numbers = torch.arange(count)
    return Split(numbers.float().unsqueeze(1).expand(-1, 784), numbers % 10, numbers % 10, numbers)


def net_of(arch: str = "2*5") -> Dense:
    """A SimpleMLP on ten classes."""
    return Dense(PublishedModelSpec(family="simplemlp", arch=Arch.coerce(arch)), 10)


def pack_of(net: Dense, seeds: Sequence[int]) -> StackedParams:
    """The initial rows of several seeds, one below the other."""
    return StackedParams.stacked([net.initial(seed) for seed in seeds])


def ordinary(net: Dense, row: StackedParams) -> nn.Sequential:
    """One trial of a SimpleMLP pack as an ordinary module."""
    state = list(net.unstack(row).values())
    layers: list[nn.Module] = []
    for weight, bias in zip(state[::2], state[1::2], strict=True):
        linear = nn.Linear(*reversed(weight.shape))
        linear.weight.data, linear.bias.data = weight, bias
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


# Batches


@pytest.mark.parametrize(("samples", "batch_size"), [(103, 10), (100, 10), (7, 60_000), (5, 1), (101, 100)])
def test_an_epoch_is_every_sample_once_in_the_order_of_the_stream(samples: int, batch_size: int) -> None:
    """Whatever the size of the last batch; images and labels stay together."""
    split = numbered(samples)
    rows = [replace(ROW, seed=seed, loop=loop) for seed, loop in ((3, 1), (3, 1), (3, 2), (4, 1))]
    batches = Batches(rows, split, batch_size)
    assert len(batches) == math.ceil(samples / batch_size)
    seen: list[list[int]] = [[] for _ in rows]
    for step in range(len(batches)):
        inputs, labels = batches[step]
        for group, run in enumerate(inputs.rows):
            for row in range(run.start, run.stop):
                numbers = inputs.x[group, :, 0].long()
                assert torch.equal(numbers % 10, labels[row])
                seen[row] += numbers.tolist()
    for row, numbers_seen in zip(rows, seen, strict=True):
        assert numbers_seen == generator(row.seed, "shuffle", row.loop).permutation(samples).tolist()
        assert sorted(numbers_seen) == list(range(samples))


@pytest.mark.parametrize("scaling", ["standard", "unit", "none", "simplex"])
@pytest.mark.parametrize("digits", [None, (3, 8)])
def test_gathered_bytes_have_the_bits_of_the_images(
    scaling: str, digits: tuple[int, ...] | None, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For every scaling that depends on one pixel alone, filtered splits included, with and without numba."""
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    monkeypatch.setattr(train_batches, "_MANY_SAMPLES", 0)
    split = load_splits(DataSpec(scaling=scaling, digits=digits), data_dir).train
    rows = [replace(ROW, seed=seed) for seed in (1, 2)]
    fast, short = Batches(rows, split, 256), Batches(rows, split.first(300), 256)
    monkeypatch.setattr(train_batches, "is_installed", lambda: False)
    plain = Batches(rows, split, 256)
    assert plain._gather_pixels is None
    assert (fast._gather_pixels is None) == (short._gather_pixels is None) == (scaling == "simplex")
    for batches in (fast, short):
        for step in (0, len(batches) - 1):
            inputs, labels = batches[step]
            chosen = batches.chosen(step)
            assert torch.equal(inputs.x, split.images[chosen])
            assert torch.equal(labels, split.labels[chosen])
    last = len(plain) - 1
    assert torch.equal(plain[last][0].x, fast[last][0].x)


def test_few_samples_are_gathered_by_numba_where_it_is_loaded(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not repay the import, but a pack whose layers need numba has paid it."""
    numba = pytest.importorskip("numba", reason="the extra `fast` is not installed")
    split = load_splits(DataSpec(), data_dir).train.first(300)
    monkeypatch.setitem(sys.modules, "numba", numba)
    assert Batches([ROW], split, 256)._gather_pixels is not None
    monkeypatch.delitem(sys.modules, "numba")
    assert Batches([ROW], split, 256)._gather_pixels is None


def test_trials_of_a_seed_and_loop_share_one_batch() -> None:
    """Six modes of two seeds read two batches a step, not twelve: neighbours are one group."""
    rows = [replace(ROW, seed=seed, dropout=0.1 * mode) for seed in (8, 9) for mode in range(6)]
    inputs, labels = Batches(rows, numbered(50), 10)[0]
    assert inputs.rows == (slice(0, 6), slice(6, 12))
    assert inputs.x.shape == (2, 10, 784)
    assert labels.shape == (12, 10)


def test_rows_are_ordered_so_that_those_who_can_share_are_neighbours() -> None:
    """By seed and loop first, then by rate and decay; a stable order of all of them."""
    rows = [
        replace(ROW, seed=seed, loop=loop, lr=lr) for lr in (1e-3, 1e-4) for loop in (2, 1) for seed in (1, 0)
    ]
    order = batch_order(rows)
    assert sorted(order) == list(range(len(rows)))
    ordered = [rows[at] for at in order]
    assert len(Batches(ordered, numbered(5), 5).rows) == 4
    assert [(row.seed, row.loop) for row in ordered] == sorted((row.seed, row.loop) for row in rows)


@pytest.mark.parametrize(
    ("samples", "batch_size", "sizes"),
    [(600, 64, {64, 24}), (600, 100, {100}), (600, 599, {599, 1}), (5, 256, {5}), (1, 1, {1})],
)
def test_the_sizes_of_batches(samples: int, batch_size: int, sizes: set[int]) -> None:
    """Those that really occur, a shorter last one included."""
    batches = Batches([ROW], numbered(samples), batch_size)
    assert batch_sizes(samples, batch_size) == sizes
    assert {batches[step][1].shape[1] for step in range(len(batches))} == sizes


# The optimiser


def test_only_who_asks_for_decay_gets_it() -> None:
    """The optimiser's groups carry each row's own rate and decay, and cover every row once, as views."""
    rows = [replace(ROW, weight_decay=0.1), ROW, ROW, replace(ROW, lr=0.5), replace(ROW, lr=0.5, loop=2)]
    net = net_of()
    active, gradients = pack_of(net, range(5)), pack_of(net, range(5))
    optimizer = optimizer_for("adamw", rows, active, gradients)
    found = [
        (group["lr"], group["weight_decay"], len(group["params"][0])) for group in optimizer.param_groups
    ]
    assert found == [(1e-3, 0.1, 1), (1e-3, 0.0, 2), (0.5, 0.0, 1), (0.5, 0.0, 1)]
    start = 0
    for group in optimizer.param_groups:
        assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
        for which, parameter in enumerate(group["params"]):
            rows_of_group = slice(start, start + len(parameter))
            assert parameter.data_ptr() == active.parts[which][rows_of_group].data_ptr()
            assert parameter.grad.data_ptr() == gradients.parts[which][rows_of_group].data_ptr()
        start += len(group["params"][0])
    assert start == 5


def first_pixel_dark(split: Split) -> Split:
    """The same images with a first pixel that is always 0, so that no gradient reaches its weights."""
    images = split.images.clone()
    images[:, 0] = 0
    return replace(split, images=images, pixels=None)


def test_decay_shrinks_by_its_factor_and_nothing_else_does(small: Splits) -> None:
    """Where no gradient reaches, AdamW multiplies by 1 - lr x decay every step; without decay not one bit
    of such a weight changes. Three trials in one pack.
    """
    rates = [(1e-2, 0.5), (1e-2, 0.0), (1e-3, 2.0)]
    rows = [replace(ROW, lr=lr, weight_decay=decay) for lr, decay in rates]
    net, split = net_of(), first_pixel_dark(small.train)
    active = pack_of(net, [1, 1, 1])
    before = [net.unstack(active[at : at + 1])["hidden.0.weight"] for at in range(3)]
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    batches = Batches(rows, split, 50)
    train_epoch(net, rows, active, gradients, optimizer, batches)
    for at, (lr, decay) in enumerate(rates):
        after = net.unstack(active[at : at + 1])["hidden.0.weight"]
        factor = (1 - lr * decay) ** len(batches)
        assert torch.allclose(after[:, 0], before[at][:, 0] * factor, rtol=1e-5, atol=0)
        if decay == 0:
            assert torch.equal(after[:, 0], before[at][:, 0])
        assert not torch.equal(after[:, 1], before[at][:, 1])


@pytest.mark.parametrize(("lr", "changes"), [(1e-4, False), (LEAST_DECAY / 1e-4 * 0.99, False), (7e-4, True)])
def test_a_decay_below_float32s_resolution_does_nothing(small: Splits, lr: float, changes: bool) -> None:
    """With the published lr x decay = 1e-4 x 1e-4 mode decay is mode none to the bit; not above 2^-24."""
    net = net_of()
    weights = []
    for decay in (0.0, 1e-4):
        rows = [replace(ROW, lr=lr, weight_decay=decay)]
        active = pack_of(net, [1])
        gradients = active.zeros_like()
        optimizer = optimizer_for("adamw", rows, active, gradients)
        train_epoch(net, rows, active, gradients, optimizer, Batches(rows, small.train, 50))
        weights.append(torch.cat(active.parts, dim=1))
    assert torch.equal(*weights) is not changes


# Epochs


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_correct_answers_are_counted_as_by_argmax(classes: int) -> None:
    """Among equal logits the first class is the answer; zeros of either sign are equal."""
    draws = torch.Generator().manual_seed(classes)
    logits = torch.randint(-2, 3, (7, classes, 400), generator=draws).float()
    logits[:2] = 0.0
    logits[1] *= torch.randint(0, 2, (classes, 400), generator=draws) * 2 - 1
    labels = torch.randint(0, classes, (7, 400), generator=draws)
    expected = (logits.argmax(dim=1) == labels).sum(dim=1)
    assert torch.equal(count_correct(logits, labels), expected)
    assert torch.equal(count_correct(logits, labels[0].expand(7, -1)), (logits.argmax(1) == labels[0]).sum(1))
    assert len(set(expected.tolist())) > 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_are_counted_as_by_argmax(small: Splits, value: float) -> None:
    """The loss of that trial is NaN; the count and the loss of the other one in the pack stay."""
    net = net_of()
    rows = pack_of(net, [1, 2])
    correct, losses = evaluate(net, rows, small.val)
    net.layout.bias(rows, len(net.shape.linears) - 1)[1, 3] = value
    logits = ordinary(net, rows[1:])(small.val.images)
    found, found_losses = evaluate(net, rows, small.val)
    assert found.tolist() == [int(correct[0]), int((logits.argmax(dim=1) == small.val.labels).sum())]
    assert found_losses[0] == losses[0]
    assert found_losses[1].isnan()


def test_cross_entropy_is_torchs(splits: Splits) -> None:
    """Its sum over the batch, and the gradient of its mean, for each trial on its own labels."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 10, 40, generator=generator) * 5
    labels = torch.stack([splits.train.labels[start : start + 40] for start in (0, 40, 80)])
    losses, gradient = cross_entropy(logits, labels)
    assert losses.dtype == torch.float64
    for trial in range(3):
        mine = logits[trial].T.clone().requires_grad_()
        loss = nn.functional.cross_entropy(mine, labels[trial])
        loss.backward()
        assert float(losses[trial]) / 40 == pytest.approx(float(loss.detach()), rel=1e-6)
        assert mine.grad is not None
        assert torch.allclose(gradient[trial].T, mine.grad, rtol=1e-6, atol=1e-8)


def test_the_training_loss_is_the_mean_over_the_epoch(small: Splits) -> None:
    """Of every sample's loss at the moment it was trained on: with rate 0, of the untrained network."""
    net = net_of()
    rows = [replace(ROW, lr=0.0), replace(ROW, lr=0.0, seed=2)]
    active = pack_of(net, [1, 2])
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    losses = train_epoch(net, rows, active, gradients, optimizer, Batches(rows, small.train, 64))
    assert losses.dtype == torch.float64
    for at in range(2):
        logits = ordinary(net, active[at : at + 1])(small.train.images)
        loss = nn.functional.cross_entropy(logits, small.train.labels)
        assert float(losses[at]) == pytest.approx(float(loss.detach()), rel=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_stop_falls_between_two_steps(small: Splits, steps: int) -> None:
    """Asked before every step; the one that is under way is finished and no other is begun."""
    net = net_of()
    active = net.initial(1)
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", [ROW], active, gradients)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > steps

    with pytest.raises(Interrupted):
        train_epoch(net, [ROW], active, gradients, optimizer, Batches([ROW], small.train, 64), stop)
    assert asked == steps + 1
    taken = {int(each["step"]) for each in optimizer.state.values()}
    assert taken == ({steps} if steps else set())


# Evaluation


def counted(net: Dense, weights: StackedParams, split: Split) -> tuple[list[int], Tensor]:
    """What evaluate says, as a list of counts and a tensor of losses."""
    correct, loss = evaluate(net, weights, split)
    return correct.tolist(), loss


def test_evaluation_counts_what_an_ordinary_network_gets_right(splits: Splits) -> None:
    """The counts of each trial on all of the test split, and its mean loss; whole numbers and float64."""
    net = net_of("1*30")
    rows = pack_of(net, [1, 2, 3])
    correct, losses = evaluate(net, rows, splits.test)
    assert (correct.dtype, losses.dtype) == (torch.int64, torch.float64)
    for at in range(3):
        with torch.no_grad():
            logits = ordinary(net, rows[at : at + 1]).eval()(splits.test.images)
        assert int(correct[at]) == int((logits.argmax(dim=1) == splits.test.labels).sum())
        loss = nn.functional.cross_entropy(logits, splits.test.labels)
        assert float(losses[at]) == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 7, 100, 299, 300, 10_000])
def test_counts_do_not_depend_on_the_evaluation_batch(
    small: Splits, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """From single samples to all at once; the mean loss agrees to a millionth."""
    net = net_of("1*12")
    rows = pack_of(net, range(4))
    correct, losses = counted(net, rows, small.val)
    monkeypatch.setattr(train_step, "EVALUATION_BATCH", batch)
    again, other_losses = counted(net, rows, small.val)
    assert again == correct
    assert torch.allclose(other_losses, losses, rtol=1e-6, atol=0)


@pytest.mark.parametrize("arch", ["1*12", "4*3", "1*784"])
def test_counts_and_losses_do_not_depend_on_the_pack(small: Splits, arch: str) -> None:
    """To the bit: a trial among five, among two, and alone."""
    net = net_of(arch)
    rows = pack_of(net, range(5))
    correct, losses = counted(net, rows, small.val)
    for part in (slice(1, 2), slice(3, 5), slice(0, 4)):
        some, some_losses = counted(net, rows[part], small.val)
        assert some == correct[part]
        assert torch.equal(some_losses, losses[part])


def test_evaluation_changes_nothing(small: Splits) -> None:
    """Neither the weights nor the global generators, and it leaves no graph behind."""
    net = net_of()
    rows = pack_of(net, [1, 2])
    before, generator = rows.clone(), torch.get_rng_state()
    correct, losses = evaluate(net, rows, small.val)
    assert not losses.requires_grad
    assert torch.equal(torch.get_rng_state(), generator)
    assert torch.equal(before.first, rows.first)
    assert torch.equal(before.rest, rows.rest)
    assert torch.equal(evaluate(net, rows, small.val)[0], correct)
