"""The overhead of a sweep through Ray, compared with the same sweep without it.

    python benchmarks/cluster.py

Starts a Ray node with this machine's cores. In turns, so that all see the same machine, it runs the sweep of
a grid with --backend local, with --backend ray on that node, and as many empty trials with Ray Tune alone,
which measures Ray's own start and end. The comparison is also printed without that part.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
NOTHING = """
import sys
from ray import init, tune
init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
run = tune.RunConfig(storage_path=sys.argv[2], verbose=0)
def trainable(config):
    tune.report({"accuracy": 1.0})
tune.Tuner(trainable, param_space={"pack": tune.grid_search([1, 2])}, run_config=run).fit()
"""


@contextlib.contextmanager
def node(cores: int) -> Iterator[str]:
    """Run a Ray node of its own. Yield its address."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores, "include_dashboard": False})
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def seconds(command: Sequence[str], folder: Path) -> float:
    """Return the duration of a process in seconds, from its start to its end."""
    quiet = {"RAY_AIR_NEW_OUTPUT": "0", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=os.environ | quiet,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begun


def sweep(folder: Path, loops: int, *words: str) -> float:
    """Time the sweep of the smoke grid in a new folder, as a user would run it."""
    grid, data = ROOT / "reproduction/smoke.toml", ROOT / "dataset"
    command = ["sweep", str(grid), f"meta_loops={loops}", "--data-dir", str(data), "--device", "cpu", *words]
    # a fixed pack size, so that the first local sweep does not calibrate
    start = "from psa.cli.app import main; main()"
    return seconds(["-c", start, *command, "--pack-size", "12"], folder)


def measure(rounds: int, loops: int, cores: int) -> dict[str, list[float]]:
    """Return the seconds of each variant, round by round."""
    found: dict[str, list[float]] = {"local": [], "ray": [], "nothing": []}
    with node(cores) as address, tempfile.TemporaryDirectory() as top:
        for number in range(rounds + 1):
            for name, words in (("local", ()), ("ray", ("--backend", "ray", "--address", address))):
                folder = Path(top) / f"{name}-{number}"
                folder.mkdir()
                found[name].append(sweep(folder, loops, *words))
            found["nothing"].append(seconds(["-c", NOTHING, address, top], Path(top)))
    return {name: times[1:] for name, times in found.items()}  # the first round warms caches


def main() -> None:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loops", type=int, nargs="+", default=[3, 300], help="meta-loops of the smoke grid")
    parser.add_argument("--cores", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="also store the seconds as JSON")
    options = parser.parse_args()
    table = Table(title="The smoke grid, 24 trials in 2 packs (median seconds)")
    for name in ("meta-loops", "local", "ray", "more", "Ray that does nothing", "more without it"):
        table.add_column(name, justify="right")
    everything = {}
    for loops in options.loops:
        found = everything[loops] = measure(options.rounds, loops, options.cores)
        local, ray, nothing = (statistics.median(times) for times in found.values())
        table.add_row(
            f"{loops:,}", f"{local:.1f}", f"{ray:.1f}", f"{ray / local - 1:+.0%}", f"{nothing:.1f}",
            f"{(ray - nothing) / local - 1:+.0%}",
        )  # fmt: skip
    Console().print(table)
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
