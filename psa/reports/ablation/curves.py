"""How trials got where they are: LKG over the meta-loops per mode, best trials, late jumps. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from scipy import stats as scipy_stats

from psa.analysis.regimes import Regime
from psa.analysis.stats import LEVEL, Values
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import regimes
from psa.specs.training import MODES

NOTICEABLE: Final = 1.0  # points in one loop below which nobody would speak of a breakthrough


@dataclass(frozen=True)
class Curve:
    """The LKG of one mode over meta-loops 1..N, in percent of the validation split.

    mean, low, high: over n seeds, with the 95 % t interval of the mean (NaN below two); best: the trial with
    the highest bounty. shorter: trials that are not N loops long and have no part in it.
    """

    mode: str
    n: int
    shorter: int
    mean: Values
    low: Values
    high: Values
    best: Values
    best_seed: int


@dataclass(frozen=True)
class Panel:
    """The curves of one architecture, of the modes that have trials."""

    arch: str
    regime: Regime
    zero_r: float
    loops: int
    curves: tuple[Curve, ...]


def panel_of(frame: pd.DataFrame, cells: Cells, arch: str) -> Panel:
    """The curves of an architecture; without any where the frame holds no loop of it."""
    rows = frame[(frame["arch"] == arch) & frame["loop"].notna()]
    loops = int(rows["loop"].max()) if len(rows) else 0
    curves = tuple(
        _curve(rows[rows["mode"] == mode], mode, loops) for mode in MODES if (rows["mode"] == mode).any()
    )
    return Panel(arch, regimes(cells, [arch])[arch], cells.zero_r, loops, curves)


def _curve(rows: pd.DataFrame, mode: str, loops: int) -> Curve:
    """A mean is always over the same seeds: a shorter trial would shift it where it ends."""
    lkg = lkg_matrix(rows, loops)
    whole = lkg[~np.isnan(lkg[:, -1])]
    n = len(whole)
    mean = whole.mean(axis=0) if n else np.full(loops, np.nan)
    half = np.full(loops, np.nan)
    if n > 1:
        factor = float(scipy_stats.t.ppf((1 + LEVEL) / 2, n - 1)) / np.sqrt(n)
        half = factor * whole.std(axis=0, ddof=1)
    best = best_trials(rows.drop_duplicates("id")).iloc[0]
    own = lkg_matrix(rows[rows["id"] == best["id"]], loops)[0]
    return Curve(mode, n, len(lkg) - n, mean, mean - half, mean + half, own, int(best["seed"]))


def lkg_matrix(rows: pd.DataFrame, loops: int, column: str = "lkg") -> Values:
    """LKG [trials, loops], in percent or as `lkg_correct`. NaN after a trial's end; one that stopped early
    keeps its LKG.
    """
    trials = pd.Categorical(rows["id"].astype(str), list(dict.fromkeys(rows["id"].astype(str))))
    lkg = np.full((len(trials.categories), loops), np.nan)
    lkg[trials.codes, rows["loop"].to_numpy(dtype=np.int64) - 1] = rows[column].to_numpy(
        np.float64, na_value=np.nan
    )
    stopped = rows.groupby(trials, observed=True)["stopped_early"].first().fillna(value=False).to_numpy(bool)
    for at in np.flatnonzero(stopped):
        reached = int(np.flatnonzero(~np.isnan(lkg[at])).max()) + 1
        lkg[at, reached:] = lkg[at, reached - 1]
    return lkg


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The trial with the highest bounty of each arch; among equals the earliest to reach it, then by seed."""
    done = trials[trials["status"] == "done"]
    order = done.sort_values(["bounty", "bounty_loop", "seed"], ascending=[False, True, True], kind="stable")
    return order.drop_duplicates("arch")


@dataclass(frozen=True)
class Jump:
    """The best trial of an architecture, and the loop at which its LKG rose most.

    late: whether that was in the second half of its loops, where it is looked for first. others: the LKG of
    the other seeds of its mode.
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
    """The jump of every architecture that has a finished trial of at least two loops."""
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
    return Jump(
        arch, str(one["mode"]), int(one["seed"]), loop, gain, 2 * loop > loops + 1, lkg, others, zero_r
    )


def largest_gain(lkg: Values) -> tuple[int, float]:
    """The loop of the largest rise of the LKG within one loop, and the rise in points.

    It is the largest after half of the loops if that is noticeable (1 point), else the largest of all.
    """
    rises = np.nan_to_num(np.diff(lkg))
    half = len(lkg) // 2
    first = half if rises[half:].max(initial=0) >= NOTICEABLE else 0
    at = first + int(rises[first:].argmax())
    return at + 2, float(rises[at])


def latest_jumps(frame: pd.DataFrame, cells: Cells, count: int = 4) -> list[Jump]:
    """The architectures whose best trial rose most within one loop of the second half of its loops.

    Where too few did, the largest rises of all follow.
    """
    everyone = jumps_of(frame, cells, [arch for arch in cells.archs if cells.above_zero_r(arch)])
    return sorted(everyone, key=lambda jump: (not jump.late, -jump.gain))[:count]
