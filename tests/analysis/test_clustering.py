"""k-means on factored gradients: scikit-learn's answers, without its memory; and what is said of clusters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from made_up_gradients import dense, gradients
from scipy import stats as scipy_stats
from sklearn import metrics
from sklearn.cluster import KMeans as Reference

from psa.analysis.gradients import kmeans, metric_space
from psa.analysis.gradients.cluster_metrics import centre_images, choose_samples, diversity, groups, quality
from psa.analysis.gradients.factored import Factored
from psa.analysis.gradients.kmeans import Clusters, KMeansConfig, cluster, fitted_rows, lloyd, plus_plus
from psa.analysis.gradients.metric_space import DenseSpace, GramSpace, MetricSpace, space_of
from psa.core.errors import UserError
from psa.core.rng import generator

SPACES = [DenseSpace, GramSpace]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("count", [2, 4, 9])
@pytest.mark.parametrize("normalise", [False, True])
def test_a_run_is_that_of_scikit_learn(space: Any, count: int, normalise: bool) -> None:
    """From the same points as first centres: the same labels and the same inertia."""
    points = gradients().normalised() if normalise else gradients()
    first = torch.from_numpy(generator(1, "kmeans").choice(len(points), count, replace=False))
    written = dense(points)
    theirs = Reference(count, init=written[first], n_init=1, max_iter=300, tol=0, algorithm="lloyd").fit(
        written
    )
    ours = lloyd(space(points), first, 300, 0.0)
    assert ours.inertia == pytest.approx(theirs.inertia_, rel=1e-9)
    assert ours.labels.tolist() == theirs.labels_.tolist()
    assert ours.settled


def test_the_best_of_several_runs_is_as_good_as_theirs() -> None:
    """With k-means++ of both, on gradients with clear and unclear clusters."""
    for spread in (0.2, 1.0):
        points = gradients(400, 5, 3, spread)
        found = cluster(points, KMeansConfig(5, normalise=False), 0)
        theirs = Reference(5, n_init=10, random_state=0).fit(dense(points))
        assert found.inertia <= 1.01 * theirs.inertia_


def test_both_spaces_say_the_same() -> None:
    """Distances to points and centres, and products of centres."""
    points = gradients(60)
    one, two = DenseSpace(points), GramSpace(points)
    labels = torch.arange(60) % 3
    rows = torch.tensor([4, 0, 59])
    torch.testing.assert_close(one.to_points(rows), two.to_points(rows))
    of_one, of_two = one.centres(labels, 4), two.centres(labels, 4)  # the last is empty: the origin
    torch.testing.assert_close(one.to_centres(of_one), two.to_centres(of_two))
    torch.testing.assert_close(one.between(of_one), two.between(of_two))
    torch.testing.assert_close(two.distances(), points.distances(), rtol=1e-6, atol=1e-6)


def test_few_samples_are_clustered_by_their_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many, or small gradients, by dense centres; the clusters do not depend on it."""
    points, few = gradients(300), gradients(40)
    assert isinstance(space_of(few), GramSpace)
    assert isinstance(space_of(points), DenseSpace)
    by_products = cluster(few, KMeansConfig(3), 5)
    monkeypatch.setattr(metric_space, "GRAM_ROWS", 0)
    assert isinstance(space_of(few), DenseSpace)
    assert torch.equal(cluster(few, KMeansConfig(3), 5).labels, by_products.labels)


@pytest.mark.parametrize("init", ["k-means++", "random"])
def test_the_seed_decides(init: Any) -> None:
    """The same seed gives the same clusters, whatever was drawn elsewhere; runs differ among themselves."""
    points, options = gradients(seed=2, spread=1.0), KMeansConfig(6, init=init, n_init=2)
    one, two = cluster(points, options, 3), cluster(points, options, 3)
    assert torch.equal(one.labels, two.labels)
    assert one.inertia == two.inertia
    space = space_of(points)
    firsts = {tuple(plus_plus(space, 6, generator(3, "kmeans", run)).tolist()) for run in range(5)}
    assert len(firsts) == 5


