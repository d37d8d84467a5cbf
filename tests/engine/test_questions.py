"""Settings of the ablation study that are off by default: each against a slow twin, all of them in packs,
over resumes and beside equal trials.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import questions
import torch
from helpers import run, trial
from questions import EXAMPLES, question

from psa.data.splits import Splits
from psa.engine import loop as engine
from psa.engine.device_pack import fresh_state
from psa.execution.packing import groups_of
from psa.execution.worker.record import build_record
from psa.interventions.ablation import Unit
from psa.interventions.selection import units_text
from psa.nn.dense import Dense
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial, pack_key
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.store import encode_record
from psa.storage.trial_state import TrialState, decode_state, encode_state

LOOPS = 7


def states_of(trials: list[Trial], splits: Splits, loops: int = LOOPS) -> list[TrialState]:
    """The states of trials that were trained as the packs that psa would make of them, in their order."""
    found = {}
    for group in groups_of(trials):
        states, _ = run(group, splits, loops)
        found |= {state.trial.id: state for state in states}
    return [found[each.id] for each in trials]


def through_a_file(state: TrialState, horizon: int) -> TrialState:
    """A state as it comes back from its file, on its way to another horizon."""
    back = decode_state(encode_state(state), state.trial.id)
    back.horizon = horizon
    return back


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_setting_is_what_its_definition_says(name: str, small: Splits) -> None:
    """Loop by loop the same units, scores and verdicts as the twin, and in the end the same weights."""
    each = question(**EXAMPLES[name])
    twin = questions.train(each, small, LOOPS)
    (state,), _ = run([each], small, LOOPS)
    shape = shape_of(each.model)
    assert (state.loops, state.stopped) == (len(twin.rows), twin.stopped)
    for at, row in enumerate(twin.rows):
        told = {column: values[at] for column, values in state.history.items()}
        first = row["units"][0] if row["units"] else (None, None)
        assert (told["layer"], told["unit"]) == first
        assert (told["correct"], told["kept"], told["mode"]) == (row["correct"], row["kept"], row["mode"])
        if "accepted" in each.further_columns:
            assert told["accepted"] == row["accepted"]
        if "units" in each.further_columns:
            assert told["units"] == units_text([Unit(*unit, False) for unit in row["units"]], shape)
    for tensor, array in zip(twin.best, state.lkg.values(), strict=True):
        assert np.array_equal(tensor.numpy(), array)
    for tensor, array in zip(twin.lkg, state.carried.get("lkg", state.lkg).values(), strict=True):
        assert np.array_equal(tensor.numpy(), array)


def test_the_examples_show_what_they_stand_for(small: Splits) -> None:
    """Patience takes a worse LKG, rates leave loops out, a stop comes before the end: or the test above says
    little.
    """
    told = {
        name: questions.train(question(**EXAMPLES[name]), small, LOOPS)
        for name in ("patience", "impatience", "stop_after", "rate", "linear", "adaptive")
    }
    for name in ("patience", "impatience"):
        assert any(row["accepted"] and not row["kept"] for row in told[name].rows), name
    for name in ("rate", "linear", "adaptive"):
        assert 0 < sum(not row["units"] for row in told[name].rows[1:]) < LOOPS - 1, name
    assert told["stop_after"].stopped


def test_every_setting_has_an_example() -> None:
    """Of all fields but the learning rate's rule, which is resolved before there is a trial."""
    from psa.specs.training.settings import AblationSettings, RatchetSettings

    shown = {key for settings in EXAMPLES.values() for key in settings} | {"lr_rule"}
    assert {*AblationSettings.model_fields, *RatchetSettings.model_fields} <= shown


def everything() -> list[Trial]:
    """Every example in two seeds, and the published arms beside them."""
    asked = [question(seed, **settings) for seed in (1, 2) for settings in EXAMPLES.values()]
    return [*asked, *(question(1, mode=mode) for mode in ("none", "full", "hidden", "output"))]


def test_packs_and_equal_trials_change_nothing(small: Splits) -> None:
    """All examples as the packs that psa makes of them: each has the bytes that it has alone."""
    trials = everything()
    assert 1 < len({pack_key(each) for each in trials}) < 6
    for each, state in zip(trials, states_of(trials, small, 5), strict=True):
        assert encode_state(state) == encode_state(run([each], small, 5)[0][0]), each.arm


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_a_resume_changes_nothing(cut: int, small: Splits) -> None:
    """Stopped after some loops, read back from files and gone on with: the bytes of one run."""
    trials = everything()
    whole = states_of(trials, small, 6)
    part = {state.trial.id: through_a_file(state, 6) for state in states_of(trials, small, cut)}
    for group in groups_of(trials):
        again, _ = run(group, small, 6, states=[part[each.id] for each in group])
        for state in again:
            (once,) = (each for each in whole if each.trial.id == state.trial.id)
            assert encode_state(state) == encode_state(once), state.trial.arm


