"""The course of training in numbers: LKG over the meta-loops per mode, best trials, late jumps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from psa.analysis.regimes import Regime
from psa.analysis.stats import LEAST_N, LEVEL, Values
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import regimes
from psa.specs.training import MODES, mode_rank

PUBLISHED_CURVES: Final = ("1*1024", "18*18")
NOTICEABLE: Final = 1.0  # the least rise in one loop, in points, that counts as a breakthrough


@dataclass(frozen=True)
class Curve:
    """The LKG of one mode over meta-loops 1..N, in percent of the validation split.

    mean, low, high: over n seeds, with the 95 % t interval of the mean (within 0 and 100; NaN below
    LEAST_N); best: the trial with the highest bounty. shorter: number of trials with fewer than N loops,
    which are excluded. current: the mean accuracy of the trained copies of the same seeds, before each is
    kept or discarded; NaN from the loop on at which one of them had stopped early.
    """

    mode: str
    n: int
    shorter: int
    mean: Values
    low: Values
    high: Values
    best: Values
    best_seed: int
    current: Values

    def equals(self, other: Curve) -> bool:
        """Return whether every trial behind two curves agrees: means, intervals, best trial, n."""
        names = ("mean", "low", "high", "best", "current")
        same = all(np.array_equal(getattr(self, it), getattr(other, it), equal_nan=True) for it in names)
        return same and (self.n, self.shorter) == (other.n, other.shorter)


@dataclass(frozen=True)
class Panel:
    """The curves of one architecture, for the modes that have trials."""

    arch: str
    regime: Regime
    zero_r: float
    loops: int
    curves: tuple[Curve, ...]


def panel_of(frame: pd.DataFrame, cells: Cells, arch: str) -> Panel:
    """Return the curves of an architecture, none if the frame holds no loop of it."""
    rows = frame[(frame["arch"] == arch) & frame["loop"].notna()]
    loops = int(rows["loop"].max()) if len(rows) else 0
    curves = tuple(
        _curve(rows[rows["mode"] == mode], mode, loops) for mode in MODES if (rows["mode"] == mode).any()
    )
    return Panel(arch, regimes(cells, [arch])[arch], cells.zero_r, loops, curves)


def _curve(rows: pd.DataFrame, mode: str, loops: int) -> Curve:
    """Return the curve of a mode. Shorter trials are excluded: the mean would shift where they end."""
    lkg = lkg_matrix(rows, loops)
    finished = ~np.isnan(lkg[:, -1])
    whole = lkg[finished]
    n = len(whole)
    mean = whole.mean(axis=0) if n else np.full(loops, np.nan)
    half = np.full(loops, np.nan)
    if n >= LEAST_N:
        factor = float(scipy_stats.t.ppf((1 + LEVEL) / 2, n - 1)) / np.sqrt(n)
        half = factor * whole.std(axis=0, ddof=1)
    best = best_trials(rows.drop_duplicates("id")).iloc[0]
    own = lkg_matrix(rows[rows["id"] == best["id"]], loops)[0]
    current = loop_matrix(rows, loops, "accuracy")[finished]
    copies = current.mean(axis=0) if n else np.full(loops, np.nan)
    low, high = np.maximum(mean - half, 0), np.minimum(mean + half, 100)
    return Curve(mode, n, len(lkg) - n, mean, low, high, own, int(best["seed"]), copies)


def lkg_matrix(rows: pd.DataFrame, loops: int, column: str = "lkg") -> Values:
    """Return the LKG [trials, loops], in percent or as `lkg_correct`; NaN after a trial's end, but a trial
    that stopped early keeps its LKG.
    """
    lkg, codes = loop_matrix(rows, loops, column), pd.factorize(rows["id"])[0]
    stopped = np.zeros(len(lkg), dtype=bool)
    stopped[codes[rows["stopped_early"].fillna(value=False).to_numpy(bool)]] = True
    for at in np.flatnonzero(stopped):
        reached = int(np.flatnonzero(~np.isnan(lkg[at])).max()) + 1
        lkg[at, reached:] = lkg[at, reached - 1]
    return lkg


def loop_matrix(rows: pd.DataFrame, loops: int, column: str) -> Values:
    """Return a column of the frame as [trials, loops]; NaN after a trial's end."""
    codes, ids = pd.factorize(rows["id"])
    found = np.full((len(ids), loops), np.nan)
    found[codes, rows["loop"].to_numpy(dtype=np.int64) - 1] = rows[column].to_numpy(
        np.float64, na_value=np.nan
    )
    return found


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trial with the highest bounty of each arch; of equal ones that of the earliest loop, then of
    the least seed, then of the first mode.
    """
    done = trials[trials["status"] == "done"]
    done = done.assign(rank=done["mode"].astype(str).map(mode_rank))
    keys = ["bounty", "bounty_loop", "seed", "rank"]
    order = done.sort_values(keys, ascending=[False, True, True, True], kind="stable")
    return order.drop_duplicates("arch").drop(columns="rank")


@dataclass(frozen=True)
class Jump:
    """The best trial of an architecture, and the loop in which its LKG rose most.

    late: True if that loop is in the second half, which is searched first. others: the LKG of the other seeds
    of the same mode.
    """

    arch: str
    mode: str
    seed: int
    loop: int
    gain: float
    late: bool
    lkg: Values
    others: Values
    zero_r: float


def jumps_of(frame: pd.DataFrame, cells: Cells, archs: Sequence[str]) -> list[Jump]:
    """Return the jump of every architecture that has a finished trial of at least two loops."""
    looped = frame[frame["loop"].notna()]
    best = best_trials(looped.drop_duplicates("id")).set_index("arch")
    found = []
    for arch in archs:
        if arch in best.index and best.loc[arch, "loops"] > 1:
            one = best.loc[arch]
            rows = looped[(looped["arch"] == arch) & (looped["mode"] == one["mode"])]
            found.append(_jump(arch, one, rows, cells.zero_r))
    return found


def _jump(arch: str, one: pd.Series, rows: pd.DataFrame, zero_r: float) -> Jump:
    loops = int(rows["loop"].max())
    own = rows["id"] == one["id"]
    lkg = lkg_matrix(rows[own], loops)[0]
    others = lkg_matrix(rows[~own], loops) if (~own).any() else np.empty((0, loops))
    loop, gain = largest_gain(lkg)
    late = loop >= first_late_loop(loops)
    return Jump(arch, str(one["mode"]), int(one["seed"]), loop, gain, late, lkg, others, zero_r)


def first_late_loop(loops: int) -> int:
    """Return the first meta-loop of the second half of so many; of an odd number the middle is not in it."""
    return (loops + 1) // 2 + 1


def largest_gain(lkg: Values) -> tuple[int, float]:
    """Return the loop of the largest rise of the LKG within one loop, and the rise in points.

    A rise after half of the loops takes precedence if it is noticeable (1 point).
    """
    rises = np.nan_to_num(np.diff(lkg))
    half = first_late_loop(len(lkg)) - 2  # rises[at] is that of loop at + 2
    first = half if rises[half:].max(initial=0) >= NOTICEABLE else 0
    at = first + int(rises[first:].argmax())
    return at + 2, float(rises[at])


def latest_jumps(frame: pd.DataFrame, cells: Cells, count: int = 4) -> list[Jump]:
    """Return the architectures whose best trial rose most within one loop of the second half of its loops.

    If there are too few, those with the largest rises of all follow.
    """
    everyone = jumps_of(frame, cells, [arch for arch in cells.archs if cells.above_zero_r(arch)])
    return sorted(everyone, key=lambda jump: (not jump.late, -jump.gain))[:count]


def curve_choice(cells: Cells) -> tuple[list[str], str]:
    """Return the architectures whose curves are shown, and why: those of the study's figure of plain networks
    if both have trials, else the most accurate one and the one with the widest spread.
    """
    if cells.family == "simplemlp" and all(map(cells.numbers, PUBLISHED_CURVES)):
        return list(PUBLISHED_CURVES), f"Shown: {' and '.join(PUBLISHED_CURVES)}, as in the published figure."
    numbers = {arch: cells.numbers(arch).values() for arch in cells.archs if cells.numbers(arch)}
    if not numbers:
        return list(cells.archs[:1]), ""
    best = max(numbers, key=lambda arch: max(cell.mean for cell in numbers[arch]))
    spreads = {
        arch: max(cell.sd for cell in found.values()) for arch in numbers if (found := cells.judged(arch))
    }
    if not spreads:
        return [best], "Shown: the architecture with the highest mean bounty of any mode."
    widest = max(spreads, key=lambda arch: spreads[arch])
    spread = f"the largest standard deviation of any mode with {LEAST_N} trials or more"
    if best == widest:
        return [best], f"Shown: the architecture with the highest mean bounty of any mode, and with {spread}."
    return [
        best,
        widest,
    ], f"Shown: {best}, with the highest mean bounty of any mode, and {widest}, with {spread}."
