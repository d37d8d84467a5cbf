"""What the report of any study is handed beside its rows, and what it answers: one shape for all studies.

`psa report` finds the report of a kind of study as the module psa.reports.KIND.report.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.published import Reference
from psa.core.errors import UserError
from psa.reports.rendering.html import Page
from psa.reports.rendering.tables import Table
from psa.storage.store import Store


@dataclass(frozen=True)
class ReportContext:
    """What a report knows beside the rows.

    folder: for its pictures. order, asymmetric, reference: of the ablation study: the order and labels of
    architectures, and published numbers. observed: what probes saw (psa.analysis.probe_frame), of these rows
    alone. store: where weights and records lie, for what cannot be said in rows; data_dir: where images do.
    say: is told what is being worked on, where that takes a while.
    """

    folder: Path
    order: tuple[str, ...] = ()
    asymmetric: tuple[str, ...] = ()
    reference: Reference | None = None
    observed: pd.DataFrame | None = None
    store: Store | None = None
    data_dir: Path = Path("dataset")
    say: Callable[[str], object] = lambda message: None


class Report(Protocol):
    """A module of psa.reports that speaks of one kind of study. All are pure functions of their arguments."""

    def parts(self, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
        """The rows of each page, by the page's name."""

    def tables(self, frame: pd.DataFrame, setting: ReportContext) -> dict[str, Table]:
        """Every table of a page, by name."""

    def figures(self, frame: pd.DataFrame, setting: ReportContext) -> Iterator[tuple[str, Figure]]:
        """Every figure of a page, by name; a name with a slash is of a folder beside the others."""

    def listings(self, frame: pd.DataFrame, setting: ReportContext) -> dict[str, bytes]:
        """Other files beside the page, by name."""

    def page(
        self,
        frame: pd.DataFrame,
        setting: ReportContext,
        made: Mapping[str, Table],
        stored: Mapping[str, Path],
    ) -> Page:
        """The page, from its tables and the stored PNG of each of its figures."""


# Folders for single trials, which a report may have as its function `runs`: each folder's name
# and the files in it, one trial after the other.
Runs = Callable[[pd.DataFrame, ReportContext], Iterator[tuple[str, dict[str, bytes]]]]


def load_runs(report: Report) -> Runs | None:
    """The run folders of a report, None where it has none."""
    return cast(Runs | None, getattr(report, "runs", None))


def report_of(kind: str) -> Report:
    """The report of a kind of study. Raises UserError where there is none."""
    name = f"psa.reports.{kind}.report"
    try:
        known = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that would hold it
        known = False
    if not known:
        raise UserError(f"studies of kind {kind!r} have no report", f"Write it: a module {name}")
    return cast(Report, importlib.import_module(name))
