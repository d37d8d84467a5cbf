"""The columns of a table that compares arms seed by seed, and the findings of such a table as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from psa.analysis.stats import (
    ALPHA,
    EXACT_PAIRS,
    LEAST_N,
    Interval,
    Paired,
    benjamini_hochberg,
    holm,
    least_sign_flip_p,
)
from psa.core.formatting import pluralize
from psa.reports.rendering.tables import Bold, Cell, Column, Table, central, value_of
from psa.reports.rendering.trials import ArmSide, CellTrials

_HOLM_AT: Final = 3  # place of p after Holm's correction among the cells of a comparison
_MOST: Final = 100  # points between two percentages
_MOST_EFFECT: Final = 10  # beyond this, g of a few differences reflects their small scatter, not the effect
CORRECTIONS: Final = (  # note on the columns of corrected p
    "Corrected over this table: p (Holm) by Holm's method, p (FDR) by that of Benjamini and Hochberg (false "
    "discovery rate)."
)
_NAMED: Final = 6  # most arms that a sentence lists; a longer list is read in the table


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
        Column(effect, "number", signed=True, most=_MOST_EFFECT),
    )


def paired_row(found: Paired, *corrected: float) -> tuple[Cell, ...]:
    """Return the cells of a comparison of percentages: pairs, difference, p, corrected p, effect."""
    shown = difference_interval(found.difference, found.low, found.high)
    return found.n, shown, found.p, *corrected, found.effect


def difference_interval(value: float, low: float, high: float) -> Interval:
    """Return a difference of two percentages with its interval restricted to -100 .. 100, where the true
    difference lies: that of few scattered seeds reaches further.
    """
    return Interval(value, float(np.maximum(low, -_MOST)), float(np.minimum(high, _MOST)))


def restriction_note(intervals: Iterable[tuple[float, float]]) -> str:
    """Return a note, after a space, if `difference_interval` restricts any of these intervals; else ""."""
    restricted = any(low < -_MOST or high > _MOST for low, high in intervals)
    return f" Intervals are restricted to -{_MOST} to {_MOST}." if restricted else ""


def sign_flip_interval_note(found: Sequence[Paired]) -> str:
    """Return a note, after a space, on t intervals that include 0 beside a small p; "" without any."""
    apart = any(each.low <= 0 <= each.high and each.p < ALPHA for each in found)
    skewed = (
        f" Where an interval includes 0 beside p < {ALPHA:g}, the differences are skewed: the interval "
        "assumes that they scatter normally, the test does not."
    )
    return skewed * apart


def paired_notes(
    found: Sequence[Paired],
    intervals: Iterable[tuple[float, float]] | None = None,
    *,
    sign_flip: bool = False,
) -> str:
    """Return the notes on the cells of compared arms, each after a space; "" without any.

    intervals: those that the cells show, by default those of the comparisons. sign_flip: their p are of
    sign-flip tests, which do not always agree with t intervals.
    """
    shown = [(each.low, each.high) for each in found] if intervals is None else intervals
    disagreement = sign_flip_interval_note(found) if sign_flip else ""
    return restriction_note(shown) + disagreement + effect_note(found)


def sign_flip_test_note(found: Sequence[Paired], pairs: str) -> str:
    """Return a note on the test of a table: the least possible p, since a correction over many tests leaves
    none small, and the rows without a test. pairs: what a pair is, in the plural.
    """
    most, tests = max((each.n for each in found), default=0), sum(not np.isnan(each.p) for each in found)
    alone = f"Below {LEAST_N} {pairs} there is a difference alone."
    if most < LEAST_N:
        return alone
    if not tests:
        return ""
    few = f" {alone}" if any(0 < each.n < LEAST_N for each in found) else ""
    if most > EXACT_PAIRS:
        return f"p: two-sided sign-flip test. {CORRECTIONS}{few}"
    least = least_sign_flip_p(most)
    return (
        f"p: two-sided sign-flip test, with {most} {pairs} at least {least:.3g}, and after Holm's correction "
        f"for {pluralize(tests, 'test')} at least {min(1.0, least * tests):.2g}"
        f"{', so that none can be significant' * (least * tests >= ALPHA)}. {CORRECTIONS}{few}"
    )


def paired_test_note(found: Sequence[Paired], pairs: str = "pairs") -> str:
    """Return a note on the sign-flip tests of a table, on its intervals and on its effects."""
    return sign_flip_test_note(found, pairs) + paired_notes(found, sign_flip=True)


def effect_note(found: Iterable[Paired]) -> str:
    """Return a note, after a space, on effects that are not shown as numbers; "" without any."""
    effects = [each.effect for each in found if each.n >= LEAST_N]
    beyond = (
        f" Hedges' g beyond \u00b1{_MOST_EFFECT} is shown as >+{_MOST_EFFECT} or <-{_MOST_EFFECT}: the "
        "differences scatter too little to estimate it."
    )
    constant = " Hedges' g is undefined where all differences are equal and not 0."
    large = any(abs(effect) > _MOST_EFFECT for effect in effects)
    return beyond * large + constant * bool(np.isnan(effects).any())


def paired_cells(found: Sequence[Paired]) -> list[tuple[Cell, ...]]:
    """Return the cells of each comparison, with p corrected over all of them."""
    p_values = [each.p for each in found]
    corrected = zip(holm(p_values), benjamini_hochberg(p_values), strict=True)
    return [paired_row(each, *map(float, both)) for each, both in zip(found, corrected, strict=True)]


def with_marks(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Return the cells of a comparison with p after Holm's correction in bold if it is significant."""
    p = value_of(cells[_HOLM_AT])
    if not isinstance(p, float) or p >= ALPHA:
        return tuple(cells)
    return (*cells[:_HOLM_AT], Bold(p), *cells[_HOLM_AT + 1 :])


