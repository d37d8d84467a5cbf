"""The only code that starts training, on every backend: one pack in, states and records out.

As a process of its own: `python -m psa.execution.worker pack.json --root DIR`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from psa.core.errors import UserError
from psa.core.stop import StopRequest
from psa.data.splits import Splits, load_splits
from psa.engine import loop
from psa.engine.device_pack import fresh_state
from psa.engine.loop import LoopReport
from psa.engine.policies import policy_for
from psa.engine.save_interval import SaveInterval
from psa.execution.machine import Machine, describe
from psa.execution.worker.protocol import check_plugins
from psa.execution.worker.record import build_record, probes_for
from psa.nn.dense import Dense
from psa.specs.base import canonical_json
from psa.specs.data import DataSpec
from psa.specs.memory import check_room
from psa.specs.trial import Pack, Trial, check_shape
from psa.storage import locks
from psa.storage.layout import check_digest
from psa.storage.store import Record, Store
from psa.storage.trial_state import TrialState


@dataclass(frozen=True)
class RunHooks:
    """The callbacks of a pack in training, the interval of its saves, and its stop request.

    on_start: called with the states that training begins with. on_loop: called after each meta-loop with a
    report per trial. on_save: called whenever states have been stored; the time it takes counts as saving.
    on_failure: called with a trial and its error, while the others continue; without it the error is raised.
    progress: called with messages about the data. save_interval: None for the default of the engine.
    """

    on_start: Callable[[Sequence[TrialState]], None] = lambda states: None
    on_loop: Callable[[Sequence[LoopReport]], None] = lambda reports: None
    on_save: Callable[[], None] = lambda: None
    on_failure: Callable[[Trial, UserError], None] | None = None
    progress: Callable[[str], None] = lambda message: None
    save_interval: SaveInterval | None = None
    stop: StopRequest | None = None


def run_unlocked(
    pack: Pack, store: Store, machine: Machine, hooks: RunHooks | None = None
) -> tuple[list[Record], int]:
    """Train the trials of a pack that are not done and that no other process is training.

    Return their records, and the number of trials that other processes hold. Otherwise like `run_pack`.
    """
    check_shape(pack.trials[0])  # fails before anything is written
    hooks = hooks or RunHooks()
    with locks.lock_trials(store, pack.trials) as got:
        todo = []
        for trial in got:
            with _report_failures(trial, hooks):
                if not store.done(trial, pack.horizon):
                    todo.append(trial)
        records = []
        if todo:
            part = pack.model_copy(update={"trials": tuple(todo)})
            records = run_pack(part, store, machine, hooks)
    ours = {trial.id for trial in got}
    others = [trial for trial in pack.trials if trial.id not in ours]
    return records, len(store.progress(others, pack.horizon).pending)


def run_pack(pack: Pack, store: Store, machine: Machine, hooks: RunHooks | None = None) -> list[Record]:
    """Train a pack up to its horizon, store each trial's record, and return them in the pack's order.

    Training continues from stored states. A trial fails on its own if its stored state cannot be used, or
    if its record differs from the stored one. Raises Interrupted (every finished loop saved) and
    UserError.
    """
    hooks = hooks or RunHooks()
    check_plugins(pack.trials)
    device = machine.prepare()
    splits = splits_of(pack.trials[0].data, machine, device, hooks.progress)
    net = Dense(pack.trials[0].model, splits.classes, pack.trials[0].data.shape)
    files = {trial.id: store.state_file(trial) for trial in pack.trials}
    states = []
    for trial in pack.trials:
        with _report_failures(trial, hooks):
            states.append(_state(trial, files[trial.id], net, pack.horizon))
    if not states:
        return []
    # What concerns the whole pack is checked before it begins: after that, an error is that of single trials.
    if (memory := pack.trials[0].memory) is not None:
        check_room(memory, len(splits.train), pack.horizon)
    policy, probes = policy_for(pack.trials[0], net, splits), probes_for(pack.trials[0])
    hooks.on_start(states)

    def save(changed: Sequence[TrialState]) -> None:
        for state in changed:
            files[state.trial.id].save(state)
        hooks.on_save()

    epochs = 0

    def listen(reports: Sequence[LoopReport]) -> None:
        nonlocal epochs
        epochs += sum(not report.copied for report in reports)
        hooks.on_loop(reports)

    begun = time.monotonic()
    with hooks.stop or nullcontext(lambda: False) as asked:
        tests = loop.run_loops(
            net,
            splits,
            states,
            pack.horizon,
            policy,
            device=device,
            save=save,
            listen=listen,
            stop=asked,
            save_interval=hooks.save_interval,
            probes=probes,
            keep=lambda state, name, arrays: files[state.trial.id].keep(state.trial, name, arrays),
        )
    speed = _speed(time.monotonic() - begun, len(states), epochs, len(splits.train))
    sidecar = describe(device, machine.threads) | speed
    records = []
    for state, test in zip(states, tests, strict=True):
        with _report_failures(state.trial, hooks):
            record = build_record(state, net, splits, test)
            store.write(state.trial, record, sidecar)
            records.append(record)
    return records


def _speed(seconds: float, trials: int, epochs: int, samples: int) -> dict[str, Any]:
    """Return the training speed for a sidecar, evaluation included.

    epochs: those trained; one that serves several equal trials counts once. samples: of one epoch.
    """
    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "pack_seconds": round(seconds, 3),
        "train_samples_per_second": round(epochs * samples / seconds, 1),
        "pack_trials": trials,
        "pack_epochs": epochs,
    }


@contextmanager
def _report_failures(trial: Trial, hooks: RunHooks) -> Iterator[None]:
    """Pass a trial's own error to `on_failure`, if it is set."""
    try:
        yield
    except UserError as error:
        if hooks.on_failure is None:
            raise
        hooks.on_failure(trial, error)


_kept: dict[str, Splits] = {}


def splits_of(
    spec: DataSpec,
    machine: Machine,
    device: torch.device,
    progress: Callable[[str], None] = lambda message: None,
) -> Splits:
    """Return the data of a pack; a process that trains pack after pack reads it once."""
    key = canonical_json([spec.model_dump(mode="json"), str(machine.data_dir.absolute()), str(device)])
    if key not in _kept:
        _kept.clear()
        _kept[key] = load_splits(
            spec, machine.data_dir, device=device, progress=progress, workers=machine.loader_threads
        )
    return _kept[key]


def _state(trial: Trial, file: Any, net: Dense, horizon: int) -> TrialState:
    """Return the stored state of a trial, or its initial one.

    Raises UserError if the stored state is that of another trial, or if its LKG is not finite, as earlier
    versions may have stored it.
    """
    stored: TrialState | None = file.load()
    if stored is None:
        return fresh_state(trial, net, horizon)
    try:
        continued = stored.trial.continued_by(trial, stored.loops)
    except UserError:  # its message names an option that was not given; the file says more
        continued = stored.trial
    if continued != trial:
        check_digest(file.path, (stored.trial.id, stored.trial.digest), trial, "--model-dir")
    if not stored.finite:
        raise UserError(
            f"the LKG in {file.path} is not finite (loop {stored.lkg_loop} diverged, and an earlier "
            "version of psa kept it)",
            f"{file.hint()}; remove the record of {trial.id} too, if there is one",
        )
    stored.trial, stored.horizon = trial, horizon
    return stored
