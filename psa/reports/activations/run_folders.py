"""A folder for each trial: its weights as ordinary files, all numbers of its run as JSON, its figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pandas as pd
from safetensors.numpy import save as encode_tensors

from psa.analysis.records_frame import stored_records
from psa.reports.activations.run_figures import activation_figure, run_curves, run_thresholds, weight_figure
from psa.reports.plotting.style import encoded
from psa.specs.model import NetworkSpec
from psa.specs.trial import Trial
from psa.storage.records.divergence import diverged
from psa.storage.records.record import Record
from psa.storage.store import Store
from psa.storage.trial_state import Tensors

_DPI = 150  # low, since there are hundreds of run folders


def run_folders(frame: pd.DataFrame, store: Store) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the folder's name and its files, for every trial that is done or diverged.

    best_model.safetensors: the weights that were tested (the LKG); final_model.safetensors: those after the
    last epoch. If the state was not kept, both are missing, and run_stats.json says so. A trial that diverged
    has no best model and no numbers of one.
    """
    done = frame[frame["status"].isin(["done", "diverged"])].drop_duplicates("id")
    for record, machine in stored_records(store, map(str, done["id"])):
        trial = Trial.model_validate(record["spec"])
        yield run_name(trial), _files(record, machine, trial, store)


def run_name(trial: Trial) -> str:
    """Return the name `1x512-1x256_relu_dropout0.1_s00_3fa9c1`: architecture, activation, temperature of
    stochastic layers and dropout if there are any, seed, and the beginning of the digest.
    """
    model = trial.model
    parts = [model.arch.slug, model.activation.slug if isinstance(model, NetworkSpec) else "relu"]
    if isinstance(model, NetworkSpec) and model.simplex != "none":
        parts.append(f"t{model.temperature:g}")
    parts += [f"dropout{model.dropout:g}"] if model.dropout else []
    return "_".join([*parts, f"s{trial.seed:02d}", trial.digest[:6]])


def _files(record: Record, machine: Record, trial: Trial, store: Store) -> dict[str, bytes]:
    state = store.load_state(trial)
    files: dict[str, bytes] = {}
    weights: dict[str, Any] = {"kept": state is not None}
    if state is not None:
        best = None if diverged(record) else state.lkg_loop
        if best is not None:
            files["best_model.safetensors"] = _model(state.lkg, trial, best)
        files["final_model.safetensors"] = _model(state.carried.get("active", state.lkg), trial, state.loops)
        weights |= {"best_model_epoch": best, "final_model_epoch": state.loops}
    stats = run_stats(record, trial, machine) | {"weights": weights}
    files["run_stats.json"] = strict_json(stats)
    name = run_name(trial)
    files["training_curves.png"] = encoded(run_curves(stats, name), "png", _DPI)
    if stats["weight_analysis"]:
        files["weight_distributions.png"] = encoded(weight_figure(record, trial, name), "png", _DPI)
    if stats["activation_analysis"]:
        files["activation_distributions.png"] = encoded(activation_figure(record, trial, name), "png", _DPI)
    if stats["thresholds"]:
        files["threshold_values.png"] = encoded(run_thresholds(stats, name), "png", _DPI)
    return files


def _model(tensors: Tensors, trial: Trial, epoch: int) -> bytes:
    """Return weights under ordinary names; one metadata entry, since the order of several is not defined."""
    return encode_tensors(dict(tensors), metadata={"psa": json.dumps({"id": trial.id, "epoch": epoch})})