def test_trials_at_different_loops_share_a_pack(small: Splits) -> None:
    """New ones beside resumed ones, whose moments have other step counts: each as if it were alone."""
    trials = [question(seed, **EXAMPLES["together"]) for seed in (1, 2, 3)]
    ragged = [
        through_a_file(run([each], small, loops)[0][0], 6)
        if loops
        else fresh_state(each, Dense(each.model, 10), 6)
        for each, loops in zip(trials, (3, 0, 5), strict=True)
    ]
    states, _ = run(trials, small, 6, states=ragged)
    for each, state in zip(trials, states, strict=True):
        assert encode_state(state) == encode_state(run([each], small, 6)[0][0])


def test_equal_trials_with_moments_are_trained_once(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two arms that differ in nothing yet share an epoch, though begin_epoch is then called twice."""
    rows = []
    true_train = engine.train_epoch

    def counting(net: Dense, settings: Any, *rest: Any) -> Any:
        rows.append(len(settings))
        return true_train(net, settings, *rest)

    trials = [question(**EXAMPLES["persistent"]), question(mode="full", optimizer_state="persistent")]
    alone = [encode_state(run([each], small, 4)[0][0]) for each in trials]
    monkeypatch.setattr(engine, "train_epoch", counting)
    assert [encode_state(state) for state in run(trials, small, 4)[0]] == alone
    assert rows == [1, 2, 2, 2]


def test_moments_of_another_length_are_other_epochs(small: Splits) -> None:
    """Rows that differ only in the epochs behind their moments must not be taken for equal ones."""
    from psa.engine.batches import row_of

    each = question(**EXAMPLES["persistent"])
    (state,), _ = run([each], small, 3)
    before = row_of(state)
    state.history["kept"][1] = not state.history["kept"][1]
    assert row_of(state) != before


def test_the_test_is_of_the_best_state(small: Splits) -> None:
    """With patience the LKG may be worse; bounty, test and the stored weights stay those of the best loop."""
    each = question(**EXAMPLES["impatience"])
    (state,), (found,) = run([each], small, LOOPS)
    best = max(state.history["correct"])
    assert state.history["accepted"] == [True] * LOOPS
    assert state.best_correct == best > state.history["correct"][-1]
    assert state.lkg_loop == state.history["correct"].index(best) + 1
    record = build_record(state, Dense(each.model, 10), small, found)
    assert record["finals"]["bounty"] == {"correct": best, "loop": state.lkg_loop}
    _, (test, *_) = run([question(mode="none", patience=1)], small, state.lkg_loop)
    assert record["finals"]["test"]["correct"] == test.correct
    assert decode_trial_record(encode_record(record), "it")["history"] == state.history


def test_a_pack_of_published_arms_stores_what_it_always_did(small: Splits) -> None:
    """No further columns, no further tensors."""
    for state in states_of([trial("2*4", mode) for mode in ("none", "full", "hidden")], small, 3):
        assert not state.carried
        assert set(state.history) == {
            "loop", "mode", "layer", "unit", "correct", "loss", "train_loss", "kept",
        }  # fmt: skip


def test_a_diverged_loop_never_becomes_the_lkg(small: Splits) -> None:
    """Patience accepts worse copies, not those whose numbers are lost."""
    each = question(arch="60*16", family="simplemlp", mode="none", patience=1, lr=10.0)
    (state,), _ = run([each], small, 3)
    lost = [loss is None for loss in state.history["loss"]]
    assert any(lost)
    assert not any(took and gone for took, gone in zip(state.history["accepted"], lost, strict=True))
    assert all(np.isfinite(array).all() for array in state.carried["lkg"].values())


@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
@pytest.mark.parametrize("measure", ["weight", "activation", "gradient", "contribution"])
def test_scores_are_those_of_autograd(family: str, measure: str, small: Splits) -> None:
    """To the precision of float32, for every unit of every layer; and the same bits in any pack."""
    import reference

    from psa.interventions.unit_scores import unit_scores
    from psa.nn.stacked import StackedParams

    each = question(3, "1*9, 2*7", family, mode="hidden")
    net = Dense(each.model, 10)
    row = net.initial(3)
    mine = unit_scores(net, row, measure, small.train)
    theirs = questions.scores_of(reference.build(each), each, measure, small.train)
    for own, other in zip(mine, theirs, strict=True):
        assert np.allclose(own, other, rtol=2e-5, atol=1e-7)
        assert own.any()
    packed = StackedParams.stacked([net.initial(4), row, net.initial(5)])
    for own, other in zip(mine, unit_scores(net, packed[[1]], measure, small.train), strict=True):
        assert np.array_equal(own, other)
    blind = Splits(small.train, small.test, small.val, small.classes, small.digits)
    assert torch.equal(blind.train.images, small.train.images)
