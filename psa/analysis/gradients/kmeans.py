"""k-means on per-sample gradients that are kept as factors: which samples ask for the same change of a layer.

Lloyd's algorithm (1982) from k-means++ (Arthur & Vassilvitskii 2007, with scikit-learn's greedy trials). The
k-means of scikit-learn is not used because it needs the gradients written out;
psa.analysis.gradients.metric_space computes the distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from psa.analysis.gradients.factored import Factored, sampled_rows
from psa.analysis.gradients.metric_space import DenseSpace, MetricSpace, space_of
from psa.core.errors import UserError
from psa.core.rng import generator

KMeansProgress = Callable[[str], object]


def silent(_message: str) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class KMeansConfig:
    """The options of a clustering. The defaults of n_init and max_iter are those of the study. A single run
    often ends with digits merged: for 784 -> 32 (MNIST, one epoch) purity 0.80 where the best run has 1.00.

    normalise: gradients at length 1 (raw ones cluster by their norm). The centres are fitted to the samples
    between two positions in training (fractions of all), without those whose norm is below a percentile
    (0 to 100) of these, and at most `sample` of them; then every sample is assigned. tolerance: a run ends
    where a step lowers the inertia by no more than this share. Raises UserError.
    """

    n_clusters: int
    normalise: bool = True
    init: Literal["k-means++", "random"] = "k-means++"
    n_init: int = 10
    max_iter: int = 300
    tolerance: float = 1e-6
    start_fraction: float = 0.0
    end_fraction: float = 1.0
    min_grad_percentile: float = 0.0
    sample: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("n_clusters", 2), ("n_init", 1), ("max_iter", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.init not in ("k-means++", "random"):
            raise UserError(f"init must be 'k-means++' or 'random', got {self.init!r}")
        if not 0 <= self.start_fraction < self.end_fraction <= 1:
            raise UserError(
                f"start_fraction {self.start_fraction} and end_fraction {self.end_fraction} hold nothing",
                "Both are from 0 to 1, the start before the end",
            )
        if not 0 <= self.min_grad_percentile < 100:
            raise UserError(
                f"min_grad_percentile must be a percentile below 100, got {self.min_grad_percentile}",
                "Write 0 up to less than 100: 50 leaves out the smaller half",
            )
        if not self.tolerance >= 0:
            raise UserError(f"tolerance must be a share, got {self.tolerance}", "Write 0 or more")


@dataclass(frozen=True)
class Clusters:
    """A partition of all N samples into K clusters, numbered by falling size among the fitted samples.

    labels: int64 [N]. distances: [N], to the own centre. centres: [K, outputs, inputs], of what was clustered
    (at length 1 where so asked). fitted: int64, the places of the samples that made the centres. inertia:
    their summed squared distances. steps: of the best run; settled: it ended before max_iter. runs: every
    run, with the labels of the fitted samples in an order of its own.
    """

    labels: Tensor
    distances: Tensor
    centres: Tensor
    fitted: Tensor
    inertia: float
    steps: int
    settled: bool
    runs: tuple[KMeansRun, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """The number of samples per cluster; 0 if there were fewer different gradients than clusters."""
        return [int(size) for size in torch.bincount(self.labels, minlength=len(self.centres))]


@dataclass(frozen=True)
class KMeansRun:
    """One run of Lloyd's algorithm. labels: int64 [n]; inertia: before the last means were taken."""

    labels: Tensor
    inertia: float
    steps: int
    settled: bool


def cluster(
    gradients: Factored, options: KMeansConfig, seed: int, progress: KMeansProgress = silent
) -> Clusters:
    """Fit centres to the chosen samples and assign all N. gradients: in the order of training.

    Raises UserError if fewer samples are left than clusters are requested.
    """
    fitted = fitted_rows(gradients, options, seed)
    points = gradients.normalised() if options.normalise else gradients
    some = points if len(fitted) == len(points) else points[fitted.to(points.device)]
    space = space_of(some)
    runs = all_runs(space, options, seed, progress)
    run = min(runs, key=_inertia)
    members = _by_size(run.labels, options.n_clusters)
    centres = DenseSpace(some).centres(members, options.n_clusters)
    squared, labels = points.squared_distances_to(centres).min(dim=1)
    rows = fitted.to(squared.device)
    # a sample that is its centre alone is at 0, of which rounding leaves a difference of large numbers
    alone = (torch.bincount(members)[members] == 1).to(squared.device) & (labels[rows] == members.to(labels))
    squared[rows[alone]] = 0
    inertia = float(squared[rows].sum(dtype=torch.float64))
    return Clusters(labels, squared.sqrt(), centres, fitted, inertia, run.steps, run.settled, runs)


