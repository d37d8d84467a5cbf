"""Write the results of `make bench` into docs/performance.md.

    python tools/benchmark_page.py [--check] [FOLDER]

With a FOLDER (results/bench), first copy bench.json from there to benchmarks/measured and draw its figure. A
test checks that the page is up to date.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from comparison import TITLES, figure, geometric_mean, share, shown  # noqa: E402 - after the path is set

PAGE: Final = ROOT / "docs/performance.md"
MEASURED: Final = ROOT / "benchmarks/measured"
PLACE: Final = re.compile(r"(?<=<!-- benchmark -->\n).*?(?=<!-- /benchmark -->)", re.DOTALL)
ARCHITECTURES: Final = 98  # architectures of a family
CLEAR_RATIO: Final = 1.1
LARGE_FLOP: Final = 50e9  # FLOP of a trial-epoch

Row = dict[str, Any]


def generated(results: dict[str, Any]) -> str:
    """Return the generated part of the page, from the content of bench.json."""
    lines = ["", *_conditions(results), "", *_summary(results), ""]
    for family, title in TITLES.items():
        rows = [row for row in results["rows"] if row["family"] == family]
        if rows:
            lines += [f"### {title}", "", *_rows(rows, max(results["peaks"].values())), ""]
    return "\n".join(lines) + "\n"


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    made, peaks = results["made_with"], results["peaks"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items() if version)
    fastest = max(peaks, key=lambda name: float(peaks[name]))
    yield (
        f"Measured on {made['cores']} cores ({made['machine']}) with {versions}. The fastest matrix product "
        f"of this machine ran at {peaks[fastest] / 1e9:.0f} GFLOP/s ({fastest})."
    )


def _summary(results: dict[str, Any]) -> Iterator[str]:
    parts = {
        title: ([row for row in results["rows"] if row["family"] == family], results["totals"][family])
        for family, title in TITLES.items()
        if family in results["totals"]
    }
    yield f"| | {' | '.join(parts)} |"
    yield "|---|" + "---|" * len(parts)

    def line(name: str, *values: str) -> str:
        return f"| {name} | {' | '.join(values)} |"

    both = list(parts.values())
    yield line("architectures measured", *(f"{len(rows)} of {ARCHITECTURES}" for rows, _ in both))
    for key, name in (("hand", "the hand-written loop"), ("vmap", "`torch.func.vmap`"), ("jax", "JAX")):
        means = (totals["geometric_means"][key] for _, totals in both)
        yield line(f"psa over {name}, geometric mean", *map(_times, means))
    best = (totals["geometric_mean"] for _, totals in both)
    yield line("psa over the fastest alternative, geometric mean", *map(_times, best))
    names = {1.0: "faster than", CLEAR_RATIO: f"at least {CLEAR_RATIO:g} times as fast as"}
    for least, name in names.items():
        yield line(f"{name} the fastest alternative", *(_ahead(rows, least) for rows, _ in both))
    alone = [[{**row, "ratio": _per_trained_trial(row)} for row in rows] for rows, _ in both]
    means = (geometric_mean(row["ratio"] for row in rows) for rows in alone)
    yield line("per trained trial: over the fastest alternative, geometric mean", *map(_times, means))
    for least, name in names.items():
        yield line(f"per trained trial: {name} it", *(_ahead(rows, least) for rows in alone))
    yield line("least ratio", *(_least(totals) for _, totals in both))
    peak = max(results["peaks"].values())
    yield line(
        f"share of the fastest product, over {LARGE_FLOP / 1e9:.0f} GFLOP a trial-epoch",
        *(_shares(rows, peak) for rows, _ in both),
    )


def _least(totals: dict[str, Any]) -> str:
    arch = totals["slowest_arch"]
    return "-" if arch is None else f"{_times(totals['slowest'])} ({_name(arch)})"


def _ahead(rows: list[Row], least: float) -> str:
    ratios = [row["ratio"] for row in rows if row["ratio"] is not None]
    return f"{sum(ratio >= least for ratio in ratios)} of {len(ratios)}"


def _per_trained_trial(row: Row) -> float | None:
    """Return the ratio without the gain of training equal trials once."""
    return None if row["ratio"] is None else row["ratio"] * row["trained"]


def _shares(rows: list[Row], peak: float) -> str:
    wide = [share(row, peak) or 0.0 for row in rows if row["ours"] and row["flop"] > LARGE_FLOP]
    return f"{min(wide):.0%} to {max(wide):.0%}" if wide else "none measured"


def _rows(rows: list[Row], peak: float) -> Iterator[str]:
    yield "| architecture | hand | vmap | JAX | psa | psa over the fastest | share of the fastest product |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        seconds = [_seconds(row[side]) for side in ("hand", "vmap", "jax", "ours")]
        ratio = "-" if row["ratio"] is None else f"{_times(row['ratio'])} ({row['best']})"
        reached = share(row, peak)
        mark = " (disturbed)" * row["disturbed"]
        yield f"| {_name(row['arch'])}{mark} | {' | '.join(seconds)} | {ratio} | {shown(reached, '{:.0%}')} |"


def _name(arch: str) -> str:
    return arch.replace("*", r"\*")


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}" if value < 1 else f"{value:.2f}"


def page() -> str:
    """Return the page with the generated part in place."""
    results = json.loads((MEASURED / "bench.json").read_text())
    text, count = PLACE.subn(lambda _: generated(results), PAGE.read_text())
    if count != 1:
        sys.exit(f"{PAGE} must hold the two marks of the generated part once, got {count} times")
    return text


if __name__ == "__main__":
    for folder in (word for word in sys.argv[1:] if word != "--check"):
        MEASURED.mkdir(exist_ok=True)
        shutil.copyfile(Path(folder) / "bench.json", MEASURED / "bench.json")
        measured = json.loads((MEASURED / "bench.json").read_text())
        figure(measured["rows"], max(measured["peaks"].values()), MEASURED / "bench.png")
    if "--check" in sys.argv:
        sys.exit(f"{PAGE} is behind: run {sys.argv[0]}" if page() != PAGE.read_text() else 0)
    PAGE.write_text(page())
