"""The columns of a table that compares arms seed by seed."""

from __future__ import annotations

from collections.abc import Sequence

from psa.analysis.stats import Paired, benjamini_hochberg, holm
from psa.reports.rendering.tables import Cell, Column


def paired_columns(
    difference: str = "Difference",
    corrected: Sequence[str] = ("p (Holm)", "p (FDR)"),
    pairs: str = "Pairs",
    effect: str = "Hedges g",
) -> tuple[Column, ...]:
    """Return the columns of `paired_cells` or, with other headings of corrected p, of `paired_row`."""
    return (
        Column(pairs, "count"),
        Column(difference, "interval", signed=True),
        *(Column(name, "p", 3) for name in ("p", *corrected)),
        Column(effect, "number", signed=True),
    )


def paired_row(found: Paired, *corrected: float) -> tuple[Cell, ...]:
    """Return the cells of a comparison: pairs, difference, p, corrected p, effect."""
    return found.n, found.interval, found.p, *corrected, found.effect


def paired_cells(found: Sequence[Paired]) -> list[tuple[Cell, ...]]:
    """Return the cells of each comparison, with p corrected over all of them."""
    p_values = [each.p for each in found]
    corrected = zip(holm(p_values), benjamini_hochberg(p_values), strict=True)
    return [paired_row(each, *map(float, both)) for each, both in zip(found, corrected, strict=True)]
