"""Train stored loops again and compare them, to prove that this code produces the store.

Two loops of a trial can be replayed: loop 1, from the initial weights, and the loop after a previous
generation of its state. The outcome is compared with the history in the present state (and its weights, where
that loop made them) or, if no state was kept, with the history in the trial's record.

Bits must be equal where the machines are of one kind. Between processors or versions of torch sums are
rounded differently, and training amplifies that: of 300 loops of the committed bundles, made on an Intel and
trained again on an AMD processor, 84 had equal bits, and the largest differences were 1.1 % of a loss and
0.22 points of accuracy (2026-11).
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from psa.core.errors import CorruptFileError, UserError
from psa.core.plugins.identity import PluginError
from psa.core.plugins.registry import check_loaded
from psa.core.stored_files import read_stored
from psa.engine import loop as engine
from psa.engine.device_pack import fresh_state
from psa.engine.policies import policy_for
from psa.execution.machine import Machine, describe
from psa.execution.worker.run import splits_of
from psa.nn.dense import Dense
from psa.specs.trial import Trial
from psa.storage.checkpoint import CheckpointFile
from psa.storage.layout import check_state
from psa.storage.store import Record, Store
from psa.storage.trial_state import Tensors, TrialState, decode_state

# Rounding between kinds of machines: about twice what was measured.
_LOSS: Final = 0.02  # share of the loss
_ACCURACY: Final = 0.005  # share of the validation samples
_WEIGHTS: Final = 0.02  # share of the length of a tensor


@dataclass(frozen=True)
class Step:
    """A loop that can be trained again: its number, and the state file with its outcome, or the id of the
    trial whose record holds the outcome if no state was kept.
    """

    state: Path | None
    loop: int
    from_previous: bool
    record: str | None = None


@dataclass(frozen=True)
class Replayed:
    """The outcome of a replayed loop; difference is None where every bit was the same.

    place: where the outcome is stored. machines: those of the first training and of the replay, if they
    differ in kind. rounding: True if they do and the difference is no more than rounding explains.
    """

    place: str
    loop: int
    difference: str | None
    machines: str = ""
    rounding: bool = False


@dataclass(frozen=True)
class _Stored:
    """The stored outcome of a step: its place, its trial, the history, and the weights that the loop made, if
    they are stored. before: the state that the loop began with, None for the initial weights.
    """

    place: str
    trial: Trial
    history: Mapping[str, Sequence[Any]]
    weights: Tensors | None
    before: TrialState | None


def steps_of(store: Store) -> list[Step]:
    """Return every step that the stored states and records allow, in a fixed order.

    Damaged files and misplaced ones are left to `verify`.
    """
    steps, kept = [], set[str]()
    for path in store.state_paths():
        if path.stem.endswith(".previous"):
            continue
        state, before = _sound(path, store), _sound(CheckpointFile(path).previous, store)
        if state is None or state.loops == 0:
            continue
        kept.add(state.trial.id)
        if not _promised(", ".join(state.devices)):
            continue
        steps.append(Step(path, 1, from_previous=False))
        if before is not None and 0 < before.loops < state.loops and _same_trial(before, state):
            steps.append(Step(path, before.loops + 1, from_previous=True))
    return steps + [
        Step(None, 1, from_previous=False, record=record["id"])
        for record in store.records.all()
        if record["id"] not in kept and record["loops"] and _promised(record["device"])
    ]


def _promised(devices: str) -> bool:
    """Return True if equal bits are guaranteed: only on the CPU. On a GPU they may differ without a fault."""
    return devices == "cpu"


def replay(store: Store, machine: Machine, count: int, seed: int = 0) -> Iterator[Replayed]:
    """Train `count` of the steps again, drawn without repetition. Raises UserError where data are missing."""
    steps = steps_of(store)
    device = machine.prepare()
    for step in random.Random(seed).sample(steps, min(count, len(steps))):
        stored = _of_record(step, store) if step.state is None else _of_state(step, step.state, store)
        if stored is None:
            continue
        made, samples = _trained(stored, step.loop, machine, device)
        difference = _difference(made, stored, step.loop)
        here = describe(device, machine.threads)
        then = None if difference is None else store.sidecar(stored.trial.id)
        machines = "" if difference is None else two_kinds(then, here)
        # on a machine that is not recorded, bits may have been promised
        rounding = then is not None and bool(machines) and _is_close(made, stored, step.loop, samples)
        yield Replayed(stored.place, step.loop, difference, machines, rounding)


def _trained(stored: _Stored, loop: int, machine: Machine, device: torch.device) -> tuple[TrialState, int]:
    """Train one loop of a trial again; return its state afterwards, and the number of validation samples."""
    trial = stored.trial.at_loop(loop)
    check_loaded(trial.plugins, stored.place)
    splits = splits_of(trial.data, machine, device)
    net = Dense(trial.model, splits.classes, trial.data.shape)
    state = fresh_state(trial, net, loop) if stored.before is None else copy.deepcopy(stored.before)
    state.trial = trial
    # the engine would evaluate the test split at the end, which must not happen here
    blind = replace(splits, test=splits.val)
    policy = policy_for(trial, net, splits)
    engine.run_loops(net, blind, [state], loop, policy, device=device, save=lambda states: None)
    return state, len(splits.val)


def _of_state(step: Step, path: Path, store: Store) -> _Stored | None:
    """Return the outcome in the state file of a step, None if it was removed or damaged meanwhile."""
    state = _sound(path, store)
    before = _sound(CheckpointFile(path).previous, store) if step.from_previous else None
    if state is None or (step.from_previous and before is None):
        return None
    weights = state.lkg if state.lkg_loop == step.loop else None
    return _Stored(str(path), state.trial, state.history, weights, before)


def _of_record(step: Step, store: Store) -> _Stored | None:
    """Return the outcome in the record of a step, None if it was removed or damaged meanwhile."""
    try:
        stored = store.records.locate(str(step.record))
    except CorruptFileError:
        return None
    if stored is None:
        return None
    trial = Trial.model_validate(stored.record["spec"])
    return _Stored(stored.place, trial, stored.record["history"], None, None)


def two_kinds(then: Record | None, now: Record) -> str:
    """Describe the machines of two runs if equal bits are not guaranteed between them; else return ""."""
    if then is None:
        return "the machine it was made on is not recorded"
    if all(then.get(key) == now[key] for key in ("processor", "torch")):
        return ""
    return (
        f"made on {_kind(then)}, replayed on {_kind(now)}; bits are promised only for equal processors and "
        "equal versions of torch"
    )


def _kind(machine: Record) -> str:
    """Return a text such as `Intel(R) Xeon(R) with torch 2.15.0` from the machine in a sidecar."""
    name = machine.get("processor") or f"a processor that is not recorded ({machine.get('platform')})"
    return f"{name} with torch {machine.get('torch')}"


def _difference(made: TrialState, stored: _Stored, loop: int) -> str | None:
    for column in stored.history:
        then, now = stored.history[column][loop - 1], made.history[column][loop - 1]
        if then != now:
            return f"{column}: stored {then}, now {now}"
    for name, tensor in (stored.weights or {}).items():
        if tensor.tobytes() != made.lkg[name].tobytes():
            return f"the weights of {name}"
    return None


def _is_close(made: TrialState, stored: _Stored, loop: int, samples: int) -> bool:
    """Return whether a loop differs from the stored one by no more than rounding explains."""
    history = (
        (column, values[loop - 1], made.history[column][loop - 1])
        for column, values in stored.history.items()
    )
    return all(_is_near(column, then, now, samples) for column, then, now in history) and all(
        np.linalg.norm(tensor - made.lkg[name]) <= _WEIGHTS * np.linalg.norm(tensor)
        for name, tensor in (stored.weights or {}).items()
    )


def _is_near(column: str, then: Any, now: Any, samples: int) -> bool:
    if then is None or now is None:  # no unit was ablated, or a loss is not finite
        return then is now
    if column in ("loss", "train_loss"):
        return math.isclose(then, now, rel_tol=_LOSS)
    if column == "correct":
        return bool(abs(then - now) <= _ACCURACY * samples)
    return column == "kept" or bool(then == now)  # which copy was kept depends on the accuracy


def _same_trial(before: TrialState, after: TrialState) -> bool:
    return _settings(before.trial, before.loops) == _settings(after.trial, before.loops)


def _settings(trial: Trial, loop: int) -> Trial:
    """Return a trial with the settings of one loop, without those of the loops before and after it."""
    return trial.at_loop(loop).changed(legs=())


def _sound(path: Path, store: Store) -> TrialState | None:
    """Return a state that can be replayed, or None; `verify` reports missing and damaged ones."""
    try:
        content = read_stored(path)
        state = None if content is None else decode_state(content, str(path))
        if state is not None:
            check_state(path, store.models, state.trial)
    except PluginError:
        raise
    except UserError:
        return None
    return state
