"""The commands that users know by name, as console scripts: `make-figure-heatmaps` and its kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from psa.cli.app import entry, unavailable
from psa.cli.named import figures, tables
from psa.core.cloud_package import import_cloud
from psa.core.errors import UserError


def _cloud_entry(name: str, module: str, function: str) -> Callable[[], None]:
    """Return a console script for a command of psa's package `cloud`, which is imported when it starts."""

    def start() -> None:
        entry(name, _imported(module, function))()

    start.__doc__ = f"`{name}`."
    return start


def _imported(module: str, function: str) -> Callable[..., int]:
    try:
        found: Any = getattr(import_cloud(f"cloud.commands.{module}"), function)
    except UserError as error:
        return unavailable(error)
    return found  # type: ignore[no-any-return]


make_architecture_table: Final = entry("make-architecture-table", tables.make_architecture_table)
make_trial_accuracy_table: Final = entry("make-trial-accuracy-table", tables.make_trial_accuracy_table)
generate_reproduction_tests: Final = entry("generate-reproduction-tests", tables.generate_reproduction_tests)
make_design_space_figure: Final = entry("make-design-space-figure", figures.make_design_space_figure)
make_figure_heatmaps: Final = entry("make-figure-heatmaps", figures.make_figure_heatmaps)
make_convergence_plots: Final = entry("make-convergence-plots", figures.make_convergence_plots)
make_late_breakthroughs: Final = entry("make-late-breakthroughs", figures.make_late_breakthroughs)
make_comparison_figures: Final = entry("make-comparison-figures", figures.make_comparison_figures)
sagemaker_cost_estimator: Final = _cloud_entry("sagemaker-cost-estimator", "cost", "cost_estimator")
sagemaker_estimate_storage: Final = _cloud_entry("sagemaker-estimate-storage", "storage", "estimate_storage")
sagemaker_get_training_logs: Final = _cloud_entry("sagemaker-get-training-logs", "logs", "get_training_logs")
sagemaker_logs_parser: Final = _cloud_entry("sagemaker-logs-parser", "logs", "logs_parser")
sagemaker_results_parser: Final = _cloud_entry("sagemaker-results-parser", "results", "results_parser")
