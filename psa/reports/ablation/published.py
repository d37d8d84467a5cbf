"""The ablation study compared with its published results: regimes and accuracies, cell by cell."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pandas as pd

from psa.analysis.frame_columns import LABELS, spec_columns
from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import (
    POOLED_SETTINGS,
    equal_budgets,
    finished_lengths,
    unset_text,
    with_known_settings,
)
from psa.analysis.published import Reference
from psa.analysis.regimes import REGIMES
from psa.analysis.stats import ALPHA, LEAST_N, Difference, Interval, Summary, holm, welch
from psa.core.formatting import format_number, format_range, join_names
from psa.experiments.studies.ablation import Settings, from_settings
from psa.reports.ablation.cells import Cells, cells_of, mode_order
from psa.reports.ablation.numbers import cells_note, regimes
from psa.reports.rendering.tables import Cell, Column, Table
from psa.specs.training import MODES

PUBLISHED_LOOPS: Final = 100
_FREE: Final = ("study", "family", "arch", "mode")  # compared, or only a name
WITHIN: Final = 2.0  # percentage points; the study's own criterion of a reproduction
_ONE_PAGE: Final = 40  # rows
_PRINTED: Final = 0.0006  # half of the last printed digit, and a little: means this close are printed alike


def published_difference(frame: pd.DataFrame, reference: Reference) -> str | None:
    """Return why the trials of a frame of one family must not be compared with the published ones: a sentence
    on the settings in which they differ. None if they are equal in all settings, in length and in size.
    """
    rows = trials_of(equal_budgets(frame))
    differ = {LABELS[name].lower(): values for name, values in _differing(rows).items()}
    lengths = list(finished_lengths(rows))
    if lengths and lengths != [PUBLISHED_LOOPS]:
        differ["meta-loops"] = join_names([f"{each:,}" for each in lengths]), f"{PUBLISHED_LOOPS:,}"
    for row in rows.dropna(subset=["parameters"]).itertuples():
        published = reference.parameters.get(str(row.arch))
        if published is not None and published != row.parameters:
            differ[f"parameters of {row.arch}"] = f"{row.parameters:,}", f"{published:,}"
            break  # the table is of another family
    if not differ:
        return None
    parts = "; ".join(f"{name} {here} (published: {there})" for name, (here, there) in differ.items())
    return f"Not compared with the published results, since these trials differ from them in: {parts}."


def comparable_reference(frame: pd.DataFrame, reference: Reference | None) -> Reference | None:
    """Return the published numbers if the trials of a frame may be compared with them, else None."""
    return None if reference is None or published_difference(frame, reference) else reference


def _differing(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Return the settings that differ from those of the published study, by name: here, and published."""
    known = with_known_settings(rows)
    found: dict[str, tuple[str, str]] = {}
    for mode, part in known.groupby("mode", observed=True):
        published = published_settings(str(mode))
        for name in POOLED_SETTINGS:
            here = part[name].dropna().unique()
            if name not in _FREE and any(each != published[name] for each in here):
                texts = sorted({_shown(name, each) for each in part[name].unique()})
                found[name] = join_names(texts), _shown(name, published[name])
    return found


@cache
def published_settings(mode: str) -> dict[str, Any]:
    """Return the settings of a trial of the published study in some mode, by column."""
    settings = Settings.model_validate({"arch": "1*16", "mode": mode, "family": "simplemlp"})
    return spec_columns(from_settings(settings, 0).model_dump(mode="json"))


def _shown(name: str, value: Any) -> str:
    if value is None or pd.isna(value):
        return unset_text(name)
    return format_number(value) if isinstance(value, float) else str(value)


def regime_table(
    frame: pd.DataFrame,
    reference: Reference | None = None,
    *,
    order: Sequence[str] = (),
    caption: str = "Regimes",
    label: str = "tab:regimes",
) -> Table:
    """Return the regime of each architecture of a frame of one family, the published one if there is one, and
    whether they agree. A regime is unknown if a mode is missing or has fewer than LEAST_N trials.
    """
    cells = cells_of(frame)
    known = {} if reference is None else reference.regimes
    found = regimes(cells, cells.archs)
    rows: list[tuple[Cell, ...]] = []
    for arch in mode_order(cells.archs, order):
        here, there = found[arch], known.get(arch)
        # a regime that cannot be decided yet does not disagree
        open_ = len(cells.numbers(arch)) < len(MODES) or cells.few(arch)
        agree = None if there is None or open_ else _yes(here == there)
        published = () if reference is None else (there, agree)
        rows.append((arch, here, *published, _counts(cells, arch)))
    beside = () if reference is None else ("Published", "Agree")
    columns = tuple(map(Column, ("Architecture", "Regime", *beside, "n")))
    counts = Counter(row[1] for row in rows)
    regimes_text = ", ".join(f"{counts[regime]} {regime}" for regime in REGIMES if counts[regime])
    compared = [row[3] for row in rows if reference is not None and row[3] is not None]
    agreed = (
        f" {compared.count('yes'):,} of {len(compared):,} agree with those published." if compared else ""
    )
    zero_r = f"; ZeroR is {cells.zero_r:.2f}%" if cells.any_finished else ""
    undecided = " Unknown: no rule applies, or a mode has no trial." if counts["unknown"] else ""
    if counts["unknown"] < len(rows) and all(map(cells.decay_is_none, cells.archs)):
        undecided += _TWICE
    note = (
        f"{regimes_text}{zero_r}.{agreed} n: of the modes, least and greatest."
        f"{undecided}{few_seeds(cells)} {cells_note(cells)}"
    )
    return Table(caption, label, columns, tuple(rows), note, len(rows) > _ONE_PAGE)


