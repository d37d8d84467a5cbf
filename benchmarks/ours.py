"""psa's own loop in timed slices: one process per core, each training packs of the fastest measured size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import serving
import torch

from psa.data.splits import Split, Splits, load_splits
from psa.engine.batches import Batches, RowSettings, batch_order
from psa.engine.device_pack import fresh_state
from psa.engine.loop import row_of
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import EVALUATION_BATCH, evaluate, train_epoch
from psa.execution.packing import groups_of
from psa.execution.worker.benchmark import measure_step_times, step_times
from psa.experiments.studies import ablation
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.training import MODES
from psa.specs.trial import Trial, training_key
from psa.storage.trial_state import encode_state

BATCH = 256
FEWEST_STEPS = 2
SLICES = 4  # parts of a timed slice, each the first steps of an epoch


class FirstBatches(Batches):
    """The first batches of an epoch. Their samples are drawn from all, which no cache holds."""

    def __init__(self, rows: Sequence[RowSettings], split: Split, steps: int) -> None:
        super().__init__(rows, split, BATCH)
        self.steps = steps

    def __len__(self) -> int:
        return min(self.steps, super().__len__())


def trials_of(family: str, arch: str, seeds: int = 10) -> list[Trial]:
    """Return the trials of one architecture of the grid: six modes, ten seeds."""
    made = [
        ablation.trial(
            arch=Arch.coerce(arch),
            mode=mode,
            family=family,
            seed=seed,
            data=DataSpec(),
            lr=1e-4,
            batch_size=BATCH,
            weight_decay=1e-4,
            dropout=0.1,
        )
        for seed in range(seeds)
        for mode in MODES
    ]
    return groups_of(made)[0]


def trained_once(trials: list[Trial]) -> list[Trial]:
    """Return the first trial of each run of equal ones: the engine trains them once, and copies the rest."""
    return list({training_key(trial): trial for trial in reversed(trials)}.values())[::-1]


def measure(task: dict[str, Any], splits: Splits) -> dict[str, float]:
    """Return the seconds per trial-epoch (with evaluation) and per checkpoint of one pack, on one thread.

    As in a sweep, the size of a pack is the number of rows that it trains: modes none and decay are one.
    """
    published = trials_of(task["family"], task["arch"])
    different = trained_once(published)
    trained = len(different) / len(published)
    trials = different[: task["size"]]
    net = Dense(trials[0].model, 10)
    states = [fresh_state(trial, net, 1) for trial in trials]
    rows = [row_of(state) for state in states]
    rows = [rows[at] for at in batch_order(rows)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows])
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)

    def seconds_of(steps: int) -> tuple[float, float]:
        """Return the seconds before the first step of an epoch, and the mean seconds of its first steps."""
        batches = FirstBatches(rows, splits.train, steps)
        setup, times = step_times(partial(train_epoch, net, rows, active, gradients, optimizer, batches))
        return setup, sum(times) / len(times)

    begun = time.perf_counter()
    seconds_of(FEWEST_STEPS)  # warms up
    steps = max(FEWEST_STEPS, int(task["seconds"] / SLICES / seconds_of(FEWEST_STEPS)[1]))
    timed = [seconds_of(steps)]
    while time.perf_counter() - begun < task["seconds"]:
        timed.append(seconds_of(steps))
    setup, step = (sum(each) / len(timed) for each in zip(*timed, strict=True))
    evaluate(net, active, splits.val.first(EVALUATION_BATCH))  # warms up
    start = time.perf_counter()
    evaluate(net, active, splits.val)
    evaluation = time.perf_counter() - start
    start = time.perf_counter()
    encode_state(states[0])
    checkpoint = time.perf_counter() - start
    epoch = setup + step * -(-len(splits.train) // BATCH) + evaluation
    return {"epoch": epoch / len(trials) * trained, "checkpoint": checkpoint, "trained": trained}


def main() -> None:
    """Answer tasks until standard input ends."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begun = time.perf_counter()
    splits = load_splits(DataSpec(), serving.data_dir())
    loading = time.perf_counter() - begun

    def calibrate(task: serving.Task) -> dict[str, Any]:
        begun = time.perf_counter()
        steps = measure_step_times(trials_of(task["family"], task["arch"]), torch.device("cpu"))
        return {"steps": steps, "calibration": time.perf_counter() - begun}

    serving.serve(
        {"calibrate": calibrate, "measure": lambda task: measure(task, splits)}, {"loading": loading}
    )


if __name__ == "__main__":
    main()
