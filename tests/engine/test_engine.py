"""psa.engine.loop: the loop around the epochs: what it keeps, books, saves and survives."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import arms, run, trial

from psa.core.errors import Interrupted, UserError
from psa.data.splits import Split, Splits
from psa.engine import device_pack, scoring
from psa.engine import loop as engine
from psa.engine.device_pack import fresh_state
from psa.engine.loop import LoopReport
from psa.engine.policies import RatchetPolicy, policy_for
from psa.engine.save_interval import SaveInterval
from psa.engine.train_step import evaluate
from psa.execution.worker.record import build_record
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.base import canonical_json
from psa.specs.training import MODES
from psa.specs.trial import Trial
from psa.storage.trial_state import HISTORY_COLUMNS, TrialState, decode_state, encode_state

STEPS = 10  # of an epoch: 600 samples in batches of 64
LOOPS = 4


class Disk:
    """A `save` that keeps every state as the bytes of its file, and may be told to fail."""

    def __init__(self, failing: Iterable[int] = ()) -> None:
        self.files: dict[str, bytes] = {}
        self.loops: list[list[int]] = []  # what each finished save was told
        self.calls = 0
        self.failing = set(failing)

    def __call__(self, states: Sequence[TrialState]) -> None:
        self.calls += 1
        if self.calls in self.failing:
            raise UserError(f"cannot write (call {self.calls})")
        for state in states:
            self.files[state.trial.id] = encode_state(state)
        self.loops.append([state.loops for state in states])

    def states(self, trials: Sequence[Trial], horizon: int) -> list[TrialState]:
        """The states to go on from: those stored, and new ones."""
        net = Dense(trials[0].model, 10)
        return [
            decode_state(self.files[each.id], each.id)
            if each.id in self.files
            else fresh_state(each, net, horizon)
            for each in trials
        ]


class Scripted(SaveInterval):
    """A pace that is due in the loops it was told."""

    def __init__(self, loops: Iterable[int]) -> None:
        super().__init__()
        self.loops, self.asked = set(loops), 0

    def should_save(self) -> bool:
        self.asked += 1
        return self.asked in self.loops


def go(
    trials: Sequence[Trial],
    splits: Splits,
    horizon: int,
    disk: Disk,
    *,
    states: list[TrialState] | None = None,
    stop: Callable[[], bool] = lambda: False,
    save_interval: SaveInterval | None = None,
) -> list[tuple[int, float]]:
    """Run the engine from what the disk holds (or from these states) as a worker would."""
    net = Dense(trials[0].model, splits.classes)
    states = disk.states(trials, horizon) if states is None else states
    policy = policy_for(trials[0], net, splits)
    return engine.run_loops(
        net,
        splits,
        states,
        horizon,
        policy,
        device=torch.device("cpu"),
        save=disk,
        stop=stop,
        save_interval=save_interval,
    )


def stop_before(step: int) -> Callable[[], bool]:
    """Ask for a stop before that step (from 1) of the whole run."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= step

    return stop


def assert_same(states: Sequence[TrialState], others: Sequence[TrialState]) -> None:
    """The same trials in the same state, to the bit."""
    for mine, theirs in zip(states, others, strict=True):
        assert encode_state(mine) == encode_state(theirs), mine.trial.id


def assert_in_order(state: TrialState, splits: Splits) -> None:
    """The books agree with each other and with the LKG they speak of."""
    history = state.history
    assert set(history) == set(HISTORY_COLUMNS)
    assert {len(values) for values in history.values()} == {state.loops}
    assert history["loop"] == list(range(1, state.loops + 1))
    best, best_loop = -1, 0
    for loop, correct, kept in zip(history["loop"], history["correct"], history["kept"], strict=True):
        assert kept == (correct > best), "kept exactly where strictly better"
        if kept:
            best, best_loop = correct, loop
    assert (state.best_correct, state.lkg_loop) == (best, best_loop)
    net = Dense(state.trial.model, splits.classes)
    row = net.stack({name: torch.from_numpy(array) for name, array in state.lkg.items()})
    if state.loops:
        correct, loss = evaluate(net, row.repeat(2), splits.val)
        assert (int(correct[0]), float(loss[0])) == (state.best_correct, state.best_loss)


