"""The engine and its slow twin, walked side by side and compared bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from helpers import arms, run, trial

from psa.data.splits import Splits
from psa.specs.training import MODES
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState

LOOPS = 3  # the second is the first that is ablated, the third the first after a choice of what to keep
FAMILIES = ("simplemlp", "resmlp")
SHAPES = ("3*5", "2*4, 1*9, 2*3", "5*1", "1*16, 1*784, 1*2", "1*784")


def agrees(state: TrialState, test: tuple[int, float], twin: reference.Outcome) -> bool:
    """Whether history, LKG and test count are the same, to the bit."""
    history = state.history
    units = [
        None if layer is None else (layer, unit)
        for layer, unit in zip(history["layer"], history["unit"], strict=True)
    ]
    rows = list(zip(history["loop"], history["correct"], history["kept"], units, strict=True))
    same_bits = all(
        np.array_equal(mine, theirs.numpy())
        for mine, theirs in zip(state.lkg.values(), twin.lkg, strict=True)
    )
    return rows == twin.rows and same_bits and test[0] == twin.test and state.best_correct == twin.best


def assert_agrees(trials: list[Trial], splits: Splits, sample: slice = slice(None)) -> None:
    """Every sampled trial of the pack is what the twin makes of it alone."""
    states, tests = run(trials, splits, LOOPS)
    for at in range(len(trials))[sample]:
        twin = reference.train(trials[at], splits, LOOPS)
        assert agrees(states[at], tests[at], twin), trials[at].id


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("width", range(1, 65))
def test_every_width_of_all_modes_is_the_twin(family: str, width: int, small: Splits) -> None:
    """A pack of the six modes at widths 1 to 64 is, trial by trial and bit by bit, the twin's run."""
    # one of the six is walked at each width, so that either family walks each mode at every third
    first = (width + 3 * FAMILIES.index(family)) % 6
    assert_agrees(arms(f"1*{width}", [width], family), small, slice(first, None, 6))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", SHAPES)
def test_every_shape_of_all_modes_is_the_twin(family: str, arch: str, small: Splits) -> None:
    """Deep nets, changing widths, a block of the input's own width: all six modes agree with the twin."""
    assert_agrees(arms(arch, [3], family), small)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("arch", ["1*1", "1*3", "4*4", "2*18", "1*64"])
def test_a_trial_has_the_same_bits_alone_and_in_any_pack(family: str, arch: str, small: Splits) -> None:
    """Packs of 1, 2, 7 and 60 give the same trial the same bits at any position."""
    everyone = arms(arch, range(10), family)
    states, tests = run(everyone, small, LOOPS)
    whole = {each.trial.id: (each, test) for each, test in zip(states, tests, strict=True)}
    for pack in (everyone[31:32], everyone[8:10], everyone[20:27], [everyone[59], everyone[2]]):
        for state, test in zip(*run(pack, small, LOOPS), strict=True):
            expected, expected_test = whole[state.trial.id]
            assert state.history == expected.history
            assert all(np.array_equal(state.lkg[name], expected.lkg[name]) for name in state.lkg)
            assert test == expected_test
    twin = reference.train(everyone[31], small, LOOPS)
    assert agrees(*whole[everyone[31].id], twin)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 7, 100, 599, 60_000])
def test_odd_batches_are_the_twin(batch_size: int, small: Splits) -> None:
    """A batch of one, a tail of one and a batch larger than the data change nothing of this."""
    trials = [trial("1*3", mode, 5, batch_size=batch_size) for mode in MODES]
    assert_agrees(trials[:2], small)
    assert_agrees(trials[4:5], small)


def mutated_ablate_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ablate before loop 1 as well."""
    from psa.engine import policies

    true_select = policies.select_units

    def select(ablation, mode, shape, seed, loop, scores=()):
        return true_select(ablation, mode, shape, seed, max(loop, 2), scores)

    monkeypatch.setattr(policies, "select_units", select)


def mutated_draws_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """>= in place of >."""
    from psa.engine.policies import RatchetPolicy

    monkeypatch.setattr(
        RatchetPolicy, "is_better", lambda self, state, correct, loss: correct >= state.best_correct
    )


def mutated_decay_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weight decay in every mode."""
    from psa.engine import loop as engine

    true_row = engine.row_of

    def row(state: TrialState):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return replace(true_row(state), weight_decay=0.01)

    monkeypatch.setattr(engine, "row_of", row)


def mutated_momentum_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optimiser's moments survive from loop to loop."""
    from psa.engine.policies import RatchetPolicy

    true_begin = RatchetPolicy.begin_epoch
    kept: list[list[torch.Tensor]] = []

    def begin_epoch(self, pack, rows, settings):  # type: ignore[no-untyped-def]
        epoch = true_begin(self, pack, rows, settings)
        parameters = [each for group in epoch.optimizer.param_groups for each in group["params"]]
        if kept:
            for parameter, (step, mean, square) in zip(parameters, kept, strict=True):
                epoch.optimizer.state[parameter] = {"step": step, "exp_avg": mean, "exp_avg_sq": square}
        else:
            for parameter in parameters:
                moments = [torch.zeros(()), torch.zeros_like(parameter), torch.zeros_like(parameter)]
                kept.append(moments)
                epoch.optimizer.state[parameter] = dict(
                    zip(("step", "exp_avg", "exp_avg_sq"), moments, strict=True)
                )
        return epoch

    monkeypatch.setattr(RatchetPolicy, "begin_epoch", begin_epoch)


def mutated_dropout_in_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout active where it was not asked for."""
    from psa.engine import loop as engine

    true_row = engine.row_of

    def row(state: TrialState):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        return replace(true_row(state), dropout=0.1)

    monkeypatch.setattr(engine, "row_of", row)


def mutated_lkg_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The damage is done to the LKG itself, not to a copy."""
    from psa.engine.device_pack import DevicePack
    from psa.engine.policies import RatchetPolicy

    true_begin = RatchetPolicy.begin_epoch

    def begin_epoch(self, pack: DevicePack, rows, settings):  # type: ignore[no-untyped-def]
        epoch = true_begin(self, pack, rows, settings)
        pack.lkg.put(list(rows), epoch.active)
        return epoch

    monkeypatch.setattr(RatchetPolicy, "begin_epoch", begin_epoch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutate", "mode", "arch"),
    [
        (mutated_ablate_first, "hidden", "2*8"),
        (mutated_draws_kept, "none", "5*1"),  # answers one class for all: every loop is a draw
        (mutated_decay_everywhere, "none", "2*8"),
        (mutated_momentum_kept, "none", "2*8"),
        (mutated_dropout_in_none, "none", "2*8"),
        (mutated_lkg_damaged, "output", "2*8"),
    ],
)
def test_breaking_a_rule_of_the_ratchet_is_noticed(
    mutate, mode: str, arch: str, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rule broken on purpose makes engine and twin disagree: the comparison can fail."""
    example = trial(arch, mode, 1, lr=0.03)
    loops = 10
    twin = reference.train(example, small, loops)
    states, tests = run([example], small, loops)
    assert agrees(states[0], tests[0], twin)
    mutate(monkeypatch)
    states, tests = run([example], small, loops)
    assert not agrees(states[0], tests[0], twin)
