"""The published regimes, every one of them, and every rule at its edge."""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from paths import ROOT

from psa.analysis.regimes import (
    ABLATIVE,
    BASELINES,
    PUBLISHED_ZERO_R,
    REGIMES,
    Regime,
    RegimeCell,
    regime_of,
)
from psa.specs.training import MODES

PUBLISHED = ROOT / "reproduction/published/simplemlp.tsv"
ZERO_R = 11.02


def cells(*means: float, sd: float = 0.1, above: float = 0.0) -> dict[str, RegimeCell]:
    """Six cells with these means, in the order of MODES; the greatest trial lies `above` the mean."""
    return {
        mode: RegimeCell(mean, sd, mean - above, mean + above)
        for mode, mean in zip(MODES, means, strict=True)
    }


def test_the_published_regimes_come_out() -> None:
    """11 / 24 / 17 / 46 / 0, and each architecture in the one it was published in."""
    found: dict[str, dict[str, RegimeCell]] = {}
    published: dict[str, str] = {}
    with PUBLISHED.open() as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            numbers = [float(row[key]) for key in ("mean", "std_pop", "min", "max")]
            found.setdefault(row["arch"], {})[row["mode"]] = RegimeCell(*numbers)
            published[row["arch"]] = row["regime"]
    regimes = {arch: regime_of(each) for arch, each in found.items()}
    assert regimes == published
    assert [Counter(regimes.values())[regime] for regime in REGIMES] == [11, 24, 17, 46, 0]


EDGES: dict[str, tuple[dict[str, RegimeCell], Regime]] = {
    "nothing beats ZeroR": (cells(*[ZERO_R] * 6), "untrainable"),
    "one trial of a baseline beats it, no mean does": (
        cells(*[ZERO_R] * 6) | {"none": RegimeCell(ZERO_R, 1, 10, 17.25)},
        "untrainable",
    ),
    "one trial of an ablative mode beats it": (
        cells(*[ZERO_R] * 6) | {"output": RegimeCell(ZERO_R, 1, 10, ZERO_R + 0.01)},
        "beneficial-regularization",
    ),
    "a mean a hair above it is trainable": (
        cells(ZERO_R + 0.01, *[ZERO_R] * 5),
        "beneficial-regularization",
    ),
    "all six alike": (cells(*[90.0] * 6), "beneficial-regularization"),
    "within half a point": (cells(90, 90, 90, 89.5, 90.5, 90), "beneficial-regularization"),
    "one ablative mode just too far below, another still above": (
        cells(90, 90, 90, 89.49, 90.01, 90),
        "beneficial-regularization",
    ),
    "one ablative mode far above is no regularisation": (
        cells(90, 90, 90, 92, 92, 92),
        "chaotic-optimization",
    ),
    "an outlier above with the others below": (cells(90, 90, 90, 90.51, 89, 90), "unknown"),
    "ablation costs more than the tolerance": (cells(90, 90, 90, 89, 89, 89), "optimally-sized"),
    "ablation costs exactly the tolerance": (
        cells(90, 90, 90, 89.5, 89.5, 89.5),
        "beneficial-regularization",
    ),
    "baselines that disagree are no measure": (cells(92, 90, 88, 89, 89, 89), "optimally-sized"),
    "two worse, none better by a hundredth": (cells(90, 90, 90, 89.4, 90, 90), "optimally-sized"),
    "the best trial is a baseline's": (
        cells(90, 90, 90, 89.4, 90.0, 90.0, above=0) | {"none": RegimeCell(90, 0.5, 89, 91)},
        "optimally-sized",
    ),
    "only ablation gets it above ZeroR": (
        cells(10, 10, 10, 10, 10, 10) | {"output": RegimeCell(19, 18, 10, 71)},
        "chaotic-optimization",
    ),
    "ablation better by more than half a point": (
        cells(50, 50, 50, 50.9, 50.9, 50.9, above=5),
        "chaotic-optimization",
    ),
    "ablation better by half a point and an outlier": (
        cells(50, 50, 50, 50.2, 50.2, 50.6, above=5),
        "unknown",
    ),
    "a baseline that chance decides, with the best trial": (
        cells(50, 50, 50, 49.7, 49.7, 50.6, above=5) | {"decay": RegimeCell(50, 15.01, 30, 56)},
        "optimally-sized",
    ),
    "a baseline that chance decides, with ablation's best above": (
        cells(50, 50, 50, 50.2, 50.2, 50.6, above=9) | {"decay": RegimeCell(50, 15.01, 30, 56)},
        "chaotic-optimization",
    ),
    "a spread of exactly fifteen points": (
        cells(50, 50, 50, 50.2, 50.2, 50.6, above=9) | {"decay": RegimeCell(50, 15.0, 30, 56)},
        "unknown",
    ),
}


