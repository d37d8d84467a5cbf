"""The cost of keeping every sample's gradient of one epoch, and of clustering them: seconds and memory.

    python benchmarks/gradients.py --hidden 512 --data-dir dataset

One epoch of MNIST (784 -> hidden -> 10, batches of 64, Adam 1e-3 with L2 1e-4): written by hand, by psa, and
by psa with delta and activation of both layers kept before each step; then k-means on either layer. Each
measurement runs in its own process, so that its peak memory is its own. The report also shows the size of the
materialized gradients and the agreement of clusters with digits.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from psa.analysis.gradients.factored import Factored
from psa.analysis.gradients.kmeans import KMeansConfig, cluster
from psa.analysis.gradients.label_agreement import label_agreement
from psa.core.formatting import format_bytes, format_duration
from psa.core.rng import generator
from psa.data.splits import Split, load_splits
from psa.engine.batches import Batches, RowSettings
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import train_epoch
from psa.nn.dense import Dense
from psa.probes.gradients import Factors
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec
from psa.storage import array_file

BATCH, RATE, DECAY = 64, 1e-3, 1e-4


@dataclass(frozen=True)
class Kept:
    """Results per sample in the order of training: gradients of both layers, digits, and the file's bytes."""

    hidden: Factored
    output: Factored
    digits: Tensor
    stored: int


def by_hand(split: Split, hidden: int, seed: int = 0) -> float:
    """Train one epoch as one would write it in plain torch. Return the seconds."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(784, hidden), nn.ReLU(), nn.Linear(hidden, 10))
    adam = torch.optim.Adam(net.parameters(), lr=RATE, weight_decay=DECAY)
    order = torch.from_numpy(generator(seed, "shuffle", 1).permutation(len(split)))
    begin = time.perf_counter()
    for start in range(0, len(split), BATCH):
        chosen = order[start : start + BATCH]
        adam.zero_grad()
        cross_entropy(net(split.images[chosen]), split.labels[chosen]).backward()
        adam.step()
    return time.perf_counter() - begin


def epoch(split: Split, hidden: int, seed: int = 0, *, keep: bool) -> tuple[float, Kept | None]:
    """Train one epoch with psa, with or without storing the gradients. Return the seconds and gradients."""
    net = Dense(NetworkSpec(family="mlp", arch=f"1*{hidden}"), 10)
    rows = [RowSettings(seed, 1, 0.0, RATE, DECAY)]
    active = net.initial(seed)
    gradients = active.zeros_like()
    adam = optimizer_for("adam", rows, active, gradients)
    begin = time.perf_counter()
    batches = Batches(rows, split, BATCH)
    factors = Factors(net, [0, 1], 1, len(split), BATCH, torch.device("cpu")) if keep else None
    train_epoch(net, rows, active, gradients, adam, batches, observer=factors)
    if factors is None:
        return time.perf_counter() - begin, None
    arrays = factors.of(0, split, range(10))
    with tempfile.TemporaryDirectory() as folder:
        stored = array_file.write_arrays(Path(folder) / "kept", arrays, {})["bytes"]
    seconds = time.perf_counter() - begin
    images = split.images[batches.order[0]]
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    kept = Kept(
        Factored(tensors["hidden.0.delta"], images),
        Factored(tensors["output.delta"], tensors["output.activation"]),
        tensors["digit"],
        stored,
    )
    return seconds, kept


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(what: str, hidden: int, data_dir: Path) -> dict[str, Any]:
    """Make one measurement in this process."""
    spec = DataSpec(val_size=1)  # use almost all of the train file
    split = load_splits(spec, data_dir).train
    loaded = peak()
    if what == "hand":
        return {"seconds": by_hand(split, hidden), "memory": peak() - loaded}
    seconds, kept = epoch(split, hidden, keep=what != "plain")
    found: dict[str, Any] = {"seconds": seconds, "memory": peak() - loaded}
    if kept is None:
        return found
    if what == "kept":
        return found | {"stored": kept.stored}
    layer = kept.output if what == "output" else kept.hidden
    options = KMeansConfig(10, normalise=what != "raw", start_fraction=0.2, sample=4_000)
    found["seconds"], clusters = timed(lambda: cluster(layer, options, 0))
    agreed = label_agreement(clusters.labels.numpy(), kept.digits.numpy(), 0)
    return found | {
        "memory": peak() - loaded,
        "kept": layer.nbytes,
        "dense": layer.dense_nbytes,
        "sizes": clusters.sizes,
        "purity": agreed.purity.value,
        "nmi": agreed.nmi.value,
        "ari": agreed.ari.value,
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function. Return the seconds and its result."""
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def in_a_process(what: str, hidden: int, data_dir: Path) -> dict[str, Any]:
    """Make one measurement in a process of its own."""
    command = [sys.executable, __file__, "--only", what, "--hidden", str(hidden), "--data-dir", str(data_dir)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


ROWS = {
    "hand": "one epoch, written by hand in torch",
    "plain": "one epoch of psa",
    "kept": "the same, every sample's gradients kept and stored",
    "hidden": "k-means of the hidden layer, at length 1",
    "raw": "k-means of the hidden layer, raw",
    "output": "k-means of the output layer, at length 1",
}


def report(hidden: int, data_dir: Path) -> Table:
    """Return a table with one row per measurement."""
    found = {what: in_a_process(what, hidden, data_dir) for what in ROWS}
    table = Table(title=f"784 -> {hidden} -> 10, 59,999 samples, one thread", title_justify="left")
    for heading in ("what", "time", "memory it added", "purity", "NMI", "ARI"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, name in ROWS.items():
        row = found[what]
        scores = [f"{row[key]:.3f}" if key in row else "" for key in ("purity", "nmi", "ari")]
        table.add_row(name, f"{row['seconds']:.1f} s", format_bytes(row["memory"]), *scores)
    slower = found["kept"]["seconds"] / found["plain"]["seconds"]
    by_hand = found["kept"]["seconds"] / found["hand"]["seconds"]
    layer = found["hidden"]
    table.caption = (
        f"Keeping takes {slower:.2f} times psa's epoch, {by_hand:.2f} times the one written by hand, and "
        f"{format_bytes(found['kept']['stored'])} on disk. The hidden layer's gradients are "
        f"{format_bytes(layer['kept'])} "
        f"as factors and would be {format_bytes(layer['dense'])} written out."
    )
    return table


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--data-dir", type=Path, default=Path("dataset"))
    parser.add_argument("--only", choices=list(ROWS), help="one measurement, as JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.only:
        print(json.dumps(measured(chosen.only, chosen.hidden, chosen.data_dir)))
        return
    seconds, table = timed(lambda: report(chosen.hidden, chosen.data_dir))
    Console().print(table)
    print(f"Measured in {format_duration(seconds)}")


if __name__ == "__main__":
    main()
