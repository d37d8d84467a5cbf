"""psa.engine.policies: `keep` is ordinary training, with or without patience (for `ratchet` see
test_reference).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import reference
import torch
from helpers import kept_trial, run
from torch import nn

from psa.core.rng import generator
from psa.data.splits import Split, Splits
from psa.engine.device_pack import fresh_state
from psa.engine.policies import KeepPolicy
from psa.execution.worker.record import build_record
from psa.nn.dense import Dense
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.store import encode_record
from psa.storage.trial_state import TrialState, decode_state, encode_state

EPOCHS = 4


@dataclass
class Hand:
    """What the hand-written loop found: per epoch, and the weights it ended with."""

    correct: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    weights: list[list[torch.Tensor]] = field(default_factory=list)


def by_hand(trial: Trial, splits: Splits, epochs: int) -> Hand:
    """Ordinary training as one would write it: one module, one optimiser, epoch after epoch."""
    method = trial.method
    assert isinstance(method, StandardTraining)
    net = reference.build(trial)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[method.optimizer]
    optimizer = kind(net.parameters(), lr=method.lr, weight_decay=method.weight_decay, fused=True)
    found = Hand()
    for epoch in range(1, epochs + 1):
        order = torch.from_numpy(generator(trial.seed, "shuffle", epoch).permutation(len(splits.train)))
        dropout, total = reference.Dropout(trial, epoch), 0.0
        for step, batch in enumerate(order.split(method.batch_size)):
            optimizer.zero_grad()
            logits = net(splits.train.images[batch].T, dropout, step)
            # 1 x classes x B, as the engine has it for one trial: the last bit depends on the order of sums
            loss = nn.functional.cross_entropy(logits[None], splits.train.labels[batch][None])
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        found.train_loss.append(total / len(order))
        logits = validated(net, trial, splits.val)
        found.correct.append(int((logits.argmax(dim=0) == splits.val.labels).sum()))
        found.loss.append(float(nn.functional.cross_entropy(logits.T, splits.val.labels)))
        found.weights.append(
            [tensor.detach().clone() for linear in net.linears() for tensor in (linear.weight, linear.bias)]
        )
    return found


@torch.no_grad()
def validated(net: nn.Module, trial: Trial, split: Split) -> torch.Tensor:
    """Logits [classes, N] without dropout."""
    silent = trial.model_copy(update={"model": trial.model.model_copy(update={"dropout": 0.0})})
    logits: torch.Tensor = net(split.images.T, reference.Dropout(silent, 0), 0)
    return logits


def with_model(trial: Trial, **model: object) -> Trial:
    """The same trial of another network."""
    return Trial.model_validate(trial.model_dump() | {"model": trial.model.model_dump() | model})


def assert_weights(state: TrialState, weights: Sequence[torch.Tensor], kind: str | None = None) -> None:
    """The LKG (or what is carried under that name) has these bits."""
    mine = state.lkg if kind is None else state.carried[kind]
    for (name, array), tensor in zip(mine.items(), weights, strict=True):
        assert np.array_equal(array, tensor.numpy()), name


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("decay", [0.0, 0.3])
@pytest.mark.parametrize(
    ("family", "arch", "dropout"),
    [
        ("simplemlp", "2*7", 0.0),
        ("resmlp", "1*6, 2*3", 0.0),
        ("simplemlp", "1*1", 0.0),
        ("resmlp", "2*5", 0.3),
    ],
)
def test_keep_is_the_loop_one_would_write(
    small: Splits, optimizer: str, decay: float, family: str, arch: str, dropout: float
) -> None:
    """One optimiser carried over four epochs: the weights have the same bits after every epoch, validation
    the same counts, losses agree to a millionth.
    """
    trial = kept_trial(arch, 3, optimizer=optimizer, weight_decay=decay)
    trial = with_model(trial, family=family, dropout=dropout)
    hand = by_hand(trial, small, EPOCHS)
    for epochs in range(1, EPOCHS + 1):
        (state,), _ = run([trial], small, epochs)
        assert_weights(state, hand.weights[epochs - 1])
        assert state.history["correct"] == hand.correct[:epochs]
        assert state.history["loss"] == pytest.approx(hand.loss[:epochs], rel=1e-6)
        assert state.history["train_loss"] == pytest.approx(hand.train_loss[:epochs], rel=1e-6)


def test_adams_decay_is_not_adamws(small: Splits) -> None:
    """Adam adds decay to the gradient, AdamW takes it off the weights; without decay they are one."""
    for decay, same in ((0.0, True), (0.1, False)):
        trials = [kept_trial("1*5", 1, optimizer=kind, weight_decay=decay) for kind in ("adam", "adamw")]
        (adam,), _ = run(trials[:1], small, 2)
        (adamw,), _ = run(trials[1:], small, 2)
        assert (adam.history["train_loss"] == adamw.history["train_loss"]) == same


def test_without_patience_the_last_state_is_kept(small: Splits) -> None:
    """Better or not: ordinary training has no ratchet."""
    (state,), _ = run([kept_trial("1*8", 1, lr=0.05)], small, 6)
    assert state.history["kept"] == [True] * 6
    assert state.history["correct"] != sorted(state.history["correct"]), "it never got worse: no example"
    assert (state.lkg_loop, state.best_correct) == (6, state.history["correct"][-1])
    assert_weights(state, [torch.from_numpy(array) for array in state.carried["active"].values()])


def through_files(states: Sequence[TrialState], horizon: int) -> list[TrialState]:
    """The states as they come back from disk, on their way to another horizon."""
    back = [decode_state(encode_state(state), state.trial.id) for state in states]
    for state in back:
        state.horizon = horizon
    return back


@pytest.mark.slow
@pytest.mark.parametrize("patience", [None, 50])
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_in_two_runs_are_epochs_in_one(
    small: Splits, epochs: int, optimizer: str, patience: int | None
) -> None:
    """N epochs, through the file, and M more: the bits of N + M, moments of the optimiser included."""
    trials = [kept_trial("2*5", seed, optimizer=optimizer, patience=patience) for seed in (1, 2)]
    whole, tests = run(trials, small, 4)
    part, _ = run(trials, small, epochs)
    back = through_files(part, 4)
    assert set(back[0].carried) == {"active", "exp_avg", "exp_avg_sq"}
    again, again_tests = run(trials, small, 4, states=back)
    assert again_tests == tests
    for one, other in zip(whole, again, strict=True):
        assert encode_state(one) == encode_state(other)


# Patience

OVERFITS = {"lr": 0.02, "patience": 3}  # on 600 samples


def rule(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The epoch in which patience ends and the epoch whose state is kept, by the definition."""
    best, kept = math.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best:
            best, kept = loss, epoch
        if epoch - kept >= patience:
            return epoch, kept
    raise AssertionError("patience did not end: no example")