@pytest.mark.parametrize("case", EDGES)
def test_every_rule_at_its_edge(case: str) -> None:
    """Hand-made cells on either side of each threshold."""
    made, expected = EDGES[case]
    assert regime_of(made, ZERO_R) == expected


@pytest.mark.parametrize("mode", MODES)
def test_a_missing_mode_is_unknown(mode: str) -> None:
    """No regime is guessed from five modes."""
    made = cells(*[90.0] * 6)
    del made[mode]
    assert regime_of(made) == "unknown"


def test_a_cell_is_population_statistics() -> None:
    """sd divides by n, as the published table does."""
    assert RegimeCell.of([1.0, 3.0]) == RegimeCell(2.0, 1.0, 1.0, 3.0)
    assert set(BASELINES) | set(ABLATIVE) == set(MODES)


def published_regime(bounties: dict[str, NDArray[np.float64]]) -> str:
    """The published rules, in their order, on the trials of six modes."""
    base = np.array([bounties[mode] for mode in ("none", "decay", "dropout")])
    cut = np.array([bounties[mode] for mode in ("full", "hidden", "output")])
    b, a = base.mean(axis=1), cut.mean(axis=1)
    tolerance = max(b.std(), 0.5)
    steady = (abs(b - b.mean()) <= tolerance).all()
    together = steady and (abs(a - a.mean()) <= max(a.std(), 0.5)).all()
    nobody = max(base.max(), cut.max()) <= PUBLISHED_ZERO_R
    if nobody or (max(b.max(), a.max()) <= PUBLISHED_ZERO_R and cut.max() <= PUBLISHED_ZERO_R):
        return "untrainable"
    no_outlier = steady and (a <= b.mean() + tolerance).all()
    if no_outlier and ((abs(a - b.mean()) <= tolerance).all() or a.max() - b.min() >= 0.01):
        return "beneficial-regularization"
    lower = a.mean() < b.mean() - tolerance or (base.max() > cut.max() and a.mean() <= b.mean())
    if lower or (together and a.max() <= b.min() and b.mean() - a.mean() > 0.1):
        return "optimally-sized"
    rescued = base.max() <= PUBLISHED_ZERO_R < cut.max()
    if rescued or a.mean() > b.mean() + 0.5 or (base.std(axis=1) > 15).any():
        return "chaotic-optimization"
    return "unknown"


def test_the_rules_written_again_in_numpy() -> None:
    """On 2,000 made-up architectures around the limits of the rules."""
    draws = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    for _ in range(2_000):
        middle, spread = draws.choice([11.0, 40.0, 95.0]), draws.choice([0.05, 0.6, 5.0])
        bounties = {
            mode: np.clip(middle + draws.normal(0, spread) + draws.normal(0, spread, 10), 9.0, 100.0)
            for mode in MODES
        }
        regime = regime_of({mode: RegimeCell.of(list(values)) for mode, values in bounties.items()})
        assert regime == published_regime(bounties)
        counts[regime] += 1
    assert len(counts) >= 4
    assert min(counts.values()) > 10
