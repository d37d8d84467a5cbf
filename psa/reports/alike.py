"""The settings of trials in words: which there are, what they are called, and those that all share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

import pandas as pd

# Columns that are settings, in the order in which tables show them, and what they are called there.
SETTINGS: Final[Mapping[str, str]] = {
    "activation": "Activation", "arch": "Architecture", "family": "Wiring", "simplex": "Simplex",
    "temperature": "Temperature", "dropout": "Dropout", "init": "Init", "optimizer": "Optimizer", "lr": "lr",
    "momentum": "Momentum", "batch_size": "Batch size", "weight_decay": "Weight decay",
    "patience": "Patience", "mode": "Mode", "dataset": "Data set", "scaling": "Scaling", "digits": "Digits",
    "val_size": "Validation size", "split_seed": "Split seed",
}  # fmt: skip


def shown(value: Any) -> str:
    """A setting as text; what is not set is a dash."""
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


def alike(rows: pd.DataFrame, besides: Collection[str] = ()) -> str:
    """The settings that all trials share, but for those named: `optimizer adam, lr 0.001`; "" for none.

    What is not known of a missing trial is taken to be as in the others.
    """
    same = {key: rows[key].dropna() for key in SETTINGS if key not in besides}
    return ", ".join(
        f"{SETTINGS[key].lower()} {shown(found.iloc[0])}"
        for key, found in same.items()
        if len(found) and found.astype(str).nunique() == 1
    )
