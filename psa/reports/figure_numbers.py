"""The numbers behind the figures: bounties as one array [archs, modes, seeds], and what maps show of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from psa.errors import UserError
from psa.regimes import PUBLISHED_ZERO_R, Cell, Regime, regime_of
from psa.stats import LEVEL, Values, present, t_interval
from psa.trial import MODES

TIE: Final = 0.01  # points of a mean within which modes share a win
_ROUNDING: Final = 1e-9
_SAMPLES: Final = 10_000  # of the published validation split
_NAN: Final = float("nan")


@dataclass(frozen=True)
class Bounties:
    """The bounties of one study and family: correct[arch, mode, seed] of `samples`, NaN where there is none.

    Counts, since differences of equal percentages are not always 0, nor their mean always one of them.
    zero_r: what always answering the majority class scores, in percent. paired: whether equal seeds share
    their beginnings, as ours do and published trials do not. notes: n, and what is missing.
    """

    archs: tuple[str, ...]
    seeds: tuple[int, ...]
    correct: Values
    samples: int
    zero_r: float
    paired: bool
    notes: tuple[str, ...]

    def counts(self, arch: str, mode: str) -> Values:
        """One count per seed; those that are missing are NaN."""
        if arch not in self.archs:
            return np.full(len(self.seeds), np.nan)
        counts: Values = self.correct[self.archs.index(arch), MODES.index(mode)]
        return counts

    def arm(self, arch: str, mode: str) -> Values:
        """One percentage per seed; those that are missing are NaN."""
        return 100 * self.counts(arch, mode) / self.samples

    def cells(self, arch: str) -> dict[str, Cell]:
        """The modes of an arch that have trials, in percent."""
        arms = {mode: present(self.counts(arch, mode)) for mode in MODES}
        return {mode: self._cell(counts) for mode, counts in arms.items() if len(counts)}

    def _cell(self, counts: Values) -> Cell:
        found = Cell.of([float(count) for count in counts])
        return Cell(*(100 * each / self.samples for each in (found.mean, found.sd, found.low, found.high)))

    def above_zero_r(self, arch: str) -> bool:
        """Whether any trial of any mode scored more than ZeroR."""
        return any(cell.high > self.zero_r + _ROUNDING for cell in self.cells(arch).values())


def bounties_of(trials: pd.DataFrame) -> Bounties:
    """The array of a frame with one row per trial. Raises UserError for trials that cannot share a figure."""
    one_experiment(trials)
    archs = tuple(dict.fromkeys(trials["arch"].astype(str)))
    seeds = tuple(sorted(int(seed) for seed in trials["seed"].dropna().unique()))
    samples = int(_only(trials["validation"], _SAMPLES))
    correct = np.full((len(archs), len(MODES), len(seeds)), np.nan)
    rows = trials[trials["mode"].isin(MODES)]
    places = (
        pd.Categorical(rows["arch"].astype(str), archs).codes,
        pd.Categorical(rows["mode"].astype(str), MODES).codes,
        pd.Categorical(rows["seed"].astype(int), seeds).codes,
    )
    correct[places] = np.rint(rows["bounty"].to_numpy(dtype=np.float64, na_value=np.nan) * samples / 100)
    zero_r, paired = _only(trials["zero_r"], PUBLISHED_ZERO_R), set(trials["source"]) == {"psa"}
    return Bounties(archs, seeds, correct, samples, zero_r, paired, notes_of(trials))


def one_experiment(trials: pd.DataFrame) -> None:
    """Raise UserError where two trials share arch, mode and seed, or data of several kinds are mixed."""
    for name in ("study", "family", "dataset", "digits", "source"):
        found = sorted(trials[name].dropna().unique())
        if len(found) > 1:
            raise UserError(
                f"the records are of {name} {listed([str(each) for each in found])}: a figure shows one",
                "Name the experiment with --study, --family or its --grid",
            )
    twice = trials[trials.duplicated(["arch", "mode", "seed"], keep=False)]
    if len(twice):
        first = twice.iloc[0]
        raise UserError(
            f"there are several trials of {first['arch']}, mode {first['mode']}, seed {first['seed']}",
            "They differ in their settings: name those of one grid with --grid",
        )


def _only(values: pd.Series[Any], otherwise: float) -> float:
    """The one value of a column; the published one where the rows hold none. Raises UserError."""
    found = sorted(set(values.dropna()))
    if len(found) > 1:
        raise UserError(
            f"the trials were validated on different data: {values.name} is {found[0]:g} and {found[1]:g}",
            "Name one grid with --grid",
        )
    return float(found[0]) if found else otherwise


def named(count: int, one: str, many: str = "") -> str:
    """`1 trial`, `5,880 trials`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names with commas, the first of them where there are many."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")


def notes_of(trials: pd.DataFrame) -> tuple[str, ...]:
    """n, the horizon, and in a second line what is missing."""
    done = trials[trials["status"] == "done"]
    sizes = done.groupby(["arch", "mode"], observed=True).size()
    seeds = sorted(set(sizes)) or [0]
    per_cell = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    what = f"{listed(sorted(map(str, trials['family'].unique())))}, study {trials['study'].iloc[0]}"
    first = (
        f"{what}: n = {len(done):,} of {named(len(trials), 'trial')}; {per_cell} per architecture and mode"
        f" ({named(done['arch'].nunique(), 'architecture')}, {named(done['mode'].nunique(), 'mode')})"
    )
    loops = sorted(set(done["loops"].dropna()))
    if loops:
        first += f"; {loops[0]}" + (f" to {loops[-1]}" if len(loops) > 1 else "") + " meta-loops"
    return tuple(line for line in (first + ".", _missing(trials, done)) if line)


