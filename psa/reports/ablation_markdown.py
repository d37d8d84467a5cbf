"""The Markdown files of the ablation study in the layout it published: trials, convergence, growth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.stats import Values
from psa.reports.cells import Cells, cells_of
from psa.reports.curves import lkg_matrix
from psa.reports.literal import literal
from psa.reports.tables import grid, rounded
from psa.specs.training import MODES

_NOTHING: Final = "N/A"


def trials_markdown(frame: pd.DataFrame) -> str:
    """The bounty of every trial, a table per architecture, its rows the seeds. psa.analysis.published reads
    it.
    """
    cells = cells_of(frame)
    heads = ["Trial", *map(str.capitalize, MODES)]
    parts = [
        f"# Trials of {cells.family}",
        f"Best validation accuracy of each trial; Trial is its seed. {literal(cells.note())}",
    ]
    for arch in cells.archs:
        rows = [
            [str(seed), *(_percent(cells.cell(arch, mode).bounties[at], "%") for mode in MODES)]
            for at, seed in enumerate(cells.seeds)
        ]
        parts += [f"### Architecture: {arch}", grid(heads, rows, [False] * len(heads))]
    return "\n\n".join(parts) + "\n"


def convergence_markdown(frame: pd.DataFrame) -> str:
    """The accuracy of the LKG after each meta-loop, mean over the trials of a cell."""
    said = (
        "Validation accuracy of the LKG in percent after each meta-loop, mean over the trials of a cell; "
        "Final Test: mean test accuracy of their last LKG in percent."
    )
    return _by_loop(frame, "Convergence", said, lambda curve: curve)


def lkg_growth_markdown(frame: pd.DataFrame) -> str:
    """What each meta-loop added to the accuracy of the LKG, mean over the trials of a cell."""
    said = (
        "Growth of the LKG in percentage points, LKG(t) - LKG(t-1) of its validation accuracy, 0.00 in the "
        "first meta-loop, mean over the trials of a cell; Final Test: mean test accuracy of their last LKG "
        "in percent."
    )
    return _by_loop(frame, "LKG growth", said, lambda curve: np.diff(curve, prepend=curve[:1]))


def _by_loop(frame: pd.DataFrame, title: str, said: str, values: Callable[[Values], Values]) -> str:
    """A row per cell and a column per meta-loop. A loop that one trial of the cell has not reached is N/A:
    a mean of other trials than the loop before would jump. One that stopped early keeps its LKG.
    """
    cells, done = cells_of(frame), frame[frame["status"] == "done"]
    loops = range(1, int(done["loop"].max()) + 1) if done["loop"].notna().any() else range(0)
    heads = ["Architecture", "Mode", *(f"Meta-Loop {loop}" for loop in loops), "Final Test"]
    curves = _mean_curves(done, loops, cells.samples)
    tests = trials_of(done).groupby(["arch", "mode"], observed=True)["test"].mean().to_dict()
    nothing = np.full(len(loops), np.nan)
    rows = [
        [
            arch,
            _name(cells, arch, mode),
            *map(_percent, 100 * values(curves.get((arch, mode), nothing)) / cells.samples),
            _percent(test),
        ]
        for arch in cells.archs
        for mode in MODES
        for test in [tests.get((arch, mode), np.nan)]
    ]
    left = [True, True, *[False] * (len(heads) - 2)]
    note = literal(cells.note())
    return f"# {title} of {cells.family}\n\n{said} {note}\n\n{grid(heads, rows, left)}\n"


def _name(cells: Cells, arch: str, mode: str) -> str:
    n = len(cells.cell(arch, mode).found)
    return f"{mode.capitalize()} (n={n})" if 0 < n < cells.expected else mode.capitalize()


def _mean_curves(done: pd.DataFrame, loops: range, samples: int) -> dict[tuple[str, str], Values]:
    """Of each cell how many images the LKG answers in the mean, per meta-loop. Counts are whole, so
    that at the end it is the mean of the bounties to the last bit.
    """
    looped = done[done["loop"].notna()]
    return {
        (str(arch), str(mode)): np.rint(lkg_matrix(rows, len(loops)) * samples / 100).mean(axis=0)
        for (arch, mode), rows in looped.groupby(["arch", "mode"], observed=True)
    }


def _percent(value: float, sign: str = "") -> str:
    return _NOTHING if np.isnan(value) else f"{rounded(float(value), 2)}{sign}"
