"""psa's own loop in timed slices: one process per core, each training packs of the size psa would choose."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from psa.data.splits import Splits, load_splits
from psa.engine.batches import Batches, batch_order
from psa.engine.device_pack import fresh_state
from psa.engine.loop import row_of
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import evaluate, train_epoch
from psa.execution.packing import groups_of
from psa.execution.worker.benchmark import measure_step_times
from psa.experiments.studies import ablation
from psa.nn.dense import Dense
from psa.nn.stacked import StackedParams
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.training import MODES
from psa.specs.trial import Trial
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


def measure(task: dict[str, Any], splits: Splits) -> dict[str, float]:
    """Return the seconds per trial-epoch (with evaluation) and per checkpoint of one pack, on one thread."""
    trials = trials_of(task["family"], task["arch"])[: task["size"]]
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
        start = time.perf_counter()
        train_epoch(net, rows, active, gradients, optimizer, batches)
        times.append((time.perf_counter() - start) / len(batches))
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
        "epoch": (step * -(-len(splits.train) // 256) + evaluation) / len(trials),
        "checkpoint": checkpoint,
    }


def main() -> None:
    """Answer tasks until standard input ends."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    begun = time.perf_counter()
    splits = load_splits(DataSpec(), Path(sys.argv[1]))
    loading = time.perf_counter() - begun
    sys.stdout.write(json.dumps({"loading": loading}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        task = json.loads(line)
        if task["task"] == "calibrate":
            begun = time.perf_counter()
            steps = measure_step_times(trials_of(task["family"], task["arch"]), torch.device("cpu"))
            answer: dict[str, Any] = {"steps": steps, "calibration": time.perf_counter() - begun}
        else:
            answer = measure(task, splits)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