def _missing(trials: pd.DataFrame, done: pd.DataFrame) -> str:
    parts = []
    for status, count in trials["status"].value_counts().sort_index().items():
        if status != "done" and count:
            parts.append(f"{named(int(count), 'trial')} {status}")
    modes = [mode for mode in MODES if mode not in set(done["mode"])]
    if modes:
        parts.append(f"no trial of mode {listed(modes)}")
    without = [arch for arch in dict.fromkeys(trials["arch"]) if arch not in set(done["arch"])]
    if without:
        parts.append(f"no trial of {listed(without, 6)}")
    return f"Not there: {'; '.join(parts)}." if parts else ""


@dataclass(frozen=True)
class Level:
    """Mean bounty of mode none (NaN without a trial), and whether anything at all beat ZeroR."""

    n: int
    mean: float
    above_zero_r: bool


def baseline(bounties: Bounties, arch: str) -> Level:
    """What the architecture reaches without any ablation."""
    values = present(bounties.arm(arch, "none"))
    mean = float(values.mean()) if len(values) else _NAN
    return Level(len(values), mean, bounties.above_zero_r(arch))


Verdict = Literal["gain", "loss", "unclear", "equal", "unknown"]


@dataclass(frozen=True)
class Effect:
    """One mode minus another: mean difference in points with its 95 % interval, of n pairs or trials."""

    n: int
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> Verdict:
        """gain or loss where the interval excludes 0, equal where no pair differs, unknown below two."""
        if self.n < 2:
            return "unknown"
        if self.low == self.high == 0:
            return "equal"
        if self.low <= 0 <= self.high:
            return "unclear"
        return "gain" if self.difference > 0 else "loss"


def effect(bounties: Bounties, arch: str, mode: str, against: str = "none") -> Effect:
    """What a mode does to the bounty: paired by seed (t interval), or by Welch where seeds share nothing."""
    one, other = bounties.counts(arch, mode), bounties.counts(arch, against)
    if not bounties.paired:
        return _welch(present(one), present(other), bounties.samples)
    differences = present(one - other)
    mean = float(differences.mean()) if len(differences) else _NAN
    low, high = t_interval(differences)
    return Effect(len(differences), *(100 * each / bounties.samples for each in (mean, low, high)))


def _welch(one: Values, other: Values, samples: int) -> Effect:
    n = min(len(one), len(other))
    if n < 2:
        return Effect(n, _NAN, _NAN, _NAN)
    difference, half = welch(
        float(one.mean() - other.mean()),
        float(one.var(ddof=1) / len(one)), float(other.var(ddof=1) / len(other)),
        len(one), len(other),
    )  # fmt: skip
    return Effect(n, *(100 * each / samples for each in (difference, difference - half, difference + half)))


def welch(difference: float, one: float, other: float, n: int, m: int) -> tuple[float, float]:
    """A difference of means and half of its 95 % interval (Welch 1947), from the squared standard errors of
    the two means and how many values each is of (at least two).
    """
    if one + other == 0:
        return difference, 0.0
    freedom = (one + other) ** 2 / (one**2 / (n - 1) + other**2 / (m - 1))
    return difference, float(scipy_stats.t.ppf((1 + LEVEL) / 2, freedom) * np.sqrt(one + other))


@dataclass(frozen=True)
class Spread:
    """The largest standard deviation over seeds (ddof 1) among the modes, and the mode; NaN, "" if none."""

    sd: float
    mode: str


def instability(bounties: Bounties, arch: str) -> Spread:
    """How much chance decides. Modes with fewer than two trials have no say."""
    spreads = {}
    for mode in MODES:
        values = present(bounties.arm(arch, mode))
        if len(values) > 1:
            spreads[mode] = float(values.std(ddof=1))
    if not spreads:
        return Spread(_NAN, "")
    mode = max(spreads, key=lambda each: spreads[each])
    return Spread(spreads[mode] if spreads[mode] > _ROUNDING else 0.0, mode)


@dataclass(frozen=True)
class Strategy:
    """The modes whose mean is within a tolerance of the greatest, in the order of MODES; clear where a sole
    winner's paired 95 % interval against the runner-up excludes 0.
    """

    best: tuple[str, ...]
    clear: bool
    above_zero_r: bool


def strategy(bounties: Bounties, arch: str, tolerance: float = TIE) -> Strategy:
    """Which mode wins; means are compared unrounded."""
    cells = bounties.cells(arch)
    if not cells:
        return Strategy((), clear=False, above_zero_r=False)
    ranked = sorted(cells, key=lambda mode: -cells[mode].mean)
    top = cells[ranked[0]].mean
    best = tuple(mode for mode in cells if top - cells[mode].mean <= tolerance + _ROUNDING)
    clear = False
    if len(best) == 1 and len(ranked) > 1:
        clear = effect(bounties, arch, ranked[0], ranked[1]).verdict == "gain"
    return Strategy(best, clear, bounties.above_zero_r(arch))


def regimes(bounties: Bounties, archs: Sequence[str]) -> dict[str, Regime]:
    """The regime of each, computed from its trials and the data's ZeroR."""
    return {arch: regime_of(bounties.cells(arch), bounties.zero_r) for arch in archs}
