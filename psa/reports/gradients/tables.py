"""The tables of the gradient study, from the measurements of its trials."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psa.analysis.frame_schema import trials_of
from psa.analysis.gradients.label_agreement import LabelAgreement
from psa.reports.gradients.measurements import STARTS_PER_VIEW, GradientMeasurements
from psa.reports.rendering.tables import Cell, Column, Table

_MEASURES: Final = (
    Column("Purity", "interval", 3),
    Column("NMI", "interval", 3),
    Column("ARI", "interval", 3),
)


def training_table(frame: pd.DataFrame) -> Table:
    """Return the training results of every network, the context of its gradients."""
    rows = tuple(
        (
            str(row["arch"]), int(row["seed"]), str(row["status"]), _whole(row["parameters"]),
            _whole(row["loops"]), _number(row["bounty"]), _number(row["test"]),
        )
        for _, row in trials_of(frame).iterrows()
    )  # fmt: skip
    columns = (
        Column("Architecture"), Column("Seed", "count"), Column("Status"), Column("Parameters", "count"),
        Column("Epochs", "count"), Column("Validation (%)", "percent"), Column("Test (%)", "percent"),
    )  # fmt: skip
    return Table("Networks", "tab:gradients_training", columns, rows)


def agreement_table(measured: Sequence[GradientMeasurements]) -> Table:
    """Return purity, NMI and ARI of every view against classes and predictions, and of controls."""
    rows = tuple(row for each in measured for row in _agreements(each))
    columns = (
        Column("Seed", "count"), Column("Gradients"), Column("Clusters compared with"),
        Column("Samples", "count"), *_MEASURES,
    )  # fmt: skip
    note = (
        f"As many clusters as classes; the best of {STARTS_PER_VIEW} runs of k-means by inertia. In brackets "
        "95 % percentile intervals of the bootstrap over samples with the same centres, shifted by the "
        "bootstrap's estimate of bias (resampling puts purity and NMI a little above their value). "
        f"{clustered_note(measured)}"
    )
    return Table("Agreement of clusters", "tab:gradients_agreement", columns, rows, note, wide=True)


def clustered_note(measured: Sequence[GradientMeasurements]) -> str:
    """Return the sentences on the gradients that are clustered, one for all seeds that it is true of."""
    seeds: dict[str, list[str]] = {}
    for each in measured:
        seeds.setdefault(each.selection, []).append(str(each.seed))
    return " ".join(
        f"{'Seed' if len(found) == 1 else 'Seeds'} {', '.join(found)}: {sentence}"
        for sentence, found in seeds.items()
    )


def _agreements(each: GradientMeasurements) -> Iterator[tuple[Cell, ...]]:
    for found in each.found.values():
        yield each.seed, found.view.name, "classes", *_cells(found.digits)
        yield each.seed, found.view.name, "predictions", *_cells(found.predictions)
    if each.main is not None and each.permuted is not None:
        yield each.seed, each.main.view.name, "permuted classes", *_cells(each.permuted)


def _cells(found: LabelAgreement) -> tuple[Cell, ...]:
    return found.samples, found.purity, found.nmi, found.ari


def clusters_table(each: GradientMeasurements) -> Table:
    """Return every cluster of every view: its size, its tightness, and its classes."""
    rows = tuple(
        (
            found.view.name, group.number, group.size, 100 * group.share, group.mean, group.sd, group.digit,
            _percent(group.digit_share), group.prediction, _percent(group.prediction_share),
        )
        for key, found in each.found.items()
        for group in each.groups(key)
    )  # fmt: skip
    columns = (
        Column("Gradients"), Column("Cluster", "count"), Column("Samples", "count"),
        Column("Share (%)", "percent"),
        Column("Mean distance", "number", 3), Column("SD", "number", 3), Column("Digit", "count"),
        Column("Digit's share (%)", "percent"), Column("Prediction", "count"),
        Column("Prediction's share (%)", "percent"),
    )  # fmt: skip
    note = f"Seed {each.seed}. Digit and prediction: those that most samples of the cluster have."
    return Table("Clusters", "tab:gradients_clusters", columns, rows, note, long=True, wide=True)


def starts_table(measured: Sequence[GradientMeasurements]) -> Table:
    """Return single runs of k-means beside the best of them."""
    rows = tuple(
        (each.seed, start.init, start.number + 1, start.inertia, start.purity)
        for each in measured
        for start in each.starts
    )
    columns = (
        Column("Seed", "count"), Column("Start"), Column("Run", "count"), Column("Inertia", "number", 1),
        Column("Purity", "number", 3),
    )  # fmt: skip
    note = "The hidden layer at length 1. The run of least inertia counts, whatever the classes."
    return Table("Single runs of k-means", "tab:gradients_starts", columns, rows, note, long=True)


def choice_table(each: GradientMeasurements) -> Table:
    """Return the quality of every number of clusters that was tried."""
    qualities = () if each.choice is None else each.choice.qualities
    rows = tuple(
        (q.clusters, q.inertia, q.silhouette, q.calinski_harabasz, q.davies_bouldin) for q in qualities
    )
    columns = (
        Column("Clusters", "count"), Column("Inertia", "number", 1), Column("Silhouette", "number", 3),
        Column("Calinski-Harabasz", "number", 1), Column("Davies-Bouldin", "number", 3),
    )  # fmt: skip
    note = (
        f"Seed {each.seed}; of each number of clusters the best of {STARTS_PER_VIEW} runs of k-means by "
        "inertia"
        + ("." if each.choice is None else f", on {each.choice.samples:,} of the clustered gradients.")
    )
    return Table("How many clusters", "tab:gradients_choice", columns, rows, note)


def diversity_table(measured: Sequence[GradientMeasurements]) -> Table:
    """Return the distances of samples from their cluster centres, for every view."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (each.seed, each.views[key].name, d.variance, d.mean, d.sd, d.least, d.greatest)
        for each in measured
        for key, d in each.diversity().items()
    )
    columns = (
        Column("Seed", "count"), Column("Gradients"), Column("Variance within", "number", 4),
        Column("Mean distance", "number", 4), Column("SD", "number", 4), Column("Least", "number", 4),
        Column("Greatest", "number", 4),
    )  # fmt: skip
    note = (
        "Variance within: the mean squared distance to the own centre, a mean over clusters (each counts the "
        "same, whatever its size). Distances: over all clustered samples."
    )
    return Table("Diversity", "tab:gradients_diversity", columns, rows, note)


def norms_table(measured: Sequence[GradientMeasurements]) -> Table:
    """Return mean, standard deviation, least and greatest length of the gradients of each layer's weights: of
    all that were kept, and of those that are clustered.
    """
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (each.seed, name, which, len(lengths[name]), *_summary(lengths[name]))
        for each in measured
        for name in each.lengths
        for which, lengths in (("all", each.all_lengths), ("clustered", each.lengths))
    )
    columns = (
        Column("Seed", "count"), Column("Layer"), Column("Gradients"), Column("Samples", "count"),
        Column("Mean", "number", 4), Column("SD", "number", 4),
        Column("Least", "p", 4), Column("Greatest", "number", 4),
    )  # fmt: skip
    return Table("Lengths of gradients", "tab:gradients_norms", columns, rows, clustered_note(measured))


def _summary(lengths: NDArray[np.float32]) -> tuple[float, ...]:
    found = lengths.astype(np.float64)
    return float(found.mean()), float(found.std()), float(found.min()), float(found.max())


def _percent(share: float) -> float | None:
    return None if math.isnan(share) else 100 * share


def _whole(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[call-overload]


def _number(value: object) -> float | None:
    return None if pd.isna(value) else float(value)  # type: ignore[arg-type]
