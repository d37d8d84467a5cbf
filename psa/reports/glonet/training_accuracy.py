"""The training accuracy of the depth study after each epoch, of trials with the probe train_accuracy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from psa.analysis.csv_text import csv_bytes
from psa.analysis.stats import Values
from psa.reports.glonet.networks import GlonetResults, Network, Trained

# By network: percent [seeds, epochs], NaN where it was not measured.
TrainingAccuracies = Mapping[Network, Values]


def training_accuracies_of(results: GlonetResults, observed: pd.DataFrame | None) -> dict[Network, Values]:
    """Return the training accuracy of each network that has any. observed: psa.analysis.probe_frame."""
    if observed is None or not len(observed):
        return {}
    seen = observed[
        (observed["probe"] == "train_accuracy") & observed["loop"].notna() & (observed["loop"] > 0)
    ]
    if not len(seen):
        return {}
    counts = seen.assign(id=seen["id"].astype(str)).pivot(
        index=["id", "loop"], columns="quantity", values="value"
    )
    percent = 100 * counts["correct"] / counts["total"]
    by_trial = {str(name): values.to_numpy(np.float64) for name, values in percent.groupby(level="id")}
    found = {network: _stacked(trained, by_trial) for network, trained in results.trained.items()}
    return {network: values for network, values in found.items() if np.isfinite(values).any()}


def _stacked(trained: Trained, by_trial: Mapping[str, Values]) -> Values:
    """Return [seeds, epochs] of one network; NaN for trials that are not done, or were not observed."""
    stacked: Values = np.full_like(trained.accuracies, np.nan)
    for at, name in enumerate(trained.done_ids):
        values = by_trial.get(name)
        if values is not None:
            length = min(len(values), stacked.shape[1])
            stacked[at, :length] = values[:length]
    return stacked


def final_training_accuracy(values: Values) -> Values:
    """Return [seeds] the training accuracy after the last epoch that a trial was trained for."""
    there = np.isfinite(values)
    if not values.shape[1]:
        return np.full(len(values), np.nan)
    last = values.shape[1] - 1 - there[:, ::-1].argmax(axis=1)
    return np.where(there.any(axis=1), values[np.arange(len(values)), last], np.nan)


def training_accuracy_csv(results: GlonetResults, training: TrainingAccuracies) -> bytes:
    """Return a row for each epoch of each trial, with its training and its validation accuracy in percent."""
    rows = [
        {
            "model": network.model,
            "features": network.features,
            "layers": network.layers,
            "seed": seed,
            "epoch": epoch + 1,
            "training_accuracy": float(training[network][at, epoch]),
            "validation_accuracy": float(trained.accuracies[at, epoch]),
        }
        for network, trained in sorted(results.trained.items())
        if network in training
        for at, seed in enumerate(results.seeds)
        for epoch in range(training[network].shape[1])
        if np.isfinite(training[network][at, epoch])
    ]
    return csv_bytes(pd.DataFrame(rows))
