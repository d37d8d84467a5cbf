"""Measures of a clustering: number of clusters, quality of fit, and the samples in each cluster. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psa.analysis.gradients.factored import Factored, sampled_rows
from psa.analysis.gradients.kmeans import (
    Clusters,
    KMeansConfig,
    KMeansProgress,
    best_run,
    fitted_rows,
    silent,
)
from psa.analysis.gradients.metric_space import GramSpace, MetricSpace
from psa.core.errors import UserError

_SAMPLE: Final = 4_000  # gradients by which the number of clusters is chosen: 64 MB of inner products
SHOWN_ROWS: Final = 3

_Labels = NDArray[np.int64]
_Values = NDArray[np.float64]


@dataclass(frozen=True)
class ClusterQuality:
    """The fit of `clusters` clusters. Inertia always falls; the silhouette (Rousseeuw 1987, -1 to 1) and
    the index of Calinski & Harabasz (1974) are best high, that of Davies & Bouldin (1979) low. NaN where
    a measure is not defined: fewer than two clusters hold anything, or every sample is alone.
    """

    clusters: int
    inertia: float
    silhouette: float
    calinski_harabasz: float
    davies_bouldin: float


@dataclass(frozen=True)
class Choice:
    """The quality of every number of clusters that was tried, on `samples` gradients; `best` is the
    choice of a measure, None where it is defined nowhere.
    """

    qualities: tuple[ClusterQuality, ...]
    samples: int

    def best(self, measure: str) -> int | None:
        """Return the number of clusters for which `silhouette`, `calinski_harabasz` or `davies_bouldin` is
        best; the least of equal ones.
        """
        sign = -1 if measure == "davies_bouldin" else 1
        values = [sign * getattr(each, measure) for each in self.qualities]
        if np.isnan(values).all():
            return None
        return self.qualities[int(np.nanargmax(values))].clusters


def choose_samples(
    gradients: Factored,
    options: KMeansConfig,
    counts: Sequence[int],
    seed: int,
    sample: int = _SAMPLE,
    progress: KMeansProgress = silent,
) -> Choice:
    """Cluster a sample of the chosen gradients into each number of clusters; all share their inner products.

    Raises UserError for numbers of clusters that the sample does not allow.
    """
    for count in counts:
        if not 2 <= count < sample:
            raise UserError(f"the number of clusters must be from 2 to {sample - 1:,}, got {count}")
    rows = fitted_rows(gradients, replace(options, n_clusters=max(counts)), seed)
    rows = rows[sampled_rows(len(rows), sample, seed)]
    points = gradients.normalised() if options.normalise else gradients
    space = GramSpace(points[rows.to(points.device)])
    distances = space.distances()
    found = []
    for count in counts:
        run = best_run(space, replace(options, n_clusters=count), seed)
        found.append(quality(space, run.labels, count, distances))
        progress(f"{count} clusters: silhouette {found[-1].silhouette:.3f}")
    return Choice(tuple(found), len(rows))


def quality(space: MetricSpace, labels: Tensor, count: int, distances: Tensor) -> ClusterQuality:
    """Return every measure of one clustering. labels: int64 [n]; distances: [n, n], among all points."""
    from sklearn.metrics import silhouette_score  # takes a second to import

    sizes = torch.bincount(labels, minlength=count)
    there = sizes > 0
    centres = space.centres(labels, count)
    squared = space.to_centres(centres).gather(1, labels.unsqueeze(1)).squeeze(1).to(torch.float64)
    within = float(squared.sum())
    held = int(there.sum())
    if not 2 <= held < len(labels):
        return ClusterQuality(count, within, nan, nan, nan)
    return ClusterQuality(
        count,
        within,
        float(silhouette_score(distances.cpu().numpy(), labels.cpu().numpy(), metric="precomputed")),
        _calinski_harabasz(space, within, held),
        _davies_bouldin(space, labels, centres, squared.sqrt(), there),
    )


def _calinski_harabasz(space: MetricSpace, within: float, held: int) -> float:
    """Return the scatter between clusters over the scatter within, each per degree of freedom."""
    everyone = torch.zeros(len(space), dtype=torch.int64, device=_device(space))
    total = float(space.to_centres(space.centres(everyone, 1)).sum(dtype=torch.float64))
    if within == 0:
        return 1.0  # as in scikit-learn
    return (total - within) * (len(space) - held) / (within * (held - 1))


def _davies_bouldin(
    space: MetricSpace, labels: Tensor, centres: Tensor, distances: Tensor, there: Tensor
) -> float:
    """Return the mean over clusters of the greatest (spread + spread) / distance of centres."""
    count = len(there)
    spread = torch.zeros(count, dtype=torch.float64, device=labels.device).index_add_(0, labels, distances)
    spread /= torch.bincount(labels, minlength=count).clamp_min(1)
    inner = space.between(centres).to(torch.float64)
    squares = inner.diagonal()
    apart = (squares.unsqueeze(1) + squares - 2 * inner).clamp_min(0).sqrt()[there][:, there]
    both = spread[there].unsqueeze(1) + spread[there]
    ratios = (both / apart.fill_diagonal_(torch.inf)).nan_to_num(nan=0.0, posinf=0.0)  # equal centres: none
    return float(ratios.max(dim=1).values.mean())


@dataclass(frozen=True)
class ClusterSummary:
    """One cluster: its size and share of all samples, their distances to its centre (population sd), and the
    most frequent digit and prediction with their shares. NaN and None for an empty one.

    variance: the mean squared distance to the centre, which is the sum of the variances of all coordinates.
    """

    number: int
    size: int
    share: float
    mean: float
    sd: float
    least: float
    greatest: float
    variance: float
    digit: int | None
    digit_share: float
    prediction: int | None
    prediction_share: float


@dataclass(frozen=True)
class Diversity:
    """The distances of all samples to their own centres, and the mean over clusters of their variances."""

    variance: float
    mean: float
    sd: float
    least: float
    greatest: float


def groups(found: Clusters, digits: _Labels, predictions: _Labels) -> tuple[ClusterSummary, ...]:
    """Return a summary of every cluster; digits, predictions: int64 [N], in the order of the gradients."""
    labels, distances = _numpy(found)
    if not len(labels) == len(digits) == len(predictions):
        raise ValueError(f"{len(labels)} gradients, {len(digits)} digits, {len(predictions)} predictions")
    return tuple(
        _group(number, labels == number, distances, digits, predictions)
        for number in range(len(found.centres))
    )


def _group(number: int, members: NDArray[np.bool_], distances: _Values, *names: _Labels) -> ClusterSummary:
    size = int(members.sum())
    if not size:
        return ClusterSummary(number, 0, 0.0, nan, nan, nan, nan, nan, None, nan, None, nan)
    own = distances[members]
    (digit, digit_share), (prediction, prediction_share) = (_most(each[members]) for each in names)
    return ClusterSummary(
        number,
        size,
        size / len(members),
        float(own.mean()),
        float(own.std()),
        float(own.min()),
        float(own.max()),
        float(np.square(own).mean()),
        digit,
        digit_share,
        prediction,
        prediction_share,
    )


def _most(values: _Labels) -> tuple[int, float]:
    """Return the most frequent value, the least of equal ones, and its share."""
    found, counts = np.unique(values, return_counts=True)
    at = int(counts.argmax())
    return int(found[at]), float(counts[at] / len(values))


def diversity(found: Clusters) -> Diversity:
    """Return the spread of samples around their centres, over all clusters that are not empty."""
    labels, distances = _numpy(found)
    sizes = np.bincount(labels, minlength=len(found.centres))
    sums = np.bincount(labels, weights=np.square(distances), minlength=len(found.centres))
    return Diversity(
        float((sums[sizes > 0] / sizes[sizes > 0]).mean()),
        float(distances.mean()),
        float(distances.std()),
        float(distances.min()),
        float(distances.max()),
    )


def _numpy(found: Clusters) -> tuple[_Labels, _Values]:
    return found.labels.cpu().numpy(), found.distances.cpu().to(torch.float64).numpy()


def examples(found: Clusters, each: int, seed: int) -> list[_Labels]:
    """Return up to `each` places of every cluster, int64, drawn without replacement; [] if it is empty."""
    labels = found.labels.cpu().numpy()
    members = [np.flatnonzero(labels == number) for number in range(len(found.centres))]
    return [own[sampled_rows(len(own), each, seed).numpy()] for own in members]


@dataclass(frozen=True)
class CentreImages:
    """The input patterns of the K centres of a first layer; each centre is a matrix [outputs, inputs].

    pattern: [K, inputs], the first right singular vector, of length 1: of all directions in input space the
    one in which the rows of the centre agree most, with the sign of the strongest row. share: [K], the part
    of the centre's squared norm it holds. units: [K, SHOWN_ROWS], the outputs with the longest rows, the
    longest first. rows: [K, SHOWN_ROWS, inputs], those rows: means of the inputs weighted by delta.
    """

    pattern: _Values
    share: _Values
    units: _Labels
    rows: _Values


def centre_images(centres: Tensor) -> CentreImages:
    """Return the images in centres [K, outputs, inputs]. Those of an empty cluster are zero."""
    found = centres.to(torch.float64)
    lengths = torch.linalg.vector_norm(found, dim=2)
    strongest = lengths.argsort(dim=1, descending=True, stable=True)[:, :SHOWN_ROWS]
    rows = found.gather(1, strongest.unsqueeze(2).expand(-1, -1, found.shape[2]))
    patterns, shares = [], []
    for centre, row in zip(found, rows[:, 0], strict=True):
        pattern, square = _first_pattern(centre)
        patterns.append(pattern if float(pattern @ row) >= 0 else -pattern)
        shares.append(square / float(centre.square().sum()) if square else 0.0)
    return CentreImages(
        torch.stack(patterns).cpu().numpy(), np.array(shares), strongest.cpu().numpy(), rows.cpu().numpy()
    )


def _first_pattern(centre: Tensor) -> tuple[Tensor, float]:
    """Return the first right singular vector of a matrix, zero for a matrix of zeros, and the square of its
    singular value. They come from the inner products of the shorter side, in a third of the time of an SVD.
    """
    wide = centre.shape[0] <= centre.shape[1]
    squares, vectors = torch.linalg.eigh(centre @ centre.T if wide else centre.T @ centre)
    found = centre.T @ vectors[:, -1] if wide else vectors[:, -1]
    square = float(squares[-1]) if centre.any() else 0.0
    return (found / torch.linalg.vector_norm(found) if square else torch.zeros_like(centre[0])), square


def _device(space: MetricSpace) -> torch.device:
    return space.to_points(torch.tensor([0])).device
