"""`psa status`: the progress of a declared grid, and the status of the sweeps that train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from psa.cli.commands.plan import has_begun
from psa.cli.console import console, print_first
from psa.cli.options import GridFileArgument, ModelDir, Only, Override, ResultsDir
from psa.cli.sweep_view import say_damaged
from psa.execution.backend import BackendOptions, backend_named
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.experiments.grid import load_grid
from psa.specs.trial import Trial
from psa.storage.store import Store
from psa.storage.sweep_registry import active_sweeps


def status(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    backend: Annotated[
        Literal["sagemaker"] | None, Parameter(help="Also ask how far the jobs are that were sent there.")
    ] = None,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Show how far a grid is, also while it is being swept.

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
        out.print(f"{declared.name}: {stage.title}{survey.counts}", markup=False)
        say_damaged(out, survey.damaged)
    for sweep in active_sweeps(model_dir):
        out.print(str(sweep), markup=False, soft_wrap=True)
    if backend is not None:
        there: Any = backend_named(backend, BackendOptions())(
            store, Machine(), CostModel.of_machine(model_dir), BackendOptions()
        )
        for line in there.status():
            out.print(line, markup=False, soft_wrap=True)
    print_first(out, [f"failed {trial.id}: {store.failure(trial)}" for trial in failed], "failed")
    return 0
