"""Options that select the trials of a table or figure, and the frame of those trials."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from psa.cli.console import console, print_line
from psa.cli.options import ResultsDir
from psa.core.errors import UserError
from psa.experiments.grid import load_grid
from psa.specs.model import Family
from psa.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

CONFIGURATIONS: Final = Path("reproduction/configurations.txt")
ASYMMETRIC: Final = Path("reproduction/asymmetric.txt")
REPORTS: Final = Path("results/reports")
STUDY: Final = "ablation"
FAMILY: Final[Family] = "simplemlp"

FamilyOf = Annotated[
    Family | None, Parameter(help=f"Family of the networks. [default: the only one, or {FAMILY}]")
]


@dataclass(frozen=True, kw_only=True)
class Records:
    """Records of one family of one study."""

    family: FamilyOf = None
    study: Annotated[
        str | None, Parameter(help=f"Name of the study. [default: that of --grid, or {STUDY}]")
    ] = None
    grid: Annotated[Path | None, Parameter(help="Grid of the sweep, to list missing trials.")] = None
    results_dir: ResultsDir = Path("results")

    def frame(self) -> pd.DataFrame:
        """Return the rows of the records. Raises UserError if there are none."""
        from psa.analysis.records_frame import load_records_frame
        from psa.reports.ablation.cells import one_family

        grid = load_grid(self.grid) if self.grid is not None else None
        expected = () if grid is None else grid.trials
        names = sorted({trial.study for trial in expected}) or [self.study or STUDY]
        if self.study is not None and names != [self.study]:
            raise UserError(
                f"--study must be that of {self.grid}, {names[0]}, got {self.study}", "Leave it out"
            )
        store = Store(Path("models"), self.results_dir)
        frame = load_records_frame(store, names, expected, None if grid is None else grid.horizons)
        return one_family(frame, self.family or only_family(frame["family"].unique()))

    def frame_or_published(self) -> pd.DataFrame:
        """Return the rows of the records or, where there are none, of the table of trials that
        `sagemaker-results-parser` and the published study write. Raises UserError.
        """
        table = self.table("trials")
        if table is None:
            return self.frame()
        print_line(console(), f"No record of {self.study or STUDY} in {self.results_dir}: reading {table}")
        return published(table, family_in_name(table))

    def table(self, kind: str) -> Path | None:
        """Return `psa_FAMILY_KIND.md` in the results folder, if it is there and no record is."""
        from psa.storage.layout import is_record_name

        families = (self.family,) if self.family else (FAMILY, "resmlp")
        paths = [self.results_dir / f"psa_{family}_{kind}.md" for family in families]
        found = next((path for path in paths if path.is_file()), None)
        if found is None or self.grid is not None:
            return None
        below = self.results_dir / (self.study or STUDY)
        return None if any(is_record_name(path.name) for path in below.rglob("s*.json")) else found


ALL: Final = Records()
# As one parameter of a command, its fields as options.
RecordsOf = Annotated[Records, Parameter(name="*")]


def published(path: Path, family: Family | None) -> pd.DataFrame:
    """Read a published table of trials, which does not name its family. Raises UserError."""
    from psa.analysis.published import published_trials

    return published_trials(path, family or FAMILY)


def family_in_name(path: Path) -> Family:
    """Return the family in the name of a published table."""
    return "resmlp" if path.name.startswith("psa_resmlp") else FAMILY


def only_family(families: Iterable[str]) -> Family:
    """Return the family to use if none is named."""
    found = list(families)
    return "resmlp" if found == ["resmlp"] else FAMILY


def published_results(family: str) -> Path:
    """Return the table of published results of a family; it may be missing."""
    return Path("reproduction/published") / f"{family}.tsv"


def family_of(frame: pd.DataFrame) -> str:
    """Return the family of a frame with one family."""
    return str(frame["family"].iloc[0])
