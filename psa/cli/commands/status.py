"""`psa status`: the progress of a declared grid, and the status of the sweeps that train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from psa.cli.commands.plan import has_begun
from psa.cli.console import console, print_first, print_line
from psa.cli.options import EXECUTION, GridFileArgument, ModelDir, Only, Override, ResultsDir, option
from psa.cli.sweep_view import say_damaged
from psa.core.formatting import pluralize
from psa.execution.backend import BackendOptions, backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import load_grid
from psa.experiments.promotion import StageStatus
from psa.specs.trial import Trial
from psa.storage.store import Store, StoreProgress
from psa.storage.sweep_registry import active_sweeps


def status(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    backend: Annotated[
        Literal["sagemaker", "slurm"] | None,
        option(EXECUTION, "Also show the status of its training jobs or array tasks."),
    ] = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Show the progress of a grid, including running sweeps.

    Example: psa status reproduction/smoke.toml
    """
    declared = load_grid(grid, overrides, only)
    store = Store(model_dir, results_dir)
    store.warn_of_strays(sorted({trial.study for trial in declared.trials}))
    out = console()
    failed: list[Trial] = []
    for stage in has_begun(declared, store, out):
        survey = store.progress(stage.trials, stage.meta_loops)
        failed += [trial for trial in survey.pending if store.failure(trial) is not None]
        out.print(f"{declared.name}: {stage.title}{survey.counts}{_shorter(survey, stage)}", markup=False)
        say_damaged(out, survey.damaged)
    for sweep in active_sweeps(model_dir):
        print_line(out, str(sweep))
    if backend is not None:
        there: Any = backend_named(backend, BackendOptions())(
            store, Machine(), CostModel.of_machine(model_dir), BackendOptions()
        )
        for line in there.status():
            print_line(out, line)
    print_first(out, [f"failed {trial.id}: {store.failure(trial)}" for trial in failed], "failed")
    return 0


def _shorter(survey: StoreProgress, stage: StageStatus) -> str:
    """Return a remark on pending trials whose records have fewer loops, which they resume from."""
    if not survey.loops:
        return ""
    trials, low, high = pluralize(len(survey.loops), "trial"), min(survey.loops), max(survey.loops)
    reached = f"{low}" if low == high else f"{low} to {high}"
    return f"; {trials} stored with {reached} of {pluralize(stage.meta_loops, 'meta-loop')}"
