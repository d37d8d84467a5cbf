"""The loop one would write by hand: nn.Sequential, a DataLoader over a TensorDataset, AdamW per loop.

One trial at a time, with torch's defaults for everything that psa chooses differently.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from psa.data.splits import Splits


class Block(nn.Module):
    """A residual block of two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute ReLU(x + W2 ReLU(W1 x))."""
        return torch.relu(x + self.leave(torch.relu(self.enter(x))))


def network(family: str, widths: Sequence[int]) -> nn.Sequential:
    """Return a SimpleMLP or a ResMLP."""
    layers: list[nn.Module] = []
    inputs = 784
    for number, width in enumerate(widths):
        if family == "simplemlp":
            layers += [nn.Linear(inputs, width), nn.ReLU()]
        else:
            if (number == 0 or width != widths[number - 1]) and width != inputs:
                layers += [nn.Linear(inputs, width), nn.ReLU()]
            layers.append(Block(width))
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, 10))


class Loop:
    """Meta-loops of mode `none`, run in slices of a given time."""

    def __init__(self, family: str, widths: Sequence[int], splits: Splits, batch_size: int = 256) -> None:
        self.net = network(family, widths)
        train = TensorDataset(splits.train.images, splits.train.labels)
        self.train = DataLoader(train, batch_size=batch_size, shuffle=True)
        self.val = DataLoader(TensorDataset(splits.val.images, splits.val.labels), batch_size=2 * batch_size)
        self.loss = nn.CrossEntropyLoss()

    def seconds_per_epoch(self, slice_seconds: float) -> float:
        """Return the seconds of one training epoch and one evaluation, from timed slices of each."""
        optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-4, weight_decay=0.0)
        step = self._slice(self._training_steps(optimizer), slice_seconds)
        evaluation = self._slice(self._evaluation_steps(), slice_seconds / 5)
        return step * len(self.train) + evaluation * len(self.val)

    def _training_steps(self, optimizer: torch.optim.Optimizer):  # type: ignore[no-untyped-def]
        self.net.train()
        while True:
            for images, labels in self.train:
                optimizer.zero_grad()
                self.loss(self.net(images), labels).backward()
                optimizer.step()
                yield

    def _evaluation_steps(self):  # type: ignore[no-untyped-def]
        self.net.eval()
        with torch.no_grad():
            while True:
                correct = 0
                for images, labels in self.val:
                    correct += int((self.net(images).argmax(dim=1) == labels).sum())
                    yield

    @staticmethod
    def _slice(steps, seconds: float) -> float:  # type: ignore[no-untyped-def]
        """Return the seconds per step; the first step is warm-up."""
        next(steps)
        begun, count = time.perf_counter(), 0
        while count < 2 or time.perf_counter() - begun < seconds:
            next(steps)
            count += 1
        return (time.perf_counter() - begun) / count
