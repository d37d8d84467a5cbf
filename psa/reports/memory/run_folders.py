"""A folder for each trial of the memory study: its numbers as JSON and CSV, and its figures."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pandas as pd

from psa.analysis.csv_text import csv_bytes
from psa.analysis.records_frame import stored_records
from psa.analysis.sample_details import load_sample_details
from psa.core.errors import UserError
from psa.reports.memory.arm_names import method_of
from psa.reports.memory.listings import epoch_logs
from psa.reports.memory.run_figures import bank_figures, detail_figures, training_figure
from psa.reports.plotting.style import encoded, notes_in
from psa.specs.trial import Trial
from psa.storage.records.record import Record, storable
from psa.storage.store import Store

logger = logging.getLogger(__name__)

_DPI: Final = 150  # low, since there may be hundreds of run folders


def memory_run_folders(runs: pd.DataFrame, store: Store) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the folder's name and its files, for every run (see psa.reports.memory.runs).

    metrics.json: settings, epochs, final metrics, the test with and without the memory, growth.
    epoch_logs.csv: a row per epoch. details.csv: a row per sample, for trials with the probe sample_details.
    Each figure has its notes beside it, NAME.txt. Those of the entries of a memory need its state, and are
    missing without it.
    """
    for record, machine in stored_records(store, map(str, runs["id"])):
        trial = Trial.model_validate(record["spec"])
        yield memory_run_name(trial), _files(record, machine, trial, runs, store)


def memory_run_name(trial: Trial) -> str:
    """Return the name `hybrid_2x48_growing_s11_3fa9c1`: method, layers, seed, beginning of the digest."""
    spec = trial.model_dump(mode="json")
    growing = ["growing"] if trial.growth is not None else []
    parts = [method_of(spec), trial.model.arch.slug, *growing, f"s{trial.seed:02d}", trial.digest[:6]]
    return "_".join(parts)


def _files(
    record: Record, machine: Record, trial: Trial, runs: pd.DataFrame, store: Store
) -> dict[str, bytes]:
    epochs, name = epoch_logs([record], runs), memory_run_name(trial)
    (run,) = runs[runs["id"] == record["id"]].to_dict("records")
    files = {
        "metrics.json": _json(run_metrics(record, machine, epochs, {str(k): v for k, v in run.items()})),
        "epoch_logs.csv": csv_bytes(epochs),
    }
    figures = [("training_curves", training_figure(epochs, name))]
    try:
        details, state = load_sample_details(store, record), store.load_state(trial)
    except UserError as error:  # one damaged file must not take the folders of all other runs with it
        logger.warning("%s has no samples and no entries: %s", record["id"], error.message)
        details, state = None, None
    if details is not None:
        files["details.csv"] = csv_bytes(details)
        figures += detail_figures(details, name)
    if state is not None and state.memory and state.loops == record["loops"]:
        figures += bank_figures(state.memory, name)
    for picture, figure in figures:
        files[f"{picture}.png"] = encoded(figure, "png", _DPI)
        files[f"{picture}.txt"] = "".join(f"{note}\n" for note in notes_in(figure)).encode()
    return files


def run_metrics(
    record: Record, machine: Record, epochs: pd.DataFrame, run: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all numbers of a run under the names of the earlier study. run: its row of the runs."""
    toggle = record.get("probes", {}).get("toggle", {}).get("last", {})
    grown = [event for event in record["events"] if event["grew"]]
    settings = {"id", "arm", "method", "network", "changed", "same", "stage", "classes"}
    return {
        "id": record["id"],
        "arm": run["arm"],
        "config": record["spec"],
        "env": {"device": record["device"], **machine},
        "epoch_logs": epochs.drop(columns=["id", "arm", "method", "stage", "seed"]).to_dict("records"),
        "final_metrics": {name: value for name, value in run.items() if name not in settings},
        "toggle_eval": {
            split: {name: values[at] for name, values in toggle.items() if "." not in name}
            for at, split in enumerate(("validation", "test"))
            if toggle
        },
        "growth": {
            "enabled": record["spec"].get("growth") is not None,
            "events": grown,
            "parameter_count_timeline": list(epochs["parameter_count"]),
        },
    }


def _json(value: Any) -> bytes:
    """Return indented JSON, with null for a number that is missing or not finite."""
    return (json.dumps(storable(value), indent=1, allow_nan=False) + "\n").encode()