_TWICE: Final = (
    " Mode decay has the results of mode none, so the rules compare the best trial of two different modes "
    "without ablation with that of three with it."
)


def few_seeds(cells: Cells) -> str:
    """Return why regimes are unknown if modes have fewer than LEAST_N trials: the rules were made for ten."""
    if not any(cells.few(arch) for arch in cells.archs):
        return ""
    return f" With fewer than {LEAST_N} trials of a mode chance alone may decide a regime: it is unknown."


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _counts(cells: Cells, arch: str) -> str:
    """Return the number of trials: `10`, or `7 to 10` if it differs among modes."""
    return format_range(len(cells.cell(arch, mode).found) for mode in MODES)


@dataclass(frozen=True)
class _Compared:
    arch: str
    mode: str
    published: Summary
    here: Summary
    difference: Difference


def published_comparison(
    frame: pd.DataFrame,
    reference: Reference,
    *,
    order: Sequence[str] = (),
    within: float = WITHIN,
    alpha: float = ALPHA,
    caption: str = "Published and reproduced validation accuracy (percent)",
    label: str = "tab:published_comparison",
) -> Table:
    """Return each cell of a frame of one family beside the published one, both with the 95 % t interval of
    the mean; their difference with Welch's interval, whether it is within `within` points, and whether it is
    significant at `alpha` after Holm's correction over the whole table.
    """
    cells = cells_of(frame)
    places = [(arch, mode) for arch in mode_order(cells.archs, order) for mode in MODES]
    known = [place for place in places if place in reference.cells]
    found = [_compared(cells, place, reference.cells[place]) for place in known]
    adjusted = holm([each.difference.p for each in found])
    rows = [_row(each, float(p), within, alpha) for each, p in zip(found, adjusted, strict=True)]
    columns = (
        Column("Architecture"),
        Column("Mode"),
        Column("Published", "interval"),
        Column("Here", "interval"),
        Column("n", "count"),
        Column("Difference", "interval", signed=True),
        Column(f"Within {within:g} points"),
        Column("p (Holm)", "p", 3),
        Column("Differ"),
    )
    near = published_agreement(cells, reference, within)
    note = f"{_verdict(rows, near, within, alpha)} {_others(cells, reference)}{cells_note(cells)}"
    return Table(caption, label, columns, tuple(rows), note, len(rows) > _ONE_PAGE)


@dataclass(frozen=True)
class PublishedAgreement:
    """Counts of cells: compared; near (within `within` points of the published mean); within_two_sd (within
    two standard deviations of the published trials); trained and near_trained: compared and near, only for
    architectures of which a trial beats ZeroR.
    """

    near: int
    within_two_sd: int
    compared: int
    near_trained: int
    trained: int


def published_agreement(cells: Cells, reference: Reference, within: float = WITHIN) -> PublishedAgreement:
    """Count the cells with a finished trial whose mean is close to the published one."""
    places = [place for place in reference.cells if cells.cell(*place).found]
    apart = {place: abs(cells.cell(*place).summary.mean - reference.cells[place].mean) for place in places}
    near = {place for place in places if apart[place] <= within}
    usual = [place for place in places if apart[place] <= 2 * reference.cells[place].sd + _PRINTED]
    trained = {place for place in places if cells.above_zero_r(place[0])}
    return PublishedAgreement(
        near=len(near),
        within_two_sd=len(usual),
        compared=len(places),
        near_trained=len(near & trained),
        trained=len(trained),
    )


def _compared(cells: Cells, place: tuple[str, str], published: Summary) -> _Compared:
    cell = cells.cell(*place)
    return _Compared(*place, published, cell.summary, welch(cell.summary, published, _PRINTED))


def _row(found: _Compared, p: float, within: float, alpha: float) -> tuple[Cell, ...]:
    published, here = (Interval(each.mean, each.low, each.high) for each in (found.published, found.here))
    difference = found.difference
    there = not math.isnan(difference.value)
    return (
        found.arch,
        found.mode,
        published,
        here,
        found.here.n,
        Interval(difference.value, difference.low, difference.high),
        _yes(abs(difference.value) <= within) if there else None,
        p,
        None if math.isnan(p) else _yes(p < alpha),
    )


def _verdict(rows: Sequence[tuple[Cell, ...]], near: PublishedAgreement, within: float, alpha: float) -> str:
    differ = [row[-1] for row in rows if row[-1] is not None]
    return (
        f"{near.near:,} of {near.compared:,} cells lie within {within:g} points of the published mean "
        f"({near.near_trained:,} of {near.trained:,} of architectures of which any trial beats ZeroR), "
        f"{near.within_two_sd:,} within two standard deviations of the published trials; "
        f"{differ.count('yes'):,} of {len(differ):,} differ (Welch, p < {alpha:g} after Holm's correction "
        "over all of them)."
    )


def _others(cells: Cells, reference: Reference) -> str:
    """Return a note on the architectures that only one side has."""
    here, there = set(cells.archs), set(reference.regimes)
    parts = [
        f"{count:,} {what} "
        for count, what in (
            (len(there - here), "published architectures have not been run here."),
            (len(here - there), "architectures here were not published."),
        )
        if count
    ]
    return "".join(parts)
