"""psa's own loop in timed slices: one process per core, each training packs of the size psa would choose."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import serving
import torch

from psa.data.splits import Splits, load_splits
from psa.engine.batches import Batches, batch_order
from psa.engine.device_pack import fresh_state
from psa.engine.loop import row_of
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import evaluate, train_epoch
from psa.execution.packing import groups_of
from psa.execution.worker.benchmark import measure_step_times, seconds_per_step
from psa.experiments.studies import ablation
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.training import MODES
from psa.specs.trial import Trial, training_key
from psa.storage.trial_state import encode_state


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
            batch_size=256,
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
    """Return the seconds per trial-epoch (with evaluation) and per checkpoint of one pack, on one thread."""
    pack = trials_of(task["family"], task["arch"])[: task["size"]]
    trials = trained_once(pack)
    net = Dense(trials[0].model, 10)
    states = [fresh_state(trial, net, 1) for trial in trials]
    rows = [row_of(state) for state in states]
    rows = [rows[at] for at in batch_order(rows)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows])
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    train = splits.train.first(2 * 256)
    times = []
    begun = time.perf_counter()
    while len(times) < 2 or time.perf_counter() - begun < task["seconds"]:
        batches = Batches(rows, train, 256)
        epoch = partial(train_epoch, net, rows, active, gradients, optimizer, batches)
        times.append(seconds_per_step(epoch, len(batches)))
    step = sum(times[1:]) / len(times[1:])
    part = splits.val.first(1000)
    evaluate(net, active, part)
    start = time.perf_counter()
    evaluate(net, active, part)
    evaluation = (time.perf_counter() - start) * 10
    start = time.perf_counter()
    encode_state(states[0])
    checkpoint = time.perf_counter() - start
    return {
        "epoch": (step * -(-len(splits.train) // 256) + evaluation) / len(pack),
        "checkpoint": checkpoint,
        "trained": len(trials) / len(pack),
    }


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