def strict_json(value: Any) -> bytes:
    """Return indented JSON. Raises ValueError for NaN and infinity, which JSON does not have."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def run_stats(record: Record, trial: Trial, sidecar: dict[str, Any]) -> dict[str, Any]:
    """Return all numbers of a run: metadata, curves (one number per epoch, accuracies in percent), thresholds
    by layer (from before training on), final metrics, analysis of weights and activations of the tested
    weights.
    """
    probes, history, samples = record.get("probes", {}), record["history"], record["samples"]
    lost = diverged(record)
    fit = probes.get("train_accuracy", {"loops": [], "last": {}})
    spec = trial.model_dump(mode="json")
    return {
        "metadata": {
            "run_name": run_name(trial),
            "id": record["id"],
            "digest": record["digest"],
            "model_config": spec["model"],
            "training_config": spec["method"],
            "data_config": spec["data"],
            "seed": trial.seed,
            "probes": list(trial.probes),
            "built": record["built"],
            "samples": samples,
            "device": record["device"],
            "environment": sidecar,
        },
        "curves": {
            "epoch": history["loop"],
            "train_loss": history["train_loss"],
            "val_loss": history["loss"],
            "val_acc": [100 * count / samples["validation"] for count in history["correct"]],
            "train_acc": [_percent(seen) for seen in fit["loops"][1:]],
        },
        "thresholds": _thresholds(probes.get("thresholds"), lost),
        "final_metrics": _finals(record, {} if lost else fit["last"]),
        "weight_analysis": {} if lost else _weights(record, trial),
        "activation_analysis": {} if lost else _activations(record),
    }


def _percent(seen: dict[str, Any]) -> float | None:
    return 100 * seen["correct"][0] / seen["total"][0] if seen else None


def _finals(record: Record, fit: dict[str, Any]) -> dict[str, Any]:
    finals, samples, history = record["finals"], record["samples"], record["history"]
    at, lost = finals["bounty"]["loop"] - 1, diverged(record)
    return {
        "diverged": lost,
        "best_epoch": finals["bounty"]["loop"],
        "best_val_loss": history["loss"][at] if at >= 0 else None,
        "best_val_acc": None if lost else 100 * finals["bounty"]["correct"] / samples["validation"],
        "zero_r_val_acc": 100 * samples["zero_r_validation"] / samples["validation"],
        "train_acc": _percent(fit),
        "test_acc": None if lost else 100 * finals["test"]["correct"] / samples["test"],
        "test_loss": None if lost else finals["test"]["loss"],
        "total_epochs": record["loops"],
        "stopped_early": finals["stopped_early"],
    }


def _thresholds(seen: dict[str, Any] | None, lost: bool) -> dict[str, dict[str, Any]]:
    """Return the thresholds of each layer: by epoch from before training on, and of the tested weights."""
    if seen is None:
        return {}
    return {
        place: {
            "by_epoch": [each["threshold"][at] for each in seen["loops"]],
            "best": None if lost else seen["last"]["threshold"][at],
        }
        for at, place in enumerate(seen["places"]["threshold"])
    }


def _weights(record: Record, trial: Trial) -> dict[str, dict[str, Any]]:
    """Return the moments of every parameter tensor, by name; of softmax(V / T) for a stochastic layer."""
    seen = record.get("probes", {}).get("distributions")
    if seen is None:
        return {}
    shape, found = trial.shape, {}
    for name, sizes in {
        name: sizes for linear in shape.linears for name, sizes in linear.tensors.items()
    }.items():
        moments = _moments(seen, f"weights.{name}")
        negative = moments["percent_negative"]
        found[name] = moments | {
            "norm": seen["last"][f"weights.{name}.norm"][0],
            "has_negative": None if negative is None else negative > 0,
            "shape": list(sizes),
            "num_params": math.prod(sizes),
        }
    return found


def _activations(record: Record) -> dict[str, dict[str, Any]]:
    """Return moments of each hidden layer before and after its activation, and its output sum per sample."""
    seen = record.get("probes", {}).get("distributions")
    if seen is None:
        return {}
    layers = [name.split(".", 1)[1].removesuffix(".sum") for name in seen["last"] if name.endswith(".sum")]
    return {
        layer: {
            "before": _moments(seen, f"before.{layer}"),
            "after": _moments(seen, f"after.{layer}")
            | dict(zip(("sum_mean", "sum_min", "sum_max"), seen["last"][f"after.{layer}.sum"], strict=False)),
        }
        for layer in layers
    }


def _moments(seen: dict[str, Any], name: str) -> dict[str, Any]:
    moments = dict(zip(seen["places"]["moments"], seen["last"][f"{name}.moments"], strict=True))
    negative = moments.pop("negative")
    return {**moments, "percent_negative": None if negative is None else 100 * negative}
