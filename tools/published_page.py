"""Update README.md and docs/reproduction.md with the share of the published grids in the committed bundles,
and with the effects of ablation in their committed report.

    python tools/published_page.py [--check]

A test checks that the pages are up to date.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from psa.core.formatting import pluralize
from psa.experiments.grid import Grid, load_grid
from psa.specs.training import MODES
from psa.specs.trial import Trial
from psa.storage.store import Store

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/reproduction.md"
FRONT: Final = ROOT / "README.md"
PLACE: Final = re.compile(r"(?<=<!-- published -->\n).*?(?=<!-- /published -->)", re.DOTALL)
GRIDS: Final = ("simplemlp", "resmlp")
EFFECTS: Final = re.compile(r"(?<=<!-- effects -->\n).*?(?=<!-- /effects -->)", re.DOTALL)
EFFECTS_TABLE: Final = ROOT / "results/reports/all/ablation_simplemlp/effects_by_shape.csv"
LEAST_ARCHITECTURES: Final = 3
# What the README says of the picture of all architectures trained so far.
COUNTS: Final = re.compile(r"on \d+ of the (\d+) published(.*?)drew it\s+from [\d,]+ records", re.DOTALL)
SEEDS: Final = 2


def sentence() -> str:
    """Return the generated lines of the page, from the bundles in results/published."""
    return "".join(f"{line}\n" for line in map(_line, GRIDS))


def _finished(name: str) -> tuple[Grid, list[Trial]]:
    """Return a grid and its trials that are done in the bundles."""
    grid = load_grid(ROOT / f"reproduction/{name}.toml")
    store = Store(ROOT / "models", ROOT / "results/published")
    return grid, store.progress(grid.trials, grid.meta_loops).done


def _line(name: str) -> str:
    grid, done = _finished(name)
    seeds = Counter((str(trial.model.arch), trial.intervention.mode) for trial in done)
    archs = {str(trial.model.arch) for trial in grid.trials}
    ready = [arch for arch in archs if all(seeds[arch, mode] >= SEEDS for mode in MODES)]
    return (
        f"- `{name}.toml`: {len(done):,} of {pluralize(len(grid.trials), 'trial')}. {len(ready)} of "
        f"{len(archs)} architectures have at least {SEEDS} seeds in every mode."
    )


def effects() -> str:
    """Return the generated table of effects, from the committed report of plain networks."""
    lines = [
        "| architectures | number | mode | difference from mode none (points) | p (Holm) |",
        "|---|---|---|---|---|",
    ]
    with EFFECTS_TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            if int(row["Architectures"]) < LEAST_ARCHITECTURES:
                continue
            value, low, high = (float(row[f"Difference (points){end}"]) for end in ("", " low", " high"))
            p = float(row["p (Holm)"])
            lines.append(
                f"| {row['Shape']} | {row['Architectures']} | {row['Mode']} | "
                f"{value:+.2f} [{low:+.2f}, {high:+.2f}] | {'<0.001' if p < 0.001 else f'{p:.3f}'} |"
            )
    return "".join(f"{line}\n" for line in lines)


def counts(found: re.Match[str]) -> str:
    """Return the counts of the README in place of those found."""
    _, done = _finished(GRIDS[0])
    archs = {str(trial.model.arch) for trial in done}
    return f"on {len(archs)} of the {found[1]} published{found[2]}drew it\nfrom {len(done):,} records"


def pages() -> dict[Path, str]:
    """Return the two pages with the generated parts in place."""
    made: dict[Path, str] = {}
    parts = [
        (PAGE, PLACE, lambda _: sentence()),
        (PAGE, EFFECTS, lambda _: effects()),
        (FRONT, COUNTS, counts),
    ]
    for path, place, new in parts:
        made[path], count = place.subn(new, made.get(path) or path.read_text())
        if count != 1:
            sys.exit(f"{path} must hold {place.pattern!r} once, got {count} times")
    return made


if __name__ == "__main__":
    behind = {path: text for path, text in pages().items() if text != path.read_text()}
    if "--check" in sys.argv:
        sys.exit(f"{', '.join(map(str, behind))} must be written anew: run {sys.argv[0]}" if behind else 0)
    for path, text in behind.items():
        path.write_text(text)
