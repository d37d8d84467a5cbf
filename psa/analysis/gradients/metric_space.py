"""Distances of factored gradients to each other and to centres, computed in two ways.

Both give the same numbers: a few thousand samples through their inner products (one matrix for all runs and
all numbers of clusters), more of them through centres that are written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from psa.analysis.gradients.factored import Factored

GRAM_ROWS: Final = 8_192  # up to here all inner products are kept: 268 MB in float32


class MetricSpace(Protocol):
    """The operations on n points that Lloyd's algorithm needs. Each space has its own form of centres."""

    def __len__(self) -> int: ...

    def to_points(self, rows: Tensor) -> Tensor:
        """Return the squared distances of every point to some of them, [n, m]."""

    def centres(self, groups: Tensor, count: int) -> Tensor:
        """Return the mean of each group; groups: int64 [n]. That of an empty group is the origin."""

    def to_centres(self, centres: Tensor) -> Tensor:
        """Return the squared distances of every point to every centre, [n, K]."""

    def between(self, centres: Tensor) -> Tensor:
        """Return the inner products of the centres, [K, K]."""


@dataclass(frozen=True)
class DenseSpace:
    """Gradients as factors and centres written out: memory grows with n, time with n K outputs inputs."""

    points: Factored

    def __len__(self) -> int:
        return len(self.points)

    def to_points(self, rows: Tensor) -> Tensor:
        """See MetricSpace."""
        return self.points.squared_distances(self.points[rows])

    def centres(self, groups: Tensor, count: int) -> Tensor:
        """See MetricSpace; [K, outputs, inputs]."""
        sizes = torch.bincount(groups, minlength=count).clamp_min(1)
        return self.points.sums(groups, count) / sizes.view(-1, 1, 1)

    def to_centres(self, centres: Tensor) -> Tensor:
        """See MetricSpace."""
        return self.points.squared_distances_to(centres)

    def between(self, centres: Tensor) -> Tensor:
        """See MetricSpace."""
        flat = centres.flatten(1)
        return flat @ flat.T


class GramSpace:
    """All inner products of n gradients, [n, n]; a centre is the share that each of them has in it, [n, K].

    One matrix serves every run, every number of clusters and the silhouette: a step costs n^2 K, whatever the
    size of the layer.
    """

    def __init__(self, points: Factored) -> None:
        self.gram = points.inner(points)
        self.squares = self.gram.diagonal().clone()

    def __len__(self) -> int:
        return len(self.gram)

    def to_points(self, rows: Tensor) -> Tensor:
        """See MetricSpace."""
        # rows of the matrix, which are its columns, lie side by side in memory
        return (self.squares.unsqueeze(1) + self.squares[rows] - 2 * self.gram[rows].T).clamp_min_(0)

    def centres(self, groups: Tensor, count: int) -> Tensor:
        """See MetricSpace; [n, K]."""
        members = torch.nn.functional.one_hot(groups, count).to(self.gram.dtype)
        return members / members.sum(dim=0).clamp_min(1)

    def to_centres(self, centres: Tensor) -> Tensor:
        """See MetricSpace."""
        inner = (centres.T.contiguous() @ self.gram).T  # 2.6 times as fast as gram @ centres (n 4,000, K 10)
        own = (centres * inner).sum(dim=0)
        return (self.squares.unsqueeze(1) + own - 2 * inner).clamp_min_(0)

    def between(self, centres: Tensor) -> Tensor:
        """See MetricSpace."""
        return centres.T @ self.gram @ centres

    def distances(self) -> Tensor:
        """Return the distances among the points, [n, n]; exactly 0 between a point and itself."""
        found = self.gram.mul(-2).add_(self.squares).add_(self.squares.unsqueeze(1))
        return found.clamp_min_(0).sqrt_().fill_diagonal_(0)


def space_of(points: Factored) -> MetricSpace:
    """Return the space in which clustering takes the least time."""
    outputs, inputs = points.shape
    return GramSpace(points) if len(points) <= min(GRAM_ROWS, outputs * inputs) else DenseSpace(points)
