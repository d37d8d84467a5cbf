"""The samples of a trial, read from the file of the probe sample_details: a row per sample of a split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from psa.specs.probes import DETAILS
from psa.specs.trial import Trial
from psa.storage.array_file import read_arrays
from psa.storage.checkpoint import arrays_beside
from psa.storage.store import Store


def details_path(store: Store, record: Mapping[str, Any]) -> tuple[Path, str] | None:
    """Return the path of the details of a record and the SHA-256 that it names, None without the probe."""
    name = f"{DETAILS}-{record['loops']}"
    entry = record.get("files", {}).get(name)
    if entry is None:
        return None
    state = store.state_file(Trial.model_validate(record["spec"])).path
    return arrays_beside(state, name), str(entry["sha256"])


def load_sample_details(store: Store, record: Mapping[str, Any]) -> pd.DataFrame | None:
    """Return the details of a trial: `split` (validation, test), then the columns that
    psa.probes.sample_details describes, and `loss_change`, the loss with the memory minus that without it.

    Args:
        store: The store whose weights folder holds the file.
        record: The record of the trial.

    Returns:
        One row per sample, in the order of the splits; None for a trial without the probe, and for one whose
        file was removed with its checkpoint.

    Raises:
        CorruptFileError: The file is not the one that the record names.

    Example:
        >>> from psa import Store
        >>> from psa.analysis.sample_details import load_sample_details
        >>> store = Store("models", "results")
        >>> found = [load_sample_details(store, record) for record in store.records.all()]  # doctest: +SKIP

    """
    place = details_path(store, record)
    if place is None or not place[0].exists():
        return None
    arrays = read_arrays(*place).arrays
    splits: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name in arrays:
        split, _, quantity = name.partition(".")
        splits.setdefault(split, {})[quantity] = np.array(arrays[name])
    parts = [
        pd.DataFrame({"split": split, **_ordered(splits[split])})
        for split in sorted(splits, reverse=True)  # validation, test
    ]
    return pd.concat(parts, ignore_index=True)


_COLUMNS = (
    "index", "digit", "label", "prediction", "loss", "confidence", "prediction_without", "loss_without",
    "confidence_without", "loss_change", "distance", "purity", "top1", "gate", "magnitude", "relative",
)  # fmt: skip


def _ordered(found: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    if "loss_without" in found:
        change = found["loss"].astype(np.float64) - found["loss_without"].astype(np.float64)
        found = found | {"loss_change": change}
    return {name: found[name] for name in _COLUMNS if name in found}
