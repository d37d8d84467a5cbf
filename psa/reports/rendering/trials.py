"""The trials behind a page, in the form that the page shows when a cell is opened."""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from psa.analysis.frame_columns import LABELS
from psa.analysis.frame_schema import trials_of
from psa.experiments.grid import Grid, GridPoint
from psa.specs.activation import Activation
from psa.specs.arch import Arch
from psa.specs.base import canonical_json
from psa.storage.records.record_store import StoredRecord

# Columns of the frame that the list of trials shows, besides those in which its trials differ.
_SHOWN: Final = ("seed", "status", "loops", "bounty", "test")
_NAMES: Final = ("study", "family", "arch", "activation", "mode")
# Headings of trials of ordinary training (policy keep), which has epochs and no last known good state.
_ORDINARY: Final = {"loops": "Epochs", "bounty": "Validation (%)"}
_MOST_CURVES: Final = 1_000_000  # loops of all trials; above that a page would pass 10 MB
_MOST_LOSSES: Final = 100_000
_PERCENT: Final = ("lkg", "accuracy")
_LOSSES: Final = ("loss", "train_loss")
_Flat = dict[str, Any]


@dataclass(frozen=True)
class StoredTrial:
    """The settings of a trial as its record has them, with its sidecar (empty without one).

    place: where it is stored, from the results folder on.
    """

    place: str
    spec: Mapping[str, Any] = field(repr=False)
    sidecar: Mapping[str, Any] = field(repr=False)


ArmSide = Literal["other", "both"]


@dataclass(frozen=True)
class CellTrials:
    """The trials that a cell of a table stands for.

    rows: the headings whose cells select trials, each with the name that it has in the trial index.
    columns: further names and values for the cells below a heading, such as {"Full": {"mode": "full"}}.
    others: for each row of a table that compares arms, the names and values in which the trials of the arm
    that is subtracted differ from those of the row, such as {"mode": "none"}. sides: the headings whose cells
    stand for that other arm, or for both, as a difference does; a cell below another heading stands for the
    arm of its row. needs: a name in the trial index: trials without a value of it are in no cell.
    """

    rows: Mapping[str, str]
    columns: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    others: Sequence[Mapping[str, str]] = ()
    sides: Mapping[str, ArmSide] = field(default_factory=dict)
    needs: str = ""


@dataclass(frozen=True)
class TrialIndex:
    """The trials of a page: their settings, records, curves and commands, as JSON values."""

    content: Mapping[str, Any]

    @property
    def has_commands(self) -> bool:
        """True if the page has the command that trains a trial again, for any of its trials."""
        return any(self.content["commands"])

    def encoded(self) -> str:
        """Return the content as JSON, compressed by zlib, as Base64 text."""
        return base64.b64encode(zlib.compress(canonical_json(self.content).encode())).decode()


def stored_trial(stored: StoredRecord, results: Path) -> StoredTrial:
    """Return what a page shows of a record in a results folder, or in a bundle given in place of one."""
    machine = stored.machine()
    folder = results if results.is_dir() else results.parent
    place = stored.place.removeprefix(f"{folder}/")
    return StoredTrial(place, stored.record["spec"], {} if machine is None else machine[1])


def index_trials(
    frame: pd.DataFrame,
    stored: Mapping[str, StoredTrial],
    trial_names: Mapping[str, Mapping[str, Any]] | None = None,
    commands: Mapping[str, str] | None = None,
) -> TrialIndex:
    """Return the trials of a frame of records.

    trial_names: names of the report for a trial, by its id, such as its arm, and numbers of the report with
    headings that end with (%). commands: the command that
    trains a trial again, by its id.
    """
    trial_names = trial_names or {}
    rows = _arms_together(trials_of(frame), trial_names)
    ids = [str(name) for name in rows["id"]]
    extra = list(dict.fromkeys(key for name in ids for key in trial_names.get(name, ())))
    varied = [name for name in _NAMES if rows[name].astype(str).nunique() > 1]
    columns = [name for name in varied if name not in extra and LABELS[name] not in extra]
    values = {key: tuple(trial_names.get(name, {}).get(key) for name in ids) for key in extra}
    # a name that repeats another one for every trial, such as arms that differ in their architecture alone
    shown = {texts: key for key, texts in reversed(values.items())}
    ordinary = bool((rows["policy"] == "keep").all())
    headings = LABELS | (_ORDINARY if ordinary else {})
    content = {
        "headings": {name: headings.get(name, name) for name in (*columns, *_SHOWN, *extra)},
        "loop": "Epoch" if ordinary else "Meta-loop",
        "kept": "Kept weights" if ordinary else "LKG",
        "listed": [*(key for key in extra if shown[values[key]] == key), *columns, *_SHOWN],
        "rows": {name: _values(rows[name]) for name in (*_NAMES, *_SHOWN)}
        | {key: list(texts) for key, texts in values.items()}
        | {"id": ids, "record": [stored[name].place if name in stored else None for name in ids]},
        "spec": _specs([stored[name].spec if name in stored else {} for name in ids]),
        "commands": [(commands or {}).get(name) for name in ids],
        "curves": _curves(frame, ids),
    }
    return TrialIndex(content)


