"""`make-...`: the figures of the ablation study, each as PNG and PDF."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from psa.cli.console import console, print_line
from psa.cli.options import OUTPUT_FILES, option
from psa.cli.record_options import (
    ASYMMETRIC,
    CONFIGURATIONS,
    FAMILY,
    REPORTS,
    Records,
    RecordsOf,
    family_of,
    published,
    published_results,
)
from psa.core.errors import UserError
from psa.core.extras import import_cloud
from psa.core.files import check_writable
from psa.core.parsing import split_top_level
from psa.specs.arch import Arch
from psa.specs.model import Family

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd
    from matplotlib.figure import Figure

logger = logging.getLogger(__name__)

ConfigFile = Annotated[Path, Parameter(help="List of architectures (count*width), one per line.")]
_OutputDir = Annotated[Path, option(OUTPUT_FILES, "Folder of the figures.")]


def make_design_space_figure(
    *,
    config_file: ConfigFile = CONFIGURATIONS,
    output_file: Annotated[Path, option(OUTPUT_FILES, "Path without suffix; .png and .pdf are written.")] = (
        REPORTS / "testing_design_space"
    ),
) -> int:
    """Draw every architecture of a list as a rectangle of its depth and width.

    Example: make-design-space-figure --config-file reproduction/configurations.txt
    """
    from psa.reports.ablation.cells import archs_in
    from psa.reports.ablation.figures.design_space import design_space_figure

    stem = output_file.with_suffix("") if output_file.suffix in (".png", ".pdf") else output_file
    check_writable(stem.parent)
    return _saved([(stem.name, design_space_figure(archs_in(config_file, "--config-file")))], stem.parent)


def make_figure_heatmaps(
    *,
    config_file: ConfigFile = CONFIGURATIONS,
    asymmetric_file: Annotated[
        Path, Parameter(help="List of architectures labelled Asymmetric.")
    ] = ASYMMETRIC,
    trials_file: Annotated[
        Path | None, Parameter(help="Published table of trials (Markdown), instead of records.")
    ] = None,
    effects: Annotated[
        tuple[Literal["decay", "dropout", "full", "hidden", "output"], ...],
        Parameter(help="Modes whose difference from mode none is drawn.", consume_multiple=True, negative=""),
    ] = ("full",),
    winner: Annotated[
        Literal["mean", "maximum"],
        Parameter(help="Statistic of a mode's bounties that decides the map of winners."),
    ] = "mean",
    records: RecordsOf | None = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Draw heat maps of architecture by mode, and six maps of the design space.

    The maps show baseline, effects, instability, winners, parameters and regimes.

    Example: make-figure-heatmaps --effects full hidden output
    """
    from psa.reports.ablation.cells import archs_in

    archs = archs_in(config_file, "--config-file")
    asymmetric = archs_in(asymmetric_file, "--asymmetric-file")
    check_writable(output_dir)
    records = records or Records()
    frame = published(trials_file, records.family) if trials_file else records.frame_or_published()

    from psa.reports.ablation.figures.figure_set import heat_maps, maps

    drawn = chain(heat_maps(frame, archs), maps(frame, archs, asymmetric, effects, archs, winner))
    return _saved(drawn, output_dir, family_of(frame))


def make_convergence_plots(
    *,
    targets: Annotated[str, Parameter(help="Architectures, separated by commas.")] = "1*1024,18*18",
    log: Annotated[bool, Parameter(negative="", help="Use a logarithmic axis for the accuracy.")] = False,
    logs_dir: Annotated[
        Path | None, Parameter(help="Logs of the published study's jobs, instead of records.")
    ] = None,
    current: Annotated[
        bool, Parameter(negative="", help="Also plot the accuracy of each loop, kept or discarded.")
    ] = False,
    records: RecordsOf | None = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Plot the LKG over the meta-loops, one panel per architecture and mode.

    Example: make-convergence-plots --targets "1*1024,18*18"
    """
    asked = _targets(targets)
    if not asked:
        raise UserError(
            "--targets must name an architecture, got none", 'Name architectures: --targets "1*1024,18*18"'
        )
    check_writable(output_dir)
    records = records or Records()
    frame = records.frame() if logs_dir is None else _logged(logs_dir, records.family)

    from psa.reports.ablation.figures.figure_set import convergence

    return _saved(convergence(frame, asked, log, current), output_dir, family_of(frame))


def make_late_breakthroughs(
    *,
    targets: Annotated[
        str,
        Parameter(
            help="Architectures, separated by commas. [default: 18*18,10*10,17*17,4*2 if run, else those "
            "with the latest improvements]"
        ),
    ] = "",
    records: RecordsOf | None = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Plot the best trial of some architectures, and mark the meta-loop of its largest late improvement.

    Example: make-late-breakthroughs --targets "18*18,10*10"
    """
    asked = _targets(targets)
    check_writable(output_dir)
    frame = (records or Records()).frame()

    from psa.reports.ablation.figures.figure_set import breakthroughs

    return _saved(breakthroughs(frame, asked), output_dir, family_of(frame))


def make_comparison_figures(
    *,
    published_file: Annotated[
        Path | None,
        Parameter(help="Published means. [default: reproduction/published/FAMILY.tsv if it exists]"),
    ] = None,
    records: RecordsOf | None = None,
    output_dir: _OutputDir = REPORTS,
) -> int:
    """Plot the modes over all architectures, and compare our means with published ones.

    Example: make-comparison-figures --family simplemlp
    """
    check_writable(output_dir)
    frame = (records or Records()).frame()

    from psa.analysis.published import read_reference
    from psa.reports.ablation.figures.figure_set import comparison
    from psa.reports.ablation.published import published_difference

    path = published_file or published_results(family_of(frame))
    reference = read_reference(path) if published_file or path.exists() else None
    if reference is not None and (why := published_difference(frame, reference)):
        logger.warning("%s", why)
        reference = None
    return _saved(comparison(frame, reference), output_dir, family_of(frame))


def _logged(folder: Path, family: Family | None) -> pd.DataFrame:
    """Return the trials in the logs of the published study's jobs. Raises UserError."""
    logs = import_cloud("cloud.legacy.logs")
    found = logs.read_logs(folder)
    for remark in found.remarks:
        print_line(console(stderr=True), f"note: {remark}")
    frame: pd.DataFrame = logs.frame_of_logs(found, family or FAMILY)
    return frame


def _targets(text: str) -> list[str]:
    """Return the architectures of an option, each once, in order. Raises UserError."""
    return list(dict.fromkeys(Arch.coerce(part).label for part in split_top_level(text, ",")))


def _saved(
    figures: Iterator[tuple[str, Figure]] | list[tuple[str, Figure]], folder: Path, family: str = ""
) -> int:
    """Store each figure and print its path. Raises UserError without a figure."""
    from psa.reports.plotting.style import save

    drawn = 0
    for drawn, (name, figure) in enumerate(figures, 1):  # noqa: B007  # counted, also after the loop
        for path in save(figure, folder / (f"{family}_{name}" if family else name)):
            print_line(console(), str(path))
    if not drawn:
        raise UserError("a figure needs finished trials, got none", "See `psa status` for what is missing")
    return 0
