"""Compare psa with the loop one would write by hand, in one run over the whole published grid.

    python benchmarks/bench.py --output results/bench

For every architecture of both families the two sides take turns on the same machine: the hand-written loop
with all cores (one trial at a time), then psa with one process per core, and again. Timed slices are scaled
to the grid of 60 trials of 100 meta-loops each. psa's side includes loading, calibration and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent))

from handwritten import Loop

from psa.data.splits import load_splits
from psa.execution.cost_model import fastest
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
DISTURBED = 0.05  # largest share of all cores that other processes may take in a valid round
MOST_ROUNDS = 8
ROUNDS = 2  # of both sides in turn; each side's best slice counts, since other processes only add time
TRIALS, LOOPS, TRAIN, VALIDATION = 60, 100, 50_000, 10_000


class Watch:
    """The load of other processes from now on. They slow down synchronized threads far more than single ones,
    so a comparison under load would flatter psa.
    """

    def __init__(self, own: list[int]) -> None:
        self.own, self.begun = own, time.monotonic()
        self.before = self._busy() - self._own()

    def others(self) -> float:
        """Return their share of all cores; 0 if the system does not report it."""
        ticks = os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1) * (time.monotonic() - self.begun)
        return (self._busy() - self._own() - self.before) / ticks

    @staticmethod
    def _busy() -> int:
        try:
            fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        except OSError:
            return 0
        idle = int(fields[3]) + int(fields[4])
        return sum(map(int, fields[:8])) - idle

    def _own(self) -> int:
        try:
            stats = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in self.own]
        except OSError:
            return 0
        return sum(int(fields[11]) + int(fields[12]) for fields in stats)


class Side:
    """psa's processes, one per core."""

    def __init__(self, data_dir: Path, count: int) -> None:
        self.processes = [
            subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("ours.py")), str(data_dir)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            )
            for _ in range(count)
        ]
        self.pids = [process.pid for process in self.processes]
        self.loading = max(answer["loading"] for answer in self._answers())

    def all(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """Run a task on all of them at once, so that they compete as in a sweep."""
        for process in self.processes:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        return self._answers()

    def _answers(self) -> list[dict[str, Any]]:
        lines = [process.stdout.readline() for process in self.processes]
        if not all(lines):
            raise SystemExit("a process of the benchmark has ended")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.stdin.close()
            process.wait()


def gemm_peak() -> float:
    """Return the FLOP/s of a 2048 x 2048 product on all cores, the best of several."""
    x = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    best = math.inf
    for _ in range(8):
        begun = time.perf_counter()
        torch.mm(x, x)
        best = min(best, time.perf_counter() - begun)
    return 2 * 2048**3 / best


def arithmetic(family: str, arch: str) -> float:
    """Return the FLOP of one trial-epoch: forward, backward (without the input's gradient) and evaluation."""
    shape = shape_of(PublishedModelSpec(family=family, arch=Arch.coerce(arch)))
    first = shape.linears[0].inputs * shape.linears[0].outputs
    return 2.0 * (TRAIN * (3 * shape.multiplications - first) + VALIDATION * shape.multiplications)


def compare(family: str, arch: str, side: Side, splits: Any, seconds: float) -> dict[str, Any]:
    """Time one architecture on both sides."""
    calibrated = side.all({"task": "calibrate", "family": family, "arch": arch})
    steps = {
        int(size): max(each["steps"].get(size, math.inf) for each in calibrated)
        for size in calibrated[0]["steps"]
    }
    task = {"task": "measure", "family": family, "arch": arch, "size": fastest(steps), "seconds": seconds}
    loop = Loop(family, Arch.coerce(arch).widths, splits)
    rounds: list[tuple[float, float, float, float]] = []
    while sum(others < DISTURBED for *_, others in rounds) < ROUNDS and len(rounds) < MOST_ROUNDS:
        watch = Watch([os.getpid(), *side.pids])
        torch.set_num_threads(os.cpu_count() or 1)
        hand = loop.seconds_per_epoch(seconds)
        torch.set_num_threads(1)
        answers = side.all(task)
        # all processes work side by side, each at its own pace
        ours = 1 / sum(1 / answer["epoch"] for answer in answers)
        rounds.append((hand, ours, max(each["checkpoint"] for each in answers), watch.others()))
    calm = [each for each in rounds if each[3] < DISTURBED]
    hand, ours, checkpoint = (min(values) for values in list(zip(*(calm or rounds), strict=True))[:3])
    return {
        "family": family,
        "arch": arch,
        "size": task["size"],
        "hand": hand,
        "ours": ours,
        "ratio": hand / ours,
        "flop": arithmetic(family, arch),
        "calibration": max(each["calibration"] for each in calibrated),
        "checkpoint": checkpoint,
        "disturbed": not calm,
    }


def totals(rows: list[dict[str, Any]], family: str, loading: float, peak: float) -> dict[str, float]:
    """Return the totals of a family's grid, in hours."""
    mine = [row for row in rows if row["family"] == family]
    hand = sum(row["hand"] for row in mine) * TRIALS * LOOPS
    training = sum(row["ours"] for row in mine) * TRIALS * LOOPS
    # psa's engine spends at most 2 % of the time on writes; one write per trial and loop is the upper bound
    checkpoints = min(0.02 * training, sum(row["checkpoint"] for row in mine) * TRIALS * LOOPS)
    extra = loading + sum(row["calibration"] for row in mine) + checkpoints
    return {
        "hand_hours": hand / 3600,
        "ours_hours": (training + extra) / 3600,
        "ratio": hand / (training + extra),
        "geometric_mean": math.exp(sum(math.log(row["ratio"]) for row in mine) / len(mine)),
        "slowest": min(row["ratio"] for row in mine),
        "share_of_peak": sum(row["flop"] for row in mine) * TRIALS * LOOPS / peak / (training + extra),
    }


def figure(rows: list[dict[str, Any]], peak: float, path: Path) -> None:
    """Plot seconds per trial-epoch against arithmetic for both sides, with the line of the machine's peak."""
    import matplotlib.pyplot as plt

    families = sorted({row["family"] for row in rows})
    shown, axes = plt.subplots(1, len(families), figsize=(6 * len(families), 4.6), sharey=True, squeeze=False)
    for family, ax in zip(families, axes[0], strict=True):
        mine = [row for row in rows if row["family"] == family]
        flops = [row["flop"] for row in mine]
        ax.scatter(
            flops, [row["hand"] for row in mine], s=18, marker="s", color="#D55E00", label="hand-written loop"
        )
        ax.scatter(flops, [row["ours"] for row in mine], s=18, color="#0072B2", label="psa")
        ends = [min(flops), max(flops)]
        ax.plot(
            ends, [flop / peak for flop in ends], color="0.4", lw=1, label=f"peak, {peak / 1e9:.0f} GFLOP/s"
        )
        ax.set(xscale="log", yscale="log", xlabel="FLOP per trial-epoch", title=family)
        ax.grid(alpha=0.25)
    axes[0][0].set_ylabel("seconds per trial-epoch, all cores")
    axes[0][0].legend(frameon=False)
    shown.tight_layout()
    shown.savefig(path, dpi=200)


def main() -> None:
    """Run the benchmark, print the results, and write JSON and a figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "dataset")
    parser.add_argument("--seconds", type=float, default=0.6, help="of each timed slice")
    parser.add_argument("--every", type=int, default=1, help="only every n-th architecture, for a look")
    parser.add_argument("--family", choices=["simplemlp", "resmlp"], action="append")
    options = parser.parse_args()
    out = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    archs = [
        line
        for line in (ROOT / "reproduction/configurations.txt").read_text().splitlines()
        if line and line[0] != "#"
    ][:: options.every]
    splits = load_splits(DataSpec(), options.data_dir)
    side = Side(options.data_dir.absolute(), os.cpu_count() or 1)
    torch.set_num_threads(os.cpu_count() or 1)
    peak = gemm_peak()
    rows = []
    for family in options.family or ["simplemlp", "resmlp"]:
        for arch in archs:
            row = compare(family, arch, side, splits, options.seconds)
            rows.append(row)
            out.print(
                f"{family:9} {arch:8} hand {row['hand']:8.3f} s  psa {row['ours']:8.4f} s "
                f"(packs of {row['size']:2})  {row['ratio']:6.1f}x{'  DISTURBED' * row['disturbed']}"
            )
    torch.set_num_threads(os.cpu_count() or 1)
    peak = max(peak, gemm_peak())
    side.close()
    table = Table(title="The whole grid: 60 trials x 100 meta-loops of each architecture")
    for heading in ("family", "hand-written", "psa", "ratio", "geometric mean", "slowest", "share of peak"):
        table.add_column(heading, justify="right")
    summary = {}
    for family in sorted({row["family"] for row in rows}):
        summary[family] = found = totals(rows, family, side.loading, peak)
        table.add_row(
            family,
            f"{found['hand_hours']:,.1f} h",
            f"{found['ours_hours']:,.1f} h",
            f"{found['ratio']:.1f}x",
            f"{found['geometric_mean']:.1f}x",
            f"{found['slowest']:.2f}x",
            f"{100 * found['share_of_peak']:.0f} %",
        )
    out.print(table)
    disturbed = sum(row["disturbed"] for row in rows)
    if disturbed:
        out.print(f"{disturbed} of {len(rows)} rows were disturbed by other work: run it again in quiet")
    options.output.mkdir(parents=True, exist_ok=True)
    body = {"peak_flops": peak, "loading_seconds": side.loading, "totals": summary, "rows": rows}
    (options.output / "bench.json").write_text(json.dumps(body, indent=1) + "\n")
    figure(rows, peak, options.output / "bench.png")
    out.print(f"wrote {options.output}/bench.json and bench.png")


if __name__ == "__main__":
    main()
