"""Tables of the effects of ablation: each mode against mode none, and all modes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from psa.analysis.regimes import ABLATIVE
from psa.analysis.stats import EXACT_PAIRS, LEAST_N, Paired, Values, paired
from psa.reports.ablation.aggregates import aggregate
from psa.reports.ablation.cells import Cells, cells_of, mode_order
from psa.reports.rendering.paired import paired_cells, paired_columns
from psa.reports.rendering.tables import Cell, Column, Table
from psa.specs.training import MODES

_NONE: Final = "none"
_ONE_PAGE: Final = 40  # rows


def paired_table(
    frame: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    caption: str = "Ablative modes minus mode none, seed by seed (percentage points)",
    label: str = "tab:paired",
) -> Table:
    """Return a table of each ablative mode minus none, per architecture of a frame of one family: pairs, mean
    difference with its 95 % interval, p of the sign-flip test, p corrected over the whole table (Holm:
    family-wise error; FDR: false discovery rate), Hedges' g. Trials that are not paired by seed are not
    compared.
    """
    cells = cells_of(frame)
    places = [(arch, mode) for arch in mode_order(cells.archs, order) for mode in ABLATIVE]
    found = [_in_percent(paired(*_both(cells, *place)), cells.samples) for place in places]
    rows = [(*place, *each) for place, each in zip(places, paired_cells(found), strict=True)]
    columns = (Column("Architecture"), Column("Mode"), *paired_columns())
    note = f"{_floor(found)} {cells.note()}" if cells.paired else f"{_UNPAIRED} {cells.note()}"
    return Table(caption, label, columns, tuple(rows), note, len(rows) > _ONE_PAGE)


_UNPAIRED: Final = "Nothing is compared: equal numbers of these trials are no equal seeds."


def _both(cells: Cells, arch: str, mode: str) -> tuple[Values, Values]:
    """Return the counts of a mode and of mode none; empty if the trials are not paired by seed."""
    arm, none = (cells.cell(arch, each).correct for each in (mode, _NONE))
    return (arm, none) if cells.paired else (arm[:0], none[:0])


def _in_percent(found: Paired, samples: int) -> Paired:
    """Convert a comparison of counts to percentage points."""
    return replace(
        found,
        difference=100 * found.difference / samples,
        low=100 * found.low / samples,
        high=100 * found.high / samples,
    )


def _floor(found: Sequence[Paired]) -> str:
    """Return a note on the least possible p, since a correction over many tests leaves none small."""
    pairs, tests = max((each.n for each in found), default=0), sum(not np.isnan(each.p) for each in found)
    if pairs < LEAST_N:
        return f"Below {LEAST_N} pairs there is a difference alone, no interval and no test."
    if pairs > EXACT_PAIRS:
        return "p: two-sided sign-flip test."
    least = 2.0 ** (1 - pairs)
    return (
        f"p: two-sided sign-flip test, with {pairs} pairs at least {least:.3g}; if only one comparison of "
        f"the {tests:,} stood out, Holm's correction would make that {min(1.0, least * tests):.2g}."
    )


def aggregate_table(
    frame: pd.DataFrame,
    *,
    caption: str = "All architectures together",
    label: str = "tab:aggregate",
    seed: int = 0,
) -> Table:
    """Return the interquartile mean of each mode over all trials and architectures, and the probability that
    one of its trials beats one of mode none on an architecture drawn at random, with stratified bootstrap
    intervals (95 %, seeded by `seed`). Architectures with missing trials are excluded.
    """
    cells = cells_of(frame)
    found = aggregate(cells, _NONE, seed)
    rows: list[tuple[Cell, ...]] = [
        (mode, found.means.get(mode), found.improvements.get(mode)) for mode in MODES
    ]
    columns = (
        Column("Mode"),
        Column("Interquartile mean (%)", "interval"),
        Column("P(better than none)", "interval", 3),
    )
    note = (
        f"Over {len(found.archs):,} of {len(cells.archs):,} architectures, those whose trials are all there; "
        f"intervals: 95% stratified bootstrap, each arm drawn on its own. {cells.note()}"
    )
    return Table(caption, label, columns, tuple(rows), note)
