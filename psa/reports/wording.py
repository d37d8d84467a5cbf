"""Sentences that reports share: common settings, and the origin of the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import pandas as pd

from psa.analysis.frame_columns import LABELS
from psa.core.formatting import pluralize

# Columns that are settings, in the order in which tables show them.
SETTINGS: Final = (
    "activation", "arch", "family", "simplex", "temperature", "dropout", "init", "optimizer", "lr",
    "momentum", "batch_size", "weight_decay", "patience", "stop_after", "optimizer_state", "lr_rule",
    "mode", "units", "share", "target", "choice", "change", "amount", "rate", "schedule", "schedule_loops",
    "end_rate", "switch", "regularizer", "dataset", "scaling", "digits", "val_size", "split_seed",
)  # fmt: skip


def format_setting(value: Any) -> str:
    """Format a setting as text; an unset one is a dash."""
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def shared_settings(rows: pd.DataFrame, besides: Collection[str] = ()) -> str:
    """Return the settings that all trials share, except `besides`: `optimizer adam, lr 0.001`; "" for none.

    A missing trial is assumed to share the settings that are unknown.
    """
    same = {key: rows[key].dropna() for key in SETTINGS if key not in besides}
    return ", ".join(
        f"{LABELS[key].lower()} {format_setting(found.iloc[0])}"
        for key, found in same.items()
        if len(found) and found.astype(str).nunique() == 1
    )


def origin(rows: pd.DataFrame, beside: str) -> str:
    """Describe the records behind a page, from rows of one per trial. beside: the detail in the files beside
    the page.
    """
    done = rows[rows["status"] == "done"]
    devices = ", ".join(devices_of(rows)) or "unknown"
    return (
        f"All numbers come from {pluralize(len(done), 'record')} of study {rows['study'].iloc[0]}, one JSON "
        f"file per trial, trained on: {devices}. rows.parquet and rows.csv beside it hold {beside}; each "
        "table can be downloaded below it."
    )


def devices_of(rows: pd.DataFrame) -> list[str]:
    """Return the kinds of device that trained these trials."""
    return sorted(set(rows["device"].dropna()))


def absence(rows: pd.DataFrame) -> str | None:
    """Return `3 of 60 expected trials are not there (1 failed, 2 missing)`; None if all are done."""
    counts = Counter(rows["status"][rows["status"] != "done"])
    if not counts:
        return None
    named = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    return f"{sum(counts.values()):,} of {len(rows):,} expected trials are not there ({named})"


def unequal_lengths(lengths: Sequence[int], unit: str) -> str | None:
    """Return a note on finished trials of these lengths, ascending; None if there is one length."""
    if len(lengths) < 2:
        return None
    return (
        f"The trials were not trained equally long: {lengths[0]} to {lengths[-1]} {unit}. Name the grid with "
        "--grid, and what is shorter than it asks for is left out of every mean."
    )


def several_devices(rows: pd.DataFrame) -> str | None:
    """Return a reason why arms of one seed may differ in their last bits; None for one kind of device."""
    devices = devices_of(rows)
    if len(devices) < 2:
        return None
    return (
        f"The trials were trained on different devices ({', '.join(devices)}): the arms of a seed agree "
        "there closely, but not to the bit"
    )
