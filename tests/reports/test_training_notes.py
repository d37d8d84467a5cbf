"""Sentences on early stops, falls and schedules of activations, on the committed records."""

from __future__ import annotations

import pandas as pd
import pytest
from paths import ROOT

from psa.analysis.records_frame import load_records_frame
from psa.reports.activations.arms import Arm, arms_of, rows_of
from psa.reports.activations.training_notes import early_stops_text, fall_text, last_epoch_text, schedule_text

PUBLISHED = ROOT / "results/published/activations.parquet"
KEYS = ("activation",)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Every epoch of the committed trials of activations."""
    found = load_records_frame(PUBLISHED, ["activations"])
    return found[found["dropout"] == 0]


@pytest.fixture(scope="module")
def arms(frame: pd.DataFrame) -> list[Arm]:
    """The arms of the committed trials."""
    return arms_of(rows_of(frame), KEYS)


def test_arms_tested_before_their_schedule_ended_are_named(arms: list[Arm]) -> None:
    """With the scale that was tested; no activation without a schedule is named."""
    (text,) = schedule_text(arms, KEYS)
    assert text.count("Decaying") == 3
    assert text.count("3 of 3 trials") == 3
    assert "instead of 1 from epoch 11 on" in text
    assert list(schedule_text([arm for arm in arms if "Decaying" not in arm.label(KEYS)], KEYS)) == []


def test_every_trial_that_fell_is_counted(arms: list[Arm], frame: pd.DataFrame) -> None:
    """By ten points of validation accuracy or more, from its best epoch to its last one."""
    curves = frame[frame["loop"].notna()].sort_values("loop").groupby("id", observed=True)["accuracy"]
    fell = int((curves.max() - curves.last() >= 10).sum())
    (text,) = fall_text(arms, KEYS, frame)
    assert text.startswith(f"In {fell} trials the validation accuracy fell by 10 points or more")
    assert fell >= 4
    assert "Decaying" in text


def test_trials_that_learned_nothing_are_said_to_have_been_stopped(arms: list[Arm]) -> None:
    """With the patience and the epochs of each arm; not the arms that learned."""
    (text,) = early_stops_text(arms, KEYS)
    assert text.startswith("Early stopping (patience 5) ended ")
    dead = [arm for arm in arms if arm.dead()]
    assert all(f"{arm.label(KEYS)} after" in text for arm in dead)
    assert list(early_stops_text([arm for arm in arms if not arm.dead()], KEYS)) == []


def test_arms_that_were_best_in_their_last_epoch_are_named(arms: list[Arm]) -> None:
    """The sum over arms is the number of the sentence."""
    (text,) = last_epoch_text(arms, KEYS)
    done = pd.concat([arm.rows for arm in arms])
    late = int((done["bounty_loop"] == done["loops"]).sum())
    assert text.startswith(f"{late} of {len(done)} trials were best in their last epoch")
    assert "SparseMax (1 of 3)" in text
