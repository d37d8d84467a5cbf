"""Sentences that reports share: common settings, and the origin of the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import pandas as pd

from psa.analysis.frame_columns import LABELS
from psa.analysis.pooling import (
    comparable_parts,
    file_name_part,
    label_settings,
)
from psa.analysis.stats import LEAST_N, Summary
from psa.core.formatting import format_number, join_names, pluralize

# Columns that are settings of an arm, in the order in which tables show them.
SETTINGS: Final = (
    "activation", "arch", "family", "simplex", "temperature", "dropout", "init", "policy", "optimizer", "lr",
    "momentum", "batch_size", "weight_decay", "patience", "stop_after", "optimizer_state", "lr_rule",
    "mode", "units", "share", "target", "choice", "change", "amount", "rate", "schedule", "schedule_loops",
    "end_rate", "switch", "regularizer", "dataset", "content_name", "sha256", "scaling", "digits", "val_size",
    "split_seed", "stratified", "train_size", "subset_test_size", "memory", "growth", "legs", "plugins",
)  # fmt: skip

FALL: Final = 10.0  # points of validation accuracy below the best epoch from which on weights are far worse


def format_setting(value: Any) -> str:
    """Format a setting as text; an unset one is a dash."""
    if value is None:
        return "-"
    return format_number(value) if isinstance(value, float) else str(value)


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


def pages_of(
    name: str, rows: pd.DataFrame, besides: Collection[str], *, by_length: bool = True
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page, called `name`, or one for each of the settings other than `besides` in which the trials
    differ, and with `by_length` for each number of loops.
    """
    for apart, part in comparable_parts(rows, besides, by_length=by_length):
        part.attrs["apart"] = apart  # which the page cannot tell from its own rows
        yield f"{name}_{file_name_part(apart)}" if apart else name, part


def other_lengths(frame: pd.DataFrame) -> str | None:
    """Return a note on trials of another number of loops, on pages of their own; None without any."""
    if "loops" not in frame.attrs.get("apart", {}):
        return None
    here = int(frame.attrs["apart"]["loops"])
    lengths = frame.attrs["lengths"].items()
    others = [f"{pluralize(count, 'trial')} of {loops:,}" for loops, count in lengths if loops != here]
    return (
        f"This page has the trials of {here:,} meta-loops. Those of another length ({join_names(others)}) "
        "are on pages of their own, and nothing is compared across lengths."
    )


def apart_text(frame: pd.DataFrame) -> str:
    """Return `, lr 0.001` for the settings that set a page of `pages_of` apart; "" for none."""
    apart = label_settings(frame.attrs.get("apart", {}))
    return f", {apart}" if apart else ""


def origin(rows: pd.DataFrame, beside: str) -> str:
    """Describe the records behind a page, from rows of one per trial. beside: the detail in the files of the
    folder of the page.
    """
    done = rows[rows["status"] == "done"]
    devices = ", ".join(devices_of(rows)) or "unknown"
    study = rows["study"].iloc[0]
    records = (
        f"All numbers come from {pluralize(len(done), 'record')} of study {study}, one per trial, trained "
        f"on: {devices}."
        if len(done)
        else f"No trial of study {study} finished, so this page has no accuracies."
    )
    return (
        f"{records} The command below writes rows.parquet and rows.csv, which hold {beside}, into the "
        "folder of the same name as this page; each table can be downloaded below it."
    )


def judged_text(judged: int, measured: int, what: str) -> str:
    """Return how many cells or arms of a headline have LEAST_N trials, after a semicolon; "" if all have.

    what: the noun.
    """
    return f"; of {pluralize(judged, what)} with {LEAST_N} or more trials" if judged < measured else ""


def interval_text(found: Summary) -> str:
    """Return `95 % interval 91.20 to 92.80, n = 5`, or the number of trials alone where they are too few."""
    if found.n < LEAST_N:
        return f"n = {found.n}"
    return f"95 % interval {found.low:.2f} to {found.high:.2f}, n = {found.n}"


def few_trials(most: int) -> str | None:
    """Return why nothing is concluded from at most `most` trials per arm; None if they are enough."""
    if most >= LEAST_N or not most:
        return None
    return (
        f"No arm has more than {pluralize(most, 'trial')}. Intervals, tests and verdicts need at least "
        f"{LEAST_N} trials per arm, because fewer do not show how much the seeds differ."
    )


def devices_of(rows: pd.DataFrame) -> list[str]:
    """Return the kinds of device that trained these trials."""
    return sorted(set(rows["device"].dropna()))


def absence(rows: pd.DataFrame) -> str | None:
    """Return `3 of 60 expected trials have no result (1 failed, 2 missing)`; None if all are done."""
    counts = Counter(rows["status"][rows["status"] != "done"])
    if not counts:
        return None
    named = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
    have = "has" if sum(counts.values()) == 1 else "have"
    return f"{sum(counts.values()):,} of {len(rows):,} expected trials {have} no result ({named})"


def missing_trials(statuses: Mapping[str, int]) -> str:
    """Return `Missing: 3 trials (1 failed).` from the number of trials of each status; "" if all are done.

    A trial without a record has no reason in brackets.
    """
    absent = {status: count for status, count in sorted(statuses.items()) if status != "done"}
    if not any(absent.values()):
        return ""
    why = ", ".join(f"{count:,} {status}" for status, count in absent.items() if status != "missing")
    return f"Missing: {pluralize(sum(absent.values()), 'trial')}{f' ({why})' if why else ''}."


def several_devices(rows: pd.DataFrame) -> str | None:
    """Return a reason why arms of one seed may differ in their last bits; None for one kind of device."""
    devices = devices_of(rows)
    if len(devices) < 2:
        return None
    return (
        f"The trials were trained on different devices ({', '.join(devices)}): the arms of a seed agree "
        "there closely, but not to the bit"
    )


def zero_r_note(zero_r: float, *, shown: bool) -> str:
    """Return the note of a figure on ZeroR, which is a dashed line where the scale reaches down to it."""
    return f"{'Dashed' if shown else 'Not on the scale'}: ZeroR of the validation split, {zero_r:.2f} %."