def fitted_rows(gradients: Factored, options: KMeansConfig, seed: int) -> Tensor:
    """Return the places of the samples that the centres are fitted to: int64, rising. Raises UserError."""
    total = len(gradients)
    window = slice(math.floor(options.start_fraction * total), math.ceil(options.end_fraction * total))
    rows = torch.arange(total)[window]
    if options.min_grad_percentile > 0:
        norms = gradients[window].norms().cpu().numpy()
        # numpy's: torch.quantile refuses more than 16 million values
        rows = rows[torch.from_numpy(norms >= np.percentile(norms, options.min_grad_percentile))]
    if options.sample is not None:
        rows = rows[sampled_rows(len(rows), options.sample, seed)]
    if len(rows) < options.n_clusters:
        raise UserError(
            f"{len(rows):,} samples are left for {options.n_clusters} clusters",
            "Ask for fewer clusters, or leave out less",
        )
    return rows


def best_run(space: MetricSpace, options: KMeansConfig, seed: int) -> KMeansRun:
    """Return the run of least inertia among n_init."""
    return min(all_runs(space, options, seed), key=_inertia)


def _inertia(run: KMeansRun) -> float:
    return run.inertia


def all_runs(
    space: MetricSpace, options: KMeansConfig, seed: int, progress: KMeansProgress = silent
) -> tuple[KMeansRun, ...]:
    """Return n_init runs, each with random draws of its own."""
    begin = plus_plus if options.init == "k-means++" else _any_points
    runs = []
    for number in range(options.n_init):
        first = begin(space, options.n_clusters, generator(seed, "kmeans", number))
        runs.append(lloyd(space, first, options.max_iter, options.tolerance))
        progress(f"k-means run {number + 1} of {options.n_init}: inertia {runs[-1].inertia:.6g}")
    return tuple(runs)


def lloyd(space: MetricSpace, first: Tensor, max_iter: int, tolerance: float) -> KMeansRun:
    """Return one run that begins with the points `first` (int64 [K]) as centres."""
    count = len(first)
    distances = space.to_points(first)
    labels, inertia = first, math.inf
    for step in range(1, max_iter + 1):
        nearest, found = distances.min(dim=1)
        total = float(nearest.sum(dtype=torch.float64))
        settled = step > 1 and (torch.equal(found, labels) or inertia - total <= tolerance * inertia)
        labels, inertia = _none_empty(found, nearest, count), min(total, inertia)
        if settled:
            return KMeansRun(labels, inertia, step, settled=True)
        distances = space.to_centres(space.centres(labels, count))
    return KMeansRun(labels, inertia, max_iter, settled=False)


def _none_empty(labels: Tensor, nearest: Tensor, count: int) -> Tensor:
    """Give every empty cluster the point farthest from its centre, as scikit-learn does; where every point
    lies on a centre there is nothing to give.
    """
    empty = (torch.bincount(labels, minlength=count) == 0).nonzero().squeeze(1)
    if not len(empty):
        return labels
    farthest = nearest.topk(len(empty))
    off = farthest.values > 0
    return labels.index_copy(0, farthest.indices[off], empty[off])


def plus_plus(space: MetricSpace, count: int, draws: np.random.Generator) -> Tensor:
    """Return `count` different points (int64), drawn by their squared distances to those chosen before.

    Of 2 + log(count) candidates the one that lowers the sum most is taken (as in scikit-learn). Where all
    points lie on those chosen, any other point is as good.
    """
    chosen = [int(draws.integers(len(space)))]
    nearest = _to(space, chosen)[:, 0]
    while len(chosen) < count:
        nearest[chosen] = 0  # rounding must not leave it a chance to be drawn again
        cumulated = np.cumsum(nearest)
        if cumulated[-1] == 0:
            rest = np.setdiff1d(np.arange(len(space)), chosen)
            chosen.append(int(draws.choice(rest)))
            continue
        thresholds = draws.random(_candidates(count)) * cumulated[-1]
        last = int(nearest.nonzero()[0][-1])  # rounding may put a threshold at the very end
        candidates = np.searchsorted(cumulated, thresholds, side="right").clip(max=last)
        after = np.minimum(nearest[:, None], _to(space, candidates.tolist()))
        best = int(after.sum(axis=0).argmin())
        chosen.append(int(candidates[best]))
        nearest = after[:, best]
    return torch.tensor(chosen)


def _candidates(count: int) -> int:
    return 2 + int(math.log(count))


def _any_points(space: MetricSpace, count: int, draws: np.random.Generator) -> Tensor:
    return torch.from_numpy(draws.choice(len(space), count, replace=False))


def _to(space: MetricSpace, rows: list[int]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    return space.to_points(torch.tensor(rows)).cpu().to(torch.float64).numpy()


def _by_size(labels: Tensor, count: int) -> Tensor:
    """Return the same clusters, the largest first; of equal ones the one with the earlier sample."""
    sizes = torch.bincount(labels, minlength=count).tolist()
    first = [int((labels == group).nonzero()[0]) if sizes[group] else len(labels) for group in range(count)]
    order = sorted(range(count), key=lambda group: (-sizes[group], first[group]))
    return torch.tensor(np.argsort(order), device=labels.device)[labels]
