"""Measurement of the time of a training step by pack size: a few steps of each, on made-up samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from psa.data.splits import Split
from psa.engine.batches import Batches, batch_order, row_of
from psa.engine.device_pack import DevicePack, fresh_state
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import train_epoch
from psa.execution.cost_model import WORTH_IT, candidate_sizes
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.trial import Trial

STEPS = 3
REPEATS = 4  # the first warms up; the least of the others is taken, since others' work only adds
LEAST_SECONDS = 0.05  # of all repeats: steps of narrow networks are over before other work makes way
NO_BETTER = 2  # larger packs in a row that were no faster per trial; one may have been unlucky


def measure_step_times(trials: Sequence[Trial], device: torch.device) -> dict[int, float]:
    """Return the seconds of a step for each pack size worth trying; a pack is the first `size` trials."""
    data = trials[0].data
    net = Dense(trials[0].model, data.classes, data.shape)
    samples = STEPS * trials[0].method.batch_size
    split = _made_up(samples, math.prod(data.shape), data.classes, device)
    found: dict[int, float] = {}
    for size in candidate_sizes(trials[0], len(trials)):
        found[size] = _measured(net, trials[:size], split, device)
        each = [seconds / size for size, seconds in found.items()]
        if len(each) > NO_BETTER and min(each[-NO_BETTER:]) * WORTH_IT > min(each[:-NO_BETTER]):
            break
    return found


def _made_up(samples: int, features: int, classes: int, device: torch.device) -> Split:
    """Return samples that look like scaled images; fixed, so that no random generator advances."""
    images = torch.linspace(-0.4, 2.8, samples * features, device=device).view(samples, features)
    labels = torch.arange(samples, device=device) % classes
    return Split(images, labels, labels, labels)


def _measured(net: Dense, trials: Sequence[Trial], split: Split, device: torch.device) -> float:
    rows = [row_of(fresh_state(trial, net, 1)) for trial in trials]
    rows = [rows[at] for at in batch_order(rows)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows]).to(device)
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    batches = Batches(rows, split, trials[0].method.batch_size)
    visited = DevicePack(net, [fresh_state(trial, net, 1) for trial in trials], device).visited

    def epoch(stop: Callable[[], bool]) -> None:
        train_epoch(net, rows, active, gradients, optimizer, batches, stop, visited=visited)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times: list[float] = []
    while len(times) < REPEATS or sum(times) * len(batches) < LEAST_SECONDS:
        times.append(seconds_per_step(epoch, len(batches)))
    return min(times[1:])


def seconds_per_step(epoch: Callable[[Callable[[], bool]], object], steps: int) -> float:
    """Return the seconds of a step in an epoch of so many, from the first step on: what is set up once serves
    hundreds of them in a real epoch.

    epoch: trains one, and calls its argument before every step.
    """
    starts: list[float] = []

    def starting() -> bool:
        starts.append(time.perf_counter())
        return False

    epoch(starting)
    return (time.perf_counter() - starts[0]) / steps
