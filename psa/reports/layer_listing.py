"""Every layer of every network as CSV, means over seeds."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from psa.reports.depths import mean
from psa.reports.layer_use import Use

_LAYER_COLUMNS: Final = (
    "model", "features", "layers", "layer", "place", "mean_output_start", "mean_output", "share",
    "active_share", "parameters_l1_start", "parameters_l1", "exit_accuracy",
)  # fmt: skip


def _layers(use: Use) -> Iterator[dict[str, Any]]:
    columns = {
        "mean_output_start": mean(use.start, axis=0),
        "mean_output": mean(use.end, axis=0),
        "share": use.shares,
        "active_share": mean(use.active, axis=0),
        "parameters_l1_start": mean(use.norms[:, 0], axis=0),
        "parameters_l1": mean(use.norms[:, -1], axis=0),
        "exit_accuracy": mean(use.exits, axis=0),
    }
    for at in range(max(len(values) for values in columns.values())):
        numbers = {name: float(values[at]) for name, values in columns.items() if at < len(values)}
        yield {
            "model": use.network.model,
            "features": use.network.features,
            "layers": use.network.layers,
            "layer": at + 1,
            "place": use.places[at] if at < len(use.places) else "",
            **{name: value for name, value in numbers.items() if not np.isnan(value)},
        }


def layers_csv(uses: Iterable[Use]) -> bytes:
    """A row for each layer, networks in their order."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _LAYER_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for use in sorted(uses, key=lambda each: each.network):
        writer.writerows(_layers(use))
    return text.getvalue().encode()
