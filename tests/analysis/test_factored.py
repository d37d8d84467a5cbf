"""Per-sample gradients as factors: everything as if they were written out, and nothing written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from psa.analysis.gradients import factored
from psa.analysis.gradients.factored import Factored, blocks, sampled_rows


def made_up(
    samples: int, outputs: int, inputs: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Factored:
    """Random factors with some rows of zeros, as confident samples and blank images have."""
    draws = torch.Generator().manual_seed(seed)
    delta = torch.randn(samples, outputs, generator=draws, dtype=torch.float64)
    activation = torch.randn(samples, inputs, generator=draws, dtype=torch.float64)
    delta[::5] = 0
    activation[3::7] = 0
    return Factored(delta.to(dtype), activation.to(dtype))


sizes = st.tuples(st.integers(1, 12), st.integers(1, 6), st.integers(1, 9), st.integers(0, 99))


def dense(points: Factored) -> Tensor:
    """All of them written out, [N, outputs * inputs]."""
    return points.dense(slice(None)).flatten(1)


def close(one: Tensor, other: Tensor) -> None:
    """Equal but for rounding in float64."""
    torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_they_are_the_gradients_of_each_samples_loss() -> None:
    """One backward pass of all samples gives the factors; a pass for each of them gives the gradients."""
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(6, 5, generator=draws, dtype=torch.float64)
    labels = torch.tensor([0, 2, 1, 2, 0, 1])
    first = torch.nn.Linear(5, 4, dtype=torch.float64)
    last = torch.nn.Linear(4, 3, dtype=torch.float64)
    z = first(x)
    hidden = z.relu()
    logits = last(hidden)
    loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    delta_z, delta_logits = torch.autograd.grad(loss, [z, logits])
    layers = {first: Factored(delta_z, x), last: Factored(delta_logits, hidden.detach())}
    for row in range(6):
        one = torch.nn.functional.cross_entropy(last(first(x[row]).relu()), labels[row])
        for layer, points in layers.items():
            weight, bias = torch.autograd.grad(one, [layer.weight, layer.bias], retain_graph=True)
            close(points.dense([row])[0], weight)
            close(Factored.of_bias(points.delta).dense([row])[0, :, 0], bias)


@settings(max_examples=40, deadline=None)
@given(sizes, st.booleans())
def test_norms_products_and_distances_are_those_of_the_dense_gradients(
    size: tuple[int, int, int, int], normalised: bool
) -> None:
    """For any shape, at any length, among themselves and with others."""
    samples, outputs, inputs, seed = size
    points, others = made_up(*size), made_up(samples + 2, outputs, inputs, seed + 1)
    if normalised:
        points, others = points.normalised(), others.normalised()
    one, two = dense(points), dense(others)
    close(points.norms(), one.norm(dim=1))
    close(points.inner(others), one @ two.T)
    close(points.squared_distances(others), torch.cdist(one, two).square())
    assert float((points.distances() - (one.unsqueeze(1) - one).norm(dim=2)).abs().max()) < 1e-6  # a root
    assert not points.distances().diagonal().any()


@settings(max_examples=40, deadline=None)
@given(sizes, st.integers(1, 4))
def test_centres_are_those_of_the_dense_gradients(size: tuple[int, int, int, int], count: int) -> None:
    """Sums of groups, products and distances with centres, whichever factor is the shorter."""
    samples, outputs, inputs, seed = size
    points = made_up(*size).normalised()
    groups = torch.from_numpy(np.random.Generator(np.random.Philox(seed)).integers(count, size=samples))
    sums = points.sums(groups, count)
    written = dense(points)
    members = torch.nn.functional.one_hot(groups, count).to(torch.float64)
    close(sums.flatten(1), members.T @ written)
    centres = torch.randn(count, outputs, inputs, generator=torch.Generator().manual_seed(seed)).double()
    close(points.inner_with(centres), written @ centres.flatten(1).T)
    close(points.squared_distances_to(centres), torch.cdist(written, centres.flatten(1)).square())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little memory a block may take."""
    points, centres = made_up(23, 4, 6), torch.ones(3, 4, 6, dtype=torch.float64)
    groups = torch.arange(23) % 3
    whole = points.inner(points), points.squared_distances_to(centres), points.sums(groups, 3)
    monkeypatch.setattr(factored, "BLOCK", 30)
    for before, after in zip(
        whole,
        (points.inner(points), points.squared_distances_to(centres), points.sums(groups, 3)),
        strict=True,
    ):
        close(before, after)
    assert [rows.stop - rows.start for rows in blocks(7, 10)] == [3, 3, 1]
    assert [rows.stop for rows in blocks(2, 1000)] == [1, 2]
    assert list(blocks(0, 5)) == []


