"""The columns of a table that compares arms seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from psa.analysis.stats import Interval, Paired, benjamini_hochberg, holm
from psa.reports.rendering.tables import Cell, Column


def paired_columns(difference: str = "Difference") -> tuple[Column, ...]:
    """Return the columns of `paired_cells`."""
    return (
        Column("Pairs", "count"),
        Column(difference, "interval", signed=True),
        Column("p", "p", 3),
        Column("p (Holm)", "p", 3),
        Column("p (FDR)", "p", 3),
        Column("Hedges g", "number", signed=True),
    )


def paired_cells(found: Sequence[Paired]) -> list[tuple[Cell, ...]]:
    """Return the cells of each comparison, with p corrected over all of them.

    With two pairs the correction of Hedges' g is zero, which does not mean a zero effect: it is left out.
    """
    p_values = [each.p for each in found]
    corrected = zip(holm(p_values), benjamini_hochberg(p_values), strict=True)
    return [
        (
            each.n, Interval(each.difference, each.low, each.high), each.p, *map(float, both),
            each.effect if each.n > 2 else None,
        )
        for each, both in zip(found, corrected, strict=True)
    ]  # fmt: skip