def _arms_together(rows: pd.DataFrame, trial_names: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Return the trials with those of one arm side by side: arms in the order in which the report names them,
    those without a name last, in the order of their first trials.

    A frame knows no names of a report: it has the trials of arms with one architecture and mode by seed.
    """
    names = rows["id"].astype(str)
    texts = [[text for text in trial_names.get(name, {}).values() if isinstance(text, str)] for name in names]
    arms = rows[list(_NAMES)].astype(str).assign(labels=list(map(str, texts)))
    groups = arms.groupby(list(arms), sort=False, dropna=False)
    numbers = groups.ngroup()
    places = names.map({name: at for at, name in enumerate(trial_names)}).fillna(len(trial_names))
    order = np.lexsort((numbers, places.groupby(numbers).transform("min")))
    return rows.iloc[order].reset_index(drop=True)


def _values(column: pd.Series[Any]) -> list[Any]:
    """Return a column as JSON values: numbers with four decimals, None for a missing one."""
    return [None if pd.isna(value) else _plain(value) for value in column]


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return round(float(value), 4)
    return int(value) if isinstance(value, int | np.integer) else str(value)


def flat_spec(spec: Mapping[str, Any], before: str = "") -> _Flat:
    """Return the settings of a spec by dotted names; lists and tables that are empty stay values."""
    found: _Flat = {}
    for key, value in spec.items():
        nested = isinstance(value, Mapping) and value
        found |= flat_spec(value, f"{before}{key}.") if nested else {f"{before}{key}": value}
    return found


def _specs(specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the settings that all stored trials share, and the values of the others, one per trial."""
    flat = [flat_spec(spec) for spec in specs]
    there = [spec for spec in flat if spec]
    keys = sorted({key for spec in there for key in spec})
    same = {key for key in keys if len({json.dumps(spec.get(key), sort_keys=True) for spec in there}) == 1}
    return {
        "common": {key: there[0].get(key) for key in keys if key in same},
        "varied": {key: [spec.get(key) for spec in flat] for key in keys if key not in same},
    }


def _curves(frame: pd.DataFrame, ids: Sequence[str]) -> dict[str, list[list[Any] | None]]:
    """Return the curves of each trial over its loops: LKG and current accuracy in hundredths of a percent,
    and losses with four digits where they take little room.
    """
    loops = frame[frame["loop"].notna()]
    if len(loops) > _MOST_CURVES:
        return {}
    names = [*_PERCENT, *(_LOSSES if len(loops) <= _MOST_LOSSES else ())]
    codes = pd.Categorical(loops["id"].astype(str), categories=list(ids)).codes
    order = np.lexsort((loops["loop"].to_numpy(np.int64), codes))
    ends = np.searchsorted(codes[order], np.arange(len(ids) + 1))
    found: dict[str, list[list[Any] | None]] = {}
    for name in names:
        numbers = loops[name].to_numpy(np.float64, na_value=np.nan)[order]
        if not np.isfinite(numbers).any():
            continue
        written = _hundredths(numbers) if name in _PERCENT else _short(numbers)
        parts = [written[start:end] for start, end in itertools.pairwise(ends)]
        found[name] = [part or None for part in parts]
    return found


def _hundredths(numbers: np.ndarray[Any, Any]) -> list[int | None]:
    return [None if np.isnan(value) else round(100 * value) for value in numbers.tolist()]


def _short(numbers: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(f"{value:.4g}") if np.isfinite(value) else None for value in numbers.tolist()]


def selections(grid: Grid) -> dict[str, str]:
    """Return the value of --only that selects a trial of a grid, by its id: `arch=[1*2] mode=full seed=3`.

    A trial without one is left out: it differs from others in a value that the command line cannot express.
    """
    # those that --only leaves out, too: the command has to tell a trial from them
    declared = [point for stage in grid.stages for point in stage.everyone]
    if not declared:
        return {}
    keys = [key for key in type(declared[0].settings).model_fields if _varies(declared, key)]
    keys = [*(["variant"] if any(point.variant for point in declared) else []), *keys, "seed"]
    found = {}
    for point in grid.points:
        values = {key: value for key in keys if (value := point.value(key)) is not None}
        texts = {
            key: (_name_text if key == "variant" else _clause_text)(value) for key, value in values.items()
        }
        if all(text is not None for text in texts.values()):
            found[point.trial.id] = " ".join(f"{key}={text}" for key, text in texts.items())
    return found


def _varies(points: Sequence[GridPoint], key: str) -> bool:
    """Return True for a setting with several values among points of one variant, or without variants."""
    seen: dict[str, str] = {}
    return any(
        seen.setdefault(point.variant, str(point.value(key))) != str(point.value(key)) for point in points
    )


def _name_text(name: str) -> str | None:
    """Return the name of a variant as text for --only, in quotes where it needs them."""
    if not set(name) & set(" ,'\"([\n\t"):
        return name
    return next((f"{quote}{name}{quote}" for quote in "\"'" if quote not in name), None)


def _clause_text(value: Any) -> str | None:
    """Return a setting as text for --only, None where that has no text for it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Arch | Activation | int | float):
        return str(value)
    text = str(value) if isinstance(value, str) else None
    return None if text is None or set(text) & set(" ,'\"") else text
