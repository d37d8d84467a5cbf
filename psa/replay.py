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
from psa.machine import Machine, describe
from psa.nets.dense import Dense
from psa.state import COLUMNS, TrialState, decode
from psa.statefile import StateFile
from psa.store import Record, Store
from psa.store_layout import check_state
from psa.stored_files import read_stored
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
    """The outcome of a replayed loop; difference is None where every bit was the same.

    machines: on which machines the loop was trained the first time and now, where they are of two kinds.
    """

    path: Path
    loop: int
    difference: str | None
    machines: str = ""


def steps_of(store: Store) -> list[Step]:
    """Every step that the stored states allow, in a fixed order. Damaged files and misplaced ones are left
    to `verify`.
    """
    steps = []
    for path in store.state_paths():
        if path.stem.endswith(".previous"):
            continue
        state, before = _sound(path, store), _sound(StateFile(path).previous, store)
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
        state = _sound(step.path, store)
        if state is None:
            continue
        splits = splits_of(state.trial.data, machine, device)
        trial = state.trial.at_loop(step.loop)
        net = Dense(trial.model, splits.classes)
        before = fresh_state(trial, net, step.loop)
        if step.from_previous:
            stored = _sound(StateFile(step.path).previous, store)
            if stored is None:
                continue
            before = copy.deepcopy(stored)
            before.trial = trial
        # the engine ends with a look at the test split, which is not to be looked at here
        blind = replace(splits, test=splits.val)
        policy = policy_for(trial, net, splits)
        engine.run(net, blind, [before], step.loop, policy, device=device, save=lambda states: None)
        difference = _difference(before, state, step.loop)
        here = describe(device, machine.threads)
        machines = "" if difference is None else two_kinds(store.machine_of(state.trial.id), here)
        yield Replayed(step.path, step.loop, difference, machines)


def two_kinds(then: Record | None, now: Record) -> str:
    """Describe the machines of two runs, where equal bits are not promised of both; empty where they are."""
    if then is None:
        return "the machine it was made on is not recorded (a record is not there yet)"
    if all(then.get(key) == now[key] for key in ("processor", "torch")):
        return ""
    return (
        f"made on {_kind(then)}, replayed on {_kind(now)}; bits are promised only for equal processors and "
        "equal versions of torch"
    )


def _kind(machine: Record) -> str:
    """`Intel(R) Xeon(R) with torch 2.15.0`, of what a sidecar says."""
    name = machine.get("processor") or f"a processor that is not recorded ({machine.get('platform')})"
    return f"{name} with torch {machine.get('torch')}"


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


def _sound(path: Path, store: Store) -> TrialState | None:
    """Return a state that can be replayed, None for one that is missing, damaged, misplaced or not psa's:
    `verify` names those.
    """
    try:
        content = read_stored(path)
        state = None if content is None else decode(content, str(path))
        if state is not None:
            check_state(path, store.models, state.trial)
    except UserError:
        return None
    return state