@pytest.mark.parametrize("patience", [1, 3, 5])
def test_patience_keeps_the_state_of_least_validation_loss(small: Splits, patience: int) -> None:
    """It stops that many epochs after the least loss; the LKG is that epoch's; and the books say so."""
    trial = kept_trial("1*16", 2, **OVERFITS | {"patience": patience})
    hand = by_hand(trial, small, 20)
    end, kept = rule(hand.loss, patience)
    assert 1 < kept < end < 20
    (state,), _ = run([trial], small, 20)
    assert (state.loops, state.lkg_loop, state.stopped) == (end, kept, True)
    assert state.best_loss == min(state.history["loss"]) == state.history["loss"][kept - 1]
    assert state.best_correct == state.history["correct"][kept - 1]
    assert [loop for loop, is_kept in enumerate(state.history["kept"], 1) if is_kept][-1] == kept
    assert_weights(state, hand.weights[kept - 1])
    assert_weights(state, hand.weights[end - 1], "active")


def test_an_early_stop_is_recorded_and_final(small: Splits) -> None:
    """A stopped trial stays stopped whatever horizon it is resumed with, and its record says it was."""
    trial = kept_trial("1*16", 2, **OVERFITS)
    (state,), tests = run([trial], small, 20)
    assert state.stopped
    saved = encode_state(state)
    (back,) = through_files([state], 20)
    assert back.stopped
    (again,), again_tests = run([trial], small, 1000, states=[back])
    assert encode_state(again) == saved
    assert again_tests == tests
    net = Dense(trial.model, 10)
    record = build_record(again, net, small, tests[0])
    assert record["finals"]["stopped_early"] is True
    assert record["loops"] == state.loops
    assert record["finals"]["bounty"]["loop"] == state.lkg_loop
    assert encode_record(record) == encode_record(build_record(state, net, small, tests[0]))


