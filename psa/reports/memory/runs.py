"""One row per trial of the study of memory and growth: its settings, its results, its probe results.

An arm is a set of trials that differ only in seed and number of samples; network: the network and its
training, where that is not the usual one; changed: the settings in which its memory is not the usual one. A
stage is an amount of training: samples and epochs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.records_frame import stored_records
from psa.core.errors import UserError
from psa.reports.contract import ReportContext
from psa.reports.memory.arm_names import (
    KNN,
    Usual,
    arm_settings,
    changed_in,
    label_of,
    memory_network,
    method_of,
    without_control,
)
from psa.specs.arch import Arch
from psa.specs.base import canonical_json
from psa.specs.data import DataSpec
from psa.storage.records.record import Record
from psa.storage.store import Store

# In percent: validation, test, ece, and the shares of test samples a memory helped, harmed, left alone.
# delta: nats. magnitude, distance: lengths of hidden vectors. footprint: MB. growth_delta: points of
# validation from the epoch of a growth to the next, mean. throughput: samples a second, evaluation included.
NUMBERS: Final = (
    "validation", "test", "test_loss", "ece", "helped", "harmed", "neutral", "strong_help", "strong_harm",
    "delta", "delta_sd", "with_memory", "without_memory", "acted", "purity", "top1", "distance", "gate",
    "magnitude", "relative", "size", "footprint", "parameters", "depth", "width", "growths", "growth_delta",
    "throughput",
)  # fmt: skip
_SHARES: Final = ("helped", "harmed", "neutral", "strong_help", "strong_harm")


def build_runs(frame: pd.DataFrame, context: ReportContext) -> pd.DataFrame:
    """Return the runs of the finished trials of a frame. Raises UserError without their records."""
    if context.store is None:
        raise UserError("a report on memories needs the records", "Name their folder with --results-dir")
    done = trials_of(frame).query("status == 'done'")
    runs = _stored_runs(context.store, tuple(done["id"].astype(str)), tuple(done["loops"]))
    return with_variants(runs, context)


def with_variants(runs: pd.DataFrame, context: ReportContext) -> pd.DataFrame:
    """Return the runs with the names that the grid gives to their variants before the labels of the arms."""
    names = {arm: context.variant_of(mine["id"]) for arm, mine in runs.groupby("arm")}
    return runs.assign(arm=[f"{names[arm]}: {arm}" if names[arm] else arm for arm in runs["arm"]])


@lru_cache(maxsize=1)  # tables, figures, listings and sentences of a page are of the same runs
def _stored_runs(store: Store, trials: tuple[str, ...], loops: tuple[int, ...]) -> pd.DataFrame:
    """Return the runs of these trials; loops: their lengths, as a record with more loops is another one."""
    return runs_from(stored_records(store, trials))


def runs_from(records: Iterable[tuple[Record, Record]]) -> pd.DataFrame:
    """Return the runs of records with their sidecars; see the module and NUMBERS for the columns."""
    records = list(records)
    usual = Usual.of([record["spec"] for record, _ in records])
    rows = [_row(record, usual, machine) for record, machine in records]
    _name_stages(rows, [record["samples"] for record, _ in records])
    _check_arms(rows, [record["spec"] for record, _ in records])
    texts = (
        "id", "arm", "method", "network", "changed", "same", "stage", "images", "loops", "seed", "classes",
    )  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*texts, *NUMBERS])
    frame = frame.astype(dict.fromkeys(NUMBERS, "float64"))
    return frame.sort_values(["images", "loops", "arm", "seed"], ignore_index=True)


def _name_stages(rows: Sequence[dict[str, Any]], samples: Sequence[Mapping[str, int]]) -> None:
    """Add the numbers of validation and test samples to stages of one name that differ in them."""
    evaluated = [(found["validation"], found["test"]) for found in samples]
    names = [row["stage"] for row in rows]
    kinds = Counter(name for name, _ in {*zip(names, evaluated, strict=True)})
    for row, (validation, test) in zip(rows, evaluated, strict=True):
        if kinds[row["stage"]] > 1:
            row["stage"] += f", evaluated on {validation:,} and {test:,}"


def _check_arms(rows: Sequence[dict[str, Any]], specs: Sequence[Mapping[str, Any]]) -> None:
    """Add a digest to the names of arms of one name that differ in a setting."""
    named: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row, spec in zip(rows, specs, strict=True):
        named.setdefault(row["arm"], {}).setdefault(canonical_json(arm_settings(spec)), []).append(row)
    for several in named.values():
        for settings, mine in several.items() if len(several) > 1 else ():
            for row in mine:
                row["arm"] += f" #{hashlib.sha256(settings.encode()).hexdigest()[:6]}"


def _row(record: Record, usual: Usual, machine: Record) -> dict[str, Any]:
    spec, samples, finals = record["spec"], record["samples"], record["finals"]
    probes = {name: seen["last"] for name, seen in record.get("probes", {}).items()}
    widths = _widths(record["built"]["arch"])
    method = method_of(spec)
    found = {
        "id": record["id"],
        "arm": label_of(spec, usual),
        "method": method,
        "network": memory_network(spec, usual),
        "changed": " ".join(changed_in(spec.get("memory"), usual.memory)),
        "same": canonical_json(without_control(spec)),
        "stage": f"{samples['train']:,} samples, {record['loops']} epochs",
        "images": samples["train"],
        "loops": record["loops"],
        "seed": spec["seed"],
        "classes": canonical_json(DataSpec.model_validate(spec["data"]).class_names),
        "validation": 100 * finals["bounty"]["correct"] / samples["validation"],
        "test": 100 * finals["test"]["correct"] / samples["test"],
        "test_loss": finals["test"]["loss"],
        "parameters": record["built"]["parameters"],
        "depth": len(widths),
        "width": max(widths),
        "throughput": machine.get("train_samples_per_second"),
        **_growth(record),
        **_memory(probes),
    }
    if method == "random_memory":  # nothing is compared with the entries that it draws
        found |= dict.fromkeys(("distance", "top1"))
    if "calibration" in probes:
        found["ece"] = _percent(probes["calibration"]["ece"][1])
    if KNN in probes:
        right, total = probes[KNN]["correct"], probes[KNN]["total"]
        found |= {"validation": 100 * right[0] / total[0], "test": 100 * right[1] / total[1]}
        found |= {"test_loss": None, "ece": None}  # votes give no probabilities
    return found


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _percent_of(count: int | None, total: int) -> float | None:
    return None if count is None else 100 * count / total


def _memory(probes: Mapping[str, Mapping[str, Sequence[Any]]]) -> dict[str, Any]:
    """Return the probe results of a memory on the test split."""
    found: dict[str, Any] = {}
    if "toggle" in probes:
        toggle = {name: values[1] for name, values in probes["toggle"].items() if "." not in name}
        total = toggle["samples"]
        found |= {name: _percent_of(toggle[name], total) for name in _SHARES}
        found |= {"delta": toggle["mean"], "delta_sd": toggle["std"]}
        found |= {f"{name}_memory": 100 * toggle[f"{name}_correct"] / total for name in ("with", "without")}
    if "retrieval" in probes:
        seen = probes["retrieval"]
        for name in ("acted", "purity", "top1", "distance", "gate", "magnitude", "relative"):
            found[name] = seen[name][1]
        found |= {"size": seen["size"][0], "footprint": seen["bytes"][0] / 1e6}
    return found


def _growth(record: Record) -> dict[str, Any]:
    """Return the number of growths, and the mean gain in validation accuracy from each to the next epoch."""
    grown = [event for event in record["events"] if event["grew"]]
    correct = record["history"]["correct"]
    gains = [correct[event["epoch"]] - correct[event["epoch"] - 1] for event in grown]
    gain = 100 * float(np.mean(gains)) / record["samples"]["validation"] if gains else None
    return {"growths": len(grown), "growth_delta": gain}


def _widths(arch: str) -> list[int]:
    return list(Arch.coerce(arch).widths)


def final_stage(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs of the stage with the most seeds, of several the longest: the basis of conclusions."""
    seeds = runs.groupby(["stage", "images", "loops"])["seed"].nunique()
    best = max(seeds.index, key=lambda key: (seeds[key], key[1], key[2]))
    return runs[runs["stage"] == best[0]]