@pytest.fixture(scope="module")
def undisturbed(small: Splits) -> tuple[list[Trial], list[TrialState], list[tuple[int, float]]]:
    """The six arms of one seed, trained LOOPS loops in one go."""
    trials = arms("2*4", [3])
    disk = Disk()
    tests = go(trials, small, LOOPS, disk)
    return trials, disk.states(trials, LOOPS), tests


Undisturbed = tuple[list[Trial], list[TrialState], list[tuple[int, float]]]


# What is kept


def test_only_a_strictly_better_state_is_kept(small: Splits) -> None:
    """In every mode and every loop; and the LKG that is stored is the one that made its score."""
    states, _ = run(arms("1*6", [1, 2], "resmlp"), small, 8)
    assert any(False in state.history["kept"] for state in states)
    for state in states:
        assert_in_order(state, small)


def test_a_draw_is_discarded(small: Splits) -> None:
    """A network that answers one class for all scores the same in every loop: only the first is kept."""
    states, _ = run([trial("5*1", "none", 1, lr=1e-6)], small, 6)
    (state,) = states
    assert len(set(state.history["correct"])) == 1
    assert state.history["kept"] == [True] + [False] * 5
    assert state.lkg_loop == 1


def test_a_discarded_loop_leaves_no_trace_in_the_lkg(small: Splits) -> None:
    """The LKG after a loop that was not kept has the bits it had before."""
    example = trial("1*6", "output", 1, lr=0.05)
    last = None
    for loops in range(1, 9):
        (state,), _ = run([example], small, loops)
        if last is not None and not state.history["kept"][-1]:
            assert all(np.array_equal(state.lkg[name], last[name]) for name in last)
        last = state.lkg
    assert state.history["kept"].count(False) >= 2


