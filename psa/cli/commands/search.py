"""`psa search`: settings drawn from a declared space, the better ones trained to the end, by Ray Tune."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Protocol, cast

from cyclopts import Parameter
from rich.console import Console

from psa.cli.console import console, print_line
from psa.cli.options import (
    EXPERIMENT,
    OUTPUT_FILES,
    BackendArguments,
    DataDir,
    Device,
    ModelDir,
    PluginFiles,
    ResultsDir,
    option,
)
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.schema import SearchDocument, SearchedConfiguration
from psa.cli.record_options import REPORTS
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.formatting import pluralize
from psa.core.plugins.loading import load_plugins
from psa.core.stop import StopRequest
from psa.data.own import keep_tables
from psa.execution.backend import backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.search import Search, load_search
from psa.experiments.search_log import Configuration, SearchLog
from psa.specs.base import canonical_json
from psa.storage.store import Store

_SHOWN = 10


class Searcher(Protocol):
    """The protocol of a backend that can run a search."""

    def search(self, search: Search) -> Generator[dict[str, Any] | None, None, None]:
        """Try configurations. Yield their events, or None, at least once a second."""


def search(
    declared: Annotated[
        Path, option(EXPERIMENT, "Search file, e.g. reproduction/search.toml.", name="search")
    ],
    *overrides: Annotated[str, option(EXPERIMENT, "Settings that override those of the file: meta_loops=5")],
    plugin: PluginFiles = (),
    runs: Annotated[BackendArguments | None, Parameter(name="*")] = None,
    device: Device = None,
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
    output_dir: Annotated[Path, option(OUTPUT_FILES, "Folder of the table and the figure.")] = REPORTS,
    as_json: JsonOption = False,
) -> Outcome:
    """Run a hyperparameter search with Ray Tune and early stopping.

    Each sampled configuration is trained with all seeds. Run the same command again to resume after any
    interruption. Exit code 0: complete; 1: configurations failed; 130: stopped by Ctrl-C; 143: stopped by
    SIGTERM.

    Example: psa search reproduction/search.toml
    """
    load_plugins(plugin)
    found = load_search(declared, overrides)
    runs = runs or BackendArguments()
    if runs.backend == "local":
        raise UserError(f"--backend must be ray for a search, got {runs.backend}", "Leave it out")
    for folder in (model_dir, results_dir, output_dir):
        check_writable(folder)
    costs, out, store = (
        CostModel.of_machine(model_dir, device),
        console(lasting=True, quiet=as_json),
        Store(model_dir, results_dir),
    )
    machine, options = Machine(data_dir, device), runs.backend_options
    backend = cast(Searcher, backend_named("ray", options)(store, machine, costs, options))
    keep_tables(found.first.trials, data_dir)
    search_log = SearchLog(found, results_dir)
    with StopRequest() as stop:
        if not search_log.complete:
            _listen(backend, found, search_log, stop, out)
    if stop():
        out.print("Stopped. Run the same command again to resume.")
        return Outcome(stop.exit_code, _document(search_log, []))
    files = _report(search_log, output_dir, out)
    return Outcome(0 if search_log.complete else 1, _document(search_log, files))


def _document(search_log: SearchLog, files: Sequence[Path]) -> SearchDocument:
    """Return the search as a document. files: the table and the figure."""
    return SearchDocument(
        name=search_log.search.template.name,
        complete=search_log.complete,
        samples=search_log.search.strategy.samples,
        configurations=[
            SearchedConfiguration(
                name=name,
                status=each.status,
                settings=each.settings,
                loops=each.loops,
                accuracies=list(each.finite),
                error=each.error,
            )
            for name, each in sorted(search_log.configurations.items())
        ],
        files=list(map(str, files)),
    )


def _listen(backend: Searcher, found: Search, search_log: SearchLog, stop: StopRequest, out: Console) -> None:
    with (
        activity(out, f"{found.template.name}: starting Ray") as show,
        contextlib.closing(backend.search(found)) as events,
    ):
        for event in events:
            if stop():
                search_log.save()
                return
            if event is None:
                continue
            ended = search_log.handle_event(event)
            if ended is not None:
                count = f"{len(search_log.ended)}/{found.strategy.samples}"
                print_line(out, f"{count} | {_line(ended, found)}")
            running = sum(each.status == "running" for each in search_log.configurations.values())
            show(f"{found.template.name}: {pluralize(running, 'configuration')} in training")


def _line(ended: Configuration, found: Search) -> str:
    settings = canonical_json(ended.settings)
    if ended.status == "failed":
        return f"FAILED {ended.name} {settings}: {ended.error}"
    loops = f"{ended.loops} of {found.template.meta_loops} meta-loops"
    accuracy = f", {fmean(ended.finite):.2f} %" if ended.finite else ""
    return f"{ended.name} {ended.outcome}{accuracy} after {loops} | {settings}"


def _report(search_log: SearchLog, folder: Path, out: Console) -> list[Path]:
    """Store the table and the figure, and show the best. Return the paths of the files."""
    from psa.reports import search as reports
    from psa.reports.plotting.style import save
    from psa.reports.rendering.tables import save_table

    if not search_log.ended:
        return []
    name = f"{search_log.search.template.name}_search"
    table = reports.search_table(search_log)
    paths = save_table(table, folder, name)
    if any(each.finite for each in search_log.ended):
        paths += save(reports.search_figure(search_log), folder / name)
    for path in paths:
        print_line(out, str(path))
    for line in reports.best_lines(search_log, _SHOWN):
        print_line(out, line)
    return paths
