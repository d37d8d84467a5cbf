"""Maps over the design space: baseline performance, effects of ablation, instability, regimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from psa.analysis.regimes import REGIMES, Regime
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.figures.design_space import LEFT, MARK, new_map
from psa.reports.ablation.figures.heatmaps import difference_norm
from psa.reports.ablation.figures.map_marks import (
    NOTHING,
    SAME,
    UNKNOWN,
    Legend,
    Scale,
    Spots,
    colour_bar,
    dash,
    finish_map,
    handle,
    marks,
    nothing,
    unknown,
)
from psa.reports.ablation.numbers import (
    EffectVerdict,
    Level,
    ModeEffect,
    Spread,
    baseline,
    effect,
    instability,
    regimes,
)
from psa.reports.ablation.published import few_seeds
from psa.reports.plotting.style import MODE_LOOKS, REGIME_LOOKS, REGIME_NAMES, plot_style

AMOUNT: Final = "viridis"  # one scale for amounts, another for differences
DIFFERENCE: Final = "RdBu"
_VERDICTS: Final[dict[EffectVerdict, tuple[str, str]]] = {
    "gain": ("^", "gain: the interval excludes 0"),
    "loss": ("v", "loss: the interval excludes 0"),
    "unclear": ("o", "the interval includes 0"),
}
_UNCORRECTED: Final = "not corrected for the number of comparisons"


def plot_baseline(ax: Axes, spots: Spots, levels: Mapping[str, Level], scale: Scale) -> Axes:
    """Draw the mean of mode none as colour, crossed out where no trial beat ZeroR."""
    shown, dead, missing = _by_level(levels)
    marks(ax, spots, shown, "o", scale.rgba([levels[arch].mean for arch in shown]))
    return unknown(nothing(ax, spots, dead), spots, missing)


def _by_level(levels: Mapping[str, Level]) -> tuple[list[str], list[str], list[str]]:
    shown = [arch for arch, level in levels.items() if level.above_zero_r and level.n]
    dead = [arch for arch, level in levels.items() if not level.above_zero_r and level.n]
    return shown, dead, [arch for arch, level in levels.items() if not level.n]


def baseline_map(cells: Cells, archs: Sequence[str]) -> Figure:
    """Return the map of the accuracy that each architecture reaches without ablation."""
    levels = {arch: baseline(cells, arch) for arch in archs}
    zero_r = cells.zero_r
    means = [level.mean for level in levels.values() if level.n and level.above_zero_r]
    low, high = min([zero_r, *means]), max([zero_r + 1, *means])
    scale = Scale(Normalize(low, high), AMOUNT, "mean validation bounty of mode none (%)")
    with plot_style():
        drawn = new_map(archs, "Baseline performance")
        drawn.draw(lambda ax: plot_baseline(ax, drawn.spots, levels, scale))
        colour_bar(drawn, scale)
        legend, (shown, dead, missing) = Legend(), _by_level(levels)
        legend.add(handle("o", "#21918C"), "mean of mode none", shown)
        legend.add(NOTHING, "no trial of any mode above ZeroR", dead)
        legend.add(UNKNOWN, "no trial of mode none", missing)
        legend.draw(drawn, 3.8)
        return finish_map(drawn, cells, f"ZeroR of the validation split: {zero_r:.2f} %.")


def plot_effects(ax: Axes, spots: Spots, effects: Mapping[str, ModeEffect], scale: Scale) -> Axes:
    """Draw the difference as colour, and its sign as a triangle where the interval excludes 0."""
    for verdict, (marker, _) in _VERDICTS.items():
        archs = _with_verdict(effects, verdict)
        size = MARK if verdict != "unclear" else 0.75 * MARK
        marks(ax, spots, archs, marker, scale.rgba([effects[arch].difference for arch in archs]), s=size**2)
    dash(ax, spots, _with_verdict(effects, "equal"))
    nothing(ax, spots, _with_verdict(effects, "below ZeroR"))
    return unknown(ax, spots, _with_verdict(effects, "unknown"))


def _with_verdict(effects: Mapping[str, ModeEffect], verdict: EffectVerdict) -> list[str]:
    return [arch for arch, each in effects.items() if each.verdict == verdict]


def effects_map(cells: Cells, archs: Sequence[str], mode: str = "full") -> Figure:
    """Return the map of the difference that an ablative mode makes against mode none."""
    effects = {arch: effect(cells, arch, mode) for arch in archs}
    scale = Scale(
        difference_norm(np.array([each.difference for each in effects.values()])), DIFFERENCE,
        f"mean difference {mode} − none (percentage points)",
    )  # fmt: skip
    with plot_style():
        drawn = new_map(archs, f"Ablation effects: {mode} against none")
        drawn.draw(lambda ax: plot_effects(ax, drawn.spots, effects, scale))
        colour_bar(drawn, scale)
        legend = Legend()
        for verdict, (marker, meaning) in _VERDICTS.items():
            size = MARK if verdict != "unclear" else 0.75 * MARK
            legend.add(handle(marker, "#C8C8C8", size=size), meaning, _with_verdict(effects, verdict))
        legend.add(SAME, "no trial differs", _with_verdict(effects, "equal"))
        legend.add(NOTHING, "no trial of any mode above ZeroR", _with_verdict(effects, "below ZeroR"))
        legend.add(UNKNOWN, "fewer than three trials each", _with_verdict(effects, "unknown"))
        legend.draw(drawn, 3.8)
        how = "Paired by seed; 95 % t interval" if cells.paired else "Not paired; 95 % interval by Welch"
        return finish_map(drawn, cells, f"{how} of the mean difference, {_UNCORRECTED}.")


def plot_instability(ax: Axes, spots: Spots, spreads: Mapping[str, Spread], scale: Scale) -> Axes:
    """Draw the largest standard deviation as colour, and its mode as the mark."""
    for mode, look in MODE_LOOKS.items():
        archs = _unstable_in(spreads, mode)
        marks(ax, spots, archs, look.marker, scale.rgba([spreads[arch].sd for arch in archs]))
    dash(ax, spots, _still(spreads))
    return unknown(ax, spots, [arch for arch, spread in spreads.items() if not spread.mode])


def _unstable_in(spreads: Mapping[str, Spread], mode: str) -> list[str]:
    return [arch for arch, spread in spreads.items() if spread.mode == mode and spread.sd > 0]


def _still(spreads: Mapping[str, Spread]) -> list[str]:
    return [arch for arch, spread in spreads.items() if spread.mode and spread.sd == 0]


def instability_map(cells: Cells, archs: Sequence[str]) -> Figure:
    """Return the map of the standard deviation over the seeds of each architecture's least stable mode."""
    spreads = {arch: instability(cells, arch) for arch in archs}
    sizes = [spread.sd for spread in spreads.values() if spread.sd > 0] or [1.0]
    low, high = min(sizes), max(*sizes, 1.05 * min(sizes))
    what = "largest standard deviation among the modes (percentage points)"
    scale = Scale(LogNorm(low, high), "cividis", what)
    with plot_style():
        drawn = new_map(archs, "Instability")
        drawn.draw(lambda ax: plot_instability(ax, drawn.spots, spreads, scale))
        colour_bar(drawn, scale)
        legend = Legend()
        for mode, look in MODE_LOOKS.items():
            legend.add(handle(look.marker, "#C8C8C8"), mode, _unstable_in(spreads, mode))
        legend.add(SAME, "all trials equal", _still(spreads))
        missing = [arch for arch, spread in spreads.items() if not spread.mode]
        legend.add(UNKNOWN, "fewer than three trials", missing)
        legend.draw(drawn, 3.8, columns=3, heading="least stable mode")
        return finish_map(
            drawn,
            cells,
            "Standard deviation over seeds with n − 1 (in the tables of the study: n). Of equal ones the "
            "first mode is named.",
        )


