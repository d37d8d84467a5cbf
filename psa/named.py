"""The report commands that users know by name, as console scripts: `make-figure-heatmaps` and its kin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from psa.cli import command, run
from psa.commands import figures, tables

Entry = Callable[[], None]


def _entry(name: str, function: Callable[..., int]) -> Entry:
    def main() -> None:
        sys.exit(run(command(name, function)))

    main.__doc__ = f"`{name}`."
    return main


make_architecture_table: Final = _entry("make-architecture-table", tables.make_architecture_table)
make_trial_accuracy_table: Final = _entry("make-trial-accuracy-table", tables.make_trial_accuracy_table)
generate_reproduction_tests: Final = _entry("generate-reproduction-tests", tables.generate_reproduction_tests)
make_design_space_figure: Final = _entry("make-design-space-figure", figures.make_design_space_figure)
make_figure_heatmaps: Final = _entry("make-figure-heatmaps", figures.make_figure_heatmaps)
make_convergence_plots: Final = _entry("make-convergence-plots", figures.make_convergence_plots)
make_late_breakthroughs: Final = _entry("make-late-breakthroughs", figures.make_late_breakthroughs)
make_comparison_figures: Final = _entry("make-comparison-figures", figures.make_comparison_figures)
