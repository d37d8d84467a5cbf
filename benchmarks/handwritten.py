"""The loop one would write by hand: nn.Sequential, a DataLoader over a TensorDataset, AdamW per loop.

One trial at a time, with torch's defaults for everything that psa chooses differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import serving
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from psa.data.splits import Splits, load_splits
from psa.specs.arch import Arch
from psa.specs.data import DataSpec


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

    def __init__(self, net: nn.Module) -> None:
        self.net, self.loss = net, nn.CrossEntropyLoss()
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.0)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Train on one batch. Return its mean loss."""
        self.optimizer.zero_grad()
        loss: torch.Tensor = self.loss(self.net(images), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def correct(self, images: torch.Tensor, labels: torch.Tensor) -> int:
        """Return the number of correct answers in one batch."""
        with torch.no_grad():
            return int((self.net(images).argmax(dim=1) == labels).sum())

    def seconds_per_epoch(self, splits: Splits, slice_seconds: float, batch_size: int = 256) -> float:
        """Return the seconds of one training epoch and one evaluation, from timed slices of each."""
        train = TensorDataset(splits.train.images, splits.train.labels)
        loader = DataLoader(train, batch_size=batch_size, shuffle=True)
        val = DataLoader(TensorDataset(splits.val.images, splits.val.labels), batch_size=2 * batch_size)
        self.net.train()
        step = serving.seconds_per_step(_each(loader, self.step), slice_seconds)
        self.net.eval()
        evaluation = serving.seconds_per_step(_each(val, self.correct), slice_seconds / 5)
        return step * len(loader) + evaluation * len(val)


def _each(
    loader: DataLoader[Any], work: Callable[[torch.Tensor, torch.Tensor], object]
) -> Callable[[], object]:
    """Return a function that works on the next batch at each call, epoch after epoch."""

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while True:
            yield from loader

    source = batches()
    return lambda: work(*next(source))


def main() -> None:
    """Answer tasks until standard input ends."""
    splits = load_splits(DataSpec(), serving.data_dir())

    @cache
    def loop(family: str, arch: str) -> Loop:
        return Loop(network(family, Arch.coerce(arch).widths))

    def measure(task: serving.Task) -> dict[str, Any]:
        torch.set_num_threads(task["threads"])
        made = loop(task["family"], task["arch"])
        return {"epoch": made.seconds_per_epoch(splits, task["seconds"])}

    serving.serve({"try": lambda task: {"epoch": 0.0}, "measure": measure}, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