def test_who_stops_early_does_not_disturb_the_others(small: Splits) -> None:
    """Trials of three seeds that run out of patience in different epochs: each as if it were alone."""
    trials = [kept_trial("1*16", seed, **OVERFITS) for seed in (1, 2, 3)]
    states, tests = run(trials, small, 20)
    assert len({state.loops for state in states}) > 1
    for trial, state, test in zip(trials, states, tests, strict=True):
        (alone,), alone_tests = run([trial], small, 20)
        assert encode_state(state) == encode_state(alone)
        assert test == alone_tests[0]


def test_a_loss_that_is_no_number_is_never_better() -> None:
    """With patience, a diverged epoch counts as one without improvement."""
    policy = KeepPolicy(StandardTraining(patience=1), steps_per_epoch=10)
    trial = kept_trial("1*4", patience=1)
    state = fresh_state(trial, Dense(trial.model, 10), 5)
    assert not policy.is_better(state, 10, math.nan)
    state.loops = 1
    assert policy.should_stop(state)


# Packs


def test_a_pack_of_seeds_and_rates_is_each_trial_alone(small: Splits) -> None:
    """Different seeds, rates, decays and dropout in one pack: the bits each has alone."""
    trials = [kept_trial("2*5", seed, lr=lr) for seed, lr in ((1, 1e-3), (2, 1e-3), (3, 0.05))]
    trials.append(kept_trial("2*5", 1, weight_decay=0.2))
    trials.append(with_model(kept_trial("2*5", 4), dropout=0.4))
    states, tests = run(trials, small, 3)
    for trial, state, test in zip(trials, states, tests, strict=True):
        (alone,), alone_tests = run([trial], small, 3)
        assert encode_state(state) == encode_state(alone)
        assert test == alone_tests[0]


def test_trials_at_different_epochs_go_on_in_one_pack(small: Splits) -> None:
    """New ones beside old ones: each becomes what it becomes alone, moments included."""
    trials = [kept_trial("1*5", seed) for seed in (1, 2, 3)]
    ragged = [
        through_files(run([trial], small, epochs)[0], 4)[0]
        if epochs
        else fresh_state(trial, Dense(trial.model, 10), 4)
        for trial, epochs in zip(trials, (2, 0, 3), strict=True)
    ]
    states, _ = run(trials, small, 4, states=ragged)
    for trial, state in zip(trials, states, strict=True):
        assert encode_state(state) == encode_state(run([trial], small, 4)[0][0])


def test_a_new_trial_beside_a_diverged_one(small: Splits) -> None:
    """Weights that are infinite or no numbers reach no other trial of the pack."""
    trials = [kept_trial("60*16", 1, lr=10), kept_trial("60*16", 2)]
    (diverged,), _ = run(trials[:1], small, 1)
    assert np.isnan(diverged.carried["active"]["output.weight"]).any()
    diverged.carried["active"]["output.bias"][:] = np.inf
    states = [*through_files([diverged], 2), fresh_state(trials[1], Dense(trials[1].model, 10), 2)]
    (_, beside), _ = run(trials, small, 2, states=states)
    (alone,), _ = run(trials[1:], small, 2)
    assert encode_state(beside) == encode_state(alone)
