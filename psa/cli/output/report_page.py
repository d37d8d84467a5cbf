"""The files of a report page: its tables, rows, listings and figures, and the page that shows them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from psa.cli.output.report_source import ReportSource
from psa.core.files import write_atomically

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd

    from psa.reports.contract import Report, ReportContext
    from psa.reports.rendering.html import Page


def write_page(
    report: Report,
    rows: pd.DataFrame,
    context: ReportContext,
    say: Callable[[str], object],
    source: ReportSource,
    *,
    pdf: bool,
) -> list[Path]:
    """Write the page and its parts. Return the paths of the files beside the page. Raises UserError."""
    from psa.analysis import records_frame
    from psa.reports.plotting import style
    from psa.reports.rendering import html, stages, tables
    from psa.reports.rendering.images import embedded_image
    from psa.reports.rendering.pdf import document

    folder = context.folder
    say(f"{folder}: tables")
    made = report.tables(rows, context)  # before anything is written: a mistake leaves no folder behind
    say(f"{folder}: rows")
    paths = records_frame.write_frame(rows, folder)
    for name, table in (made | stages.stage_tables(source.stages)).items():
        paths += tables.save_table(table, folder, name)
    for name, content in (report.listings(rows, context) | stages.stage_files(source.stages)).items():
        paths.append(folder / name)
        write_atomically(paths[-1], content)
    pictures, notes, encoding = {}, {}, {}
    with ThreadPoolExecutor(1) as encoder, _frozen():
        for name, figure in report.figures(rows, context):
            say(f"{folder}: {name}")
            stored = style.save(figure, folder / name)
            pictures[name] = stored[0]
            notes[stored[0]] = style.notes_in(figure)
            paths += stored
            del figure
            gc.collect()  # a figure refers to itself, and two of them take 100 MB
            # in a thread, since Pillow releases the interpreter's lock while it encodes
            encoding[stored[0]] = encoder.submit(embedded_image, stored[0].read_bytes())
    images = {path: image.result() for path, image in encoding.items()}
    say(f"{folder}: trials")
    page = stages.with_stages(report.page(rows, context, made, pictures), source.stages)
    whole = _with_trials(html.with_pictures(page, notes, images), rows, source)
    write_atomically(folder.with_name(f"{folder.name}.html"), html.html(whole).encode())
    if pdf:
        say(f"{folder}.pdf")
        write_atomically(folder.with_name(f"{folder.name}.pdf"), document(whole))
    return paths


@contextmanager
def _frozen() -> Iterator[None]:
    """Let the garbage collector pass over what there is now: it would take a second to look at all rows."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _with_trials(page: Page, rows: pd.DataFrame, source: ReportSource) -> Page:
    """Return the page with its trials and its origin, from their records and sidecars."""
    from psa.reports.rendering.provenance import provenance
    from psa.reports.rendering.trials import index_trials

    ids = [str(name) for name in rows["id"].unique()]
    stored = {name: source.trials[name] for name in ids if name in source.trials}
    commands = {name: command for name in ids if (command := source.repeat(name))}
    return replace(
        page,
        trials=index_trials(rows, stored, page.trial_names, commands),
        origin=provenance((each.sidecar for each in stored.values()), source.command, source.grid),
    )
