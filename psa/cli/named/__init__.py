"""The commands that users know by name, as console scripts, such as `make-figure-heatmaps`."""

from __future__ import annotations

from typing import Final

from psa.cli.app import entry

make_architecture_table: Final = entry(
    "make-architecture-table", "psa.cli.named.tables", "make_architecture_table"
)
make_trial_accuracy_table: Final = entry(
    "make-trial-accuracy-table", "psa.cli.named.tables", "make_trial_accuracy_table"
)
generate_reproduction_tests: Final = entry(
    "generate-reproduction-tests", "psa.cli.named.tables", "generate_reproduction_tests"
)
make_design_space_figure: Final = entry(
    "make-design-space-figure", "psa.cli.named.figures", "make_design_space_figure"
)
make_figure_heatmaps: Final = entry("make-figure-heatmaps", "psa.cli.named.figures", "make_figure_heatmaps")
make_convergence_plots: Final = entry(
    "make-convergence-plots", "psa.cli.named.figures", "make_convergence_plots"
)
make_late_breakthroughs: Final = entry(
    "make-late-breakthroughs", "psa.cli.named.figures", "make_late_breakthroughs"
)
make_comparison_figures: Final = entry(
    "make-comparison-figures", "psa.cli.named.figures", "make_comparison_figures"
)
sagemaker_cost_estimator: Final = entry("sagemaker-cost-estimator", "cloud.commands.cost", "cost_estimator")
sagemaker_estimate_storage: Final = entry(
    "sagemaker-estimate-storage", "cloud.commands.storage", "estimate_storage"
)
sagemaker_get_training_logs: Final = entry(
    "sagemaker-get-training-logs", "cloud.commands.logs", "get_training_logs"
)
sagemaker_logs_parser: Final = entry("sagemaker-logs-parser", "cloud.commands.logs", "logs_parser")
sagemaker_results_parser: Final = entry(
    "sagemaker-results-parser", "cloud.commands.results", "results_parser"
)
