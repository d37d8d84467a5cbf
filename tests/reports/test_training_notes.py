"""Sentences on the training of arms, their curves and their sizes: each states what limits an accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from psa.reports.activations.arms import Arm
from psa.reports.activations.curves import curve_figures
from psa.reports.activations.tables import results_table
from psa.reports.activations.training_notes import (
    early_stops_text,
    fall_text,
    last_epoch_text,
    schedule_text,
)

KEYS = ("activation",)


def arm(activation: str, *curves: Sequence[float], arch: str = "1*4", patience: int = 2) -> Arm:
    """An arm whose trials, one per seed, have these validation accuracies; the best epoch is tested."""
    best = [max(curve) for curve in curves]
    rows = {
        "id": [f"{activation} {arch} {seed}" for seed in range(len(curves))],
        "seed": range(len(curves)),
        "status": "done",
        "bounty": best,
        "test": best,
        "zero_r": 11.0,
        "bounty_loop": [list(curve).index(max(curve)) + 1 for curve in curves],
        "loops": [len(curve) for curve in curves],
        "stopped_early": pd.array([len(curve) < 30 for curve in curves], dtype="boolean"),
        "patience": patience,
        "parameters": 100 * len(arch),
    }
    settings = {"activation": activation, "arch": arch}
    return Arm(settings, pd.DataFrame(rows), tuple(range(len(curves))))


def frame(arms: Sequence[Arm], *curves: Sequence[float]) -> pd.DataFrame:
    """The rows of every epoch of these arms."""
    ids = [name for each in arms for name in each.ids]
    return pd.DataFrame(
        [
            {"id": name, "loop": loop, "status": "done", "accuracy": value, "train": value + 1}
            for name, curve in zip(ids, curves, strict=True)
            for loop, value in enumerate(curve, 1)
        ]
    )


@pytest.mark.parametrize(
    ("best", "told"),
    [
        ((8, 9), "2 of 2 trials, in epochs 8 to 9 with scale 20.8 to 30.7, instead of 1 from epoch 11 on"),
        ((10, 11), "1 of 2 trials, in epoch 10 with scale 10.9, instead of 1 from epoch 11 on"),
        ((11, 30), ""),
    ],
)
def test_arms_tested_before_their_schedule_ended_are_named(best: tuple[int, ...], told: str) -> None:
    """A decay over ten epochs was tested after two to nine, and read as if its scale were final."""
    curves = [[50.0] * (at - 1) + [90.0] + [80.0] * 3 for at in best]
    made = [arm("DecayingRescaledReLU", *curves), arm("ReLU", [90.0, 80.0], [90.0, 80.0])]
    said = list(schedule_text(made, KEYS))
    assert bool(said) == bool(told)
    assert not said or f"ended: DecayingRescaledReLU ({told})." in said[0]


@pytest.mark.parametrize(("last", "fallen"), [(87.5, True), (88.1, False)])
def test_trials_that_fell_far_below_their_best_epoch_are_named(last: float, fallen: bool) -> None:
    """The threshold is that of the sentence."""
    curves = [[50.0, 97.5, last], [50.0, 97.5, 97.0]]
    made = [arm("ReLU", *curves)]
    said = list(fall_text(made, KEYS, frame(made, *curves)))
    assert bool(said) == fallen
    assert not said or "fell by 10 points or more" in said[0]
    assert not said or "ReLU (1 of 2 trials, to 87.50 %)" in said[0]


def test_early_stops_of_trials_that_learned_nothing_are_told() -> None:
    """The sentence counts them and says that they may have learned in more epochs."""
    curves = [[11.0] * 7, [11.0] * 12, [11.0] * 17 + [70.0] * 13]
    (said,) = early_stops_text([arm("Identity", *curves, patience=5), arm("ReLU", [90.0, 89.0])], KEYS)
    assert said.startswith("Early stopping (patience 5) ended 2 of the 2 trials that learned nothing: ")
    assert "Identity after 7 to 12 epochs" in said
    assert "ReLU" not in said
    assert not list(early_stops_text([arm("Identity", [11.0] * 30)], KEYS))


def test_arms_that_were_best_in_their_last_epoch_are_named() -> None:
    """A count alone does not tell whose mean may still rise."""
    made = [arm("SparseMax", [50.0, 60.0], [60.0, 50.0]), arm("ReLU", [90.0, 89.0])]
    (said,) = last_epoch_text(made, KEYS)
    assert said.startswith("1 of 3 trials were best in their last epoch")
    assert said.endswith(": SparseMax (1 of 2).")
    assert not list(last_epoch_text(made[1:], KEYS))


@pytest.mark.parametrize("archs", [("1*4", "2*16"), ("1*4", "1*4")])
def test_architectures_that_differ_have_their_sizes(archs: tuple[str, str]) -> None:
    """Width and depth are compared beside the number of parameters."""
    arms = [arm(name, [90.0], arch=arch) for name, arch in zip(("ReLU", "Tanh"), archs, strict=True)]
    table = results_table(arms, ("activation", "arch"))
    names = [column.name for column in table.columns]
    assert ("Parameters" in names) == (len(set(archs)) > 1)
    if "Parameters" in names:
        assert [row[names.index("Parameters")] for row in table.rows] == [300, 400]


def test_lines_of_a_panel_differ_in_more_than_their_colour() -> None:
    """Two blues were two temperatures, and dashes the training accuracy."""
    arms = [
        Arm(each.settings | {"temperature": at}, each.rows.assign(id=f"t{at}"), each.seeds)
        for at in (0.1, 1.0)
        for each in [arm("ReLU", [80.0, 85.0, 90.0])]
    ]
    arms.append(Arm({"activation": "Tanh", "arch": "1*4", "temperature": 1.0}, arms[0].rows, (0,)))
    loops = frame(arms[:2], [80.0, 85.0, 90.0], [81.0, 86.0, 91.0])
    shown = {"accuracy": "validation", "train": "training"}
    (_, figure), *_ = curve_figures(arms, ("activation", "temperature"), loops, shown, "accuracy (%)")
    lines = [line for line in figure.axes[0].lines if str(line.get_gid()).startswith(("accuracy", "train"))]
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(lines) == len(looks) == 4
    assert len({handle.get_marker() for handle in figure.legends[0].get_lines()}) == 3
