"""psa.engine.deduplication: equal rows are trained once, and nothing but the time shows it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers import run, trial

from psa.data.splits import Splits
from psa.engine import loop as engine
from psa.engine.batches import RowSettings
from psa.engine.deduplication import find_equal_rows
from psa.engine.device_pack import EpochBuffers
from psa.execution.worker.record import build_record
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.base import canonical_json
from psa.specs.training import (
    MODES,
    Ablation,
    Mode,
    RatchetTraining,
    StandardTraining,
    effective_weight_decay,
)
from psa.specs.trial import Trial, training_key
from psa.storage.trial_state import encode_state


def of_mode(mode: Mode, weight_decay: float = 1e-4, seed: int = 0) -> Trial:
    """A trial of a mode, with weight decay in mode decay."""
    method = RatchetTraining(lr=1e-4, batch_size=64, weight_decay=weight_decay if mode == "decay" else 0.0)
    return trial("2*3", mode, seed).changed(method=method)


def trained(trials: Sequence[Trial], splits: Splits, loops: int = 4) -> tuple[list[bytes], list[str]]:
    """The bytes of the states and records of trials that were trained as one pack."""
    states, tested = run(trials, splits, loops)
    net = Dense(trials[0].model, splits.classes)
    records = [build_record(state, net, splits, found) for state, found in zip(states, tested, strict=True)]
    return [encode_state(state) for state in states], [canonical_json(record) for record in records]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of each epoch that is trained."""
    counted: list[int] = []
    train = engine.train_epoch

    def counting(net: Dense, settings: Sequence[RowSettings], *rest: Any) -> Any:
        counted.append(len(settings))
        return train(net, settings, *rest)

    monkeypatch.setattr(engine, "train_epoch", counting)
    return counted


def test_equal_rows_are_trained_once(small: Splits, rows: list[int]) -> None:
    """All modes in one pack: without dropout they share the first loop, decay and none share every loop."""
    trials = [of_mode(mode) for mode in MODES]
    together = trained(trials, small)
    assert rows[0] <= len(MODES) - 1
    assert rows[1:] == [len(MODES) - 1] * (len(rows) - 1)
    each = [trained([one], small) for one in trials]
    assert together[0] == [states[0] for states, _ in each]
    assert together[1] == [records[0] for _, records in each]


def test_a_decay_that_acts_is_trained(small: Splits, rows: list[int]) -> None:
    """A decay that changes weights makes other rows."""
    trials = [of_mode(mode, 0.5) for mode in ("none", "decay")]
    found, _ = trained(trials, small)
    assert rows == [2] * len(rows)
    assert found[0] != found[1]


@pytest.mark.parametrize(("lr", "decay"), list(itertools.product([1e-4, 1e-2, 1.0], [1e-3, 2.9e-8, 1e-8])))
def test_the_bound_of_a_decay_without_effect(lr: float, decay: float) -> None:
    """Just below the bound the factor of AdamW is 1 in float32; where it is not, the decay counts."""
    factor = torch.tensor(1 - lr * decay, dtype=torch.float64).to(torch.float32)
    method = RatchetTraining(lr=lr, weight_decay=decay)
    assert (effective_weight_decay(method) == 0) == (factor.item() == 1)


def test_coupled_decay_always_counts() -> None:
    """Adam and SGD add decay to the gradient, where the smallest may change a moment."""
    for optimizer in ("adam", "sgd"):
        method = StandardTraining(optimizer=optimizer, lr=1e-4, weight_decay=1e-6)
        assert effective_weight_decay(method) == 1e-6
    assert effective_weight_decay(StandardTraining(lr=1e-4, weight_decay=1e-6)) == 0


def test_negative_zeros_and_nan_are_seen() -> None:
    """Rows are compared by their bits."""
    values = torch.tensor([[0.0], [-0.0], [float("nan")], [float("nan")], [0.0]])
    active = StackedParams(values, torch.ones(5, 16))
    setting = RowSettings(seed=0, loop=1, dropout=0, lr=1e-3, weight_decay=0)
    epoch = EpochBuffers(active, active, None, [None] * 5)  # type: ignore[arg-type]
    assert find_equal_rows(epoch, [setting] * 5) == [0, 1, 2, 2, 0]
    other = [setting] * 4 + [RowSettings(seed=1, loop=1, dropout=0, lr=1e-3, weight_decay=0)]
    assert find_equal_rows(epoch, other) == [0, 1, 2, 2, 4]


def test_training_keys_tell_what_is_trained_apart() -> None:
    """Modes none and a decay without effect are one; seeds, rates, dropout and ablations are not."""
    keys = {mode: training_key(of_mode(mode)) for mode in MODES}
    assert keys["none"] == keys["decay"]
    assert len(set(keys.values())) == len(MODES) - 1
    assert training_key(of_mode("none", seed=1)) != keys["none"]


@pytest.mark.parametrize(
    "settings",
    [
        {"change": "noise", "amount": 0.1234567},
        {"change": "scale", "amount": 0.9999999},
        {"share": 0.1234567},
    ],
)
def test_settings_that_differ_in_any_digit_are_trained_apart(settings: dict[str, Any]) -> None:
    """Their labels in tables may be rounded to the same text."""
    one = Trial(intervention=Ablation.model_validate({"mode": "hidden", **settings}))
    name, value = next((name, value) for name, value in settings.items() if isinstance(value, float))
    other = Trial(intervention=Ablation.model_validate({"mode": "hidden", **settings, name: value + 1e-9}))
    assert one.digest != other.digest
    assert training_key(one) != training_key(other)


def test_copied_epochs_are_told_from_trained_ones(small: Splits) -> None:
    """A report says that its epoch was that of another trial, so that speeds count what was trained."""
    reports: list[list[bool]] = []
    trials = [of_mode(mode) for mode in ("none", "decay", "hidden")]
    run(trials, small, 3, listen=lambda some: reports.append([each.copied for each in some]))
    assert sum(reports[0]) == 2
    assert [sum(each) for each in reports[1:]] == [1, 1]
