"""The frame of records built from rows: its types and its order."""

from __future__ import annotations

import functools
import itertools
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psa.analysis.frame_columns import LOOP_FIELDS, TRIAL_COLUMNS, TRIAL_FIELDS, FrameColumn
from psa.specs.arch import Arch
from psa.specs.training import MODES
from psa.storage.records.history import accepted_loops

_T = TypeVar("_T")

# Of the columns of a stored history; NaN stands for None. Layers and units are below 2^24.
_SMALL: Final = {
    "loop": np.int32, "layer": np.float32, "unit": np.float32, "correct": np.int32, "loss": np.float64,
    "train_loss": np.float64, "kept": np.bool_, "accepted": np.bool_,
}  # fmt: skip
_NO_LOOPS: Final = {name: [None] for name in ("mode", *_SMALL)}  # of a trial without results


def once_per_frame(function: Callable[[pd.DataFrame], _T]) -> Callable[[pd.DataFrame], _T]:
    """Compute a function of a frame once, since every table and figure of a report calls it.

    The result is kept as long as the frame exists. Frames must not be changed in place after the first call,
    and a result must not refer to its frame, which would then exist forever.
    """
    found: dict[int, tuple[weakref.ref[pd.DataFrame], _T]] = {}

    @functools.wraps(function)
    def remembered(frame: pd.DataFrame) -> _T:
        key = id(frame)
        if key not in found:
            result = function(frame)
            found[key] = weakref.ref(frame, lambda _: found.pop(key, None)), result
        return found[key][1]

    return remembered


def trials_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trial: the frame without its loops."""
    return frame.drop_duplicates("id")[list(TRIAL_COLUMNS)].reset_index(drop=True)


def build_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Build the frame from rows of trials, each with its history where there is one.

    The trial columns are typed once per trial and then repeated, the loop columns joined: 5,880 trials of
    100 loops take seconds and not a minute.
    """
    rows = sorted(rows, key=_order)
    histories = [row.get("history") or _NO_LOOPS for row in rows]
    counts = [len(history["loop"]) for history in histories]
    columns = {field.name: [row.get(field.name) for row in rows] for field in TRIAL_FIELDS}
    columns["arm"] = [row.get("arm") or row["mode"] for row in rows]
    trials = _typed(columns, TRIAL_FIELDS)
    accuracy = [
        100 * _numbers(history["correct"]) / (row.get("validation_size") or np.nan)
        for row, history in zip(rows, histories, strict=True)
    ]
    loops: dict[str, Any] = {
        name: np.concatenate([_numbers(history[name]) for history in histories])
        for name in ("loop", "layer", "unit", "loss", "train_loss", "kept")
    }
    loops["loop_mode"] = list(itertools.chain.from_iterable(history["mode"] for history in histories))
    loops["accuracy"] = np.concatenate(accuracy)
    accepted = [_numbers(accepted_loops(history)) for history in histories]
    loops["accepted"] = np.concatenate(accepted)
    loops["ablated"] = [each for history in histories for each in history.get("units", _none(history))]
    taken = [values == 1 for values in accepted]
    loops["lkg"] = np.concatenate([_lkg(*each) for each in zip(accuracy, taken, strict=True)])
    correct = [_numbers(history["correct"]) for history in histories]
    loops["lkg_correct"] = np.concatenate([_lkg(*each) for each in zip(correct, taken, strict=True)])
    repeated = trials.iloc[np.repeat(np.arange(len(rows)), counts)].reset_index(drop=True)
    return pd.concat([repeated, _typed(loops, LOOP_FIELDS)], axis=1)


def as_arrays(history: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a history with a small array in place of each column, which takes a tenth of the memory."""
    return {
        name: np.array(values, _SMALL[name])
        if name in _SMALL
        else [value if value is None else sys.intern(value) for value in values]
        for name, values in history.items()
    }


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers and truth values as floats, None as NaN."""
    return np.array(values, dtype=np.float64)


def _none(history: Mapping[str, Sequence[Any]]) -> list[None]:
    """Return the column of a history that does not have it."""
    return [None] * len(history["loop"])


def _lkg(scores: NDArray[np.float64], kept: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the score of the copy that was kept last, after each loop."""
    last = np.maximum.accumulate(np.where(kept, np.arange(len(kept)), -1))
    return np.where(last >= 0, scores[last], np.nan)


def _order(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a sort key: studies by name, then architectures by depth and falling width, then modes."""
    widths = Arch.coerce(row["arch"]).widths
    mode = MODES.index(row["mode"]) if row["mode"] in MODES else len(MODES)
    return (
        row["source"], row["study"], row["family"], len(widths), [-width for width in widths], mode,
        row["mode"], row.get("arm") or row["mode"], row["seed"], row["id"],
    )  # fmt: skip


def _typed(columns: dict[str, Any], fields: Sequence[FrameColumn]) -> pd.DataFrame:
    """Return a frame of nullable types, so that counts stay integers where others are missing."""
    return pd.DataFrame(
        {
            field.name: pd.Series(
                columns[field.name], dtype="str" if field.dtype == "category" else None
            ).astype(field.dtype)
            for field in fields
        }
    )
