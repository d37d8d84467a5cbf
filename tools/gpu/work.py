"""The architectures of the published study: arithmetic, bytes moved, and an order to measure them in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from gpu.setting import FAMILIES, ROOT
from psa.nn.dense import Dense
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import Shape, shape_of

TRAIN: Final = 50_000
VALIDATION: Final = 10_000
BATCH: Final = 256
CLASSES: Final = 10
# The least passes over the numbers of a network in one step: weights forward, backward and their gradient;
# AdamW reads weights, gradient and two moments and writes three of them. Activations: written and read
# forward, read twice backward, their gradient written and read.
PARAMETER_PASSES: Final = 10
ACTIVATION_PASSES: Final = 6


@dataclass(frozen=True)
class Workload:
    """One architecture of one family."""

    family: str
    arch: str

    @cached_property
    def model(self) -> PublishedModelSpec:
        """The network, without dropout; rows say which of them drop."""
        return PublishedModelSpec.model_validate({"family": self.family, "arch": Arch.coerce(self.arch)})

    @cached_property
    def shape(self) -> Shape:
        """The layers of the network."""
        return shape_of(self.model, CLASSES)

    @property
    def net(self) -> Dense:
        """A new network of this architecture."""
        return Dense(self.model, CLASSES)

    @property
    def layers(self) -> int:
        """The number of linear layers."""
        return len(self.shape.linears)

    @property
    def flop(self) -> float:
        """The FLOP of a trial-epoch: forward, backward without the input's gradient, and evaluation."""
        return self.shape.epoch_flop(TRAIN, VALIDATION)

    @property
    def moved(self) -> float:
        """The least bytes that a trial-epoch moves, if nothing stays in a cache from one pass to the next."""
        widths = sum(linear.outputs for linear in self.shape.linears)
        steps = -(-TRAIN // BATCH)
        training = steps * PARAMETER_PASSES * self.shape.parameters + TRAIN * ACTIVATION_PASSES * widths
        return 4.0 * (training + VALIDATION * 2 * widths)

    def fits(self, size: int, memory: float) -> bool:
        """Return True if a pack of this size takes less than 70 % of the device's bytes of memory."""
        widths = sum(linear.outputs for linear in self.shape.linears)
        row = 4 * (6 * self.shape.parameters + 4 * 500 * widths)
        return size * row < 0.7 * memory


def workloads() -> list[Workload]:
    """Return every architecture of both families, in rising order of arithmetic."""
    lines = (ROOT / "reproduction/configurations.txt").read_text().splitlines()
    archs = [line for line in lines if line and not line.startswith("#")]
    return sorted(
        (Workload(family, arch) for family in FAMILIES for arch in archs), key=lambda each: each.flop
    )


def even_order(count: int) -> list[int]:
    """Return 0..count-1 in an order of which every beginning is spread evenly (van der Corput's sequence)."""
    by_place = sorted(range(count), key=lambda number: int(f"{number:032b}"[::-1], 2))
    order = [0] * count
    for place, number in enumerate(by_place):
        order[number] = place
    return order
