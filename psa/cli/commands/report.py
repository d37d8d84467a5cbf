"""`psa report`: the pages, tables and figures of a study, from a folder of records."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, DataDir, ModelDir, ResultsDir, flag, option
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.schema import ReportDocument, ReportPage
from psa.core.errors import UserError
from psa.core.files import check_writable, write_atomically
from psa.core.formatting import join_names, pluralize
from psa.experiments.grid import load_grid
from psa.storage.store import Store

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd

    from psa.reports.contract import Report, ReportContext

logger = logging.getLogger(__name__)

_REPRODUCTION: Final = Path("reproduction")
_RUNS: Final = "runs"  # the folder of the folders of trials
_NAMED: Final = 4  # files that a warning names one by one


def report(  # noqa: PLR0913  # each is an option
    study: Annotated[str, Parameter(help="Name of the study, or all.")],
    *,
    grid: Annotated[Path | None, Parameter(help="Grid of the sweep, to list missing trials.")] = None,
    reference: Annotated[
        Path | None,
        Parameter(
            help="Table of published results. [default: reproduction/published/FAMILY.tsv if it exists]"
        ),
    ] = None,
    order: Annotated[
        Path, Parameter(help="List of architectures in order, one per line; ignored if missing.")
    ] = _REPRODUCTION / "configurations.txt",
    asymmetric: Annotated[
        Path, Parameter(help="List of architectures labelled Asymmetric; ignored if missing.")
    ] = _REPRODUCTION / "asymmetric.txt",
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
    data_dir: DataDir = Path("dataset"),
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the report.")] = Path("results/reports"),
    pdf: Annotated[bool, flag(OUTPUT_FILES, "Also write a PDF document (needs the extra pdf).")] = False,
    runs: Annotated[
        bool, flag(OUTPUT_FILES, "Also write a folder per trial: weights, run_stats.json, pictures.")
    ] = False,
    as_json: JsonOption = False,
) -> Outcome:
    """Write the report of a study: a page, tables and figures.

    Writes one self-contained HTML page per study and family, with --pdf also a PDF document, and a folder
    with the tables (Markdown, LaTeX, CSV), the figures (PNG, PDF), the rows (Parquet, CSV) and the listings
    in the published format.

    Example: psa report ablation --grid reproduction/smallest.toml
    """
    out = console(quiet=as_json)
    check_writable(output_dir)
    with activity(out, "loading libraries") as show:
        from psa.analysis.records_frame import load_frames
        from psa.reports.contract import report_of
        from psa.reports.rendering.pdf import check_typst

        if pdf:
            check_typst()
        store = Store(model_dir, results_dir)
        declared = None if grid is None else load_grid(grid)
        expected, horizons = ((), None) if declared is None else (declared.trials, declared.horizons)
        show("reading the records")
        frame, observed = load_frames(store, () if study == "all" else [study], expected, horizons)
    pages = []
    for kind, part in frame.groupby("kind", observed=True, sort=False):
        report = report_of(str(kind))
        for name, rows in report.parts(part):
            folder = output_dir / name
            with activity(out, f"writing {folder}.html") as show:
                context = _context(folder, str(rows["family"].iloc[0]), order, asymmetric, reference)
                context = replace(
                    context,
                    observed=observed[observed["id"].isin(rows["id"])],
                    store=store,
                    data_dir=data_dir,
                    say=_within(folder, show),
                )
                written = _written(report, rows, context, show, pdf=pdf)
                made = _run_folders(report, rows, context, show) if runs else 0
            _say(out, folder, written, pdf=pdf)
            if made:
                print_line(out, f"{folder / _RUNS}/ ({pluralize(made, 'run')})")
            pages.append(
                ReportPage(
                    page=f"{folder}.html",
                    pdf=f"{folder}.pdf" if pdf else None,
                    folder=str(folder),
                    files=list(map(str, written)),
                    trials=len(rows),
                    run_folders=made,
                )
            )
    return Outcome(0, ReportDocument(reports=pages))


def _within(folder: Path, say: Callable[[str], object]) -> Callable[[str], object]:
    """Return a function that reports progress with the folder of the page in front."""
    return lambda message: say(f"{folder}: {message}")


def _run_folders(
    report: Report, rows: pd.DataFrame, context: ReportContext, say: Callable[[str], object]
) -> int:
    """Store a folder for each trial, if the report has such folders. Return their number."""
    from psa.reports.contract import load_runs

    runs, made = load_runs(report), 0
    if runs is None:
        logger.warning("%s: --runs has no effect on reports of this kind", context.folder)
        return 0
    for name, files in runs(rows, context):
        say(f"{context.folder / _RUNS / name}")
        for file, content in files.items():
            write_atomically(context.folder / _RUNS / name / file, content)
        made += 1
    return made


def _context(
    folder: Path, family: str, order: Path, asymmetric: Path, reference: Path | None
) -> ReportContext:
    from psa.analysis.published import read_reference
    from psa.reports.ablation.cells import archs_in
    from psa.reports.contract import ReportContext

    path = reference or _REPRODUCTION / "published" / f"{family}.tsv"
    if reference is not None and not path.is_file():
        raise UserError(f"--reference must be a file, got {path}", "Name a table of published results")
    return ReportContext(
        folder,
        archs_in(order) if order.is_file() else (),
        archs_in(asymmetric) if asymmetric.is_file() else (),
        read_reference(path) if path.is_file() else None,
    )


def _written(
    report: Report, rows: pd.DataFrame, context: ReportContext, say: Callable[[str], object], *, pdf: bool
) -> list[Path]:
    """Store the page and its parts. Return the paths of the files beside the page."""
    from psa.analysis import records_frame
    from psa.reports.plotting import style
    from psa.reports.rendering import html, tables
    from psa.reports.rendering.pdf import document

    folder = context.folder
    say(f"{folder}: rows")
    paths = records_frame.write_frame(rows, folder)
    say(f"{folder}: tables")
    made = report.tables(rows, context)
    for name, table in made.items():
        paths += tables.save_table(table, folder, name)
    for name, content in report.listings(rows, context).items():
        paths.append(folder / name)
        write_atomically(paths[-1], content)
    pictures = {}
    for name, figure in report.figures(rows, context):
        say(f"{folder}: {name}")
        stored = style.save(figure, folder / name)
        pictures[name] = stored[0]
        paths += stored
    whole = report.page(rows, context, made, pictures)
    write_atomically(folder.with_name(f"{folder.name}.html"), html.html(whole).encode())
    if pdf:
        say(f"{folder}.pdf")
        write_atomically(folder.with_name(f"{folder.name}.pdf"), document(whole))
    return paths


def _say(out: Console, folder: Path, written: Collection[Path], *, pdf: bool) -> None:
    for ending in ("html", "pdf")[: 1 + pdf]:
        print_line(out, f"{folder}.{ending}")
    print_line(out, f"{folder}/ ({len(written)} files: tables, figures, rows)")
    old = sorted(path.name for path in folder.iterdir() if path not in written and path.is_file())
    if old:
        logger.warning("%s/ also holds what this report did not write: %s", folder, join_names(old, _NAMED))
