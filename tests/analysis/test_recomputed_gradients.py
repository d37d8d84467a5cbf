"""The numbers of the gradients report, computed again by a few lines of NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from psa.analysis.gradients.cluster_metrics import choose_samples
from psa.analysis.gradients.factored import Factored
from psa.analysis.gradients.kmeans import KMeansConfig, cluster

Values = NDArray[np.float64]
GROUPS, SAMPLES = 3, 90


def gradients() -> tuple[Factored, Values]:
    """Gradients of a layer 5 -> 4 around three directions, and the same written out, [samples, 20]."""
    draws = np.random.default_rng(3)
    group = np.arange(SAMPLES) % GROUPS
    delta = draws.normal(size=(GROUPS, 4))[group] + draws.normal(0, 0.2, (SAMPLES, 4))
    inputs = draws.normal(size=(GROUPS, 5))[group] + draws.normal(0, 0.2, (SAMPLES, 5))
    written = (delta[:, :, None] * inputs[:, None, :]).reshape(SAMPLES, -1)
    return Factored(torch.from_numpy(delta), torch.from_numpy(inputs)), written


def test_lengths() -> None:
    """The length of a gradient is that of all its numbers."""
    factored, written = gradients()
    np.testing.assert_allclose(factored.norms(), np.sqrt((written**2).sum(axis=1)))


@pytest.mark.parametrize("normalise", [True, False])
def test_clusters(normalise: bool) -> None:
    """Centres are the means of their members, everyone is at the nearest one, and no other partition that
    NumPy finds from 50 starts has a lower inertia.
    """
    factored, points = gradients()
    if normalise:
        points = points / np.linalg.norm(points, axis=1, keepdims=True)
    found = cluster(factored, KMeansConfig(GROUPS, normalise=normalise), seed=0)
    labels = found.labels.numpy()
    means = np.array([points[labels == each].mean(axis=0) for each in range(GROUPS)])
    np.testing.assert_allclose(found.centres.reshape(GROUPS, -1), means)
    squared = ((points[:, None] - means) ** 2).sum(axis=2)
    np.testing.assert_array_equal(labels, squared.argmin(axis=1))
    np.testing.assert_allclose(found.distances, np.sqrt(squared.min(axis=1)))
    assert found.inertia == pytest.approx(squared.min(axis=1).sum())
    assert found.inertia <= min(lloyd(points, start) for start in range(50)) * (1 + 1e-9)


def lloyd(points: Values, start: int) -> float:
    """The inertia that Lloyd's algorithm reaches from random points."""
    centres = points[np.random.default_rng(start).choice(len(points), GROUPS, replace=False)]
    for _ in range(100):
        squared = ((points[:, None] - centres) ** 2).sum(axis=2)
        labels = squared.argmin(axis=1)
        centres = np.array(
            [
                points[labels == each].mean(axis=0) if (labels == each).any() else centres[each]
                for each in range(GROUPS)
            ]
        )
    return float(squared.min(axis=1).sum())


def test_the_choice_of_a_number_of_clusters() -> None:
    """The silhouette (Rousseeuw 1987), Calinski and Harabasz's ratio, and Davies and Bouldin's index."""
    factored, points = gradients()
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    choice = choose_samples(factored, KMeansConfig(2), [2, 3, 4], seed=0)
    three = next(each for each in choice.qualities if each.clusters == GROUPS)
    labels = np.arange(SAMPLES) % GROUPS  # the groups are far apart
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    means = np.array([points[labels == each].mean(axis=0) for each in range(GROUPS)])
    within = ((points - means[labels]) ** 2).sum()
    offsets = ((means - points.mean(axis=0)) ** 2).sum(axis=1)
    between = sum((labels == group).sum() * offsets[group] for group in range(GROUPS))
    assert three.inertia == pytest.approx(within)
    assert three.silhouette == pytest.approx(silhouette(distances, labels))
    ratio = between / (GROUPS - 1) / (within / (SAMPLES - GROUPS))
    assert three.calinski_harabasz == pytest.approx(ratio)
    spread = [np.linalg.norm(points[labels == each] - means[each], axis=1).mean() for each in range(GROUPS)]
    worst = [
        max((spread[a] + spread[b]) / np.linalg.norm(means[a] - means[b]) for b in range(GROUPS) if b != a)
        for a in range(GROUPS)
    ]
    assert three.davies_bouldin == pytest.approx(np.mean(worst))
    assert {choice.best(each) for each in ("silhouette", "calinski_harabasz", "davies_bouldin")} == {GROUPS}


def silhouette(distances: Values, labels: NDArray[np.int64]) -> float:
    """The mean of (b - a) / max(a, b), with a and b the mean distances to the own and the nearest group."""
    values = []
    for at, label in enumerate(labels):
        own = (labels == label) & (np.arange(len(labels)) != at)
        a = distances[at, own].mean()
        b = min(distances[at, labels == other].mean() for other in range(GROUPS) if other != label)
        values.append((b - a) / max(a, b))
    return float(np.mean(values))
