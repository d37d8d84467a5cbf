"""Train stored loops again and compare the bits: the proof that a store is what this code makes.

What can be replayed is the loop after each stored state: loop 1 from the initial weights, and the loop after
a previous generation. The books of the present state (and its weights, where that loop made them) say what
must come out.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from psa import engine
from psa.errors import UserError
from psa.files import read_bytes
from psa.machine import Machine
from psa.nets.dense import Dense
from psa.state import COLUMNS, TrialState, decode
from psa.statefile import StateFile
from psa.store import Store
from psa.trial import Trial
from psa.worker import fresh_state, policy_for, splits_of


@dataclass(frozen=True)
class Step:
    """One loop that can be trained again: where its outcome is stored, and which loop it is."""

    path: Path
    loop: int
    from_previous: bool


@dataclass(frozen=True)
class Replayed:
    """What came of it; difference is None where every bit was the same."""

    path: Path
    loop: int
    difference: str | None


def steps_of(store: Store) -> list[Step]:
    """Every step that the stored states allow, in a fixed order. Damaged files are left to `verify`."""
    steps = []
    for path in store.state_paths():
        if path.stem.endswith(".previous"):
            continue
        state, before = _sound(path), _sound(StateFile(path).previous)
        # bits are promised of the CPU alone; what a GPU had a hand in would differ without a fault
        if state is None or state.loops == 0 or state.devices != ["cpu"]:
            continue
        steps.append(Step(path, 1, from_previous=False))
        if before is not None and 0 < before.loops < state.loops and _same_trial(before, state):
            steps.append(Step(path, before.loops + 1, from_previous=True))
    return steps


def replay(store: Store, machine: Machine, count: int, seed: int = 0) -> Iterator[Replayed]:
    """Train `count` of the steps again, drawn without repetition. Raises UserError where data are missing."""
    steps = steps_of(store)
    device = machine.prepare()
    for step in random.Random(seed).sample(steps, min(count, len(steps))):
        state = _sound(step.path)
        if state is None:
            continue
        splits = splits_of(state.trial.data, machine, device)
        trial = state.trial.at_loop(step.loop)
        net = Dense(trial.model, splits.classes)
        before = fresh_state(trial, net, step.loop)
        if step.from_previous:
            stored = _sound(StateFile(step.path).previous)
            if stored is None:
                continue
            before = copy.deepcopy(stored)
            before.trial = trial
        # the engine ends with a look at the test split, which is not to be looked at here
        blind = replace(splits, test=splits.val)
        policy = policy_for(trial, net, splits)
        engine.run(net, blind, [before], step.loop, policy, device=device, save=lambda states: None)
        yield Replayed(step.path, step.loop, _difference(before, state, step.loop))


def _difference(made: TrialState, stored: TrialState, loop: int) -> str | None:
    for column in COLUMNS:
        if made.history[column][loop - 1] != stored.history[column][loop - 1]:
            return (
                f"{column}: stored {stored.history[column][loop - 1]}, now {made.history[column][loop - 1]}"
            )
    if stored.lkg_loop == loop:
        for name, tensor in stored.lkg.items():
            if tensor.tobytes() != made.lkg[name].tobytes():
                return f"the weights of {name}"
    return None


def _same_trial(before: TrialState, after: TrialState) -> bool:
    return _settings(before.trial, before.loops) == _settings(after.trial, before.loops)


def _settings(trial: Trial, loop: int) -> Trial:
    """What a loop was trained with, whatever came before and after it."""
    return trial.at_loop(loop).changed(legs=())


def _sound(path: Path) -> TrialState | None:
    content = read_bytes(path)
    try:
        return None if content is None else decode(content, str(path))
    except UserError:  # damaged, or not one of ours: `verify` says so
        return None