@pytest.mark.parametrize("space", SPACES)
def test_plus_plus_draws_by_squared_distance(space: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one candidate at a time the second point is drawn with its share of the squared distances; what
    was drawn before, and its copies, never again.
    """
    monkeypatch.setattr(kmeans, "_candidates", lambda count: 1)
    line = torch.tensor([0.0, 0, 0, 1, 2, 3], dtype=torch.float64).unsqueeze(1)
    points = space(Factored(line, torch.ones_like(line)))
    second = []
    for run in range(1_500):
        first, then = plus_plus(points, 2, generator(0, "kmeans", run)).tolist()
        if first < 3:
            second.append(then)
    counts = np.bincount(second, minlength=6)
    assert not counts[:3].any()
    assert scipy_stats.chisquare(counts[3:], len(second) * np.array([1, 4, 9]) / 14).pvalue > 1e-3


@pytest.mark.parametrize("space", SPACES)
def test_plus_plus_with_fewer_places_than_centres(space: Any) -> None:
    """All points lie on those chosen: the rest are any others, each once."""
    line = torch.tensor([0.0, 0, 0, 1, 1], dtype=torch.float64).unsqueeze(1)
    points = space(Factored(line, torch.ones_like(line)))
    assert sorted(plus_plus(points, 5, generator(0, "kmeans")).tolist()) == [0, 1, 2, 3, 4]


def test_an_empty_cluster_gets_the_farthest_point() -> None:
    """Two equal first centres: one of them would stay empty for ever."""
    line = torch.tensor([0.0, 0, 0.1, 1, 9], dtype=torch.float64).unsqueeze(1)
    run = lloyd(DenseSpace(Factored(line, torch.ones_like(line))), torch.tensor([0, 1, 3]), 50, 0.0)
    assert run.labels.tolist() == [0, 0, 0, 2, 1]
    assert run.inertia == pytest.approx(0.02 / 3)


def test_a_lone_sample_is_at_its_centre() -> None:
    """Long gradients: the square of their distance is the rounding error of a difference of large numbers."""
    draws = torch.Generator().manual_seed(0)
    delta = torch.tensor([[1.0], [1.0], [-30.7], [61.3]]) * torch.randn(1, 64, generator=draws)
    same = Factored(delta, torch.randn(1, 784, generator=draws).expand(4, -1))
    found = cluster(same, KMeansConfig(3, normalise=False, start_fraction=0.0), 0)
    digits = np.zeros(4, dtype=np.int64)
    lone = [each for each in groups(found, digits, digits) if each.size == 1]
    assert len(lone) == 2
    assert [each.mean for each in lone] == [0, 0]


def test_equal_gradients_are_one_cluster_and_the_others_are_empty() -> None:
    """Confident samples have gradients of zero: that is no error, and the sizes say so."""
    same = Factored(torch.zeros(20, 3), torch.ones(20, 4))
    found = cluster(same, KMeansConfig(4), 0)
    assert found.sizes == [20, 0, 0, 0]
    assert found.inertia == 0
    digits = np.zeros(20, dtype=np.int64)
    summaries = groups(found, digits, digits)
    assert (summaries[0].digit_share, summaries[1].size, summaries[1].digit) == (1.0, 0, None)
    assert np.isnan(summaries[3].mean)
    assert diversity(found).variance == 0


def test_which_samples_make_the_centres() -> None:
    """A window of training, then a percentile of the norms within it (50 is half), then a sample of those."""
    points = gradients(200)
    options = KMeansConfig(2)
    assert fitted_rows(points, options, 0).tolist() == list(range(200))
    window = replace(options, start_fraction=0.2, end_fraction=0.7)
    assert fitted_rows(points, window, 0).tolist() == list(range(40, 140))
    norms = points.norms()
    large = fitted_rows(points, replace(window, min_grad_percentile=50), 0)
    assert len(large) == 50
    left_out = sorted(set(range(40, 140)) - set(large.tolist()))
    assert float(norms[large].min()) > float(norms[left_out].max())
    assert len(fitted_rows(points, replace(window, min_grad_percentile=0.5), 0)) == 99
    some = fitted_rows(points, replace(window, min_grad_percentile=50, sample=20), 0)
    assert len(some) == 20
    assert set(some.tolist()) <= set(large.tolist())
    assert torch.equal(some, fitted_rows(points, replace(window, min_grad_percentile=50, sample=20), 0))


def test_all_samples_are_assigned_to_centres_of_the_fitted_ones() -> None:
    """Also those before the window; distances are to the own centre, which is the nearest."""
    points = gradients(240)
    found = cluster(points, KMeansConfig(4, start_fraction=0.5), 0)
    assert found.fitted.tolist() == list(range(120, 240))
    assert (len(found.labels), sum(found.sizes)) == (240, 240)
    distances = points.normalised().squared_distances_to(found.centres)
    torch.testing.assert_close(found.distances, distances.min(dim=1).values.sqrt())
    assert found.inertia == pytest.approx(float(found.distances[120:].square().sum()))
    assert metrics.adjusted_rand_score(np.arange(240) % 4, found.labels.numpy()) > 0.95
    counts = torch.bincount(found.labels[120:], minlength=4).tolist()
    assert counts == sorted(counts, reverse=True)


def test_raw_gradients_cluster_by_norm_and_directions_by_kind() -> None:
    """The reason why normalising is the default."""
    points = gradients(400, 4, 1)
    kind = np.arange(400) % 4
    scores = {
        normalise: metrics.adjusted_rand_score(
            kind, cluster(points, KMeansConfig(4, normalise=normalise), 0).labels.numpy()
        )
        for normalise in (False, True)
    }
    assert scores[True] > 0.95
    assert scores[False] < 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_clusters": 1}, "n_clusters must be at least 2, got 1"),
        ({"n_init": 0}, "n_init must be at least 1, got 0"),
        ({"max_iter": 0}, "max_iter must be at least 1, got 0"),
        ({"init": "kmeans++"}, "init must be 'k-means\\+\\+' or 'random', got 'kmeans\\+\\+'"),
        ({"start_fraction": 0.5, "end_fraction": 0.5}, "hold nothing"),
        ({"end_fraction": 1.2}, "hold nothing"),
        ({"min_grad_percentile": 100}, "must be a percentile below 100, got 100"),
        ({"min_grad_percentile": float("nan")}, "must be a percentile below 100, got nan"),
        ({"tolerance": -1.0}, "tolerance must be a share, got -1.0"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], said: str) -> None:
    """Before anything is computed."""
    with pytest.raises(UserError, match=said):
        KMeansConfig(**({"n_clusters": 3} | options))


def test_more_clusters_than_samples_are_refused() -> None:
    """Those that are left by the options count."""
    with pytest.raises(UserError, match="5 samples are left for 6 clusters"):
        cluster(gradients(10), KMeansConfig(6, end_fraction=0.5), 0)
    with pytest.raises(UserError, match="must be from 2 to 49, got 50"):
        choose_samples(gradients(100), KMeansConfig(2), [2, 50], 0, sample=50)


def test_progress_is_told() -> None:
    """One line for each run."""
    said: list[str] = []
    cluster(gradients(50), KMeansConfig(3, n_init=2), 0, said.append)
    assert [line.split(":")[0] for line in said] == ["k-means run 1 of 2", "k-means run 2 of 2"]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("count", [2, 5])
def test_the_quality_is_what_scikit_learn_says(space: Any, count: int) -> None:
    """Of the gradients written out."""
    points = gradients(150, 3, 4, 0.8)
    made: MetricSpace = space(points)
    run = lloyd(made, torch.arange(count), 100, 0.0)
    written, labels = dense(points), run.labels.numpy()
    found = quality(made, run.labels, count + 1, points.distances())  # and one that is empty
    assert found.inertia == pytest.approx(run.inertia)
    assert found.silhouette == pytest.approx(metrics.silhouette_score(written, labels), rel=1e-6)
    assert found.calinski_harabasz == pytest.approx(metrics.calinski_harabasz_score(written, labels))
    assert found.davies_bouldin == pytest.approx(metrics.davies_bouldin_score(written, labels))


def test_the_number_of_clusters_is_found() -> None:
    """Four kinds of samples: every measure chooses four; one cluster that holds all has no measure."""
    points = gradients(400, 4, 5, 0.15)
    choice = choose_samples(points, KMeansConfig(2, n_init=3), range(2, 8), 0, sample=200)
    assert choice.samples == 200
    assert [each.clusters for each in choice.qualities] == [2, 3, 4, 5, 6, 7]
    assert {choice.best(each) for each in ("silhouette", "calinski_harabasz", "davies_bouldin")} == {4}
    inertia = [each.inertia for each in choice.qualities]
    assert inertia == sorted(inertia, reverse=True)
    flat = choose_samples(Factored(torch.zeros(20, 2), torch.ones(20, 2)), KMeansConfig(2), [2], 0)
    assert flat.best("silhouette") is None


def test_clusters_in_numbers() -> None:
    """Sizes, shares, distances, the most frequent digit and prediction."""
    found = Clusters(
        labels=torch.tensor([0, 0, 1, 0]),
        distances=torch.tensor([1.0, 2.0, 5.0, 3.0]),
        centres=torch.zeros(2, 1, 1),
        fitted=torch.arange(4),
        inertia=39.0,
        steps=1,
        settled=True,
    )
    first, second = groups(found, np.array([7, 7, 3, 1]), np.array([7, 1, 3, 1]))
    assert (first.size, first.share, first.mean, first.least, first.greatest) == (3, 0.75, 2, 1, 3)
    assert (first.digit, first.digit_share) == (7, pytest.approx(2 / 3))
    assert (first.prediction, first.prediction_share) == (1, pytest.approx(2 / 3))
    assert (second.sd, second.variance, second.prediction) == (0, 25, 3)
    spread = diversity(found)
    assert spread.variance == pytest.approx((14 / 3 + 25) / 2)
    assert (spread.mean, spread.least, spread.greatest) == (2.75, 1, 5)
    with pytest.raises(ValueError, match="4 gradients, 3 digits"):
        groups(found, np.array([1, 2, 3]), np.array([1, 2, 3, 4]))


def test_the_images_of_a_centre() -> None:
    """Of an outer product: the pattern is its input (at length 1), and the strongest units come first."""
    delta, image = torch.tensor([0.5, -3.0, 0.0, 2.0]), torch.tensor([3.0, 4.0, 0.0])
    found = centre_images(torch.stack([torch.outer(delta, image), torch.zeros(4, 3)]))
    assert found.units[0].tolist() == [1, 3, 0]
    assert found.rows[0, 0].tolist() == [-9, -12, 0]
    assert found.pattern[0].tolist() == pytest.approx([-0.6, -0.8, 0])
    assert found.share[0] == pytest.approx(1)
    assert not found.pattern[1].any()
    assert found.share[1] == 0


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_patterns_are_the_first_singular_vectors(shape: tuple[int, int]) -> None:
    """Those of an SVD, with the sign of the strongest row, whichever side of the matrix is shorter."""
    centres = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = centre_images(centres)
    for centre, pattern, share in zip(centres.numpy(), found.pattern, found.share, strict=True):
        _, sizes, right = np.linalg.svd(centre)
        strongest = centre[np.linalg.norm(centre, axis=1).argmax()]
        assert pattern == pytest.approx(right[0] * np.sign(right[0] @ strongest))
        assert share == pytest.approx(sizes[0] ** 2 / (sizes**2).sum())