def paired_trials(
    table: Table,
    rows: Mapping[str, str],
    other: Callable[[Mapping[str, str]], Mapping[str, str]],
    *,
    of_one: Sequence[str] = (),
    of_other: Sequence[str] = (),
) -> CellTrials:
    """Return the trials of the cells of a table that compares arms: those of both arms, as of a difference,
    but for headings of the arm of the row (`of_one`) and of the arm that is subtracted (`of_other`).

    rows: see CellTrials; their cells name the arm of the row. other: returns, from the texts of a row by
    heading, the names and values in which the other arm differs.
    """
    names = [column.name for column in table.columns]
    texts = [dict(zip(names, (str(value_of(cell)) for cell in row), strict=True)) for row in table.rows]
    sides: dict[str, ArmSide] = {
        name: "other" if name in of_other else "both" for name in names if name not in (*rows, *of_one)
    }
    return CellTrials(rows, others=tuple(map(other, texts)), sides=sides)


def arm_findings(table: Table) -> tuple[str, ...]:
    """Return sentences on the arms that differ significantly in a table of arms minus mode none, () without
    arms.
    """
    columns = [column.name for column in table.columns]
    at, adjusted = columns.index("Difference (points)"), columns.index("p (Holm)")
    rows = [(str(row[0]), _number(row[at]), _number(row[adjusted])) for row in table.rows]
    tested = [row for row in rows if not np.isnan(row[2])]
    if not tested:
        why = f"No arm was compared on at least {LEAST_N} architectures, so no difference is tested."
        return (why,) if rows else ()
    most = max(int(_number(row[columns.index("Architectures")])) for row in table.rows)
    if (least := len(tested) * least_sign_flip_p(most)) >= ALPHA:
        return (
            f"No difference from mode none can be significant: with {pluralize(most, 'architecture')} and "
            f"{pluralize(len(tested), 'test')} p is at least {min(1.0, least):.2g} after Holm's correction.",
        )
    significant = {arm: difference for arm, difference, p in tested if p < ALPHA}
    count = (
        f"The difference from mode none is significant (p < {ALPHA:g} over architectures, after Holm's "
        f"correction) for {len(significant)} of {pluralize(len(tested), 'tested arm')}"
    )
    if len(significant) > _NAMED:
        return (f"{count}. {' '.join(_extremes(significant))} Their p is bold in the table.",)
    named = ", ".join(_with_points(*each) for each in significant.items())
    return (f"{count}{': ' if named else ''}{named}.",)


def _extremes(differences: Mapping[str, float]) -> Iterator[str]:
    """Yield a sentence on the arms above mode none, and one on those below."""
    for sign, side in ((1, "above"), (-1, "below")):
        ordered = sorted(differences, key=lambda arm: -sign * differences[arm])
        arms = [arm for arm in ordered if sign * differences[arm] > 0]
        if not arms:
            yield f"None of them is {side} mode none."
            continue
        first = _with_points(arms[0], differences[arms[0]])
        last = _with_points(arms[-1], differences[arms[-1]])
        verb = "is" if len(arms) == 1 else "are"
        ends = first if len(arms) == 1 else f"from {last} to {first}"
        yield f"{len(arms)} {verb} {side} mode none: {ends}."


def _with_points(arm: str, difference: float) -> str:
    return f"{arm} ({difference:+.2f} points)"


def _number(cell: Cell) -> float:
    return np.nan if (found := central(value_of(cell))) is None else float(found)
