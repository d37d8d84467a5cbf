"""Observations of probes, from records to one tidy frame: a row per trial, probe, quantity, loop, place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from psa.storage.records.record import Record
from psa.storage.store import Store

# loop: 0 before the first one, missing for the LKG after selection. index: of the number in its quantity,
# from 0. place: what it stands for, where the probe says so.
PROBE_COLUMNS: Final = ("id", "probe", "quantity", "loop", "index", "place", "value")


def load_probe_frame(store: Store, names: Sequence[str] = ()) -> pd.DataFrame:
    """Return all observations of the probes of stored trials (of the studies called `names`, or of all)."""
    parts = [part for record in store.records.all(names) for part in _parts(record)]
    columns: dict[str, Any] = {
        name: [part[name] for part in parts] for name in ("id", "probe", "quantity", "loop")
    }
    counts = [len(part["value"]) for part in parts]
    frame = pd.DataFrame(
        {
            name: np.repeat(np.array(columns[name], dtype=object), counts)
            for name in ("id", "probe", "quantity")
        }
    ).astype("category")
    frame["loop"] = pd.array(np.repeat(np.array(columns["loop"], dtype=object), counts), dtype="Int64")
    frame["index"] = np.concatenate([np.arange(count) for count in counts] or [np.empty(0, np.int64)])
    frame["place"] = pd.Series([each for part in parts for each in part["place"]], dtype="str").astype(
        "category"
    )
    values = [np.array(part["value"], dtype=np.float64) for part in parts]  # None becomes NaN
    frame["value"] = np.concatenate(values or [np.empty(0)])
    return frame[list(PROBE_COLUMNS)]


def _parts(record: Record) -> Iterator[dict[str, Any]]:
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
