"""The files of the earlier memory study, made from records: a row per epoch, and the comparison tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from psa.analysis.stats import LEAST_N, all_equal
from psa.reports.memory.comparisons import MemoryComparison
from psa.reports.memory.runs import final_stage
from psa.specs.arch import Arch
from psa.storage.records.record import Record

_RUN: Final = ("id", "arm", "method", "stage", "seed")
_EPOCH: Final = (
    "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "best", "parameter_count", "depth",
    "width", "growth_triggered", "growth_reason",
)  # fmt: skip
# Quantities of the probe retrieval, after each epoch on the validation split; the last five are of the bank.
RETRIEVAL: Final = (
    "acted", "distance", "purity", "top1", "gate", "gate_std", "magnitude", "relative", "size", "bytes",
    "mean_age", "mean_retrieved", "mean_usefulness", "mean_freshness",
)  # fmt: skip
_TESTS: Final = (
    "question", "metric", "config_a", "config_b", "n", "mean_a", "std_a", "mean_b", "std_b",
    "mean_diff_a_minus_b", "ci95_low", "ci95_high", "p_value", "p_value_adjusted", "effect_size_d",
)  # fmt: skip


def epoch_logs(records: Iterable[Record], runs: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each epoch of each run: accuracies in percent, losses in nats.

    runs: psa.reports.memory.runs; only records of its trials count. A network that grows after an epoch has
    `growth_triggered` there, and its new size from the next one on. `retrieval_*` is the trace of the memory
    on the validation split (see psa.probes.memory.RetrievalProbe). Columns without a number are left out.
    """
    named = {str(row["id"]): {key: row[key] for key in _RUN} for row in runs.to_dict("records")}
    rows = [
        named[record["id"]] | epoch
        for record in records
        if record["id"] in named
        for epoch in _epochs(record)
    ]
    frame = pd.DataFrame(rows, columns=[*_RUN, *_EPOCH, *(f"retrieval_{name}" for name in RETRIEVAL)])
    order = {name: at for at, name in enumerate(named)}
    frame = frame.sort_values("id", key=lambda ids: ids.map(order), kind="stable", ignore_index=True)
    return frame.dropna(axis=1, how="all")


def _epochs(record: Record) -> Iterator[dict[str, Any]]:
    history, samples, probes = record["history"], record["samples"], record.get("probes", {})
    fitted, traced = (probes.get(name, {}).get("loops", []) for name in ("train_accuracy", "retrieval"))
    sizes = _sizes(record)
    grown = {event["epoch"]: event for event in record["events"] if event["grew"]}
    for at, epoch in enumerate(history["loop"]):
        yield {
            "epoch": epoch,
            "train_loss": history["train_loss"][at],
            "train_accuracy": _percent(fitted, epoch),
            "val_loss": history["loss"][at],
            "val_accuracy": 100 * history["correct"][at] / samples["validation"],
            "best": history["kept"][at],
            **sizes[at],
            "growth_triggered": epoch in grown,
            "growth_reason": grown[epoch].get("trigger_reason") if epoch in grown else None,
            **_trace(traced, epoch),
        }


def _percent(fitted: Sequence[Mapping[str, Sequence[int]]], epoch: int) -> float | None:
    seen = fitted[epoch] if epoch < len(fitted) else {}
    return 100 * seen["correct"][0] / seen["total"][0] if seen else None


def _trace(traced: Sequence[Mapping[str, Sequence[float | None]]], epoch: int) -> dict[str, float | None]:
    """Return what the memory did on the validation split after an epoch; nothing without the probe."""
    seen = traced[epoch] if epoch < len(traced) else {}
    return {f"retrieval_{name}": seen[name][0] for name in RETRIEVAL if name in seen}


def _sizes(record: Record) -> list[dict[str, int]]:
    """Return parameters, depth and width of the network that each epoch trained."""
    first = record["built"].get("initial", record["built"])
    widths = Arch.coerce(first["arch"]).widths
    now = {"parameter_count": first["parameters"], "depth": len(widths), "width": max(widths)}
    found = []
    grown = {event["epoch"]: event for event in record["events"] if event["grew"]}
    for epoch in record["history"]["loop"]:
        found.append(now)
        if epoch in grown:
            event = grown[epoch]
            now = {
                "parameter_count": event["param_count_after"],
                "depth": len(event["new_hidden_sizes"]),
                "width": max(event["new_hidden_sizes"]),
            }
    return found


def comparison_tests(runs: pd.DataFrame, comparisons: Sequence[MemoryComparison]) -> pd.DataFrame:
    """Return each question as one row, in the columns of the earlier study: test accuracy in percent.

    n counts pairs, means and sample standard deviations are of the seeds of an arm. effect_size_d is Cohen's
    d of the differences, their mean over their standard deviation, which is not corrected for small n.
    """
    last = final_stage(runs) if len(runs) else runs
    table = last.pivot_table(index="seed", columns="arm", values="test", observed=True)
    rows = [
        (
            each.question, "test_accuracy", each.one, each.other, each.found.n,
            *_moments(table[each.one]), *_moments(table[each.other]),
            each.found.difference, each.found.low, each.found.high, each.found.p, each.adjusted,
            _cohen(table[each.one] - table[each.other]),
        )
        for each in comparisons
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(_TESTS))


def _moments(values: pd.Series) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1))


def _cohen(differences: pd.Series) -> float:
    """Return the mean over the standard deviation; NaN below LEAST_N pairs, and where all are equal."""
    found = differences.dropna().to_numpy(np.float64)
    if len(found) < LEAST_N or all_equal(found):
        return float("nan")
    return float(found.mean() / found.std(ddof=1))
