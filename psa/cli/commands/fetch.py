"""`psa fetch`: download the finished results of remote jobs, and list the missing ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from psa.cli.commands.plan import has_begun
from psa.cli.console import console, print_first
from psa.cli.options import (
    EXECUTION,
    RAY,
    GridFileArgument,
    ModelDir,
    Only,
    Override,
    PluginFiles,
    ResultsDir,
    option,
)
from psa.cli.sweep_view import say_damaged
from psa.core.files import check_writable
from psa.execution.backend import BackendOptions, backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import load_grid
from psa.plugins.loading import load_plugins
from psa.storage.store import Store


def fetch(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    plugin: PluginFiles = (),
    backend: Annotated[Literal["ray", "sagemaker"], option(EXECUTION, "Backend of the sweep.")] = "sagemaker",
    storage: Annotated[str | None, option(RAY, "Storage of the sweep. [ray]")] = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Download the finished results of a remote sweep.

    All files are checked by their digests, and missing trials are listed. Exit code 0: the grid is complete;
    1: trials are missing.

    Example: psa fetch reproduction/smoke.toml --backend sagemaker
    """
    load_plugins(plugin)
    declared = load_grid(grid, overrides, only)
    check_writable(results_dir)
    check_writable(model_dir)
    store, out, where = Store(model_dir, results_dir), console(), BackendOptions(storage=storage)
    there: Any = backend_named(backend, where)(store, Machine(), CostModel.of_machine(model_dir), where)
    with out.status("downloading finished results"):
        there.fetch()
    complete = True
    for stage in has_begun(declared, store, out):
        survey = store.progress(stage.trials, stage.meta_loops)
        out.print(
            f"{declared.name}: {stage.title}{len(survey.done):,} of {len(stage.trials):,} trials are here",
            markup=False,
        )
        say_damaged(out, survey.damaged)
        print_first(out, [f"missing {trial.id}" for trial in survey.pending], "missing")
        complete = complete and not survey.pending and not survey.damaged
    return 0 if complete else 1
