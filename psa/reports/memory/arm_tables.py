"""The table of every arm of a memory study: one for files, two for the page, where one would be cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from psa.reports.memory.arm_names import KNN
from psa.reports.rendering.tables import Cell, Column, MeanSd, Table

_GREW: Final = "Growth and next epoch"
# The consolidated table: column of the runs, heading, kind of its cells, digits.
_SHOWN: Final = (
    ("validation", "Validation %", 2), ("test", "Test %", 2), ("test_loss", "Test loss", 4),
    ("ece", "ECE %", 2),
    ("helped", "Helped %", 1), ("harmed", "Harmed %", 1), ("neutral", "Neutral %", 1),
    ("strong_help", "Strong help %", 1), ("strong_harm", "Strong harm %", 1), ("delta", "Change of loss", 5),
    ("with_memory", "With %", 2), ("without_memory", "Without %", 2), ("relative", "Moved, share", 5),
    ("magnitude", "Moved", 4), ("gate", "Gate", 3), ("distance", "Distance", 3), ("purity", "Purity", 3),
    ("top1", "Top-1", 3), ("size", "Entries", 0), ("footprint", "MB", 3), ("growths", "Growths", 0),
    ("growth_delta", _GREW, 2), ("throughput", "Samples/s", 0),
)  # fmt: skip
_KEYS: Final = ("Arm", "Stage", "Seeds")
# The headings that describe what a memory does to a network, not the network.
_EFFECTS: Final = (
    "Helped %", "Harmed %", "Neutral %", "Strong help %", "Strong harm %", "Change of loss", "With %",
    "Without %", "Moved, share", "Moved", "Gate", "Distance", "Purity", "Top-1",
)  # fmt: skip
_SCATTER: Final = "Means and sample standard deviations over seeds."
_OF_EFFECTS: Final = (
    "What a memory helped and harmed is of the test split, same weights with and without it; shares of "
    "helped, harmed and neutral samples add up to 100. Strong: changes of loss beyond 0.2 nats. Change of "
    "loss: its mean in nats. With %, Without %: test accuracy. Moved: mean length of the change of a hidden "
    "vector, also as a share of the length of that vector. Gate: mean weight of what was retrieved. Of the "
    "retrieved entries: Distance, their mean distance; Purity, the share with the label of the sample; "
    "Top-1, the share of samples whose nearest entry has their label; neither Distance nor Top-1 is "
    "measured of entries drawn at random."
)
_OF_VOTES: Final = (
    f"Rows of {KNN} show the vote; the table of stages and the list of trials show its network alone."
)
_OF_NETWORKS: Final = "Test numbers are of the last weights, evaluated once."
_OF_GROWTHS: Final = (
    f"{_GREW}: validation accuracy after the first epoch that a network trained since it grew, minus that "
    "before, mean over its growths, in points; the growth itself changes no answer, so this is the gain of "
    "an epoch of training too."
)


def _note(columns: Sequence[Column], arms: Iterable[Cell], *parts: str) -> str:
    """Return a note of these parts, and those on growths and on votes if there are any."""
    grew = (_OF_GROWTHS,) if any(column.name == _GREW for column in columns) else ()
    votes = (_OF_VOTES,) if any(KNN in str(arm) for arm in arms) else ()
    return " ".join((_SCATTER, *parts, *grew, *votes))


def consolidated(runs: pd.DataFrame) -> Table:
    """Return every arm of every stage, means and standard deviations over seeds, without empty columns."""
    shown = [each for each in _SHOWN if runs[each[0]].notna().any()]
    if not runs["growths"].fillna(0).any():  # no network of these grew
        shown = [each for each in shown if each[0] != "growths"]
    columns = (
        Column("Stage"), Column("Arm", breaks=5), Column("Seeds", "count"), Column("Parameters", "count"),
        *(Column(name, "mean_sd", digits) for _, name, digits in shown),
    )  # fmt: skip
    rows = []
    for (stage, arm), mine in runs.groupby(["stage", "arm"], sort=False):
        numbers: list[Cell] = [_mean_sd(mine[column]) for column, _, _ in shown]
        rows.append((str(stage), str(arm), len(mine), int(mine["parameters"].max()), *numbers))
    note = _note(columns, runs["arm"], _OF_EFFECTS, _OF_NETWORKS)
    return Table("Every arm", "tab:memory_arms", columns, tuple(rows), note, long=True, wide=True)


def _mean_sd(values: pd.Series) -> MeanSd | None:
    there = values.dropna()
    if there.empty:
        return None
    sd = float(there.std(ddof=1)) if len(there) > 1 else float("nan")
    return MeanSd(float(there.mean()), sd, len(there), len(values))


def of_networks(table: Table) -> Table:
    """Return the columns of the consolidated table that describe networks, for the page."""
    names = [column.name for column in table.columns if column.name not in (*_KEYS, *_EFFECTS)]
    note = _note(table.columns, (row[1] for row in table.rows), _OF_NETWORKS)
    return _columns(table, (*_KEYS, *names), table.label, table.caption, note)


def of_memories(table: Table) -> Iterator[Table]:
    """Yield its columns on what the memories do, for the page: of the arms that have any."""
    names = [column.name for column in table.columns if column.name in _EFFECTS]
    effects = [at for at, column in enumerate(table.columns) if column.name in _EFFECTS]
    acting = tuple(row for row in table.rows if any(row[at] is not None for at in effects))
    if acting:
        yield _columns(
            replace(table, rows=acting), (*_KEYS, *names), "tab:memory_effects",
            "What the memory of every arm does", f"{_SCATTER} {_OF_EFFECTS}",
        )  # fmt: skip


def _columns(table: Table, names: Sequence[str], label: str, caption: str, note: str) -> Table:
    """Return some columns of a table in this order."""
    places = [next(at for at, column in enumerate(table.columns) if column.name == name) for name in names]
    columns = tuple(table.columns[at] for at in places)
    rows = tuple(tuple(row[at] for at in places) for row in table.rows)
    return replace(table, columns=columns, rows=rows, label=label, caption=caption, note=note)
