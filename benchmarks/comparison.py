"""The results of `make bench`: its JSON file, the totals of each family, the table and the figure.

Keys of bench.json: `made_with` (settings, versions, a digest of the code: a second start goes on where these
are equal), `peaks` (FLOP/s of each matrix product), `loading_seconds`, `totals` (per family, see `totals`)
and `rows`. Of a row, in seconds per trial-epoch on all cores, evaluation included: `ours`, `hand`, `vmap`,
`jax`, each null where `notes` says why; `notes` also has the size and arrangement of each. `best` is the
fastest alternative, `ratio` its seconds over psa's, `ratios` those of each. `compile` has the seconds that
were not counted: building and compiling. `flop` is the arithmetic of a trial-epoch, `trained` the share of
the trials that psa trains (equal ones are trained once), `size` the rows of a pack, `calibration` and
`checkpoint` psa's seconds per architecture and per write, `disturbed` true if other work ran beside it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.table import Table

mpl.use("Agg")
ROOT = Path(__file__).parents[1]
TRIALS, LOOPS = 60, 100
NAMES = {"hand": "hand-written loop", "vmap": "torch.func.vmap", "jax": "JAX", "ours": "psa"}
LOOKS = {
    "hand": ("s", "#D55E00"),
    "vmap": ("^", "#009E73"),
    "jax": ("D", "#CC79A7"),
    "ours": ("o", "#0072B2"),
}
TITLES = {"simplemlp": "SimpleMLP", "resmlp": "ResMLP"}
Row = dict[str, Any]


def made_with(seconds: float) -> dict[str, Any]:
    """Return what rows of one file must share: settings, machine, versions and the code."""
    files = sorted(path for folder in ("psa", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
    code = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files))
    return {
        "seconds": seconds,
        "cores": os.cpu_count() or 1,
        "machine": platform.machine(),
        "versions": {name: installed(name) for name in ("torch", "jax", "numpy", "numba")},
        "code": code.hexdigest()[:16],
    }


def installed(package: str) -> str | None:
    """Return the version of a package, or None without it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def with_ratios(row: Row) -> Row:
    """Add the ratios to a row: of each alternative, and of the fastest."""
    ratios = {
        name: row[name] / row["ours"] if row[name] and row["ours"] else None
        for name in ("hand", "vmap", "jax")
    }
    known = {name: value for name, value in ratios.items() if value is not None}
    best = min(known, key=lambda name: known[name]) if known else None
    return row | {"ratios": ratios, "best": best, "ratio": known[best] if best else None}


def geometric_mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean of the values that are there, or None without any."""
    known = [value for value in values if value is not None]
    return math.exp(sum(map(math.log, known)) / len(known)) if known else None


def share(row: Row, peak: float) -> float | None:
    """Return the share of the machine's best product that psa reaches, from the trials that it trains."""
    return row["flop"] * row["trained"] / peak / row["ours"] if row["ours"] else None


def totals(rows: list[Row], loading: float, peak: float) -> dict[str, Any]:
    """Return, of the rows of one family: hours of its grid with psa (loading, calibration and checkpoints
    included), geometric means over each alternative and over the best, the slowest row, and psa's share of
    the best product. Hours of a side only if it has a value in every row.
    """
    hours = {
        f"{name}_hours": sum(row[name] for row in rows) * TRIALS * LOOPS / 3600
        if all(row[name] for row in rows)
        else None
        for name in ("hand", "vmap", "jax")
    }
    mine = [row for row in rows if row["ours"]]
    training = sum(row["ours"] for row in mine) * TRIALS * LOOPS
    # psa's engine spends at most 2 % of the time on writes; one write per trial and loop is the upper bound
    checkpoints = min(0.02 * training, sum(row["checkpoint"] for row in mine) * TRIALS * LOOPS)
    whole = training + loading + sum(row["calibration"] for row in mine) + checkpoints
    compared = [row for row in mine if row["ratio"] is not None]
    slowest = min(compared, key=lambda row: float(row["ratio"]), default=None)
    done = sum(row["flop"] * row["trained"] for row in mine) * TRIALS * LOOPS
    return hours | {
        "ours_hours": whole / 3600 if len(mine) == len(rows) else None,
        "geometric_means": {
            name: geometric_mean(row["ratios"][name] for row in rows) for name in ("hand", "vmap", "jax")
        },
        "geometric_mean": geometric_mean(row["ratio"] for row in rows),
        "slowest": slowest["ratio"] if slowest else None,
        "slowest_arch": slowest["arch"] if slowest else None,
        "share_of_peak": done / peak / whole if mine else None,
    }


