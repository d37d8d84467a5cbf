"""Growth between two epochs: whether it is due, and the wider or deeper state that computes what it did.

A network grows as its next epoch begins, so a trial that ends at a horizon is tested as it was trained, and
a longer run of it goes on to the same bits. New units read their inputs at random and are read with weight 0
by the units there before, so only training makes them heard. A new layer is the identity, which is exact
because what it reads has passed a ReLU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np

from psa.core.rng import generator
from psa.specs.growth import EpochResult, GrowthEvent, growth_events
from psa.specs.shapes import PIXELS
from psa.storage.trial_state import TrialState


def growth_due(state: TrialState, steps_per_epoch: int, validation: int) -> GrowthEvent | None:
    """The growth that a trial's schedule asks for after its last loop and that is not done yet.

    validation: samples of the validation split.
    """
    trial = state.trial
    if trial.growth is None or not state.loops:
        return None
    if just_grown(state):
        return None
    history = [
        EpochResult(loop, loop * steps_per_epoch, correct / validation)
        for loop, correct in enumerate(state.history["correct"], start=1)
    ]
    found = growth_events(trial.growth, trial.model.arch.widths, history, PIXELS, trial.data.classes)
    return found[-1] if found and found[-1].epoch == state.loops else None


def just_grown(state: TrialState) -> bool:
    """Whether the growth after its last loop is done, and no loop since."""
    return bool(state.events) and state.events[-1]["epoch"] == state.loops


def apply_growth(state: TrialState, event: GrowthEvent) -> None:
    """Book an event, and grow weights and what the optimiser remembers of them, in place."""
    number = 1 + sum(each["grew"] for each in state.events)
    state.events.append(growth_event_json(event))
    if not event.grew:
        return
    widths, seed = event.new_hidden_sizes, state.trial.seed
    state.lkg = grow(state.lkg, widths, seed, number)
    for kind, tensors in state.carried.items():
        weights = kind == "active"
        state.carried[kind] = (
            grow(tensors, widths, seed, number) if weights else grow_moments(tensors, widths)
        )


def growth_event_json(event: GrowthEvent) -> dict[str, Any]:
    """An event as JSON holds it."""
    facts = asdict(event) | {
        "old_depth": event.old_depth,
        "new_depth": event.new_depth,
        "old_width": event.old_width,
        "new_width": event.new_width,
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}


State = dict[str, np.ndarray]


def _linears(state: Mapping[str, np.ndarray]) -> list[str]:
    """`hidden.0`, `hidden.1`, ..., `output` of a plain MLP's state. Raises ValueError for another network."""
    hidden = sum(name.startswith("hidden.") and name.endswith(".weight") for name in state)
    names = [*(f"hidden.{number}" for number in range(hidden)), "output"]
    expected = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    if set(state) != expected or not hidden:
        raise ValueError(f"growth: not the state of a plain MLP: {sorted(state)[:4]}")
    return names


def hidden_widths(state: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """The widths of the hidden layers of a state."""
    return tuple(len(state[f"{name}.bias"]) for name in _linears(state)[:-1])


def grow(state: Mapping[str, np.ndarray], widths: Sequence[int], seed: int, number: int) -> State:
    """A plain MLP's state with these hidden widths, computing what it did; float32, a copy.

    seed, number: of the trial, and of the growth in it (from 1), which name the draws. Raises ValueError
    where a width would shrink or the depth would.
    """
    old = hidden_widths(state)
    _check(old, widths)
    return _deepened(_widened(state, tuple(widths[: len(old)]), seed, number), widths[len(old) :])


def grow_moments(moments: Mapping[str, np.ndarray], widths: Sequence[int]) -> State:
    """An optimiser's moments for the grown network: what there was in its place, zeros for what is new."""
    names, old = _linears(moments), hidden_widths(moments)
    _check(old, widths)
    sizes = [moments["hidden.0.weight"].shape[1], *widths, len(moments["output.bias"])]
    grown: State = {}
    for at, (inputs, outputs) in enumerate(pairwise(sizes)):
        name = f"hidden.{at}" if at < len(widths) else "output"
        weight = np.zeros((outputs, inputs), np.float32)
        bias = np.zeros(outputs, np.float32)
        if name in names:
            mine = moments[f"{name}.weight"]
            weight[: len(mine), : mine.shape[1]] = mine
            bias[: len(mine)] = moments[f"{name}.bias"]
        grown |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return grown


def _check(old: Sequence[int], new: Sequence[int]) -> None:
    if len(new) < len(old) or any(after < before for before, after in zip(old, new, strict=False)):
        raise ValueError(f"growth: hidden layers {tuple(old)} do not grow to {tuple(new)}")
    if any(width != new[len(old) - 1] for width in new[len(old) :]):
        raise ValueError("growth: new layers are as wide as the last one, since they start as the identity")


def _widened(state: Mapping[str, np.ndarray], widths: tuple[int, ...], seed: int, number: int) -> State:
    draws = generator(seed, "grow", number)
    names = _linears(state)
    sizes = [state["hidden.0.weight"].shape[1], *widths, len(state["output.bias"])]
    grown: State = {}
    for name, (inputs, outputs) in zip(names, pairwise(sizes), strict=True):
        old = state[f"{name}.weight"]
        units, read = old.shape
        # As torch draws an nn.Linear of the new size, whole matrices: no draw depends on the old size.
        bound = np.float32(1 / math.sqrt(inputs))
        weight, bias = (
            (2 * draws.random(shape, dtype=np.float32) - 1) * bound for shape in ((outputs, inputs), outputs)
        )
        weight[:units, :read], weight[:units, read:] = old, 0
        bias[:units] = state[f"{name}.bias"]
        grown |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return grown


def _deepened(state: State, widths: Sequence[int]) -> State:
    output = {name: value for name, value in state.items() if name.startswith("output.")}
    grown = {name: value for name, value in state.items() if name not in output}
    for number, width in enumerate(widths, start=len(grown) // 2):
        grown[f"hidden.{number}.weight"] = np.eye(width, dtype=np.float32)
        grown[f"hidden.{number}.bias"] = np.zeros(width, np.float32)
    return grown | output
