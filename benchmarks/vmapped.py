"""Model ensembling as PyTorch's tutorial leads one to write it: torch.func.vmap over a stacked module.

S seeds x M modes are trained at once. Modes of a seed read the same batch (`in_dims` None), seeds their own.
The parameters are stacked tensors, which one fused AdamW updates.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import serving
import torch
from handwritten import network
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from psa.data.splits import Split, load_splits
from psa.specs.arch import Arch
from psa.specs.data import DataSpec

BATCH, EVALUATION_BATCH = 256, 1000


class Ensemble:
    """S x M networks of one architecture. nets: those of seed 0, then those of seed 1, and so on."""

    def __init__(self, nets: Sequence[nn.Module], seeds: int) -> None:
        self.seeds, self.modes = seeds, len(nets) // seeds
        stacked, _ = stack_module_state(list(nets))
        self.params = {
            name: value.detach().unflatten(0, (seeds, self.modes)).requires_grad_()
            for name, value in stacked.items()
        }
        self.base = copy.deepcopy(nets[0]).to("meta")
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=1e-4, weight_decay=0.0, fused=True)
        modes = vmap(grad_and_value(self._loss), in_dims=(0, None, None))
        self.gradients = vmap(modes, in_dims=(0, 0, 0))
        self.answers = vmap(vmap(self._logits, in_dims=(0, None)), in_dims=(0, None))

    def _logits(self, params: dict[str, Tensor], images: Tensor) -> Tensor:
        return functional_call(self.base, params, (images,))  # type: ignore[no-any-return]

    def _loss(self, params: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self._logits(params, images), labels)

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Train on a batch per seed, [S, B, 784] and [S, B]. Return the mean losses [S, M]."""
        detached = {name: value.detach() for name, value in self.params.items()}
        gradients, losses = self.gradients(detached, images, labels)
        for name, value in self.params.items():
            value.grad = gradients[name]
        self.optimizer.step()
        return losses  # type: ignore[no-any-return]

    def correct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the number of correct answers [S, M] in a batch that all read."""
        with torch.no_grad():
            return (self.answers(self.params, images).argmax(dim=-1) == labels).sum(dim=-1)


class Training:
    """An ensemble and the batches that it reads."""

    def __init__(self, family: str, arch: str, size: Sequence[int], train: Split, val: Split) -> None:
        seeds, modes = size
        widths = Arch.coerce(arch).widths
        self.trials, self.train, self.val = seeds * modes, train, val
        self.ensemble = Ensemble([network(family, widths) for _ in range(self.trials)], seeds)
        self.steps = -(-len(train) // BATCH)
        self.orders = torch.stack([torch.randperm(len(train)) for _ in range(seeds)])
        self.at = 0

    def step(self) -> None:
        """Train on the next batch of each seed."""
        chosen = self.orders[:, self.at * BATCH : (self.at + 1) * BATCH]
        self.at = (self.at + 1) % (self.steps - 1)  # whole batches alone, as all but one of an epoch are
        self.ensemble.step(self.train.images[chosen], self.train.labels[chosen])

    def evaluate(self) -> None:
        """Evaluate one batch of the validation split."""
        part = self.val.first(EVALUATION_BATCH)
        self.ensemble.correct(part.images, part.labels)

    def seconds_per_epoch(self, seconds: float, *, evaluated: bool) -> float:
        """Return the seconds per trial of one training epoch, with the evaluation if `evaluated`."""
        step = serving.seconds_per_step(self.step, seconds)
        evaluation = serving.seconds_per_step(self.evaluate, seconds / 5) if evaluated else 0.0
        return (step * self.steps + evaluation * len(self.val) / EVALUATION_BATCH) / self.trials


def main() -> None:
    """Answer tasks until standard input ends."""
    splits = load_splits(DataSpec(), serving.data_dir())
    kept: dict[str, Training] = {}

    def measure(task: serving.Task) -> dict[str, Any]:
        torch.set_num_threads(task["threads"])
        key = f"{task['family']} {task['arch']} {task['size']}"
        begun = time.perf_counter()
        if key not in kept:
            kept.clear()  # the parameters of one ensemble can take gigabytes
            kept[key] = Training(task["family"], task["arch"], task["size"], splits.train, splits.val)
        building = time.perf_counter() - begun
        epoch = kept[key].seconds_per_epoch(task["seconds"], evaluated=task["task"] == "measure")
        return {"epoch": epoch, "compile": building}

    serving.serve({"try": measure, "measure": measure}, {"torch": torch.__version__})


if __name__ == "__main__":
    main()
