"""Update docs/reproduction.md with the share of the published grids in the committed bundles.

    python tools/published_page.py [--check]

A test checks that the page is up to date.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from psa.core.formatting import pluralize
from psa.experiments.grid import load_grid
from psa.storage.store import Store

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/reproduction.md"
PLACE: Final = re.compile(r"(?<=<!-- published -->\n).*?(?=<!-- /published -->)", re.DOTALL)
GRIDS: Final = ("simplemlp", "resmlp")
MODES: Final = ("none", "dropout", "full", "hidden", "output")  # decay is bit-identical to none
SEEDS: Final = 2


def sentence() -> str:
    """Return the generated lines of the page, from the bundles in results/published."""
    return "".join(f"{line}\n" for line in map(_line, GRIDS))


def _line(name: str) -> str:
    grid = load_grid(ROOT / f"reproduction/{name}.toml")
    store = Store(ROOT / "models", ROOT / "results/published")
    done = store.progress(grid.trials, grid.meta_loops).done
    seeds = Counter((str(trial.model.arch), trial.intervention.mode) for trial in done)
    archs = {str(trial.model.arch) for trial in grid.trials}
    ready = [arch for arch in archs if all(seeds[arch, mode] >= SEEDS for mode in MODES)]
    modes = f"{', '.join(MODES[:-1])} and {MODES[-1]}"
    return (
        f"- `{name}.toml`: {len(done):,} of {pluralize(len(grid.trials), 'trial')}. {len(ready)} of "
        f"{len(archs)} architectures have at least {SEEDS} seeds in modes {modes}."
    )


def page() -> str:
    """Return the page with the generated lines in place."""
    text, count = PLACE.subn(lambda _: sentence(), PAGE.read_text())
    if count != 1:
        sys.exit(f"{PAGE} must hold the two marks of the published part once, got {count} times")
    return text


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"{PAGE} is behind: run {sys.argv[0]}" if page() != PAGE.read_text() else 0)
    PAGE.write_text(page())
