"""The map of winners: the mode with the highest mean or maximum, alone or with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from psa.analysis.stats import ALPHA, TIE
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.figures.design_space import LEFT, MARK, new_map
from psa.reports.ablation.figures.map_marks import (
    NOTHING,
    UNKNOWN,
    Legend,
    Spots,
    finish_map,
    handle,
    marks,
    nothing,
    unknown,
)
from psa.reports.ablation.numbers import ModeStrategy, WinnerBy, strategy
from psa.reports.plotting.style import GREY, MODE_LOOKS, plot_style
from psa.specs.training import MODES


def plot_strategy(ax: Axes, spots: Spots, found: Mapping[str, ModeStrategy]) -> Axes:
    """Draw a sole winner as its mark, hollow if it may be chance, and a tie as its number of modes."""
    for mode, look in MODE_LOOKS.items():
        sole = _won_by(found, mode)
        clear = [arch for arch in sole if found[arch].clear]
        chance = [arch for arch in sole if not found[arch].clear]
        marks(ax, spots, clear, look.marker, look.colour)
        marks(ax, spots, chance, look.marker, "white", edgecolors=look.colour, linewidths=0.9)
    tied = _tied(found)
    marks(ax, spots, tied, "o", "white", s=(1.35 * MARK) ** 2, edgecolors=GREY, linewidths=0.7)
    for count in sorted({len(found[arch].best) for arch in tied}):
        archs = [arch for arch in tied if len(found[arch].best) == count]
        marks(ax, spots, archs, f"${count}$", "black", s=(0.75 * MARK) ** 2, linewidths=0)
    nothing(ax, spots, _dead(found))
    return unknown(ax, spots, _open(found))


def _won_by(found: Mapping[str, ModeStrategy], mode: str) -> list[str]:
    return [arch for arch, each in found.items() if each.best == (mode,)]


def _tied(found: Mapping[str, ModeStrategy]) -> list[str]:
    return [arch for arch, each in found.items() if len(each.best) > 1]


def _dead(found: Mapping[str, ModeStrategy]) -> list[str]:
    return [arch for arch, each in found.items() if each.open == "below ZeroR"]


def _open(found: Mapping[str, ModeStrategy]) -> list[str]:
    return [arch for arch, each in found.items() if each.open in ("no trial", "few trials")]


def strategy_map(cells: Cells, archs: Sequence[str], tolerance: float = TIE, by: WinnerBy = "mean") -> Figure:
    """Return the map of the mode with the highest mean bounty, or with the highest maximum."""
    found = {arch: strategy(cells, arch, tolerance, by) for arch in archs}
    with plot_style():
        drawn = new_map(archs, "Winning strategy")
        drawn.draw(lambda ax: plot_strategy(ax, drawn.spots, found))
        legend = Legend()
        for mode, look in MODE_LOOKS.items():
            legend.add(handle(look.marker, look.colour), mode, _won_by(found, mode))
        chance = [arch for mode in MODES for arch in _won_by(found, mode) if not found[arch].clear]
        legend.add(handle("o", "white"), "hollow: may be chance", chance)
        ring = handle("o", "white", GREY, 1.35 * MARK)
        digit = handle("$2$", "black", "black", 0.75 * MARK)
        legend.add((ring, digit), "tie of so many modes", _tied(found))
        legend.add(NOTHING, f"no mode's {by} above ZeroR", _dead(found))
        legend.add(UNKNOWN, "fewer than three trials of every mode", _open(found))
        heading = "highest mean bounty" if by == "mean" else "highest bounty"
        legend.draw(drawn, LEFT, columns=4, heading=heading)
        return finish_map(drawn, cells, _how(cells, tolerance, by))


def _how(cells: Cells, tolerance: float, by: WinnerBy) -> str:
    if by == "maximum":
        return (
            f"Maxima over trials within {tolerance:g} points tie. All winners are hollow: no test compares "
            "maxima, and the mode with more trials, or with a lucky one, tends to have the higher."
        )
    test = "paired sign-flip test" if cells.paired else "Welch's test"
    return (
        f"Unrounded means within {tolerance:g} points tie; the table of accuracies names the modes. "
        "Hollow: some other mode does not differ significantly from it "
        f"({test}, p < {ALPHA:g} after Bonferroni's correction over all pairs of modes)."
    )