def test_a_normalised_gradient_has_length_one_or_none() -> None:
    """Directions survive even where the norms' squares are lost in float32; nothing becomes NaN."""
    points = Factored(torch.tensor([[3.0, 0], [1e-12, 0], [0, 0], [1e-30, 0]]), torch.ones(4, 2))
    found = points.normalised()
    assert found.norms().tolist() == pytest.approx([1, 1, 0, 0])
    assert found.squared_distances(found)[0].tolist() == pytest.approx([0, 0, 1, 1], abs=1e-6)
    assert found.delta is points.delta
    again = Factored(points.delta, points.activation, torch.tensor([-2.0, 1, 1, 1])).normalised()
    close(again.dense([0]), -found.dense([0]))


def test_float32_never_gives_less_than_zero() -> None:
    """Rounding leaves negative squares, of which no root can be taken; float64 is there where asked."""
    points = made_up(50, 10, 30, dtype=torch.float32)
    assert not points.squared_distances(points).lt(0).any()
    exact = made_up(50, 10, 30)
    assert points.to(dtype=torch.float64).distances().dtype == torch.float64
    assert float((points.distances() - exact.distances()).abs().max()) < 2e-2 * float(exact.norms().max())


def test_rows_views_and_bytes() -> None:
    """A slice is a view; what it takes is counted; 60,000 gradients of 784 x 512 are 96 GB written out."""
    points = made_up(10, 4, 6).normalised()
    part = points[2:5]
    assert len(part) == 3
    assert part.delta.data_ptr() == points.delta[2:].data_ptr()
    close(dense(part), dense(points)[2:5])
    close(dense(points[torch.tensor([7, 0])]), dense(points)[[7, 0]])
    assert points.nbytes == 8 * 10 * (4 + 6 + 1)
    large = Factored(torch.empty(60_000, 512, device="meta"), torch.empty(60_000, 784, device="meta"))
    assert (large.nbytes, large.dense_nbytes) == (311_040_000, 96_337_920_000)
    assert large.to(dtype=torch.float64).nbytes == 2 * large.nbytes


def test_factors_that_do_not_belong_together_are_refused() -> None:
    """As is a scale of another length."""
    with pytest.raises(ValueError, match="factors"):
        Factored(torch.ones(3, 2), torch.ones(4, 2))
    with pytest.raises(ValueError, match="factors"):
        Factored(torch.ones(3), torch.ones(3, 2))
    with pytest.raises(ValueError, match="scale"):
        Factored(torch.ones(3, 2), torch.ones(3, 2), torch.ones(2))


def test_a_sample_is_drawn_by_its_stream() -> None:
    """Without repetition, rising, the same for the same seed; everyone where there are not more."""
    rows = sampled_rows(1000, 50, 7)
    assert torch.equal(rows, sampled_rows(1000, 50, 7))
    assert not torch.equal(rows, sampled_rows(1000, 50, 8))
    assert torch.equal(rows, rows.unique())
    assert sampled_rows(5, 5, 1).tolist() == sampled_rows(5, 9, 1).tolist() == [0, 1, 2, 3, 4]
