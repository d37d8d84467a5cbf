"""`psa status`: the progress of a declared grid, and the status of the sweeps that train it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from rich.console import Console

from psa.cli.console import console, print_first, print_line
from psa.cli.options import (
    EXECUTION,
    OUTPUT_FILES,
    GridFileArgument,
    ModelDir,
    NumberOption,
    Only,
    Override,
    PluginFiles,
    ResultsDir,
    option,
)
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome, write_document
from psa.cli.output.grid_status import grid_status
from psa.cli.output.schema import StatusDocument
from psa.cli.output.status_view import status_lines
from psa.cli.run_options import in_range
from psa.core.plugins.identity import PluginError
from psa.core.plugins.loading import load_plugins
from psa.execution.backend import BackendOptions, backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import Grid, load_grid
from psa.storage.plugin_versions import check_versions
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps

logger = logging.getLogger(__name__)

EXIT_CODES: Final = {"complete": 0, "incomplete": 3, "failed": 4}
MIN_SECONDS: Final = 0.1
MAX_SECONDS: Final = 86_400


def status(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    plugin: PluginFiles = (),
    watch: Annotated[
        NumberOption | None,
        option(
            OUTPUT_FILES,
            "Refresh every SECONDS (2 if left out) until the grid is complete or Ctrl-C.",
            name="--watch",
            metavar="SECONDS",
        ),
    ] = None,
    as_json: JsonOption = False,
    backend: Annotated[
        Literal["sagemaker", "slurm"] | None,
        option(EXECUTION, "Also show the status of its training jobs or array tasks."),
    ] = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> Outcome:
    """Show the progress of a grid, including running sweeps.

    Counts trials by stage, mode and architecture, and lists failed trials with their errors. Exit code 0: the
    grid is complete; 3: trials are missing; 4: trials have failed or their records are damaged.

    Example: psa status reproduction/smoke.toml
    """
    load_plugins(plugin)
    if watch is not None:
        in_range("--watch", watch, MIN_SECONDS, MAX_SECONDS)
    out, store = console(quiet=as_json), Store(model_dir, results_dir)
    with activity(out, f"reading the grid and the records of {grid}"):
        declared = load_grid(grid, overrides, only)
        try:
            check_versions(declared.trials, store)
        except PluginError as error:  # it stops a sweep, and hides no progress
            logger.warning("%s", error)
        store.warn_of_strays(sorted({trial.study for trial in declared.trials}))
        look = _looked(declared, store, backend)
        first = look()
    if watch is None:
        _show(first, declared.heading, out)
        return Outcome(EXIT_CODES[first.state], first)
    last = _watched(first, look, watch, None if as_json else declared.heading, out)
    return Outcome(EXIT_CODES[last.state], None)


def _looked(declared: Grid, store: Store, backend: str | None) -> Callable[[], StatusDocument]:
    """Return a function that reads the present status."""

    def look() -> StatusDocument:
        jobs: list[str] = []
        if backend is not None:
            there: Any = backend_named(backend, BackendOptions())(
                store, Machine(), CostModel.of_machine(store.models), BackendOptions()
            )
            jobs = list(there.status())
        return grid_status(declared, store, active_sweeps(store.models), jobs)

    return look


def _show(status: StatusDocument, heading: str, out: Console) -> None:
    for line in status_lines(status, heading):
        print_line(out, line)
    damaged = [each.reason for each in status.damaged]
    print_first(out, damaged, "damaged records: see `psa verify`")
    print_first(out, [f"failed {each.trial}: {each.reason}" for each in status.failed], "failed")


def _watched(
    status: StatusDocument,
    look: Callable[[], StatusDocument],
    seconds: float,
    heading: str | None,
    out: Console,
) -> StatusDocument:
    """Show the status every `seconds` until the grid is complete. Return the last one.

    On a terminal each replaces the one before; elsewhere it follows it. heading: the name shown; None with
    --json, where each is one document.
    """
    while True:
        if heading is None:
            write_document(status, lines=True)
        else:
            if out.is_terminal:
                out.clear()
            print_line(out, time.strftime("%Y-%m-%d %H:%M:%S"))
            _show(status, heading, out)
        if status.state == "complete":
            return status
        time.sleep(seconds)
        status = look()
