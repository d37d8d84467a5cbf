"""Measurement of the time of a training step by pack size: a few steps of each, on made-up samples."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch

from psa.data.splits import Split
from psa.engine.batches import Batches, batch_order, row_of
from psa.engine.device_pack import DevicePack, fresh_state
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import train_epoch
from psa.execution.cost_model import WORTH_IT, candidate_sizes
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.trial import Trial, training_key

STEPS = 3
REPEATS = (
    4  # of STEPS steps; the first warms up, the fastest other one counts, since other work only adds time
)
LEAST_SECONDS = 0.05  # of all repeats: steps of narrow networks are over before other work makes way
LONG_SECONDS = 1.0  # of all repeats: of such steps, another size or round would take longer than it may save
NO_BETTER = 2  # larger packs in a row that were no faster per trial; they end the search if steps are long
ROUNDS = 3  # rounds in which close sizes are timed in turn, so that a disturbance slows all of them
_SMALL_BATCH = (
    4096  # with larger ones, epochs of fewer steps are repeated, so that their samples fit into memory
)
_CLOSE = 2.5  # times the least time per trial; one disturbed size looked 2 times as slow


def measure_step_times(trials: Sequence[Trial], device: torch.device) -> dict[int, float]:
    """Return the seconds of a step for each pack size worth trying. A pack of n rows is the first n trials
    that are trained differently.
    """
    trials = [next(equal) for _, equal in itertools.groupby(trials, training_key)]
    data = trials[0].data
    net = Dense(trials[0].model, data.classes, data.shape)
    batch = trials[0].method.batch_size
    samples = STEPS * (REPEATS if batch <= _SMALL_BATCH else 1) * batch
    split = _made_up(samples, math.prod(data.shape), data.classes, device)
    found: dict[int, float] = {}
    packs: dict[int, _TimedPack] = {}
    for size in candidate_sizes(trials):
        packs[size] = _TimedPack(net, trials[:size], split, device)
        found[size] = packs[size].least()
        if not packs[size].is_slow:
            continue
        del packs[size]
        each = [seconds / size for size, seconds in found.items()]
        if len(each) > NO_BETTER and min(each[-NO_BETTER:]) * WORTH_IT > min(each[:-NO_BETTER]):
            break
    close = _CLOSE * min(seconds / size for size, seconds in found.items())
    again = [size for size in packs if found[size] / size <= close]
    for size in again * ROUNDS if len(again) > 1 else []:
        found[size] = min(found[size], packs[size].least())
    return found


def _made_up(samples: int, features: int, classes: int, device: torch.device) -> Split:
    """Return samples that look like scaled images; fixed, so that no random generator advances."""
    images = torch.linspace(-0.4, 2.8, samples * features, device=device).view(samples, features)
    labels = torch.arange(samples, device=device) % classes
    return Split(images, labels, labels, labels)


class _TimedPack:
    """A pack of which some steps are timed, again and again."""

    def __init__(self, net: Dense, trials: Sequence[Trial], split: Split, device: torch.device) -> None:
        states = [fresh_state(trial, net, 1) for trial in trials]
        rows = [row_of(state) for state in states]
        self.rows = [rows[at] for at in batch_order(rows)]
        self.active = StackedParams.stacked([net.initial(row.seed) for row in self.rows]).to(device)
        self.gradients = self.active.zeros_like()
        self.optimizer = optimizer_for("adamw", self.rows, self.active, self.gradients)
        self.batches = Batches(self.rows, split, trials[0].method.batch_size)
        self.memory_site = DevicePack(net, states, device).memory_site
        self.net = net
        self.seconds = 0.0
        # On a CPU the time of this thread, which other work on the machine does not lengthen
        alone = device.type == "cpu" and torch.get_num_threads() == 1
        self.clock = time.thread_time if alone else partial(_seconds, device)

    @property
    def is_slow(self) -> bool:
        """True if its repeats took LONG_SECONDS."""
        return self.seconds >= LONG_SECONDS

    def least(self) -> float:
        """Return the least mean seconds of STEPS steps, of repeats that take long enough together."""
        times: list[float] = []
        while len(times) < STEPS * REPEATS or sum(times) < LEAST_SECONDS:
            times += step_times(self._epoch, self.clock)[1]
        self.seconds = sum(times)
        return min(sum(times[at : at + STEPS]) for at in range(STEPS, len(times), STEPS)) / STEPS

    def _epoch(self, stop: Callable[[], bool]) -> None:
        arguments = self.net, self.rows, self.active, self.gradients, self.optimizer, self.batches
        train_epoch(*arguments, stop, memory_site=self.memory_site)


def _seconds(device: torch.device) -> float:
    """Return the seconds so far, once a GPU has done its work: a step only enqueues it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def step_times(
    epoch: Callable[[Callable[[], bool]], object], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, list[float]]:
    """Return the seconds before the first step of an epoch, in which its buffers are made, and those of every
    step.

    epoch: trains one, and calls its argument before every step. clock: returns the seconds so far.
    """
    begun = clock()
    starts: list[float] = []

    def starting() -> bool:
        starts.append(clock())
        return False

    epoch(starting)
    starts.append(clock())
    return starts[0] - begun, [end - start for start, end in itertools.pairwise(starts)]
