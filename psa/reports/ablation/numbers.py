"""The numbers behind the maps, and the notes below every figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from psa.analysis.regimes import Regime, regime_of
from psa.analysis.stats import ALPHA, LEAST_N, TIE, present, summary, welch, winners
from psa.core.formatting import format_range, join_names, pluralize
from psa.reports.ablation.cells import ABSENT, Cells
from psa.reports.wording import interval_text, judged_text, missing_trials
from psa.specs.training import MODES

_ROUNDING: Final = 1e-9
_NAMED: Final = 6  # most architectures that a note lists
_LISTED: Final = 8  # most cells that a note lists
_NAN: Final = float("nan")


def unequal_arms_note(arms: Iterable[pd.MultiIndex]) -> str:
    """Return a note where arms have different architectures or seeds; empty where all of them have the same.

    arms: of each, the architecture and seed of its trials.
    """
    trials = [{(str(arch), int(seed)) for arch, seed in arm} for arm in arms]
    if len({frozenset(arch for arch, _ in each) for each in trials}) > 1:
        return "Rows are means over different architectures, so they do not rank the arms."
    if len(set(map(frozenset, trials))) > 1:
        seeds = format_range([n for each in trials for n in Counter(arch for arch, _ in each).values()])
        return f"Rows are means over different seeds ({seeds} of them), so they do not rank the arms."
    return ""


def notes_of(cells: Cells) -> list[str]:
    """Return n and the horizon, and in a second line the missing trials."""
    done = {place: each.statuses["done"] for place, each in cells.trials.items() if each.statuses.get("done")}
    archs, modes = ({place[at] for place in done} for at in (0, 1))
    counted = [place for place in cells.trials if place[0] in archs and place[1] in modes]
    per_cell = format_range([done.get(place, 0) for place in counted] or [0])
    asked = sum(sum(each.statuses.values()) for each in cells.trials.values())
    first = (
        f"{cells.family}, study {cells.study}: n = {sum(done.values()):,} of {pluralize(asked, 'trial')}; "
        f"{per_cell} per architecture and mode ({pluralize(len(archs), 'architecture')}, "
        f"{pluralize(len(modes), 'mode')})"
    )
    if cells.loops:
        lengths = sorted({cells.loops[0], cells.loops[-1]})
        first += f"; {' to '.join(map(str, lengths))} meta-loops"
    return [line for line in (f"{first}.", _missing(cells, archs, modes)) if line]


def _missing(cells: Cells, archs: Collection[str], modes: Collection[str]) -> str:
    """Return a note on trials that are missing, and on modes and cells without any trial, which is all that
    is known where no grid is given. archs, modes: those with a finished trial.
    """
    statuses: Counter[str] = Counter()
    for each in cells.trials.values():
        statuses.update(each.statuses)
    sentences = [missing_trials(statuses)]
    there = {mode for _, mode in cells.trials}
    for absent, what in (
        ([mode for mode in MODES if mode in there and mode not in modes], "mode "),
        ([arch for arch in cells.archs if arch not in archs], ""),
    ):
        if absent:
            sentences.append(f"No trial of {what}{join_names(absent, _NAMED)} has a result.")
    if others := [mode for mode in MODES if mode not in there]:
        sentences.append(f"This figure contains no trials of mode {join_names(others, _NAMED)}.")
    pairs = [(arch, mode) for arch in archs for mode in modes]
    unused = sum(pair not in cells.trials for pair in pairs)
    if unused:
        have = "has" if unused == 1 else "have"
        sentences.append(
            f"{unused:,} of the {len(pairs):,} combinations of architecture and mode {have} no trial."
        )
    return " ".join(filter(None, sentences))


def cells_note(cells: Cells) -> str:
    """Return a sentence on the number of trials per cell and the cells that have fewer, for tables."""
    places = [(arch, mode) for arch in cells.archs for mode in cells.modes]
    requested = [place for place in places if place in cells.trials]  # nothing is missing of the others
    size = f"n = {pluralize(cells.expected, 'trial')} per cell"
    size += _not_requested(cells, len(places), len(requested))
    few = [place for place in requested if cells.missing(*place)]
    if not few:
        return f"{size}; none is missing."
    listed = "; ".join(_absence(cells, *place) for place in few[:_LISTED])
    more = f"; and {len(few) - _LISTED:,} more cells" if len(few) > _LISTED else ""
    have = "has" if len(few) == 1 else "have"
    return f"{size}, but {len(few):,} of {len(requested):,} cells {have} fewer: {listed}{more}."


def _not_requested(cells: Cells, places: int, requested: int) -> str:
    """Return, in brackets, the modes and the number of further cells of which no trial was requested."""
    parts = []
    unused = [mode for mode in MODES if mode not in cells.modes]
    if unused:
        parts.append(f"{', '.join(unused)}: no trial")
    if places > requested:
        others = "the other " if unused else ""
        parts.append(f"{places - requested:,} of {others}{places:,} cells: no trial")
    return f" ({'; '.join(parts)})" if parts else ""


def _absence(cells: Cells, arch: str, mode: str) -> str:
    """Return the number of finished trials of a cell, and why there are no more."""
    cell, missing = cells.cell(arch, mode), cells.missing(arch, mode)
    counts = {status: cell.statuses.get(status, 0) for status in ABSENT}
    counts["missing"] = missing - sum(counts.values())
    why = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{arch} {mode} {len(cell.found)} ({why})"


@dataclass(frozen=True)
class Level:
    """The mean bounty of mode none (NaN without a trial), and whether any trial of any mode beat ZeroR."""

    n: int
    mean: float
    above_zero_r: bool


def baseline(cells: Cells, arch: str) -> Level:
    """Return the accuracy that the architecture reaches without ablation."""
    values = present(cells.cell(arch, "none").bounties)
    mean = float(values.mean()) if len(values) else _NAN
    return Level(len(values), mean, cells.above_zero_r(arch))


EffectVerdict = Literal["gain", "loss", "unclear", "equal", "unknown", "below ZeroR"]


@dataclass(frozen=True)
class ModeEffect:
    """One mode minus another: mean difference in points with its 95 % interval, over n pairs or trials.

    above_zero_r: whether any trial of any mode of the architecture beats ZeroR.
    """

    n: int
    difference: float
    low: float
    high: float
    above_zero_r: bool = True

    @property
    def verdict(self) -> EffectVerdict:
        """The verdict: equal (no pair differs), gain or loss (interval excludes 0), unknown (n < LEAST_N).

        A network that learns nothing has none: its bounty is the best of many constant predictions, and an
        ablated output neuron changes which class is predicted, so that there are more of them.
        """
        if self.n < LEAST_N:
            return "unknown"
        if not self.above_zero_r:
            return "below ZeroR"
        if self.low == self.high == 0:
            return "equal"
        if self.low <= 0 <= self.high:
            return "unclear"
        return "gain" if self.difference > 0 else "loss"


def effect(cells: Cells, arch: str, mode: str, against: str = "none") -> ModeEffect:
    """Return the effect of a mode on the bounty: paired by seed (t interval), or by Welch if not paired."""
    one, other, above = cells.cell(arch, mode), cells.cell(arch, against), cells.above_zero_r(arch)
    if not cells.paired:
        n, found = min(len(one.found), len(other.found)), welch(one.summary, other.summary)
        return ModeEffect(n, found.value, found.low, found.high, above)
    differences = summary(one.correct - other.correct)
    mean, low, high = (
        100 * each / cells.samples for each in (differences.mean, differences.low, differences.high)
    )
    return ModeEffect(differences.n, mean, low, high, above)


@dataclass(frozen=True)
class Spread:
    """The largest standard deviation over seeds (ddof 1) among the modes, and its mode; NaN, "" if none."""

    sd: float
    mode: str


def best_mean(cells: Cells, trials: pd.DataFrame) -> tuple[str, str] | None:
    """Return the greatest mean of the cells with LEAST_N trials as text, and which of them have it, with n
    and interval, and the test accuracy of its trials, by which nothing was selected. None without such a
    cell.

    Equal cells are all named: mode decay often equals mode none, and networks that learn nothing each other.
    """
    means = {(arch, mode): cell.mean for arch in cells.archs for mode, cell in cells.judged(arch).items()}
    if not means:
        return None
    top = max(means.values())
    equal = [cell for cell, mean in means.items() if mean == top]
    arch = equal[0][0]
    modes = [mode for of, mode in equal if of == arch]
    detail = f"{arch}, mode{'s' * (len(modes) > 1)} {join_names(modes)}"
    detail += f"; {interval_text(cells.cell(arch, modes[0]).summary)}"
    of = trials[(trials["arch"] == arch) & (trials["mode"] == modes[0]) & (trials["status"] == "done")]
    if math.isfinite(mean := of["test"].mean()):
        detail += f"; test accuracy {mean:.2f} %"
    if others := len(equal) - len(modes):
        detail += f"; equal: {pluralize(others, 'cell')} of other architectures"
    detail += judged_text(len(means), sum(len(cells.numbers(arch)) for arch in cells.archs), "cell")
    return f"{top:.2f} %", detail if top > cells.zero_r else f"{detail}; not above ZeroR"


def instability(cells: Cells, arch: str) -> Spread:
    """Return the largest spread over seeds. Modes with fewer than LEAST_N trials are ignored."""
    spreads = {}
    for mode in MODES:
        values = present(cells.cell(arch, mode).bounties)
        if len(values) >= LEAST_N:
            spreads[mode] = float(values.std(ddof=1))
    if not spreads:
        return Spread(_NAN, "")
    mode = max(spreads, key=lambda each: spreads[each])
    return Spread(spreads[mode] if spreads[mode] > _ROUNDING else 0.0, mode)


WinnerBy = Literal["mean", "maximum"]


@dataclass(frozen=True)
class ModeStrategy:
    """The modes whose mean (or maximum) is within a tolerance of the greatest, in the order of MODES (see
    winning_modes). clear: a test separates a sole winner from every other mode; there is none for maxima.
    open: why there is no winner, "" if there is one.
    """

    best: tuple[str, ...]
    clear: bool
    open: Literal["", "no trial", "few trials", "below ZeroR"]


def strategy(cells: Cells, arch: str, tolerance: float = TIE, by: WinnerBy = "mean") -> ModeStrategy:
    """Return the winning modes of an architecture; values are compared unrounded."""
    means = cells.judged(arch)
    if not cells.numbers(arch):
        return ModeStrategy((), clear=False, open="no trial")
    best = winning_modes(cells, arch, tolerance, by)
    clear = by == "mean" and len(best) == 1 < len(means) and _stands_out(cells, arch, best[0])
    why: Literal["few trials", "below ZeroR"] = "below ZeroR" if means else "few trials"
    return ModeStrategy(best, clear, "" if best else why)


def winning_modes(cells: Cells, arch: str, tolerance: float = TIE, by: WinnerBy = "mean") -> tuple[str, ...]:
    """Return the modes whose unrounded mean (or maximum) is within a tolerance of the greatest, among those
    with LEAST_N trials or more; none below ZeroR, which a constant prediction reaches.
    """
    judged = cells.judged(arch).items()
    values = {mode: cell.mean if by == "mean" else cell.high for mode, cell in judged}
    top = max(values.values(), default=0.0)
    if top <= cells.zero_r + _ROUNDING:
        return ()
    return tuple(mode for mode in values if top - values[mode] <= tolerance + _ROUNDING)


def _stands_out(cells: Cells, arch: str, best: str) -> bool:
    """Return whether `best` differs significantly from every other mode: by the paired test of the table of
    accuracies, or by Welch's test if the trials are not paired.
    """
    arms = {mode: cells.cell(arch, mode) for mode in MODES if cells.cell(arch, mode).found}
    if cells.paired:
        return winners({mode: arm.correct for mode, arm in arms.items()}).by_test == (best,)
    rivals = [welch(arms[best].summary, arm.summary).p for mode, arm in arms.items() if mode != best]
    return bool((math.comb(len(arms), 2) * np.array(rivals) < ALPHA).all())


def regimes(cells: Cells, archs: Sequence[str]) -> dict[str, Regime]:
    """Return the regime of each architecture, computed from its trials and the data's ZeroR; unknown where a
    mode has fewer than LEAST_N trials.
    """
    return {
        arch: "unknown" if cells.few(arch) else regime_of(cells.numbers(arch), cells.zero_r) for arch in archs
    }
