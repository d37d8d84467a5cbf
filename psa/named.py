"""The report commands that users know by name, as console scripts: `make-figure-heatmaps` and its kin."""

from __future__ import annotations

from typing import Final

from psa.cli import entry
from psa.commands import figures, tables

make_architecture_table: Final = entry("make-architecture-table", tables.make_architecture_table)
make_trial_accuracy_table: Final = entry("make-trial-accuracy-table", tables.make_trial_accuracy_table)
generate_reproduction_tests: Final = entry("generate-reproduction-tests", tables.generate_reproduction_tests)
make_design_space_figure: Final = entry("make-design-space-figure", figures.make_design_space_figure)
make_figure_heatmaps: Final = entry("make-figure-heatmaps", figures.make_figure_heatmaps)
make_convergence_plots: Final = entry("make-convergence-plots", figures.make_convergence_plots)
make_late_breakthroughs: Final = entry("make-late-breakthroughs", figures.make_late_breakthroughs)
make_comparison_figures: Final = entry("make-comparison-figures", figures.make_comparison_figures)
