"""`psa report`: the pages, tables and figures of a study, from a folder of records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
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
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.formatting import join_names, pluralize
from psa.core.plugins.loading import load_plugins
from psa.experiments.promotion import StageStatus, stage_statuses
from psa.specs.trial import Trial
from psa.storage.store import Store

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd

    from psa.reports.contract import ReportContext

logger = logging.getLogger(__name__)

_REPRODUCTION: Final = Path("reproduction")
_ORDER: Final = _REPRODUCTION / "configurations.txt"
_ASYMMETRIC: Final = _REPRODUCTION / "asymmetric.txt"
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
    ] = _ORDER,
    asymmetric: Annotated[
        Path,
        Parameter(
            help="List of architectures labelled Asymmetric; ignored if missing; "
            "the default list applies to MNIST only."
        ),
    ] = _ASYMMETRIC,
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
    with activity(out, "loading libraries") as show:
        from psa.analysis.records_frame import load_frames
        from psa.reports.contract import RUNS, report_of, save_run_folders
        from psa.reports.rendering.pdf import check_typst
        from psa.reports.rendering.trials import selections

        if pdf:
            check_typst()
        store = Store(model_dir, results_dir)
        declared = declared_grid(grid, overrides, only)
        stages = () if declared is None else tuple(stage_statuses(declared, store))
        expected, horizons = _expected(stages), None if declared is None else declared.horizons
        paths = {
            "--reference": (reference, None),
            "--order": (order, _ORDER),
            "--asymmetric": (asymmetric, _ASYMMETRIC),
            "--model-dir": (model_dir, _MODELS),
            "--results-dir": (results_dir, _RESULTS),
            "--data-dir": (data_dir, _DATA),
        }
        given = {name: path for name, (path, default) in paths.items() if path not in (None, default)}
        selected = {} if declared is None else selections(declared)
        source = ReportSource(study, grid, overrides, only, plugin, given, selected, stages)
        show("reading the records")
        frame, observed = load_frames(
            store, () if study == "all" else [study], expected, horizons,
            lambda stored: source.add(stored, store.results),
        )  # fmt: skip
    pages = []
    refused: list[UserError] = []
    for kind, part in frame.groupby("kind", observed=True, sort=False):
        report = report_of(str(kind))
        for name, rows in report.parts(part):
            folder = output_dir / name
            try:
                with activity(out, f"writing {folder}.html") as show:
                    context = _context(folder, rows, order, asymmetric, reference)
                    context = replace(
                        context,
                        observed=observed[observed["id"].isin(rows["id"])],
                        store=store,
                        data_dir=data_dir,
                        variants={} if declared is None else declared.variant_names,
                        say=_within(folder, show),
                    )
                    written = write_page(report, rows, context, show, source, pdf=pdf)
                    made = save_run_folders(report, rows, context) if runs else 0
            except UserError as error:  # what cannot be compared on one page leaves the others as they are
                refused.append(error)
                print_line(out, f"{folder}.html was not written")
                continue
            _say(out, folder, written, pdf=pdf)
            if made:
                print_line(out, f"{folder / RUNS}/ ({pluralize(made, 'run')})")
            pages.append(
                ReportPage(
                    page=f"{folder}.html",
                    pdf=f"{folder}.pdf" if pdf else None,
                    folder=str(folder),
                    files=list(map(str, written)),
                    trials=rows["id"].nunique(),
                    run_folders=made,
                )
            )
    _warn_of_old_pages(output_dir, [Path(each.page).stem for each in pages])
    if refused:
        raise UserError("; ".join(dict.fromkeys(each.message for each in refused)), refused[0].hint)
    return Outcome(0, ReportDocument(reports=pages))


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


def _context(
    folder: Path, rows: pd.DataFrame, order: Path, asymmetric: Path, reference: Path | None
) -> ReportContext:
    """Return the context of a page. The published results are of MNIST: other data are not compared with them
    unless the user names a table.
    """
    from psa.analysis.published import read_reference
    from psa.reports.ablation.cells import archs_in
    from psa.reports.contract import ReportContext

    path = reference or _REPRODUCTION / "published" / f"{rows['family'].iloc[0]}.tsv"
    comparable = reference is not None or set(rows["dataset"].dropna()) <= {_PUBLISHED_DATASET}
    if reference is not None and not path.is_file():
        raise UserError(f"--reference must be a file, got {path}", "Name a table of published results")
    return ReportContext(
        folder,
        # The default lists describe the published networks on MNIST. With other data nothing of them is
        # missing, and networks of these names have other sizes.
        archs_in(order) if order.is_file() and (comparable or order != _ORDER) else (),
        archs_in(asymmetric) if asymmetric.is_file() and (comparable or asymmetric != _ASYMMETRIC) else (),
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
