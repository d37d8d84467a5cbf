"""Dimensions, keys and values of entries, made from hidden vectors, their gradients and class means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from psa.core.rng import generator
from psa.interventions.memory.bank import of_length_1
from psa.interventions.memory.per_trial import per_trial
from psa.specs.memory import Affected, Memory, Query, Retrieval, Target, check_query


@dataclass(frozen=True)
class Dims:
    """Dimensions of a hidden vector, per trial: those that may be changed, int64 [T, dv], and those that are
    compared, int64 [T, dk].
    """

    affected: Tensor
    query: Tensor

    @classmethod
    def of(cls, spec: Memory, width: int, seeds: Sequence[int], device: torch.device) -> Dims:
        """Return the dimensions at a site of that width, a function of spec and seed. Raises UserError.

        They are drawn from the width that the site has when the trial begins: a network that grows keeps
        its memory, whose entries do not have the later units.
        """
        check_query(spec, width)
        affected = [_affected(spec.affected, width, seed) for seed in seeds]
        query = [_query(spec.query, width, seed, mine) for seed, mine in zip(seeds, affected, strict=True)]
        return cls(*(torch.from_numpy(np.stack(each)).to(device) for each in (affected, query)))

    def take(self, rows: Sequence[int]) -> Dims:
        """Return those of some trials."""
        return Dims(self.affected[list(rows)], self.query[list(rows)])


def _affected(affected: Affected, width: int, seed: int) -> np.ndarray:
    count = min(affected.dims, width)
    if affected.selection == "first":
        return np.arange(count)
    return np.sort(generator(seed, "memory").permutation(width)[:count])


def _query(query: Query, width: int, seed: int, affected: np.ndarray) -> np.ndarray:
    if query.source == "full":
        return np.arange(width)
    if query.source == "untouched":
        return np.setdiff1d(np.arange(width), affected)
    return np.sort(generator(seed, "projection").permutation(width)[: query.dims])


def picked(h: Tensor, dims: Tensor) -> Tensor:
    """Return the dimensions [T, n] of h [T, width, B], as [T, n, B]."""
    return h.gather(1, dims.unsqueeze(2).expand(-1, -1, h.shape[2]))


def queries_of(h: Tensor, dims: Dims, retrieval: Retrieval) -> Tensor:
    """Return the queries of hidden vectors, [T, dk, B], detached."""
    raw = picked(h.detach(), dims.query)
    return _normalised(raw) if retrieval.normalize_queries else raw


def target_keys(h: Tensor, dims: Dims, retrieval: Retrieval) -> Tensor:
    """Return the keys of entries, [T, B, dk], detached."""
    raw = picked(h.detach(), dims.query)
    return (_normalised(raw) if retrieval.normalize_keys else raw).transpose(1, 2)


def _normalised(columns: Tensor) -> Tensor:
    return of_length_1(columns.transpose(1, 2)).transpose(1, 2)


def per_sample(gradient: Tensor) -> Tensor:
    """Return each sample's gradient of its own loss, from the gradient [T, width, B] of the batch mean.

    A sample's hidden vector affects its own loss only, so the two differ by the factor B. An entry made from
    the gradient of the mean would depend on the batch size: at 1 / B the values were numerically zero.
    """
    return gradient * gradient.shape[2]


def target_values(
    target: Target, h: Tensor, gradient: Tensor | None, centroids: Tensor | None, normalize: bool = False
) -> Tensor:
    """Return the values [T, B, dv] of entries.

    h: the affected dimensions [T, dv, B]. gradient: per sample, the same shape (grad_*). centroids: the mean
    of each sample's class, the same shape (class_centroid). normalize: to length 1.
    """
    h = h.detach()
    if target.construction == "current_hidden":
        values = h
    elif target.construction == "class_centroid":
        if centroids is None:
            raise ValueError("class_centroid needs the means of the classes")
        values = centroids if target.value == "absolute" else centroids - h
    else:
        if gradient is None:
            raise ValueError(f"{target.construction} needs each sample's gradient")
        step = gradient * -target.step_size
        values = step if target.value == "delta" else h + step
    values = values.transpose(1, 2)
    return of_length_1(values) if normalize else values


class Centroids:
    """Running class means of the affected dimensions: the first batch with a class sets its mean.

    means: [T, classes, dv]. seen: bool [T, classes].
    """

    def __init__(self, trials: int, classes: int, dims: int, momentum: float, device: torch.device) -> None:
        self.momentum = momentum
        self.means = torch.zeros(trials, classes, dims, device=device)
        self.seen = torch.zeros(trials, classes, dtype=torch.bool, device=device)

    def update(self, h: Tensor, labels: Tensor) -> None:
        """Update the means with a batch: h [T, dv, B], labels int64 [T, B]."""
        classes = self.means.shape[1]

        def work(h: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            member = (labels.unsqueeze(1) == torch.arange(classes, device=h.device).unsqueeze(1)).to(h.dtype)
            count = member.sum(dim=2, keepdim=True)
            return torch.bmm(member, h.transpose(1, 2)) / count.clamp(min=1), count > 0

        batch, present = per_trial(work, h.detach(), labels)
        seen = self.seen.unsqueeze(2)
        moved = self.means * self.momentum + batch * (1 - self.momentum)
        self.means = torch.where(present, torch.where(seen, moved, batch), self.means)
        self.seen = self.seen | present.squeeze(2)

    def of(self, labels: Tensor) -> Tensor:
        """Return the mean of each sample's class, [T, dv, B]."""
        index = labels.unsqueeze(2).expand(-1, -1, self.means.shape[2])
        return self.means.gather(1, index).transpose(1, 2)

    def take(self, rows: Sequence[int]) -> Centroids:
        """Return those of some trials."""
        some = Centroids(0, 0, 0, self.momentum, self.means.device)
        some.means, some.seen = self.means[list(rows)], self.seen[list(rows)]
        return some


def stored(keep: str, losses: Tensor) -> Tensor:
    """Return the samples to store, bool [T, B]: all, or those with a loss [T, B] above the batch mean."""
    if keep == "always":
        return torch.ones_like(losses, dtype=torch.bool)
    return per_trial(lambda loss: (loss > loss.mean(dim=1, keepdim=True),), losses)[0]
