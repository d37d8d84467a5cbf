"""psa.interventions.growth: a grown network computes what it did, and grows when its schedule says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from psa.interventions.growth import State, grow, grow_moments, hidden_widths
from psa.specs.growth import EpochResult, Growth, growth_events, parameters

INPUTS, CLASSES = 20, 10


def network(widths: tuple[int, ...], seed: int) -> State:
    """The state of a plain MLP with uniform weights."""
    draws = np.random.default_rng(seed)
    sizes = [INPUTS, *widths, CLASSES]
    state: State = {}
    for at in range(len(sizes) - 1):
        name = f"hidden.{at}" if at < len(widths) else "output"
        bound = 1 / np.sqrt(sizes[at])
        shape = (sizes[at + 1], sizes[at])
        state[f"{name}.weight"] = draws.uniform(-bound, bound, shape).astype(np.float32)
        state[f"{name}.bias"] = draws.uniform(-bound, bound, shape[0]).astype(np.float32)
    return state


def logits(state: State, x: torch.Tensor) -> torch.Tensor:
    """Of an ordinary MLP with ReLU."""
    for at in range(len(hidden_widths(state))):
        weight, bias = (torch.from_numpy(state[f"hidden.{at}.{part}"]) for part in ("weight", "bias"))
        x = torch.relu(x @ weight.T + bias)
    return x @ torch.from_numpy(state["output.weight"]).T + torch.from_numpy(state["output.bias"])


@settings(max_examples=60, deadline=None)
@given(
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    more=st.lists(st.integers(0, 20), min_size=4, max_size=4),
    deeper=st.integers(0, 3),
    seed=st.integers(0, 2**40),
)
def test_a_grown_network_computes_what_it_did(
    widths: list[int], more: list[int], deeper: int, seed: int
) -> None:
    """Equal logits to 1e-6, however much wider and deeper; old weights are where they were."""
    state = network(tuple(widths), seed)
    new = [width + added for width, added in zip(widths, more, strict=False)]
    new += new[-1:] * deeper
    grown = grow(state, new, seed, 1)
    assert hidden_widths(grown) == tuple(new)
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(50, INPUTS)).astype(np.float32))
    assert torch.allclose(logits(grown, x), logits(state, x), rtol=0, atol=1e-6)
    for name, value in state.items():
        if name != "output.weight" or not deeper:
            assert np.array_equal(grown[name][tuple(slice(size) for size in value.shape)], value)
    assert sum(value.size for value in grown.values()) == parameters(new, INPUTS, CLASSES)
    assert list(grown)[-2:] == ["output.weight", "output.bias"]


def test_new_units_listen_and_learn() -> None:
    """They read at random (another draw per growth and seed); one step of gradients makes them heard."""
    state = network((6, 6), 1)
    one, other, later = (grow(state, (9, 9), seed, number) for seed, number in ((1, 1), (2, 1), (1, 2)))
    assert np.abs(one["hidden.0.weight"][6:]).min() > 0
    for name in ("hidden.0.weight", "hidden.1.weight"):
        assert not np.array_equal(one[name][6:], other[name][6:])
        assert not np.array_equal(one[name][6:], later[name][6:])
    tensors = {name: torch.from_numpy(value).requires_grad_() for name, value in one.items()}
    x = torch.rand(30, INPUTS, generator=torch.Generator().manual_seed(1))
    h = torch.relu(x @ tensors["hidden.0.weight"].T + tensors["hidden.0.bias"])
    h = torch.relu(h @ tensors["hidden.1.weight"].T + tensors["hidden.1.bias"])
    out = h @ tensors["output.weight"].T + tensors["output.bias"]
    torch.nn.functional.cross_entropy(out, torch.arange(30) % 10).backward()
    gradient = tensors["output.weight"].grad
    assert gradient is not None
    assert float(gradient[:, 6:].abs().max()) > 0


def test_moments_grow_by_zeros() -> None:
    """What was known of old weights stays in its place; of new ones nothing is known."""
    state = network((4, 3), 1)
    moments = {name: np.abs(value) + 1 for name, value in state.items()}
    grown = grow_moments(moments, (6, 5, 5))
    assert {name: value.shape for name, value in grown.items()} == {
        name: value.shape for name, value in grow(state, (6, 5, 5), 1, 1).items()
    }
    for name, value in moments.items():
        inside = tuple(slice(size) for size in value.shape)
        assert np.array_equal(grown[name][inside], value)
        assert grown[name].sum() == pytest.approx(value.sum(), rel=1e-5)
    assert grown["hidden.2.weight"].sum() == 0


@pytest.mark.parametrize("widths", [(3, 4), (4,), (4, 4, 5)])
def test_what_is_no_growth_is_refused(widths: tuple[int, ...]) -> None:
    """Narrower, shallower, or a new layer of another width than the last."""
    with pytest.raises(ValueError, match="growth"):
        grow(network((4, 4), 1), widths, 1, 1)


def test_another_network_is_refused() -> None:
    """The state of a residual network has other names."""
    with pytest.raises(ValueError, match="plain MLP"):
        grow({"stacks.0.project.weight": np.zeros((2, 2))}, (4,), 1, 1)


def history(accuracies: list[float], steps: int = 10) -> list[EpochResult]:
    """The validations of some epochs."""
    return [EpochResult(epoch, epoch * steps, value) for epoch, value in enumerate(accuracies, start=1)]


def epochs(spec: Growth, accuracies: list[float], widths: tuple[int, ...] = (8,)) -> list[int]:
    """After which epochs it grew."""
    return [event.epoch for event in growth_events(spec, widths, history(accuracies)) if event.grew]


def test_the_published_growth() -> None:
    """48 x 2 with +16 and +1 after epochs 1 and 2 is 80 x 4 of 83,050 parameters."""
    spec = Growth(width=16, depth=1, max_width=96, max_depth=4, stop_epoch=3)
    found = growth_events(spec, (48, 48), history([0.5, 0.6, 0.7, 0.7, 0.7]))
    assert [event.new_hidden_sizes for event in found] == [(64, 64, 64), (80, 80, 80, 80)]
    last = found[-1]
    assert last.param_count_after == 83_050
    assert (last.old_depth, last.new_depth, last.old_width, last.new_width) == (3, 4, 64, 80)
    assert (last.epoch, last.global_step, last.val_accuracy_at_trigger) == (2, 20, 0.6)
    assert last.param_count_before == found[0].param_count_after
    assert parameters((96,) * 4, 784, 10) == 104_266


def test_each_schedule() -> None:
    """epoch, plateau (counted anew after a growth), performance."""
    rising = [0.1 * at for at in range(1, 9)]
    assert epochs(Growth(interval=3), rising) == [3, 6]
    flat = [0.5] * 8
    assert epochs(Growth(schedule="plateau", interval=2), rising) == []
    assert epochs(Growth(schedule="plateau", interval=2), flat) == [3, 5, 7]
    assert epochs(Growth(schedule="plateau", interval=1), flat) == [2, 3, 4, 5, 6, 7, 8]
    slow = [0.5 + 0.01 * at for at in range(8)]
    assert epochs(Growth(schedule="plateau", interval=2), slow) == []
    assert epochs(Growth(schedule="plateau", interval=2, min_delta=0.05), slow) == [3, 5]
    assert epochs(Growth(schedule="performance", threshold=0.45, interval=2), rising) == [5, 7]


def test_warm_up_stop_and_caps() -> None:
    """warmup_epochs = 2: not after epochs 1 and 2. stop_epoch = 5: not after 5 or later. Caps are reached."""
    flat = [0.5] * 8
    assert epochs(Growth(warmup_epochs=2, stop_epoch=5), flat) == [3, 4]
    spec = Growth(width=6, depth=1, max_width=17, max_depth=3)
    found = growth_events(spec, (8,), history(flat))
    assert [event.new_hidden_sizes for event in found][:3] == [(14, 14), (17, 17, 17), (17, 17, 17)]
    assert [event.grew for event in found] == [True, True] + [False] * 6
    assert found[2].param_count_after == found[2].param_count_before
    assert Growth(max_width=4).grown((8, 2)) == (8, 4)


def test_fixed_step_grows_at_the_end_of_an_epoch() -> None:
    """Every 25 steps, with 10 steps an epoch: at the first validation after them, counted from there."""
    spec = Growth(schedule="fixed_step", interval=25)
    assert [event.global_step for event in growth_events(spec, (8,), history([0.5] * 8))] == [30, 60]


@given(
    accuracies=st.lists(st.integers(0, 20).map(lambda number: number / 20), min_size=1, max_size=12),
    schedule=st.sampled_from(["epoch", "plateau", "performance", "fixed_step"]),
    interval=st.integers(1, 30),
)
def test_growth_so_far_does_not_depend_on_what_comes_later(
    accuracies: list[float], schedule: Any, interval: int
) -> None:
    """A resumed training that replays its history grew where it did."""
    spec = Growth(schedule=schedule, interval=interval, threshold=0.5 if schedule == "performance" else None)
    whole = growth_events(spec, (8, 8), history(accuracies))
    for count in range(len(accuracies)):
        part = growth_events(spec, (8, 8), history(accuracies)[:count])
        assert part == [event for event in whole if event.epoch <= count]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 0}, "grow_width or grow_depth must be above 0"),
        ({"max_depth": 3}, "max_depth must be left out unless grow_depth"),
        ({"width": 0, "depth": 1, "max_width": 3}, "max_width must be left out unless grow_width"),
        (
            {"schedule": "performance"},
            "grow_threshold must be set with grow_schedule performance, and only then",
        ),
        ({"threshold": 0.5}, "grow_threshold must be set with grow_schedule performance, and only then"),
        ({"min_delta": 0.5}, "grow_min_delta must be left out unless grow_schedule is plateau"),
        ({"warmup_epochs": 3, "stop_epoch": 4}, "nothing would grow"),
        ({"schedule": "sometimes"}, "Input should be"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], sentence: str) -> None:
    """An option that would do nothing is an error."""
    with pytest.raises(ValidationError, match=sentence):
        Growth.model_validate(changes)


def test_a_history_goes_forward() -> None:
    """Moments out of order are a fault of the caller."""
    with pytest.raises(ValueError, match="does not come after"):
        growth_events(Growth(), (8,), [EpochResult(2, 20, 0.5), EpochResult(1, 10, 0.5)])