def table(summary: dict[str, dict[str, Any]]) -> Table:
    """Return the table of all families."""
    made = Table(title="The whole grid: 60 trials x 100 meta-loops of each architecture")
    headings = [
        "family",
        "hand-written",
        "psa",
        "over hand",
        "over vmap",
        "over JAX",
        "over the best",
        "slowest",
    ]
    for heading in [*headings, "share of peak"]:
        made.add_column(heading, justify="right")
    for family, found in summary.items():
        means = found["geometric_means"]
        made.add_row(
            family,
            shown(found["hand_hours"], "{:,.1f} h"),
            shown(found["ours_hours"], "{:,.1f} h"),
            *[shown(value, "{:.1f}x") for value in (means["hand"], means["vmap"], means["jax"])],
            shown(found["geometric_mean"], "{:.2f}x"),
            shown(found["slowest"], "{:.2f}x") + (f" ({found['slowest_arch']})" if found["slowest"] else ""),
            shown(found["share_of_peak"], "{:.0%}"),
        )
    return made


def shown(value: float | None, form: str) -> str:
    """Format a value, or the sign of a missing one."""
    return "-" if value is None else form.format(value)


def line(row: Row, peak: float) -> str:
    """Format one row: seconds of each side, or why there are none, and the ratio to the best alternative."""
    cells = [
        f"{name} {row[name]:8.4f}" if row[name] else f"{name} {row['notes'][name][:24]}"
        for name in ("hand", "vmap", "jax")
    ]
    ours = (
        f"psa {row['ours']:8.4f} (packs of {row['size']})" if row["ours"] else f"psa {row['notes']['ours']}"
    )
    ratio = f"{row['ratio']:5.2f}x of {row['best']}" if row["ratio"] else "no ratio"
    reached = share(row, peak)
    peaks = f", {reached:.0%} of peak" if reached is not None else ""
    return (
        f"{row['family']:9} {row['arch']:8} "
        + "  ".join([*cells, ours])
        + f"  {ratio}{peaks}"
        + ("  DISTURBED" * row["disturbed"])
    )


def stored(path: Path, conditions: dict[str, Any]) -> tuple[list[Row], float]:
    """Return the rows of an earlier start under the same conditions, and psa's seconds of loading."""
    try:
        body = json.loads(path.read_text())
    except (OSError, ValueError):
        return [], 0.0
    return (body["rows"], body["loading_seconds"]) if body.get("made_with") == conditions else ([], 0.0)


def store(path: Path, body: dict[str, Any]) -> None:
    """Write the file atomically, so that a kill leaves the rows of the last write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(body, indent=1) + "\n")
    fresh.replace(path)


def figure(rows: list[Row], peak: float, path: Path) -> None:
    """Plot seconds per trial-epoch against arithmetic for all sides, with the line of the machine's peak."""
    import matplotlib.pyplot as plt

    families = [family for family in TITLES if any(row["family"] == family for row in rows)]
    drawn, axes = plt.subplots(1, len(families), figsize=(6 * len(families), 4.6), sharey=True, squeeze=False)
    for family, ax in zip(families, axes[0], strict=True):
        mine = [row for row in rows if row["family"] == family]
        for name, (marker, color) in LOOKS.items():
            there = [row for row in mine if row[name]]
            points = [row["flop"] for row in there], [row[name] for row in there]
            ax.scatter(*points, s=18, marker=marker, color=color, label=NAMES[name])
        ends = [min(row["flop"] for row in mine), max(row["flop"] for row in mine)]
        label = f"best product, {peak / 1e9:.0f} GFLOP/s"
        ax.plot(ends, [flop / peak for flop in ends], color="0.4", lw=1, label=label)
        ax.set(xscale="log", yscale="log", xlabel="FLOP per trial-epoch", title=TITLES[family])
        ax.grid(alpha=0.25)
    axes[0][0].set_ylabel("seconds per trial-epoch, all cores")
    axes[0][0].legend(frameon=False)
    drawn.tight_layout()
    drawn.savefig(path, dpi=200)
    plt.close(drawn)