def plot_regimes(ax: Axes, spots: Spots, found: Mapping[str, Regime]) -> Axes:
    """Draw the regime as mark and colour."""
    for regime, look in REGIME_LOOKS.items():
        archs = [arch for arch, each in found.items() if each == regime]
        if regime == "unknown":
            unknown(ax, spots, archs)
        else:
            marks(ax, spots, archs, look.marker, look.colour, edgecolors="white", s=(1.1 * MARK) ** 2)
    return ax


def regimes_map(cells: Cells, archs: Sequence[str]) -> Figure:
    """Return the map of the regime of each architecture under ablation."""
    found = regimes(cells, archs)
    with plot_style():
        drawn = new_map(archs, "Regimes", foot=1.3)
        drawn.draw(lambda ax: plot_regimes(ax, drawn.spots, found))
        legend = Legend()
        for regime in REGIMES:
            look = REGIME_LOOKS[regime]
            mark = handle(look.marker, look.colour, "white", 1.2 * MARK)
            here = [arch for arch, each in found.items() if each == regime]
            legend.add(UNKNOWN if regime == "unknown" else mark, REGIME_NAMES[regime], here)
        legend.draw(drawn, LEFT, columns=2)
        how = (
            f"Computed by the study's rules with ZeroR {cells.zero_r:.2f} %; unknown: no rule applies, or a "
            f"mode is missing.{few_seeds(cells)}"
        )
        return finish_map(drawn, cells, how)
