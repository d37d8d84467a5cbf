"""`make-architecture-table`, `make-trial-accuracy-table`, `generate-reproduction-tests`: tables by name."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, NumberOption, option
from psa.cli.record_options import (
    ALL,
    ASYMMETRIC,
    CONFIGURATIONS,
    FAMILY,
    REPORTS,
    FamilyOf,
    RecordsOf,
    family_in_name,
    family_of,
    only_family,
    published,
)
from psa.cli.run_options import in_range
from psa.core.errors import UserError
from psa.core.files import read_bytes, write_atomically
from psa.experiments.grid import load_grid
from psa.specs.model import Family
from psa.specs.shapes import IMAGE

if TYPE_CHECKING:
    import pandas as pd

    from psa.reports.rendering.tables import Table

_LABEL: Final = re.compile(r"[A-Za-z0-9:._-]{1,100}")
_SCRIPT: Final = "run_reproduction.sh"

Order = Annotated[
    Path | None, Parameter(help=f"List of architectures in order. [default: {CONFIGURATIONS} if it exists]")
]
_OutputDir = Annotated[Path, option(OUTPUT_FILES, "Folder of the tables.")]
Caption = Annotated[str | None, Parameter(help="Caption of the table.")]
Label = Annotated[str | None, Parameter(help="LaTeX label of the table. [default: tab:...]")]


def make_architecture_table(
    *,
    order: Order = None,
    family: FamilyOf = None,
    grid: Annotated[Path | None, Parameter(help="Use the architectures of this grid instead.")] = None,
    asymmetric: Annotated[
        Path | None,
        Parameter(help=f"List of architectures labelled Asymmetric. [default: {ASYMMETRIC} if it exists]"),
    ] = None,
    published: Annotated[
        bool, Parameter(negative="", help="Write only the columns that the study published.")
    ] = False,
    tolerance: Annotated[
        NumberOption, Parameter(help="Allowed deviation of parameters from a budget, in percent.")
    ] = 10.0,
    caption: Caption = None,
    label: Label = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Write the table of architectures: parameters, label, and whether they meet a budget.

    Uses the architectures of --order, or of --grid. Writes Markdown, LaTeX and CSV. Needs no results.

    Example: make-architecture-table --family resmlp
    """
    from psa.reports.ablation import tables
    from psa.reports.ablation.architectures import parameters_of

    _check(label)
    in_range("--tolerance", tolerance, 0, 1_000)
    listed = _listed(order, CONFIGURATIONS)
    what = _networks(grid, family, listed)
    table = tables.architectures(
        what.archs,
        lambda arch: parameters_of(what.family, arch, what.classes, what.sample),
        order=listed,
        asymmetric=_listed(asymmetric, ASYMMETRIC),
        published=published,
        tolerance=tolerance / 100,
        caption=caption or tables.ARCHITECTURES,
        label=label or tables.ARCHITECTURES_LABEL,
    )
    name = f"psa_{what.family}_architectures{'_published' if published else ''}"
    return _written(table, output_dir, name)


@dataclass(frozen=True)
class _Networks:
    family: Family
    archs: tuple[str, ...]
    classes: int
    sample: tuple[int, ...]


