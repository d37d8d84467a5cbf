"""The shape of a frame of records: its columns, their types and their order."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psa.specs.arch import Arch
from psa.specs.training import MODES

# Of the trial. status: done, unfinished (fewer loops than asked), diverged (see
# psa.storage.records.divergence), failed (its last try), damaged (its record), missing. diverged_loops: how
# many of its loops diverged, also of a trial that is done. bounty, test and zero_r are percentages;
# validation_size and test_size the samples they are of; bounty_correct: validation samples that the bounty
# stands for. source: psa, or published.
TRIAL_COLUMNS: Final = (
    "id",
    "study",
    "kind",
    "family",
    "arch",
    "activation",
    "simplex",
    "temperature",
    "init",
    "mode",
    "seed",
    "status",
    "parameters",
    "policy",
    "optimizer",
    "lr",
    "momentum",
    "batch_size",
    "weight_decay",
    "patience",
    "dropout",
    "dataset",
    "scaling",
    "digits",
    "val_size",
    "split_seed",
    "loops",
    "diverged_loops",
    "stopped_early",
    "validation_size",
    "bounty",
    "bounty_correct",
    "bounty_loop",
    "test_size",
    "test",
    "test_loss",
    "zero_r",
    "device",
    "source",
)
# Of a loop. accuracy: of the trained copy, percent of the validation split. lkg: of the LKG after the loop;
# lkg_correct: the same as a count.
# layer, unit: what was ablated before it. loop_mode: its mode, where a trial changed it on the way.
LOOP_COLUMNS: Final = (
    "loop", "loop_mode", "layer", "unit", "accuracy", "lkg", "lkg_correct", "loss", "train_loss", "kept",
)  # fmt: skip
_TEXTS: Final = (
    "id", "study", "kind", "family", "arch", "activation", "simplex", "init", "mode", "status", "policy",
    "optimizer", "dataset", "scaling", "digits", "device", "source", "loop_mode",
)  # fmt: skip
_COUNTS: Final = (
    "seed", "parameters", "batch_size", "patience", "val_size", "split_seed", "loops", "diverged_loops",
    "validation_size", "bounty_correct", "bounty_loop", "test_size", "loop", "layer", "unit", "lkg_correct",
)  # fmt: skip
_TRUTHS: Final = ("stopped_early", "kept")
# Of the columns of a stored history; NaN stands for None. Layers and units are below 2^24.
_SMALL: Final = {
    "loop": np.int32, "layer": np.float32, "unit": np.float32, "correct": np.int32, "loss": np.float64,
    "train_loss": np.float64, "kept": np.bool_,
}  # fmt: skip
_NO_LOOPS: Final = {
    name: [None] for name in ("loop", "mode", "layer", "unit", "correct", "loss", "train_loss", "kept")
}


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
    trials = _typed({name: [row.get(name) for row in rows] for name in TRIAL_COLUMNS})
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
    kept = [_numbers(history["kept"]) == 1 for history in histories]
    loops["lkg"] = np.concatenate([_lkg(*each) for each in zip(accuracy, kept, strict=True)])
    correct = [_numbers(history["correct"]) for history in histories]
    loops["lkg_correct"] = np.concatenate([_lkg(*each) for each in zip(correct, kept, strict=True)])
    repeated = trials.iloc[np.repeat(np.arange(len(rows)), counts)].reset_index(drop=True)
    return pd.concat([repeated, _typed(loops)[list(LOOP_COLUMNS)]], axis=1)


def as_arrays(history: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a history with a small array in place of each column, which takes a tenth of the memory."""
    return {
        name: [sys.intern(mode) for mode in values] if name == "mode" else np.array(values, _SMALL[name])
        for name, values in history.items()
    }


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    """Return numbers and truth values as floats, None as NaN."""
    return np.array(values, dtype=np.float64)


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
        row["mode"], row["seed"], row["id"],
    )  # fmt: skip


def _typed(columns: dict[str, Any]) -> pd.DataFrame:
    """Return a frame of nullable types, so that counts stay integers where others are missing."""
    kinds = dict.fromkeys(_TEXTS, "category") | dict.fromkeys(_COUNTS, "Int64")
    kinds |= dict.fromkeys(_TRUTHS, "boolean")
    return pd.DataFrame(
        {
            name: pd.Series(values, dtype="str" if name in _TEXTS else None).astype(
                kinds.get(name, "float64")
            )
            for name, values in columns.items()
        }
    )