def test_the_test_split_is_touched_once_after_selection(
    small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One evaluation of it, the last; the result is the LKG's, not the last trained copy's."""
    seen: list[Split] = []

    def noted(
        net: Dense, weights: StackedParams, split: Split, loops: Sequence[int], memory_site: None
    ) -> object:
        seen.append(split)
        return evaluate(net, weights, split, loops, memory_site)

    for module in (engine, scoring):
        monkeypatch.setattr(module, "evaluate", noted)
    states, tests = run(arms("1*6", [1]), small, 5)
    assert [split is small.test for split in seen] == [False] * 5 + [True]
    monkeypatch.undo()
    for state, test in zip(states, tests, strict=True):
        net = Dense(state.trial.model, 10)
        row = net.stack({name: torch.from_numpy(array) for name, array in state.lkg.items()})
        correct, loss = evaluate(net, row.repeat(2), small.test)
        assert test[:2] == (int(correct[0]), float(loss[0]))


def test_evaluation_never_drops(small: Splits) -> None:
    """The score of a dropout trial is that of its weights without dropout, and the same when asked again."""
    example = trial("2*9", "dropout", 1)
    assert example.model.dropout > 0
    (state,), _ = run([example], small, 3)
    assert_in_order(state, small)


# Controls


def test_no_arm_is_contaminated(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight decay in mode decay only, dropout in mode dropout only, and a new AdamW in every loop: read off
    the optimisers and the settings that every epoch of the six arms really got.
    """
    seen: list[tuple[str, float, float, float]] = []
    true_begin = RatchetPolicy.begin_epoch

    def begin_epoch(
        self: RatchetPolicy, pack: device_pack.DevicePack, rows: list[int], settings: list[object]
    ) -> device_pack.EpochBuffers:
        epoch = true_begin(self, pack, rows, settings)  # type: ignore[arg-type]
        assert epoch.optimizer.decoupled
        assert not epoch.optimizer.state, "moments survived from loop to loop"
        decays = [group["weight_decay"] for group in epoch.optimizer.param_groups
                  for _ in range(len(group["params"][0]))]  # fmt: skip
        for row, setting, decay in zip(rows, settings, decays, strict=True):
            mode = pack.states[row].trial.intervention.mode
            seen.append((mode, decay, setting.weight_decay, setting.dropout))  # type: ignore[attr-defined]
        return epoch

    monkeypatch.setattr(RatchetPolicy, "begin_epoch", begin_epoch)
    run(arms("1*4", [1]), small, 3)
    expected = {(mode, 0.0, 0.0, 0.0) for mode in MODES} - {(mode, 0.0, 0.0, 0.0) for mode in MODES[1:3]}
    assert set(seen) == expected | {("decay", 0.1, 0.1, 0.0), ("dropout", 0.0, 0.0, 0.25)}
    # once more in loop 1 for the rows that are trained: nothing is ablated in it, so four modes are one
    assert len(seen) == 3 * len(MODES) + len(("none", "decay", "dropout"))


def test_each_trial_of_a_pack_has_its_own_rate(small: Splits) -> None:
    """Rates from 1e-5 to 0.1, with and without decay, in one pack: each has the bits it has alone."""
    trials = [trial("1*5", "none", 1, lr=lr) for lr in (1e-2, 1e-5, 0.1, 1e-3)]
    trials += [trial("1*5", "decay", 1, lr=lr) for lr in (0.1, 1e-4)]
    states, tests = run(trials, small, 3)
    for each, state, test in zip(trials, states, tests, strict=True):
        (alone,), alone_tests = run([each], small, 3)
        assert_same([state], [alone])
        assert test == alone_tests[0]
    assert len({state.history["train_loss"][0] for state in states}) == len(trials)


def test_trials_at_different_loops_go_on_in_one_pack(small: Splits) -> None:
    """Ragged states (0 to 4 finished loops, of 5) become, in one pack, what they become alone."""
    trials = [
        *arms("1*5", [1], modes=("none", "dropout", "full")),
        *arms("1*5", [2], modes=("hidden", "decay")),
    ]
    ragged, alone = Disk(), Disk()
    for each, loops in zip(trials, (3, 0, 1, 4, 1), strict=True):
        if loops:
            go([each], small, loops, ragged)
        go([each], small, 5, alone)
    assert sorted(state.loops for state in ragged.states(trials, 5)) == [0, 1, 1, 3, 4]
    tests = go(trials, small, 5, ragged)
    for state, other in zip(ragged.states(trials, 5), alone.states(trials, 5), strict=True):
        other.horizon = state.horizon
        assert_same([state], [other])
    assert tests == [go([each], small, 5, alone)[0] for each in trials]


def test_a_trial_that_is_there_already_is_only_tested(
    small: Splits, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its horizon, or beyond it, nothing is trained or written; the test counts are the same."""
    trials, states, tests = undisturbed
    monkeypatch.setattr(engine, "train_epoch", lambda *_: pytest.fail("trained"))
    for horizon in (LOOPS, 1):
        disk = Disk()
        assert go(trials, small, horizon, disk, states=[replace(state) for state in states]) == tests
        assert disk.calls == 0


# Books


def test_listeners_hear_of_every_loop_of_every_trial(small: Splits) -> None:
    """One report per trial and loop, with the counts that are booked and the loop already finished."""
    heard: list[LoopReport] = []
    loops: list[set[int]] = []

    def listen(reports: Sequence[LoopReport]) -> None:
        heard.extend(reports)
        loops.append({report.state.loops for report in reports})

    trials = arms("1*4", [1, 2])
    states, _ = run(trials, small, 3, listen=listen)
    assert loops == [{1}, {2}, {3}]
    for state in states:
        mine = [report for report in heard if report.state.trial == state.trial]
        assert [report.correct for report in mine] == state.history["correct"]
        assert [report.kept for report in mine] == state.history["kept"]
        assert {report.total for report in mine} == {300}
        assert state.history["mode"] == [state.trial.intervention.mode] * 3


@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
def test_a_network_that_diverges_is_booked_as_missing(small: Splits, family: str) -> None:
    """Losses that are no numbers become null; files and books stay valid, and sound trials beside it too."""
    trials = [trial("60*16", "none", 1, family, lr=10), trial("60*16", "none", 1, family, lr=1e-4)]
    disk = Disk()
    tests = go(trials, small, 3, disk)
    diverged, sound = disk.states(trials, 3)
    assert diverged.history["loss"] == diverged.history["train_loss"] == [None] * 3
    assert math.isfinite(tests[0][1]), "the initial weights are tested"
    assert all(0 <= correct <= 300 for correct in diverged.history["correct"])
    assert json.loads(canonical_json(diverged.history)) == diverged.history
    alone = Disk()
    assert go(trials[1:], small, 3, alone) == tests[1:]
    assert_same([sound], alone.states(trials[1:], 3))
    assert None not in sound.history["loss"]


# Stopping


@pytest.mark.parametrize("step", [1, 2, STEPS, STEPS + 1, 2 * STEPS + 5, LOOPS * STEPS])
def test_a_stop_loses_no_finished_loop_and_changes_no_bit(
    small: Splits, undisturbed: Undisturbed, step: int
) -> None:
    """Wherever it falls: every finished loop is saved, none is half saved, and going on ends as if
    undisturbed. The pace never comes to save by itself here.
    """
    trials, states, tests = undisturbed
    disk = Disk()
    with pytest.raises(Interrupted):
        go(trials, small, LOOPS, disk, stop=stop_before(step), save_interval=Scripted([]))
    finished = (step - 1) // STEPS
    assert disk.loops == ([[finished] * len(trials)] if finished else [])
    for state in disk.states(trials, LOOPS):
        assert_in_order(state, small)
    assert go(trials, small, LOOPS, disk) == tests
    assert_same(disk.states(trials, LOOPS), states)


def test_stops_in_every_loop_and_one_step_at_a_time(small: Splits, undisturbed: Undisturbed) -> None:
    """Stopped again and again, after 1, 11, 12, 23, 14 steps: it arrives, with the same bits."""
    trials, states, _ = undisturbed
    disk = Disk()
    for steps in (1, STEPS + 1, STEPS + 2, 2 * STEPS + 3, STEPS - 6):
        try:
            go(trials, small, LOOPS, disk, stop=stop_before(steps + 1))
        except Interrupted:
            continue
    go(trials, small, LOOPS, disk)
    assert_same(disk.states(trials, LOOPS), states)


@pytest.mark.parametrize("loops", [1, 2, 3])
def test_some_loops_and_then_more_are_all_in_one_go(
    small: Splits, undisturbed: Undisturbed, loops: int
) -> None:
    """N loops to the end, then on to N + M, through files: the state of N + M in one go."""
    trials, states, tests = undisturbed
    disk = Disk()
    go(trials, small, loops, disk)
    going_on = disk.states(trials, LOOPS)
    for state in going_on:
        state.horizon = LOOPS
    assert go(trials, small, LOOPS, disk, states=going_on) == tests
    assert_same(disk.states(trials, LOOPS), states)


# Saving


@pytest.mark.parametrize(
    ("due", "saved"),
    [([], [4]), ([1, 2, 3, 4], [1, 2, 3, 4]), ([2], [2, 4]), ([4], [4]), ([1, 3], [1, 3, 4])],
)
def test_the_pace_says_when_to_save(small: Splits, due: list[int], saved: list[int]) -> None:
    """It is asked once a loop; what is not saved by the end is saved then, and nothing twice."""
    trials, disk, save_interval = arms("1*4", [1], modes=("none", "output")), Disk(), Scripted(due)
    go(trials, small, 4, disk, save_interval=save_interval)
    assert save_interval.asked == 4
    assert disk.loops == [[loop] * 2 for loop in saved]


@pytest.mark.parametrize("failing", [{1}, {2}, {1, 2}, {2, 3}, {3, 4}])
def test_a_save_that_fails_leaves_books_and_lkg_consistent(
    small: Splits, undisturbed: Undisturbed, failing: set[int]
) -> None:
    """The error comes out; what was stored before stays what it was, and both the stored states and those
    in memory go on to the undisturbed end.
    """
    trials, expected, tests = undisturbed
    disk = Disk(failing)
    in_memory = disk.states(trials, LOOPS)
    with pytest.raises(UserError, match="cannot write"):
        go(trials, small, LOOPS, disk, states=in_memory, save_interval=Scripted([1, 2, 3, 4]))
    for state in (*in_memory, *disk.states(trials, LOOPS)):
        assert_in_order(state, small)
    assert {state.loops for state in in_memory} == {min(failing)}
    disk.failing = set()
    assert go(trials, small, LOOPS, disk) == tests
    assert_same(disk.states(trials, LOOPS), expected)
    again = Disk()
    assert go(trials, small, LOOPS, again, states=in_memory) == tests
    assert_same(again.states(trials, LOOPS), expected)


def test_a_listener_that_fails_costs_no_finished_loop(small: Splits, undisturbed: Undisturbed) -> None:
    """Whatever goes wrong outside, the finished loops are saved on the way out."""
    trials, states, _ = undisturbed
    disk = Disk()

    def listen(reports: Sequence[LoopReport]) -> None:
        if reports[0].state.loops == 3:
            raise BrokenPipeError

    net = Dense(trials[0].model, 10)
    with pytest.raises(BrokenPipeError):
        engine.run_loops(
            net,
            small,
            disk.states(trials, LOOPS),
            LOOPS,
            policy_for(trials[0], net, small),
            device=torch.device("cpu"),
            save=disk,
            listen=listen,
            save_interval=Scripted([]),
        )
    assert disk.loops == [[3] * len(trials)]
    go(trials, small, LOOPS, disk)
    assert_same(disk.states(trials, LOOPS), states)


class Clock:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("write", [0.0, 0.001, 0.5, 30.0, 1000.0])
def test_the_pace_follows_the_cost_of_writing(monkeypatch: pytest.MonkeyPatch, write: float) -> None:
    """The first save is due at once; then Young's and Daly's interval, but writing never takes more than a
    fiftieth of the time.
    """
    clock = Clock()
    monkeypatch.setattr("psa.engine.save_interval.time.monotonic", clock)
    save_interval = SaveInterval(failure_every=3600.0, share=0.02)
    assert save_interval.should_save()

    def save() -> None:
        clock.now += write

    save_interval.timed_save(save)
    interval = max(math.sqrt(2 * write * 3600), 50 * write)
    assert save_interval.should_save() == (write == 0)
    clock.now += 0.999 * interval
    assert save_interval.should_save() == (write == 0)
    clock.now += 0.002 * interval
    assert save_interval.should_save()


def test_a_failed_write_teaches_the_pace_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next save is as due as before."""
    clock = Clock()
    monkeypatch.setattr("psa.engine.save_interval.time.monotonic", clock)
    save_interval = SaveInterval()

    def save() -> None:
        clock.now += 100
        raise UserError("cannot write")

    with pytest.raises(UserError):
        save_interval.timed_save(save)
    assert save_interval.should_save()


def test_a_state_remembers_every_kind_of_device_that_trained_it(small: Splits) -> None:
    """One begun on a GPU and ended here is not a result of the CPU, and its record says so."""
    net = Dense(trial("1*4").model, small.classes)
    states, _ = run([trial("1*4")], small, 1)
    assert states[0].devices == ["cpu"]
    begun_elsewhere = replace(states[0], devices=["cuda"])
    again, tests = run([trial("1*4")], small, 2, [decode_state(encode_state(begun_elsewhere), "memory")])
    assert again[0].devices == ["cuda", "cpu"]
    assert build_record(again[0], net, small, tests[0])["device"] == "cuda, cpu"
