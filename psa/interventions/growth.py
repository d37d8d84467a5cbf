"""Growth between two epochs: whether it is due, and a wider or deeper state that computes the same function.

A network grows as its next epoch begins, so a trial that ends at a horizon is tested as it was trained, and
a longer run of it goes on to the same bits. New units have random incoming weights, and outgoing weights of
0 to the old units, so they have no effect before training. A new layer is the identity, which is exact
because its inputs have passed a ReLU.
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
from psa.storage.trial_state import TrialState


def growth_due(state: TrialState, steps_per_epoch: int, validation: int) -> GrowthEvent | None:
    """Return the growth that is due after a trial's last loop and not done yet, None if there is none.

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
    found = growth_events(
        trial.growth, trial.model.arch.widths, history, math.prod(trial.data.shape), trial.data.classes
    )
    return found[-1] if found and found[-1].epoch == state.loops else None


def just_grown(state: TrialState) -> bool:
    """Return True if the network has grown after its last loop and has not been trained since."""
    return bool(state.events) and state.events[-1]["epoch"] == state.loops


def apply_growth(state: TrialState, event: GrowthEvent) -> None:
    """Record an event, and grow the weights and their optimiser moments in place."""
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
    """Return an event as a mapping for JSON."""
    facts = asdict(event) | {
        "old_depth": event.old_depth,
        "new_depth": event.new_depth,
        "old_width": event.old_width,
        "new_width": event.new_width,
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}


State = dict[str, np.ndarray]


def _linears(state: Mapping[str, np.ndarray]) -> list[str]:
    """List `hidden.0`, `hidden.1`, ..., `output` of a plain MLP's state. Raises ValueError for others."""
    hidden = sum(name.startswith("hidden.") and name.endswith(".weight") for name in state)
    names = [*(f"hidden.{number}" for number in range(hidden)), "output"]
    expected = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    if set(state) != expected or not hidden:
        raise ValueError(f"growth: not the state of a plain MLP: {sorted(state)[:4]}")
    return names


def hidden_widths(state: Mapping[str, np.ndarray]) -> tuple[int, ...]:
    """Return the widths of the hidden layers of a state."""
    return tuple(len(state[f"{name}.bias"]) for name in _linears(state)[:-1])


def grow(state: Mapping[str, np.ndarray], widths: Sequence[int], seed: int, number: int) -> State:
    """Return a copy of a plain MLP's state with these hidden widths that computes the same function, float32.

    seed, number: of the trial, and of the growth in it (from 1), which name the draws. Raises ValueError
    if a width or the depth would shrink.
    """
    old = hidden_widths(state)
    _check(old, widths)
    return _deepened(_widened(state, tuple(widths[: len(old)]), seed, number), widths[len(old) :])


def grow_moments(moments: Mapping[str, np.ndarray], widths: Sequence[int]) -> State:
    """Return an optimiser's moments for the grown network: old ones in place, zeros for new units."""
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
