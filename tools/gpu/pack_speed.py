"""The seconds per trial-epoch of one pack on a device, from a part of an epoch, and the device's limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch

from gpu.setting import Deadline, timed
from gpu.work import BATCH, TRAIN, VALIDATION, Workload
from psa.data.splits import Split, Splits
from psa.engine.batches import Batches, RowSettings, batch_order
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import evaluate, train_epoch
from psa.execution.cost_model import WORTH_IT
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.training import MODES

FEW: Final = 4  # full batches: on a GPU the first runs, the second is recorded
FULL: Final = TRAIN // BATCH
TAIL: Final = TRAIN % BATCH
EVALUATED: Final = 1_000
REPEATS: Final = 5


def training_rows(size: int) -> list[RowSettings]:
    """Return the settings of the published study for a pack: six modes of as many seeds as it takes.

    Its decay is too weak to change a weight.
    """
    rows = [
        RowSettings(seed, 2, 0.1 * (mode == "dropout"), lr=1e-4, weight_decay=0.0)
        for seed in range(-(-size // len(MODES)))
        for mode in MODES
    ][:size]
    return [rows[at] for at in batch_order(rows)]


def samples_for(splits: Splits, device: torch.device) -> Split:
    """Return 50,000 training samples on the device, repeated where there are fewer."""
    places = torch.arange(TRAIN) % len(splits.train)
    return splits.train[places].to(device)


def trial_epoch_seconds(
    work: Workload, size: int, samples: Split, device: torch.device, deadline: Deadline, slice_seconds: float
) -> float:
    """Return the seconds of one epoch with evaluation, divided by the trials of the pack.

    Two parts of an epoch are timed, a short and a longer one, and their difference gives the time of a step.
    slice_seconds: see `step_seconds`. Raises Interrupted at the deadline.
    """
    net, rows = work.net, training_rows(size)
    began = net.initial(0).to(device).repeat(size)

    def epoch(batches: int) -> None:
        _train(net, rows, began, samples.first(batches * BATCH + TAIL), deadline)

    epoch(FEW)  # libraries choose kernels, memory is allocated
    short, step = step_seconds(lambda batches: timed(lambda: epoch(batches), device), slice_seconds)
    evaluation = _evaluation(net, began, samples, device)
    return (max(0.0, short - FEW * step) + FULL * step + evaluation) / size


def step_seconds(part: Callable[[int], float], slice_seconds: float) -> tuple[float, float]:
    """Return the seconds of the shortest part of an epoch, and of one more step.

    part: the seconds of an epoch of so many full batches. Parts grow until what a longer one takes more than
    the shortest is a slice, and half of the shortest: on a GPU that one records a graph, which for a deep
    network takes as long as hundreds of steps, and varies.
    """
    short, more = part(FEW), FEW
    while True:
        grown = part(FEW + more) - short
        enough = max(slice_seconds, short / 2)
        if grown >= enough or more == FULL - FEW:
            return short, max(0.0, grown) / more
        wanted = more * enough / grown if grown > 0 else math.inf
        more = min(FULL - FEW, 8 * more, max(more + 1, math.ceil(min(wanted, FULL))))


def _train(
    net: Dense, rows: Sequence[RowSettings], began: StackedParams, split: Split, deadline: Deadline
) -> None:
    active = began.clone()
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    train_epoch(net, rows, active, gradients, optimizer, Batches(rows, split, BATCH), deadline.passed)


def _evaluation(net: Dense, weights: StackedParams, samples: Split, device: torch.device) -> float:
    part = samples.first(EVALUATED)
    evaluate(net, weights, part)
    return timed(lambda: evaluate(net, weights, part), device) * VALIDATION / EVALUATED


def next_size(found: Mapping[int, float], sizes: Sequence[int], start: int) -> int | None:
    """Return the pack size to try next, None if the search is complete.

    found: seconds per trial-epoch by size, infinite for one that does not fit. From `start` the search goes
    up while that is worth it, then down while a smaller pack is as fast.
    """
    if not found:
        return start
    tried = sorted(found)
    largest, smallest = tried[-1], tried[0]
    larger = [size for size in sizes if size > largest]
    improving = len(tried) == 1 or found[largest] * WORTH_IT <= found[tried[-2]]
    if larger and improving and math.isfinite(found[largest]):
        return larger[0]
    smaller = [size for size in sizes if size < smallest]
    if smaller and found[smallest] <= WORTH_IT * min(found.values()):
        return smaller[-1]
    return None


def memory_bandwidth(device: torch.device) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    count = (1 << 28) if device.type == "cuda" else (1 << 24)
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    return 2 * 4 * count / _best(lambda: target.copy_(source), device)


def matmul_rate(device: torch.device) -> float:
    """Return the FLOP per second of a large product in float32."""
    side = 8192 if device.type == "cuda" else 1024
    x = torch.linspace(-1, 1, side * side, device=device).view(side, side)
    y = torch.empty_like(x)
    return 2 * side**3 / _best(lambda: torch.mm(x, x, out=y), device)


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Return the least seconds of several calls, the first of which warms up."""
    times = [timed(work, device) for _ in range(REPEATS)]
    return min(times[1:])
