"""Write the reports under results/reports anew, from the bundles under results/published.

    python tools/committed_pages.py [NAME ...]

Without names, all of them. Tables and figures have the same bytes wherever they are written with the same
versions of the libraries; the foot of a page also names the commit of psa that wrote it. The pages on
gradients read files that no bundle holds, so that their trials are trained first, into models/ and results/.
On the same kind of CPU these have the records of the bundle; the last digits of their CSV files depend on the
number of threads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PUBLISHED: Final = "results/published"
REPORTS: Final = "results/reports"


@dataclass(frozen=True)
class CommittedPage:
    """A report. study: as in `psa report STUDY`; bundle: its records; grid: whose trials it shows, "" for all
    of the bundle; folder: below results/reports; overrides, only: of the grid, for a part of it; trained:
    True for trials that are trained first.
    """

    study: str
    bundle: str
    grid: str = ""
    folder: str = ""
    overrides: tuple[str, ...] = ()
    only: str = ""
    trained: bool = False

    def arguments(self, output_dir: Path | str, trees: Sequence[str] = ()) -> list[str]:
        """Return the arguments of the command `psa report` that writes it, in the root of a checkout.

        trees: the options of `training`.
        """
        grid = ["--grid", f"reproduction/{self.grid}.toml"] if self.grid else []
        records = trees if self.trained else ["--results-dir", f"{PUBLISHED}/{self.bundle}.parquet"]
        return ["report", self.study, *self._part, *grid, *records, "--output-dir", str(output_dir)]

    def training(self, trees: Sequence[str] = ()) -> list[str]:
        """Return the arguments of `psa sweep` that trains its trials.

        trees: options that name other folders than models/ and results/.
        """
        return ["sweep", f"reproduction/{self.grid}.toml", *self._part, *trees]

    @property
    def _part(self) -> list[str]:
        return [*self.overrides, *(["--only", self.only] if self.only else [])]


PAGES: Final = {
    "smallest": CommittedPage("ablation", "simplemlp", "smallest"),
    "all": CommittedPage("ablation", "simplemlp", folder="all"),
    "residual": CommittedPage("ablation", "resmlp", folder="all"),
    "digits": CommittedPage("digits", "digits", "digits", folder="digits"),
    "questions": CommittedPage("questions", "questions", "questions", folder="questions"),
    "memory": CommittedPage("memory", "memory", "memory", folder="memory"),
    "growth": CommittedPage("growth", "growth", "growth", folder="memory"),
    "architectures": CommittedPage(
        "architectures", "architectures", "architectures", folder="activation_study"
    ),
    "activations": CommittedPage(
        "activations",
        "activations",
        "activations",
        folder="activation_study",
        overrides=("dropout=0.0", "seeds=0..2"),
    ),
    "glonet": CommittedPage(
        "glonet",
        "glonet",
        "glonet",
        folder="glonet_study",
        overrides=("features=128", "meta_loops=10", "seeds=0..2"),
    ),
    "initial_weights": CommittedPage(
        "glonet",
        "glonet",
        "glonet",
        folder="initial_weights",
        overrides=("features=128", "meta_loops=10", "num_layers=10,24,50", "init=he-cut"),
    ),
    "stochastic": CommittedPage(
        "stochastic",
        "stochastic",
        "stochastic",
        folder="activation_study",
        overrides=("seeds=0..2", "temperature=0.01,0.1,1.0"),
    ),
    "gradients": CommittedPage(
        "gradients",
        "gradients",
        "gradients",
        folder="gradients_study",
        only="variant=all,similar",
        trained=True,
    ),
}


def write(name: str) -> None:
    """Write one report into its place. Raises CalledProcessError if `psa report` fails."""
    page = PAGES[name]
    folder = f"{REPORTS}/{page.folder}".rstrip("/")
    for arguments in ([page.training()] if page.trained else []) + [page.arguments(folder)]:
        subprocess.run([sys.executable, "-m", "psa", *arguments], cwd=ROOT, check=True)
    for rows in (ROOT / folder).glob("*/rows.*"):
        rows.unlink()  # the records of the bundle, once more


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - set(PAGES):
        sys.exit(f"pages must be of {', '.join(PAGES)}, got {', '.join(sorted(unknown))}")
    for each in sys.argv[1:] or PAGES:
        write(each)
