"""The tables that compare further arms than the modes: each with mode none and with its mode as published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import differing_settings, with_known_settings
from psa.analysis.stats import ALPHA, paired
from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.arms.pairs import (
    accuracies_after,
    bounties_after,
    common_seeds,
    histories_after,
    lengths_of,
    pairs_of,
)
from psa.reports.ablation.cells import COMPARED_CELLS
from psa.reports.ablation.numbers import unequal_arms_note
from psa.reports.rendering.paired import paired_cells, paired_columns, paired_test_note, with_marks
from psa.reports.rendering.tables import Cell, Column, Table, value_of
from psa.specs.training import MODES
from psa.specs.training.settings import AblationSettings, RatchetSettings

NONE: Final = "none"
_ONE_PAGE: Final = 40  # rows
# Settings in which arms may differ; the learning rate by a rule, of which an architecture has one.
_RATES: Final = ("lr", "weight_decay", "dropout")
_ONE_PER_ARM: Final = (*_RATES, *AblationSettings.model_fields, *RatchetSettings.model_fields)
COMPARED_ARMS: Final = (*COMPARED_CELLS, "plugins", *_ONE_PER_ARM)
_SAME: Final = (
    "Identical pairs have the same accuracy and losses in every loop, so that both arms did the same; on "
    "identical architectures all pairs are. They count as differences of 0."
)
_IDENTICAL: Final = ("Pairs", "Identical pairs", "Identical architectures")
_TESTED: Final = "Tested are the weights of the bounty, once, at the end of a trial."


def arm_tables(frame: pd.DataFrame) -> dict[str, Table]:
    """Return tables that compare arms, of a frame of one family that holds more arms than the modes.

    For every length of a finished trial, since a staged grid trains some of its arms longer: each arm minus
    mode none, and minus the published arm of its own mode, over architectures and for each of them; a mode of
    a plugin minus mode none. Raises UserError where trials of one arm differ in anything but architecture and
    seed, or data differ.
    """
    rows = trials_of(frame)
    for column, names in differing_settings(rows, COMPARED_ARMS).items():
        raise UserError(
            f"the rows hold more than one {column}: {join_names(names)}", "Name one grid with --grid"
        )
    _check_arms(rows)
    found = {}
    for loops in lengths_of(rows):
        scores, histories = bounties_after(frame, loops), histories_after(frame, loops)
        compared, tests = (
            _Compared.of(scores, loops, histories),
            _Compared.of(accuracies_after(rows, loops), loops),
        )
        modes = dict(zip(rows["arm"].astype(str), rows["mode"].astype(str), strict=True))
        none = {arm: NONE for arm in modes if arm != NONE}
        own = {arm: mode for arm, mode in modes.items() if arm != mode}
        found[f"arms_minus_none_{loops}"] = _arm_table(compared, none, "mode none")
        found[f"arms_minus_none_test_{loops}"] = _arm_table(tests, none, "mode none")
        found[f"arms_minus_mode_{loops}"] = _arm_table(compared, own, "its mode as published")
        found[f"arms_by_architecture_{loops}"] = _by_architecture(
            scores, own, loops, "its mode as published", "arms"
        )
        of_plugins = {arm: NONE for arm, mode in modes.items() if arm == mode not in MODES}
        found[f"modes_by_architecture_{loops}"] = _by_architecture(
            scores, of_plugins, loops, "mode none", "modes"
        )
    return {
        name: table
        for name, table in found.items()
        if table.rows or name.removeprefix("arms_minus_none_").isdecimal()
    }


@dataclass(frozen=True)
class _Compared:
    """The scores of arms after so many loops, of the seeds that all arms have. note: on other seeds.
    histories: all results of the same trials (see histories_after), None of test accuracies.
    """

    scores: pd.Series
    note: str
    loops: int
    histories: pd.Series | None

    @classmethod
    def of(cls, scores: pd.Series, loops: int, histories: pd.Series | None = None) -> _Compared:
        """Return the scores of the seeds that all arms have."""
        return cls(*common_seeds(scores), loops, histories)

    @property
    def subject(self) -> str:
        """The name of the scores."""
        return "Test accuracy" if self.histories is None else "Bounty"


def _check_arms(rows: pd.DataFrame) -> None:
    """Raise UserError for an arm whose trials of one architecture differ in more than their seeds."""
    arms = with_known_settings(rows).groupby(["arm", "arch"], observed=True)
    for column in _ONE_PER_ARM:  # a label rounds numbers, and leaves out settings of policy keep
        several = arms[column].nunique(dropna=False) > 1
        for arm, arch in several.index[several]:
            raise UserError(
                f"the rows hold arm {arm!r} of {arch} with more than one {column}",
                "Name one grid with --grid",
            )
    twice = rows[rows.duplicated(["arm", "arch", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"the rows hold arm {row['arm']!r} of {row['arch']} seed {row['seed']} more than once",
            "Name one grid with --grid",
        )


def _arm_table(compared: _Compared, base: Mapping[str, str], beside: str) -> Table:
    """Return the table of arms minus their base, by the means of architectures over the seeds of both."""
    names, found, pairs = [], [], list[pd.DataFrame]()
    for arm, other in base.items():
        both = pairs_of(compared.scores, arm, other)
        if len(both):
            means = both.groupby("arch", observed=True).mean()
            names.append((arm, other))
            pairs.append(both)
            found.append(paired(means["arm"], means["base"]))
    columns = (Column("Arm", breaks=7), *paired_columns("Difference (points)", pairs="Architectures"))
    rows: list[tuple[Cell, ...]] = [
        (arm, *with_marks(cells)) for (arm, _), cells in zip(names, paired_cells(found), strict=True)
    ]
    more = _TESTED
    if compared.histories is not None:
        more = _SAME
        columns += tuple(Column(name, "count") for name in _IDENTICAL)
        same = [_identical(compared.histories, *each, both) for each, both in zip(names, pairs, strict=True)]
        rows = [(*row, *counts) for row, counts in zip(rows, same, strict=True)]
    notes = (
        f"Bold: p < {ALPHA:g} after Holm's correction over this table. Of each architecture the mean "
        "difference over the seeds that both arms have; interval and p over architectures.",
        paired_test_note(found, "architectures"), more, compared.note,
        unequal_arms_note(both.index for both in pairs),
    )  # fmt: skip
    kind = beside.split()[1] if beside.startswith("mode") else "own"
    tested = "_test" * (compared.histories is None)
    after = pluralize(compared.loops, "loop")
    return Table(
        f"{compared.subject} of each arm after {after} minus that of {beside}",
        f"tab:arms_{kind}{tested}_{compared.loops}", columns, tuple(rows), " ".join(filter(None, notes)),
        len(rows) > _ONE_PAGE,
    )  # fmt: skip


def _identical(histories: pd.Series, arm: str, base: str, pairs: pd.DataFrame) -> tuple[int, int, int]:
    """Return the number of pairs, that of identical ones, and that of architectures without any other."""
    both = pairs_of(histories, arm, base).loc[pairs.index]
    same = both["arm"] == both["base"]
    return len(same), int(same.sum()), int(same.groupby("arch", observed=True).all().sum())


def only_tested(table: Table) -> Table:
    """Return a table without the rows that have no test, for a page; whole if none has one."""
    at = [column.name for column in table.columns].index("p")
    rows = tuple(row for row in table.rows if value_of(row[at]) is not None)
    if not rows or len(rows) == len(table.rows):
        return table
    left = pluralize(len(table.rows) - len(rows), "comparison")
    note = f"{table.note} The files of this table also have {left} without a test.".strip()
    return replace(table, rows=rows, note=note, long=len(rows) > _ONE_PAGE)


def _by_architecture(scores: pd.Series, base: Mapping[str, str], loops: int, beside: str, kind: str) -> Table:
    """Return the table of arms minus their base (`beside` names it), seed by seed for each architecture."""
    names, found = [], []
    for arm, other in base.items():
        parts = {
            str(arch): pairs for arch, pairs in pairs_of(scores, arm, other).groupby("arch", observed=True)
        }
        for arch in by_size(parts):
            names.append((arch, arm))
            found.append(paired(parts[arch]["arm"], parts[arch]["base"]))
    columns = (Column("Architecture"), Column("Arm", breaks=6), *paired_columns("Difference (points)"))
    rows = [(*name, *cells) for name, cells in zip(names, paired_cells(found), strict=True)]
    return Table(
        f"Bounty of each arm after {pluralize(loops, 'loop')} minus {beside}, seed by seed",
        f"tab:{kind}_by_architecture_{loops}", columns, tuple(rows), paired_test_note(found),
        len(rows) > _ONE_PAGE,
    )  # fmt: skip
