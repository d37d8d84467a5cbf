"""The time from the records of the whole published grid to a DataFrame, and to every report.

    python benchmarks/reports.py

Writes 5,880 synthetic records of 100 meta-loops (with meaningless numbers, in the engine's format) and times:
the records as one frame by psa.analysis.records_frame, compared with rows appended by hand and given to
pandas; `psa bundle`, and reading the bundle, with the peak memory of each as a process; and `psa report` with
all its tables, figures and the page, with its peak memory and the size of the page.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from psa.analysis.records_frame import load_records_frame
from psa.experiments.grid import load_grid
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial
from psa.storage.records.record import Record, decode_record, encode_record
from psa.storage.store import Store

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
VALIDATION, TEST, ZERO_R = 10_000, 10_000, 1102


def made_up(trial: Trial, loops: int) -> Record:
    """Return a synthetic record in the engine's format: a noisy curve, higher for larger networks."""
    draws = np.random.default_rng(int(trial.digest[:8], 16))
    parameters = shape_of(trial.model).parameters
    top = min(9_800, ZERO_R + 900 * np.log2(parameters / 700))
    curve = ZERO_R + (top - ZERO_R) * (1 - np.exp(-np.arange(1, loops + 1) / 10))
    correct = [int(count) for count in np.clip(curve + draws.normal(0, 40, loops), 0, VALIDATION)]
    best = int(np.argmax(correct))
    nothing: list[None] = [None] * loops
    return {
        "id": trial.id,
        "digest": trial.digest,
        "spec": trial.model_dump(mode="json"),
        "built": {"family": trial.model.family, "arch": str(trial.model.arch), "parameters": parameters},
        "device": "cpu",
        "samples": {
            "train": 50_000, "validation": VALIDATION, "test": TEST, "zero_r_validation": ZERO_R,
        },
        "loops": loops,
        "history": {
            "loop": list(range(1, loops + 1)),
            "mode": [trial.intervention.mode] * loops,
            "layer": nothing,
            "unit": nothing,
            "correct": correct,
            "loss": draws.random(loops).tolist(),
            "train_loss": draws.random(loops).tolist(),
            "kept": [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)],
        },
        "events": [],
        "finals": {
            "bounty": {"correct": correct[best], "loop": best + 1},
            "test": {"correct": max(0, correct[best] - 20), "loss": 0.1},
            "stopped_early": False,
        },
    }  # fmt: skip


def by_hand(store: Store) -> pd.DataFrame:
    """Build the frame without psa.analysis.records_frame: one dictionary for every loop of every file."""
    rows: list[dict[str, Any]] = []
    for path in store.record_paths():
        record = decode_record(path.read_bytes(), str(path))
        trial = {**record["spec"]["model"], "mode": record["spec"]["intervention"]["mode"]}
        trial |= {"seed": record["spec"]["seed"], "bounty": record["finals"]["bounty"]["correct"]}
        history = record["history"]
        rows += [
            {**trial, **{name: values[at] for name, values in history.items()}}
            for at in range(record["loops"])
        ]
    return pd.DataFrame(rows)


def timed(function: Callable[[], T]) -> tuple[float, T]:
    """Return the duration of one call in seconds, and its result."""
    begun = time.perf_counter()
    result = function()
    return time.perf_counter() - begun, result


def seconds(function: Callable[[], object]) -> float:
    """Return the duration of one call in seconds."""
    return timed(function)[0]


READ = """
import pathlib, sys
from psa.storage.records.record_store import RecordStore
print(sum(1 for _ in RecordStore(pathlib.Path(sys.argv[1])).all()))
"""


def called(*words: str) -> None:
    """Run `psa` as a user would, imports included."""
    command = [sys.executable, "-c", "from psa.cli.app import main; main()", *words]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def read(bundle: Path) -> None:
    """Read every record of a bundle, in a process of its own."""
    subprocess.run([sys.executable, "-c", READ, str(bundle)], check=True, stdout=subprocess.DEVNULL)


def megabytes() -> float:
    """Return the peak memory of any process started so far, in MB."""
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e3)


def report(results: Path, output: Path) -> int:
    """Run `psa report` as a user would, imports included. Return the size of its page in bytes."""
    options = ["--grid", "reproduction/simplemlp.toml", "--results-dir", str(results)]
    called("report", "ablation", *options, "--output-dir", str(output))
    (page,) = output.glob("*.html")
    return page.stat().st_size


def measure(folder: Path) -> dict[str, float]:
    """Return the seconds of each step, in a folder that is empty at first."""
    store, grid = (
        Store(folder / "models", folder / "results"),
        load_grid(ROOT / "reproduction/simplemlp.toml"),
    )
    for trial in grid.trials:
        path = store.record_path(trial)  # skips the engine's flush to disk for every file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_record(made_up(trial, grid.meta_loops)))
    bundle = folder / "all.parquet"
    reading = {
        "psa bundle": seconds(lambda: called("bundle", str(bundle), "--from", str(store.results))),
        "bundle read": min(seconds(lambda: read(bundle)) for _ in range(3)),
        "bundle bytes": bundle.stat().st_size,
        "bundle MB": megabytes(),
    }
    duration, page_bytes = timed(lambda: report(store.results, folder / "reports"))
    return reading | {
        "records": len(grid.trials),
        "psa report": duration,
        "report MB": megabytes(),
        "page bytes": page_bytes,
        "collect": min(seconds(lambda: load_records_frame(store)) for _ in range(3)),
        "by hand": min(seconds(lambda: by_hand(store)) for _ in range(3)),
    }


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="also store the seconds as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    table = Table(title=f"{found['records']:,.0f} records of 100 meta-loops")
    table.add_column("")
    table.add_column("seconds", justify="right")
    table.add_row("records as one frame (psa.analysis.records_frame)", f"{found['collect']:.2f}")
    table.add_row(f"the same by hand ({found['by hand'] / found['collect']:.1f}x)", f"{found['by hand']:.2f}")
    each = found["bundle bytes"] / found["records"]
    size = f"{found['bundle bytes'] / 1e6:.1f} MB, {each:,.0f} bytes a record"
    table.add_row(f"psa bundle ({size})", f"{found['psa bundle']:.2f}")
    memory = f"at most {found['bundle MB']:,.0f} MB of memory in either"
    table.add_row(f"every record of the bundle, as a process ({memory})", f"{found['bundle read']:.2f}")
    parts = f"at most {found['report MB']:,.0f} MB of memory, the page of {found['page bytes'] / 1e6:.1f} MB"
    table.add_row(f"psa report: every table and figure ({parts})", f"{found['psa report']:.1f}")
    Console().print(table)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
