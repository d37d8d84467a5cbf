"""The memories of T trials at work in their networks: one batch after another, forward and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from psa.interventions.memory.hidden_memory import HiddenMemory, Trace
from psa.interventions.memory.targets import per_sample
from psa.specs.memory_sites import SitePosition


class MemorySite:
    """The memories of some rows of a pack, and their site in the networks."""

    def __init__(self, memory: HiddenMemory, place: SitePosition) -> None:
        self.memory, self.place = memory, place

    def take(self, rows: Sequence[int]) -> MemorySite:
        """Return copies of the memories of some rows; `begin` must follow."""
        return MemorySite(self.memory.take(rows), self.place)

    def begin(self, epochs: Sequence[int]) -> None:
        """Set the epoch (from 1) that each row trains next, or after which it is evaluated."""
        self.memory.begin(epochs)


class MemoryHook:
    """One batch at the place: hidden vectors come in, changed ones go out.

    samples: int64 [T, B], the samples' numbers in the data set.
    """

    def __init__(self, memory_site: MemorySite, samples: Tensor, training: bool) -> None:
        self.memory_site, self.samples, self.training = memory_site, samples, training
        self.h: Tensor | None = None
        self.trace: Trace | None = None

    @property
    def change(self) -> tuple[SitePosition, MemoryHook]:
        """The site and the function that changes hidden vectors there, as psa.nn.dense takes them."""
        return self.memory_site.place, self

    def __call__(self, h: Tensor) -> Tensor:
        """Return h' [T, width, B]."""
        self.h = h
        if self.training:
            h.retain_grad()
        changed, self.trace = self.memory_site.memory.forward(h, self.samples, self.training)
        return changed

    def observed(self, labels: Tensor) -> dict[str, Tensor]:
        """Return HiddenMemory.observed of the batch. Raises ValueError before the batch has passed."""
        if self.trace is None:
            raise ValueError("no batch has passed the memory")
        return self.memory_site.memory.observed(self.trace, labels)

    def learn(self, logits: Tensor, labels: Tensor) -> None:
        """Update the memories after the backward pass of logits [T, classes, B]. labels: int64 [T, B].

        Raises ValueError if there was no backward pass.
        """
        if self.trace is None or self.h is None or self.h.grad is None:
            raise ValueError("no batch has passed the memory forward and back")
        logits = logits.detach()
        log_p = torch.log_softmax(logits, dim=1)
        losses = -log_p.gather(1, labels.unsqueeze(1)).squeeze(1)
        right = logits.argmax(dim=1) == labels
        self.memory_site.memory.learn(
            self.trace, per_sample(self.h.grad), losses, right, labels, self.samples
        )
