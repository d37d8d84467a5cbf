"""What it costs to keep every sample's gradient of one epoch, and to cluster them: seconds and memory.

    python benchmarks/gradients.py --hidden 512 --data-dir dataset

One epoch of MNIST (784 -> hidden -> 10, batches of 64, Adam 1e-3 with L2 1e-4) in plain torch, first without
and then with keeping delta and activation of both layers before each step; then k-means on either layer. Each
measurement is a process of its own, so that its peak of memory is its own. Beside them: what the gradients
would take written out, and the agreement of clusters and digits.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from psa.agreement import agreement
from psa.clustering import KMeans, cluster
from psa.data import Split, load
from psa.factored import Factored
from psa.specs import DataSpec
from psa.streams import stream
from psa.words import duration, size

BATCH, RATE, DECAY = 64, 1e-3, 1e-4


@dataclass(frozen=True)
class Kept:
    """Of every sample in the order of training: both layers' gradients, its digit, and what was predicted."""

    hidden: Factored
    output: Factored
    digits: Tensor
    predictions: Tensor


class Buffers:
    """Room for the factors of N samples, filled batch by batch."""

    def __init__(self, samples: int, widths: tuple[int, int, int]) -> None:
        inputs, hidden, outputs = widths
        sizes = (hidden, inputs, outputs, hidden)
        self.parts = [torch.empty(samples, width) for width in sizes]
        self.predictions = torch.empty(samples, dtype=torch.int64)

    def put(self, rows: slice, factors: list[Tensor], logits: Tensor) -> None:
        """delta and activation of the hidden layer, then of the output layer; each [B, width]."""
        for part, values in zip(self.parts, factors, strict=True):
            part[rows] = values
        self.predictions[rows] = logits.argmax(dim=1)


def weights(hidden: int, seed: int) -> list[Tensor]:
    """Two layers, initialised as torch.nn.Linear does."""
    draws = stream(seed, "init")
    made = []
    for inputs, outputs in ((784, hidden), (hidden, 10)):
        bound = inputs**-0.5
        for shape in ((outputs, inputs), (outputs,)):
            values = torch.from_numpy(draws.uniform(-bound, bound, shape)).float()
            made.append(values.requires_grad_())
    return made


def epoch(split: Split, hidden: int, seed: int = 0, *, keep: bool) -> tuple[float, Kept | None]:
    """Train one epoch; seconds, and what was kept."""
    parameters = weights(hidden, seed)
    adam = torch.optim.Adam(parameters, lr=RATE, weight_decay=DECAY)
    order = torch.from_numpy(stream(seed, "shuffle", 1).permutation(len(split)))
    buffers = Buffers(len(split), (784, hidden, 10)) if keep else None
    begin = time.perf_counter()
    for start in range(0, len(split), BATCH):
        chosen = order[start : start + BATCH]
        x, labels = split.images[chosen], split.labels[chosen]
        z = linear(x, parameters[0], parameters[1])
        activation = z.relu()
        logits = linear(activation, parameters[2], parameters[3])
        loss = cross_entropy(logits, labels, reduction="sum")
        asked = [*parameters, *([z, logits] if keep else [])]
        found = torch.autograd.grad(loss, asked)
        if buffers is not None:
            factors = [found[4], x, found[5], activation.detach()]
            buffers.put(slice(start, start + len(chosen)), factors, logits)
        for parameter, gradient in zip(parameters, found, strict=False):
            parameter.grad = gradient / len(chosen)
        adam.step()
    seconds = time.perf_counter() - begin
    if buffers is None:
        return seconds, None
    parts = buffers.parts
    kept = Kept(
        Factored(parts[0], parts[1]), Factored(parts[2], parts[3]), split.digits[order], buffers.predictions
    )
    return seconds, kept


def peak() -> int:
    """Bytes of memory that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(what: str, hidden: int, data_dir: Path) -> dict[str, Any]:
    """One measurement, in a process of its own."""
    spec = DataSpec(val_size=1)  # as nearly all of the train file as there may be
    split = load(spec, data_dir).train
    loaded = peak()
    seconds, kept = epoch(split, hidden, keep=what != "plain")
    found: dict[str, Any] = {"seconds": seconds, "memory": peak() - loaded}
    if kept is None or what == "kept":
        return found
    layer = kept.output if what == "output" else kept.hidden
    options = KMeans(10, normalise=what != "raw", start_fraction=0.2, sample=4_000)
    found["seconds"], clusters = timed(lambda: cluster(layer, options, 0))
    agreed = agreement(clusters.labels.numpy(), kept.digits.numpy(), 0)
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
    """Seconds, and what came of it."""
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def in_a_process(what: str, hidden: int, data_dir: Path) -> dict[str, Any]:
    """The measurement, made elsewhere."""
    command = [sys.executable, __file__, "--only", what, "--hidden", str(hidden), "--data-dir", str(data_dir)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


ROWS = {
    "plain": "one epoch",
    "kept": "the same, every sample's gradients kept",
    "hidden": "k-means of the hidden layer, at length 1",
    "raw": "k-means of the hidden layer, raw",
    "output": "k-means of the output layer, at length 1",
}


def report(hidden: int, data_dir: Path) -> Table:
    """Everything, one row each."""
    found = {what: in_a_process(what, hidden, data_dir) for what in ROWS}
    table = Table(title=f"784 -> {hidden} -> 10, 59,999 samples, one thread", title_justify="left")
    for heading in ("what", "time", "memory it added", "purity", "NMI", "ARI"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, name in ROWS.items():
        row = found[what]
        scores = [f"{row[key]:.3f}" if key in row else "" for key in ("purity", "nmi", "ari")]
        table.add_row(name, f"{row['seconds']:.1f} s", size(row["memory"]), *scores)
    slower = found["kept"]["seconds"] / found["plain"]["seconds"]
    layer = found["hidden"]
    table.caption = (
        f"Keeping takes {slower:.2f} times the epoch. The hidden layer's gradients are {size(layer['kept'])} "
        f"as factors and would be {size(layer['dense'])} written out."
    )
    return table


def main() -> None:
    """Measure, and show."""
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
    print(f"Measured in {duration(seconds)}")


if __name__ == "__main__":
    main()
