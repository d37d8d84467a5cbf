"""The interface of a report: its context and its results, the same for all studies.

`psa report` finds the report of a kind of study as the module psa.reports.KIND.report.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, cast

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.published import Reference
from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.reports.rendering.html import Page
from psa.reports.rendering.tables import Table
from psa.reports.report_kinds import REPORT_PLUGINS
from psa.storage.store import Store

logger = logging.getLogger(__name__)

RUNS: Final = "runs"  # the folder of the folders of trials


@dataclass(frozen=True)
class ReportContext:
    """The context of a report: what it needs in addition to its rows.

    folder: for its figures. order, asymmetric, reference: of the ablation study: order and labels of
    architectures, and published numbers. observed: probe results of these rows (psa.analysis.probe_frame).
    store: the folder of weights and records, for content that rows do not have; data_dir: the folder of
    images. variants: the names that the grid gives to trials, by id. say: called with a progress message
    during slow steps.
    """

    folder: Path
    order: tuple[str, ...] = ()
    asymmetric: tuple[str, ...] = ()
    reference: Reference | None = None
    observed: pd.DataFrame | None = None
    store: Store | None = None
    data_dir: Path = Path("dataset")
    variants: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], object] = lambda message: None

    def variant_of(self, trials: Iterable[str]) -> str:
        """Return the names that the grid gives to these trials, joined by slashes; "" without any."""
        return "/".join(dict.fromkeys(self.variants[each] for each in trials if each in self.variants))


class Report(Protocol):
    """The module `psa.reports.KIND.report`: the pages of the trials of one kind (`Trial.kind`).

    All functions are pure: the same rows give the same bytes. `psa report` calls `parts` once, then the
    others for each page, and writes what they return. Functions of a module take no `self`. A module may have
    a further function `runs`, see `load_runs`.

    Example:
        The text of a module:

        >>> from psa.reports.rendering.tables import Column
        >>> def parts(frame):
        ...     yield from frame.groupby("study", observed=True)
        >>> def tables(frame, context):
        ...     columns = (Column("Trial"), Column("Bounty", "percent"))
        ...     rows = frame.drop_duplicates("id")[["id", "bounty"]]
        ...     rows = tuple(rows.itertuples(index=False, name=None))
        ...     return {"bounties": Table("Best scores", "tab:bounties", columns, rows)}
        >>> def figures(frame, context):
        ...     yield from ()
        >>> def listings(frame, context):
        ...     return {}
        >>> def page(frame, context, made, stored):
        ...     return Page("Bounties", "Which trial is best?", (), (), (), ())
        >>> frame = pd.DataFrame({"study": ["mine"], "id": ["mine/a"], "bounty": [91.5]})
        >>> [(name, list(tables(rows, ReportContext(Path(name))))) for name, rows in parts(frame)]
        [('mine', ['bounties'])]

    """

    def parts(self, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
        """Divide the rows among pages.

        Args:
            frame: The rows of all trials of this kind, see `psa.analysis.records_frame`.

        Yields:
            The name of a page, which names its files, and its rows.

        """

    def tables(self, frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
        """Return all tables of a page.

        Args:
            frame: The rows of the page.
            context: The context of the report: settings, store, reference.

        Returns:
            The tables by name, which is the name of their files.

        Raises:
            UserError: Rows that must not be averaged, such as those of several experiments.

        """

    def figures(self, frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
        """Draw the figures of a page, one at a time, so that one at a time is in memory.

        Args:
            frame: The rows of the page.
            context: The context of the report: settings, store, reference.

        Yields:
            The name of a figure, with a slash where it belongs in a subfolder, and the figure.

        """

    def listings(self, frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
        """Return further files of a page, such as lists in a published format.

        Args:
            frame: The rows of the page.
            context: The context of the report: settings, store, reference.

        Returns:
            The content of each file, by its name.

        """

    def page(
        self,
        frame: pd.DataFrame,
        context: ReportContext,
        made: Mapping[str, Table],
        stored: Mapping[str, Path],
    ) -> Page:
        """Compose the page.

        Args:
            frame: The rows of the page.
            context: The context of the report: settings, store, reference.
            made: The result of `tables`.
            stored: The path of the PNG of each figure, by the name of the figure.

        Returns:
            The page: facts, sections with tables and pictures, sources and warnings.

        """


# Folders for single trials, which a report may have as its function `runs`: each folder's name
# and the files in it, one trial after the other.
Runs = Callable[[pd.DataFrame, ReportContext], Iterator[tuple[str, dict[str, bytes]]]]


def load_runs(report: Report) -> Runs | None:
    """Return the function `runs` of a report, None if it has none."""
    return cast(Runs | None, getattr(report, "runs", None))


def save_run_folders(report: Report, rows: pd.DataFrame, context: ReportContext) -> int:
    """Store a folder for each trial, if the report has such folders. Return their number."""
    runs, made = load_runs(report), 0
    if runs is None:
        logger.warning("%s: --runs has no effect on reports of this kind", context.folder)
        return 0
    for name, files in runs(rows, context):
        folder = context.folder / RUNS / name
        context.say(f"{RUNS}/{name}")
        for file, content in files.items():
            write_atomically(folder / file, content)
        made += 1
    return made


def report_of(kind: str) -> Report:
    """Return the report of a kind of study. Raises UserError if there is none."""
    if (plugin := REPORT_PLUGINS.find(kind)) is not None:
        return cast(Report, plugin)
    name = f"psa.reports.{kind}.report"
    try:
        known = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # raised for the package that would contain it
        known = False
    if not known:
        hint = "Name the plugin that has it with --plugin, or write one with psa.register_report"
        raise UserError(f"studies of kind {kind!r} have no report", hint)
    return cast(Report, importlib.import_module(name))
