"""The speed of every architecture of the published study on one device, within a limit of time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from gpu.pack_speed import matmul_rate, memory_bandwidth, next_size, samples_for, trial_epoch_seconds
from gpu.setting import Deadline
from gpu.study import study_estimate
from gpu.work import Workload, even_order, workloads
from psa.core.errors import Interrupted, lacks_memory
from psa.data.splits import Split, Splits
from psa.execution.cost_model import fastest, processor_name

RESERVE: Final = 3.0  # seconds at the end, to write what was found
CPU_MEMORY: Final = 2e9  # of one pack there


@dataclass(frozen=True)
class Plan:
    """The pack sizes to try, the first of them, and the seconds of a timed slice."""

    sizes: Sequence[int]
    start: int
    slice_seconds: float


PLANS: Final = {
    "cuda": Plan((6, 12, 30, 60, 120, 300, 600), 60, 0.15),
    "cpu": Plan((6, 12), 6, 0.05),  # the same path in short: `make bench` measures a CPU
}


@dataclass
class Speeds:
    """What was measured. found: of each architecture the seconds per trial-epoch by pack size; infinite for a
    size that does not fit. complete: the architectures whose search for a size has ended.
    """

    found: dict[Workload, dict[int, float]] = field(default_factory=dict)
    complete: set[Workload] = field(default_factory=set)

    def best(self, work: Workload) -> tuple[int, float] | None:
        """Return the fastest pack size of an architecture and its seconds; None if none fits or was tried."""
        fits = {size: each for size, each in self.found.get(work, {}).items() if math.isfinite(each)}
        if not fits:
            return None
        size = fastest({size: each * size for size, each in fits.items()})
        return size, fits[size]


def run_benchmark(
    device: torch.device, splits: Splits, deadline: Deadline, most: int | None = None
) -> dict[str, Any]:
    """Measure as many architectures as the time allows, evenly spread by arithmetic. Return what JSON holds.

    most: the number to measure at most.
    """
    everyone = workloads()
    chosen = [everyone[at] for at in even_order(len(everyone))[:most]]
    bandwidth, matmul = memory_bandwidth(device), matmul_rate(device)
    speeds = measure(chosen, device, samples_for(splits, device), Deadline(deadline.at - RESERVE))
    rows = [row for work in everyone if (row := _row(work, speeds, bandwidth, matmul)) is not None]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    best = {work: speed[1] for work in everyone if (speed := speeds.best(work)) is not None}
    return {
        "bandwidth": bandwidth,
        "matmul": matmul,
        "measured": len(rows),
        "of": len(everyone),
        "architectures": rows,
        "study": study_estimate(everyone, best, name),
    }


def measure(chosen: Sequence[Workload], device: torch.device, samples: Split, deadline: Deadline) -> Speeds:
    """Measure architectures in rounds until the deadline: each first at one pack size, then at others.

    chosen: in an order of which every beginning is an even choice.
    """
    plan, speeds = PLANS[device.type], Speeds()
    while len(speeds.complete) < len(chosen):
        for work in chosen:
            if work in speeds.complete:
                continue
            found = speeds.found.setdefault(work, {})
            size = next_size(found, plan.sizes, plan.start)
            if size is None:
                speeds.complete.add(work)
                continue
            if deadline.passed():
                return speeds
            try:
                found[size] = _seconds(work, size, samples, device, deadline, plan)
            except Interrupted:
                return speeds
    return speeds


def _seconds(
    work: Workload, size: int, samples: Split, device: torch.device, deadline: Deadline, plan: Plan
) -> float:
    """Return the seconds per trial-epoch of a pack; infinity if it does not fit into the device's memory."""
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else CPU_MEMORY
    if not work.fits(size, total):
        return math.inf
    try:
        return trial_epoch_seconds(work, size, samples, device, deadline, plan.slice_seconds)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        torch.cuda.empty_cache()
        return math.inf


def _row(work: Workload, speeds: Speeds, bandwidth: float, matmul: float) -> dict[str, Any] | None:
    """Return one architecture as JSON has it; None if it was not measured."""
    best = speeds.best(work)
    if best is None:
        return None
    size, seconds = best
    return {
        "family": work.family,
        "arch": work.arch,
        "parameters": work.shape.parameters,
        "layers": work.layers,
        "flop": work.flop,
        "bytes": work.moved,
        "pack_size": size,
        "seconds": seconds,
        "sizes": {str(size): each for size, each in sorted(speeds.found[work].items())},
        "size_search_complete": work in speeds.complete,
        "bandwidth_share": work.moved / seconds / bandwidth,
        "arithmetic_share": work.flop / seconds / matmul,
    }
