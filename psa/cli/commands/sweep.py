"""`psa sweep`: train the remaining trials of a declared grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from psa.cli.commands.plan import previewed
from psa.cli.console import console
from psa.cli.job_options import ManagedBackendArguments
from psa.cli.options import (
    DataDir,
    Device,
    GridFileArgument,
    ModelDir,
    Only,
    Override,
    PluginFiles,
    ResultsDir,
    SweepArguments,
)
from psa.cli.output.sweep_view import ConsoleProgress
from psa.core.plugins.loading import load_plugins
from psa.core.stop import StopRequest
from psa.execution.machine import Machine
from psa.experiments.grid import load_grid
from psa.experiments.sweep import Sweep
from psa.storage.store import Store


def sweep(
    grid: GridFileArgument,
    *overrides: Override,
    only: Only = "",
    plugin: PluginFiles = (),
    runs: Annotated[ManagedBackendArguments | None, Parameter(name="*")] = None,
    options: Annotated[SweepArguments | None, Parameter(name="*")] = None,
    device: Device = None,
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Train all trials of a grid that are not finished yet.

    Run the same command again to resume after any interruption. Finished trials are not trained again,
    failed ones are retried, and a larger meta_loops continues all trials. Exit code 0: complete, even if
    trials diverged; 1: trials failed; 130: stopped by Ctrl-C; 143: stopped by SIGTERM. A stage that needs
    trials that --only leaves out is not trained, which is not a failure.

    Example: psa sweep reproduction/smoke.toml meta_loops=1
    """
    load_plugins(plugin)
    store, machine = Store(model_dir, results_dir), Machine(data_dir, device)
    declared, runs, options = (
        load_grid(grid, overrides, only),
        runs or ManagedBackendArguments(),
        options or SweepArguments(),
    )
    out, prepared = console(lasting=True), Sweep.prepared(declared, store, machine, options.sweep_on(runs))
    if options.dry_run:
        return previewed(prepared, out)
    return prepared.run(ConsoleProgress(out), StopRequest())
