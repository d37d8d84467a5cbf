"""Compare psa with what one would use instead, in one run over the whole published grid.

    python benchmarks/bench.py --output results/bench

For every architecture of both families the sides take turns on the same machine, and again: a hand-written
loop, torch.func.vmap over a stacked module, JAX, and psa with one process per core. All train, and evaluate
the validation split. Timed slices are scaled to the grid of 60 trials of 100 meta-loops each; psa's hours
include loading, calibration and checkpoints. Rows are stored as they come: a second start goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))

import comparison
from comparison import ROOT
from peak import best_product
from sides import CORES, Processes, Side, SideError, Watch, alternatives, rate

from psa.execution.cost_model import fastest
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of

DISTURBED = 0.05  # largest share of all cores that other processes may take in a valid round
MOST_ROUNDS = 4
ROUNDS = 2  # of all sides in turn; each side's best slice counts, since other processes only add time
OURS = (
    10  # times the limit of an alternative: calibration tries many sizes, and without psa a row says nothing
)
TRAIN, VALIDATION = 50_000, 10_000


def arithmetic(family: str, arch: str) -> float:
    """Return the FLOP of one trial-epoch: forward, backward (without the input's gradient) and evaluation."""
    shape = shape_of(PublishedModelSpec(family=family, arch=Arch.coerce(arch)))
    return shape.epoch_flop(TRAIN, VALIDATION)


class Ours:
    """psa, calibrated for one architecture."""

    def __init__(self, processes: Processes, limit: float) -> None:
        self.processes, self.limit = processes, limit
        self.values: dict[str, Any] = {}

    def prepare(self, family: str, arch: str) -> None:
        """Choose the pack size as psa does."""
        self.values = {"size": 0, "calibration": 0.0, "checkpoint": math.inf, "trained": 1.0}
        task = {"task": "calibrate", "family": family, "arch": arch}
        calibrated = self.processes.ask(task, self.limit)
        steps = {
            int(size): max(each["steps"].get(size, math.inf) for each in calibrated)
            for size in calibrated[0]["steps"]
        }
        self.values["size"] = fastest(steps)
        self.values["calibration"] = max(each["calibration"] for each in calibrated)

    def measure(self, family: str, arch: str, seconds: float) -> float:
        """Return the seconds per trial-epoch of all processes together."""
        task = {"task": "measure", "family": family, "arch": arch, "size": self.values["size"]}
        answers = self.processes.ask(task | {"seconds": seconds}, self.limit)
        written = max(each["checkpoint"] for each in answers)
        self.values["checkpoint"] = min(self.values["checkpoint"], written)
        self.values["trained"] = answers[0]["trained"]
        return rate(answers)


class Turns:
    """The rounds of one architecture: the sides in turn, until enough rounds were undisturbed."""

    def __init__(self, ours: Ours, sides: list[Side], family: str, arch: str, seconds: float) -> None:
        self.ours, self.sides, self.family, self.arch = ours, sides, family, arch
        self.seconds = seconds
        self.notes: dict[str, str] = {}
        self.rounds: list[tuple[float, dict[str, float]]] = []

    def run(self) -> comparison.Row:
        """Return the row."""
        self._guarded("ours", lambda: self.ours.prepare(self.family, self.arch))
        for side in self.sides:
            self._guarded(side.name, lambda side=side: side.prepare(self.family, self.arch, self.seconds))  # type: ignore[misc]
        while (
            sum(others < DISTURBED for others, _ in self.rounds) < ROUNDS and len(self.rounds) < MOST_ROUNDS
        ):
            watch = Watch([os.getpid(), *self.ours.processes.pids, *(p for s in self.sides for p in s.pids)])
            measured: dict[str, float] = {}
            for name, part in [*((side.name, side) for side in self.sides), ("ours", self.ours)]:
                seconds = self._guarded(
                    name, lambda part=part: part.measure(self.family, self.arch, self.seconds)
                )  # type: ignore[misc,attr-defined]
                if seconds is not None:
                    measured[name] = seconds
            self.rounds.append((watch.others(), measured))
        return self._row()

    def _guarded(self, name: str, work: Any) -> Any:
        """Do a side's work unless it has failed before; a failure is its note, and stops nothing else."""
        if name in self.notes:
            return None
        try:
            return work()
        except SideError as error:
            self.notes[name] = str(error)
            return None

    def _row(self) -> comparison.Row:
        calm = [measured for others, measured in self.rounds if others < DISTURBED]
        used = calm or [measured for _, measured in self.rounds]
        seconds = {
            name: None
            if name in self.notes
            else min((one[name] for one in used if name in one), default=None)
            for name in ("ours", "hand", "vmap", "jax")
        }
        sides = {side.name: side for side in self.sides}
        notes = {name: side.note for name, side in sides.items()} | self.notes
        return comparison.with_ratios(
            {"family": self.family, "arch": self.arch, **seconds, **self.ours.values}
            | {
                "notes": {"hand": "", "vmap": "", "jax": ""} | notes,
                "compile": {name: side.compiling for name, side in sides.items()},
                "flop": arithmetic(self.family, self.arch),
                "disturbed": not calm,
            }
        )


def architectures(every: int) -> list[str]:
    """Return the published architectures, or every n-th of them."""
    lines = (ROOT / "reproduction/configurations.txt").read_text().splitlines()
    return [line for line in lines if line and line[0] != "#"][::every]


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "dataset")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each timed slice")
    parser.add_argument(
        "--limit", type=float, default=45, help="most seconds of one side's slice, compilation included"
    )
    parser.add_argument("--every", type=int, default=1, help="only every n-th architecture, for a look")
    parser.add_argument("--arch", action="append", help="only this architecture; may be repeated")
    parser.add_argument("--family", choices=["simplemlp", "resmlp"], action="append")
    parser.add_argument("--fresh", action="store_true", help="measure stored rows again")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Run the benchmark, print the results, and write JSON and a figure."""
    options = parse(words)
    out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 120)
    path, conditions = options.output / "bench.json", comparison.made_with(options.seconds)
    rows, earlier = ([], 0.0) if options.fresh else comparison.stored(path, conditions)
    if rows:
        out.print(f"{len(rows)} rows are stored in {path}; --fresh measures them again")
    known = {(row["family"], row["arch"]) for row in rows}
    ours = Ours(Processes("ours.py", options.data_dir.absolute(), CORES, 1), OURS * options.limit)
    sides = alternatives(options.data_dir.absolute(), options.limit)
    peaks = best_product()

    def write() -> dict[str, Any]:
        loading = ours.processes.hello.get("loading", earlier)
        families = sorted({row["family"] for row in rows})
        peak = max(peaks.values())
        parts = {family: [row for row in rows if row["family"] == family] for family in families}
        summary = {family: comparison.totals(part, loading, peak) for family, part in parts.items()}
        head = {"made_with": conditions, "peaks": peaks, "loading_seconds": loading}
        comparison.store(path, head | {"totals": summary, "rows": rows})
        return summary

    try:
        for family in options.family or ["simplemlp", "resmlp"]:
            for arch in options.arch or architectures(options.every):
                if (family, arch) not in known:
                    rows.append(Turns(ours, sides, family, arch, options.seconds).run())
                    out.print(comparison.line(rows[-1], max(peaks.values())))
                    write()
    finally:
        for side in [*sides, ours.processes]:
            side.close()
    peaks = {name: max(value, peaks[name]) for name, value in best_product().items()}
    out.print(comparison.table(write()))
    disturbed = sum(row["disturbed"] for row in rows)
    if disturbed:
        out.print(f"{disturbed} of {len(rows)} rows were disturbed by other work: run it again in quiet")
    comparison.figure(rows, max(peaks.values()), options.output / "bench.png")
    out.print(f"wrote {path} and bench.png")


if __name__ == "__main__":
    main()
