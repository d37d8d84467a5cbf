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
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.grid_status import trial_reasons
from psa.cli.output.schema import FetchDocument, FetchedStage
from psa.cli.output.sweep_view import say_damaged
from psa.core.files import check_writable
from psa.core.plugins.loading import load_plugins
from psa.execution.backend import BackendOptions, backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import load_grid
from psa.experiments.promotion import StageStatus
from psa.storage.store import Store


def fetch(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    plugin: PluginFiles = (),
    as_json: JsonOption = False,
    backend: Annotated[Literal["ray", "sagemaker"], option(EXECUTION, "Backend of the sweep.")] = "sagemaker",
    storage: Annotated[str | None, option(RAY, "Storage of the sweep. [ray]")] = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> Outcome:
    """Download the finished results of a remote sweep.

    All files are checked by their digests, and missing trials are listed. Exit code 0: the grid is complete;
    1: trials are missing.

    Example: psa fetch reproduction/smoke.toml --backend sagemaker
    """
    load_plugins(plugin)
    declared = load_grid(grid, overrides, only)
    check_writable(results_dir)
    check_writable(model_dir)
    store, out = Store(model_dir, results_dir), console(quiet=as_json)
    options = BackendOptions(storage=storage)
    there: Any = backend_named(backend, options)(store, Machine(), CostModel.of_machine(model_dir), options)
    with activity(out, "downloading finished results"):
        there.fetch()
    stages = [_fetched(stage, store) for stage in has_begun(declared, store, out)]
    for stage in stages:
        title = f"stage {stage.name}: " if stage.name else ""
        counts = f"{stage.done:,} of {stage.trials:,} trials are here"
        out.print(f"{declared.heading}: {title}{counts}", markup=False)
        say_damaged(out, {each.trial: each.reason for each in stage.damaged})
        print_first(out, [f"missing {trial}" for trial in stage.missing], "missing")
    complete = all(stage.done == stage.trials for stage in stages)
    return Outcome(0 if complete else 1, FetchDocument(name=declared.name, complete=complete, stages=stages))


def _fetched(stage: StageStatus, store: Store) -> FetchedStage:
    """Return the entry of a stage in the document."""
    survey = store.progress(stage.trials, stage.meta_loops)
    return FetchedStage(
        name=stage.stage.name,
        trials=len(stage.trials),
        done=len(survey.done),
        missing=[trial.id for trial in survey.pending],
        damaged=trial_reasons(survey.damaged),
    )
