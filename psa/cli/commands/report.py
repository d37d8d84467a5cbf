"""`psa report`: the pages, tables and figures of a study, from a folder of records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from psa.cli.console import console, print_line
from psa.cli.options import (
    OUTPUT_FILES,
    DataDir,
    ModelDir,
    Only,
    Override,
    PluginFiles,
    ResultsDir,
    declared_grid,
    flag,
    option,
)
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.report_page import write_page
from psa.cli.output.report_source import ReportSource
from psa.cli.output.schema import ReportDocument, ReportPage
from psa.cli.record_options import ASYMMETRIC, CONFIGURATIONS, family_of, published_results
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.formatting import join_names, pluralize
from psa.core.plugins.loading import load_plugins
from psa.experiments.promotion import StageStatus, stage_statuses
from psa.specs.trial import Trial
from psa.storage.store import Store

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd

    from psa.experiments.grid import Grid
    from psa.reports.contract import Report, ReportContext

logger = logging.getLogger(__name__)

_MODELS: Final = Path("models")
_RESULTS: Final = Path("results")
_DATA: Final = Path("dataset")
_PUBLISHED_DATASET: Final = "mnist"
_NAMED: Final = 4  # files that a warning names one by one


def report(  # noqa: PLR0913  # each is an option
    study: Annotated[str, Parameter(help="Name of the study, or all.")],
    *overrides: Override,
    grid: Annotated[Path | None, Parameter(help="Grid of the sweep, to list missing trials.")] = None,
    only: Only = "",
    reference: Annotated[
        Path | None,
        Parameter(
            help="Table of published results. [default: reproduction/published/FAMILY.tsv if it exists]"
        ),
    ] = None,
    order: Annotated[
        Path,
        Parameter(
            help="List of architectures in order, one per line; ignored if missing; "
            "the default list applies to MNIST only."
        ),
    ] = CONFIGURATIONS,
    asymmetric: Annotated[
        Path,
        Parameter(
            help="List of architectures labelled Asymmetric; ignored if missing; "
            "the default list applies to MNIST only."
        ),
    ] = ASYMMETRIC,
    plugin: PluginFiles = (),
    model_dir: ModelDir = _MODELS,
    results_dir: ResultsDir = _RESULTS,
    data_dir: DataDir = _DATA,
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the report.")] = Path("results/reports"),
    pdf: Annotated[bool, flag(OUTPUT_FILES, "Also write a PDF document (needs the extra pdf).")] = False,
    runs: Annotated[
        bool,
        flag(
            OUTPUT_FILES,
            "Also write a folder per trial: numbers, pictures, weights or samples. [activations, memory]",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> Outcome:
    """Write the report of a study: a page, tables and figures.

    Writes one self-contained HTML page per study and family, with --pdf also a PDF document, and a folder
    with the tables (Markdown, LaTeX, CSV), the figures (PNG, PDF), the rows (Parquet, CSV) and the listings
    in the published format. With --grid, and the overrides of the sweep, it also lists missing trials.

    Example: psa report ablation --grid reproduction/smallest.toml
    """
    load_plugins(plugin)
    out = console(quiet=as_json)
    check_writable(_existing(output_dir))
    paths = {
        "--reference": (reference, None),
        "--order": (order, CONFIGURATIONS),
        "--asymmetric": (asymmetric, ASYMMETRIC),
        "--model-dir": (model_dir, _MODELS),
        "--results-dir": (results_dir, _RESULTS),
        "--data-dir": (data_dir, _DATA),
    }
    given = {name: path for name, (path, default) in paths.items() if path not in (None, default)}
    with activity(out, "loading libraries") as show:
        from psa.reports.rendering.pdf import check_typst
        from psa.reports.rendering.trials import selections

        if pdf:
            check_typst()
        store, declared = Store(model_dir, results_dir), declared_grid(grid, overrides, only)
        stages = () if declared is None else tuple(stage_statuses(declared, store))
        selected = {} if declared is None else selections(declared)
        source = ReportSource(study, grid, overrides, only, plugin, given, selected, stages)
        show("reading the records")
        records = _read(source, store, declared)
    lists = _PublishedLists(order, asymmetric, reference)
    writer = _PageWriter(out, output_dir, data_dir, records, lists, pdf=pdf, runs=runs)
    pages = writer.write_all()
    _warn_of_old_pages(output_dir, [Path(each.page).stem for each in pages])
    if refused := writer.refused:
        raise UserError("; ".join(dict.fromkeys(each.message for each in refused)), refused[0].hint)
    return Outcome(0, ReportDocument(reports=pages))


@dataclass(frozen=True)
class _Records:
    """The records of a report. observed: the probe frame. variants: names of variants of the grid."""

    frame: pd.DataFrame
    observed: pd.DataFrame
    store: Store
    source: ReportSource
    variants: Mapping[str, str]


def _read(source: ReportSource, store: Store, declared: Grid | None) -> _Records:
    """Read the records of the studies, and list their files in `source`."""
    from psa.analysis.records_frame import load_frames

    frame, observed = load_frames(
        store,
        () if source.study == "all" else [source.study],
        _expected(source.stages),
        None if declared is None else declared.horizons,
        lambda stored: source.add(stored, store.results),
    )
    return _Records(frame, observed, store, source, {} if declared is None else declared.variant_names)


@dataclass(frozen=True)
class _PublishedLists:
    """The published lists of architectures, and a table of results that the user names."""

    order: Path
    asymmetric: Path
    reference: Path | None


class _PageWriter:
    """Write the pages of a report. refused: the errors of pages that could not be written."""

    def __init__(  # each is an option
        self,
        out: Console,
        output_dir: Path,
        data_dir: Path,
        records: _Records,
        lists: _PublishedLists,
        *,
        pdf: bool,
        runs: bool,
    ) -> None:
        self.out, self.output_dir, self.data_dir = out, output_dir, data_dir
        self.records, self.lists, self.pdf, self.runs = records, lists, pdf, runs
        self.refused: list[UserError] = []

    def write_all(self) -> list[ReportPage]:
        """Write a page for each kind of study and family, and return what was written."""
        from psa.reports.contract import report_of

        pages = []
        for kind, part in self.records.frame.groupby("kind", observed=True, sort=False):
            report = report_of(str(kind))
            for name, rows in report.parts(part):
                folder = self.output_dir / name
                try:
                    pages.append(self._write(report, rows, folder))
                except UserError as error:  # the other pages are written
                    self.refused.append(error)
                    print_line(self.out, f"{folder}.html was not written")
        return pages

    def _write(self, report: Report, rows: pd.DataFrame, folder: Path) -> ReportPage:
        """Write one page. Raises UserError."""
        from psa.reports.contract import RUNS, save_run_folders

        records = self.records
        with activity(self.out, f"writing {folder}.html") as show:
            context = replace(
                _context(folder, rows, self.lists),
                observed=records.observed[records.observed["id"].isin(rows["id"])],
                store=records.store,
                data_dir=self.data_dir,
                variants=records.variants,
                say=_within(folder, show),
            )
            written = write_page(report, rows, context, show, records.source, pdf=self.pdf)
            made = save_run_folders(report, rows, context) if self.runs else 0
        _say(self.out, folder, written, pdf=self.pdf)
        if made:
            print_line(self.out, f"{folder / RUNS}/ ({pluralize(made, 'run')})")
        return ReportPage(
            page=f"{folder}.html",
            pdf=f"{folder}.pdf" if self.pdf else None,
            folder=str(folder),
            files=list(map(str, written)),
            trials=rows["id"].nunique(),
            run_folders=made,
        )


def _existing(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that exists: a mistake must leave no new folder behind."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _expected(stages: Sequence[StageStatus]) -> tuple[Trial, ...]:
    """Return the trials that should be there: of a stage whose candidates are promoted those that went on,
    none of a stage that waits for the one before it.
    """
    return tuple({trial.id: trial for stage in stages for trial in stage.trials}.values())


def _within(folder: Path, say: Callable[[str], object]) -> Callable[[str], object]:
    """Return a function that reports progress with the folder of the page in front."""
    return lambda message: say(f"{folder}: {message}")


def _context(folder: Path, rows: pd.DataFrame, lists: _PublishedLists) -> ReportContext:
    """Return the context of a page. The published results are of MNIST: other data are not compared with them
    unless the user names a table.
    """
    from psa.analysis.published import read_reference
    from psa.reports.ablation.cells import archs_in
    from psa.reports.contract import ReportContext

    order, asymmetric, reference = lists.order, lists.asymmetric, lists.reference
    path = reference or published_results(family_of(rows))
    comparable = reference is not None or set(rows["dataset"].dropna()) <= {_PUBLISHED_DATASET}
    if reference is not None and not path.is_file():
        raise UserError(f"--reference must be a file, got {path}", "Name a table of published results")
    return ReportContext(
        folder,
        # The default lists describe the published networks on MNIST. With other data nothing of them is
        # missing, and networks of these names have other sizes.
        archs_in(order) if order.is_file() and (comparable or order != CONFIGURATIONS) else (),
        archs_in(asymmetric) if asymmetric.is_file() and (comparable or asymmetric != ASYMMETRIC) else (),
        read_reference(path) if comparable and path.is_file() else None,
    )


def _warn_of_old_pages(folder: Path, written: Sequence[str]) -> None:
    """Warn of pages of the same studies that an earlier report has written, with other settings apart."""
    others = sorted({path.stem for path in folder.glob("*.html")} - set(written))
    pairs = ((other, name) for other in others for name in written)
    old = [other for other, name in pairs if "-" in _rest(other, name) + _rest(name, other)]
    if old:
        names = join_names([f"{name}.html" for name in dict.fromkeys(old)], _NAMED)
        logger.warning("%s/ also holds pages of an earlier report: %s", folder, names)


def _rest(name: str, start: str) -> str:
    """Return what follows the start of the name of a page, "" if it begins in another way."""
    return name.removeprefix(f"{start}_") if name.startswith(f"{start}_") else ""


def _say(out: Console, folder: Path, written: Collection[Path], *, pdf: bool) -> None:
    for ending in ("html", "pdf")[: 1 + pdf]:
        print_line(out, f"{folder}.{ending}")
    print_line(out, f"{folder}/ ({len(written)} files: tables, figures, rows)")
    old = sorted(path.name for path in folder.iterdir() if path not in written and path.is_file())
    if old:
        logger.warning("%s/ also holds what this report did not write: %s", folder, join_names(old, _NAMED))