def _networks(grid: Path | None, family: Family | None, listed: tuple[str, ...]) -> _Networks:
    """Return the networks of a grid, or those listed. Raises UserError if there are none."""
    if grid is None:
        if not listed:
            raise UserError(
                f"{CONFIGURATIONS} does not exist", "Name the architectures with --order or --grid"
            )
        return _Networks(family or FAMILY, listed, 10, IMAGE)
    trials = load_grid(grid).trials
    family = family or only_family({trial.model.family for trial in trials})
    of_family = [trial for trial in trials if trial.model.family == family]
    if not of_family:
        raise UserError(f"{grid} has no trial of --family {family}", "Name another family")
    archs = dict.fromkeys(trial.model.arch.label for trial in of_family)
    return _Networks(family, tuple(archs), of_family[0].data.classes, of_family[0].data.shape)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The source of the trials of a table; by default records."""

    datafile: Annotated[
        Path | None, Parameter(help="Summary or table of trials (Markdown), or folder of records.")
    ] = None
    published_trials: Annotated[
        Path | None, Parameter(help="Published table of trials, instead of records.")
    ] = None
    records: RecordsOf = ALL

    @property
    def summary(self) -> Path | None:
        """The file, if it is a summary: means without the single trials."""
        path = self.datafile
        if path is None and self.published_trials is None and self.records.table("trials") is None:
            path = self.records.table("summary")
        content = read_bytes(path) if path is not None and path.is_file() else None
        return path if content is not None and b"Results Shape" in content else None

    def frame(self) -> pd.DataFrame:
        """Return the rows of one family. Raises UserError."""
        path, table = self.datafile, self.published_trials
        if path is not None and table is not None:
            raise UserError("the table needs --datafile or --published-trials, got both", "Give one of them")
        if path is not None and (path.is_file() or path.suffix == ".md"):
            table = path
        if table is not None:
            return published(table, self.records.family)
        records = self.records
        return replace(records, results_dir=path or records.results_dir).frame_or_published()


def make_trial_accuracy_table(
    *,
    source: Annotated[_Source | None, Parameter(name="*")] = None,
    order: Order = None,
    tolerance: Annotated[
        NumberOption, Parameter(help="Difference of means in percentage points that counts as a tie.")
    ] = 0.01,
    caption: Caption = None,
    label: Label = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Write the table of accuracies: mean, standard deviation and n of every mode, and which mode wins.

    Writes Markdown, LaTeX and CSV, with the architectures in the order of --order. Missing trials are listed.

    Example: make-trial-accuracy-table --grid reproduction/smoke.toml
    """
    from psa.reports.ablation import tables
    from psa.reports.ablation.markdown import read_summary

    _check(label)
    in_range("--tolerance", tolerance, 0, 100)
    source, listed = source or _Source(), _listed(order, CONFIGURATIONS)
    caption, label = caption or tables.ACCURACIES, label or tables.ACCURACIES_LABEL
    if source.summary is not None:
        table = tables.accuracies_of(read_summary(source.summary), listed, tolerance, caption, label)
        return _written(
            table, output_dir, f"psa_{source.records.family or family_in_name(source.summary)}_accuracy"
        )
    frame = source.frame()
    if source.records.grid is not None:  # only architectures of the grid are expected
        listed = tuple(arch for arch in listed if arch in set(frame["arch"]))
    table = tables.accuracy_table(frame, order=listed, tolerance=tolerance, caption=caption, label=label)
    return _written(table, output_dir, f"psa_{family_of(frame)}_accuracy")


def generate_reproduction_tests(
    *,
    grid: Annotated[
        Path | None, Parameter(help="Grid to reproduce. [default: reproduction/FAMILY.toml]")
    ] = None,
    family: Annotated[Family, Parameter(help="Family of the networks, without --grid.")] = FAMILY,
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the script.")] = REPORTS,
) -> int:
    """Write a shell script that reproduces a grid, with one `psa sweep` per architecture.

    Example: generate-reproduction-tests --grid reproduction/smoke.toml
    """
    from psa.reports.ablation.reproduction import reproduction_script

    grid = grid or Path(f"reproduction/{family}.toml")
    path = output_dir / _SCRIPT
    write_atomically(path, reproduction_script(load_grid(grid), grid.as_posix()).encode())
    path.chmod(0o755)
    print_line(console(), f"Script {path}")
    return 0


def _check(label: str | None) -> None:
    if label is not None and _LABEL.fullmatch(label) is None:
        raise UserError(
            f"--label must be a LaTeX label, got {label[:60]!r}", "Write letters, digits and : . _ -"
        )


def _listed(path: Path | None, usual: Path) -> tuple[str, ...]:
    """Return the architectures of a list; without a path those of the usual one, if that exists."""
    from psa.reports.ablation.cells import archs_in

    if path is None and not usual.is_file():
        return ()
    return archs_in(path or usual)


def _written(table: Table, folder: Path, name: str) -> int:
    """Store a table in every format. Print the paths and its note; if standard output is a file or a pipe,
    print the LaTeX there and the rest on standard error.
    """
    from psa.reports.rendering.tables import save_table

    redirected = not sys.stdout.isatty()
    if redirected:
        sys.stdout.write(table.latex())
    out = console(stderr=redirected)
    for path in save_table(table, folder, name):
        print_line(out, f"Table {path}")
    if table.note:
        print_line(out, table.note)
    return 0
