"""The picture of gradient space: exact PCA from inner products, seeded t-SNE."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up_gradients import dense, gradients
from sklearn.decomposition import PCA

from psa.analysis.gradients import tsne
from psa.analysis.gradients.factored import Factored
from psa.analysis.gradients.tsne import embed, principal
from psa.core.errors import UserError
from psa.core.rng import generator


@pytest.mark.parametrize("few", [0, 500])
def test_pca_is_that_of_the_gradients_written_out(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coordinates but for their sign, and shares of variance; by either solver."""
    monkeypatch.setattr(tsne, "_FEW", few)
    points = gradients(120, 3, 0, 0.5)
    coordinates, shares = principal(points, 5, generator(0, "tsne"))
    theirs = PCA(5).fit(dense(points))
    assert shares == pytest.approx(theirs.explained_variance_ratio_)
    np.testing.assert_allclose(abs(coordinates), abs(theirs.transform(dense(points))), atol=1e-8)


def test_components_without_variance_are_left_out() -> None:
    """A layer of two weights has two components at most; equal gradients have none."""
    points = Factored(torch.randn(30, 2, generator=torch.Generator().manual_seed(0)), torch.ones(30, 1))
    coordinates, shares = principal(points, 50, generator(0, "tsne"))
    assert coordinates.shape == (30, 2)
    assert shares.sum() == pytest.approx(1)
    with pytest.raises(UserError, match="all gradients of the sample are equal"):
        principal(Factored(torch.ones(30, 2), torch.ones(30, 3)), 5, generator(0, "tsne"))


@pytest.mark.slow
def test_kinds_of_gradients_are_apart_and_the_seed_decides() -> None:
    """Neighbours in the plane are of one kind; the same seed gives the same picture and the same sample."""
    points, said = gradients(260, 4, 0, 0.2).normalised(), list[str]()
    one = embed(points, 3, sample=200, perplexity=15, progress=said.append)
    two = embed(points, 3, sample=200, perplexity=15)
    assert np.array_equal(one.coordinates, two.coordinates)
    assert np.array_equal(one.rows, two.rows)
    assert (len(one.rows), one.coordinates.shape) == (200, (200, 2))
    assert [line.split(" ")[0] for line in said] == ["PCA", "t-SNE"]
    apart = np.linalg.norm(one.coordinates[:, None] - one.coordinates, axis=2)
    np.fill_diagonal(apart, np.inf)
    kind = one.rows % 4
    assert (kind[apart.argmin(axis=1)] == kind).mean() > 0.95
    assert not np.array_equal(embed(points, 4, sample=200, perplexity=15).rows, one.rows)


def test_too_few_samples_for_the_perplexity_are_refused() -> None:
    """With both numbers."""
    with pytest.raises(UserError, match="perplexity 30 with 20 samples"):
        embed(gradients(20), 0)
