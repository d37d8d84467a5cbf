"""Observations of probes, from records to one tidy frame: a row per trial, probe, quantity, loop, place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from psa.analysis.frame_columns import PROBE_FIELDS
from psa.storage.records.record import Record
from psa.storage.store import Store


def load_probe_frame(store: Store, names: Sequence[str] = ()) -> pd.DataFrame:
    """Return all observations of the probes of stored trials (of the studies called `names`, or of all)."""
    return build_probe_frame([part for record in store.records.all(names) for part in probe_parts(record)])


def build_probe_frame(parts: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Build the frame from the parts of records: see probe_parts."""
    counts = [len(part["value"]) for part in parts]
    columns: dict[str, Any] = {
        name: np.repeat(np.array([part[name] for part in parts], dtype=object), counts)
        for name in ("id", "probe", "quantity", "loop")
    }
    columns["loop"] = pd.array(columns["loop"], dtype="Int64")
    columns["index"] = np.concatenate([np.arange(count) for count in counts] or [np.empty(0, np.int64)])
    columns["place"] = pd.Series([each for part in parts for each in part["place"]], dtype="str")
    values = [np.array(part["value"], dtype=np.float64) for part in parts]  # None becomes NaN
    columns["value"] = np.concatenate(values or [np.empty(0)])
    return pd.DataFrame(columns).astype({field.name: field.dtype for field in PROBE_FIELDS})


def probe_parts(record: Record) -> Iterator[dict[str, Any]]:
    """Yield one part for every list of numbers in a record."""
    for probe, seen in record.get("probes", {}).items():
        places = seen["places"]
        looks = [*enumerate(seen["loops"]), (pd.NA, seen["last"])]
        for loop, quantities in looks:
            for quantity, values in quantities.items():
                named = places.get(quantity.rpartition(".")[2], places.get("", []))
                named = named if len(named) >= len(values) else [""] * len(values)
                yield {
                    "id": record["id"],
                    "probe": probe,
                    "quantity": quantity,
                    "loop": loop,
                    "place": named[: len(values)],
                    "value": values,
                }
