"""`make-...`: the figures of the ablation study, each as PNG and PDF."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from psa.arch import Arch
from psa.commands.options import ResultsDir
from psa.console import console
from psa.errors import UserError
from psa.files import check_writable
from psa.grid import load
from psa.store import Store
from psa.trial import Family
from psa.values import split_outside, values_of

if TYPE_CHECKING:  # pandas and matplotlib are imported in functions, not while options are read
    import pandas as pd
    from matplotlib.figure import Figure

ConfigFile = Annotated[Path, Parameter(help="The architectures, count*width, one a line.")]
OutputDir = Annotated[Path, Parameter(help="Folder of the figures.")]
Study = Annotated[str, Parameter(help="Whose records; with --grid, the grid's.")]
OfFamily = Annotated[Family, Parameter(help="Of which networks; with --grid, the grid's.")]
GridOption = Annotated[
    Path | None, Parameter(help="Only the trials of this grid, e.g. reproduction/simplemlp.toml.")
]
CONFIGURATIONS = Path("reproduction/configurations.txt")
ASYMMETRIC = Path("reproduction/asymmetric.txt")
RESULTS = Path("results")
REPORTS = Path("results/reports")


def make_design_space_figure(
    *,
    config_file: ConfigFile = CONFIGURATIONS,
    output_file: Annotated[Path, Parameter(help="Where to; .png and .pdf are both written.")] = (
        REPORTS / "testing_design_space"
    ),
) -> int:
    """Draw every architecture of a list as a rectangle of its depth and width.

    Example: make-design-space-figure --config-file reproduction/configurations.txt
    """
    from psa.reports.design_space import design_space_figure

    stem = output_file.with_suffix("") if output_file.suffix in (".png", ".pdf") else output_file
    check_writable(stem.parent)
    return _saved([(stem.name, design_space_figure(_archs_in(config_file, "--config-file")))], stem.parent)


def make_figure_heatmaps(
    *,
    config_file: ConfigFile = CONFIGURATIONS,
    asymmetric_file: Annotated[
        Path, Parameter(help="The architectures that the study labels Asymmetric.")
    ] = ASYMMETRIC,
    trials_file: Annotated[
        Path | None, Parameter(help="A published table of trials (Markdown) in place of records.")
    ] = None,
    effects: Annotated[
        tuple[Literal["decay", "dropout", "full", "hidden", "output"], ...],
        Parameter(help="Modes whose effect against none is drawn.", consume_multiple=True, negative=""),
    ] = ("full",),
    study: Study = "ablation",
    family: OfFamily = "simplemlp",
    grid: GridOption = None,
    results_dir: ResultsDir = RESULTS,
    output_dir: OutputDir = REPORTS,
) -> int:
    """Draw six maps of the design space: baseline, effects, instability, winners, parameters, regimes.

    Example: make-figure-heatmaps --effects full hidden output
    """
    archs = _archs_in(config_file, "--config-file")
    asymmetric = _archs_in(asymmetric_file, "--asymmetric-file")
    check_writable(output_dir)
    frame = _frame(study, family, grid, results_dir, trials_file)

    from psa.reports.figure_set import maps

    return _saved(maps(frame, archs, asymmetric, effects), output_dir, _family_of(frame))


def make_convergence_plots(
    *,
    targets: Annotated[str, Parameter(help="Architectures, with commas.")] = "1*1024,18*18",
    log: Annotated[bool, Parameter(negative="", help="Accuracy on a logarithmic axis.")] = False,
    study: Study = "ablation",
    family: OfFamily = "simplemlp",
    grid: GridOption = None,
    results_dir: ResultsDir = RESULTS,
    output_dir: OutputDir = REPORTS,
) -> int:
    """Draw the LKG of every mode over the meta-loops, one panel per architecture.

    Example: make-convergence-plots --targets "1*1024,18*18"
    """
    asked = _targets(targets)
    if not asked:
        raise UserError("--targets is empty", 'Name architectures: --targets "1*1024,18*18"')
    check_writable(output_dir)
    frame = _frame(study, family, grid, results_dir)

    from psa.reports.figure_set import convergence

    return _saved(convergence(frame, asked, log), output_dir, _family_of(frame))


def make_late_breakthroughs(
    *,
    targets: Annotated[
        str, Parameter(help="Architectures, with commas [default: 18*18,10*10,17*17,4*2, or the latest].")
    ] = "",
    study: Study = "ablation",
    family: OfFamily = "simplemlp",
    grid: GridOption = None,
    results_dir: ResultsDir = RESULTS,
    output_dir: OutputDir = REPORTS,
) -> int:
    """Draw the best trial of some architectures, and the meta-loop in which it made its largest late step.

    Example: make-late-breakthroughs --targets "18*18,10*10"
    """
    asked = _targets(targets)
    check_writable(output_dir)
    frame = _frame(study, family, grid, results_dir)

    from psa.reports.figure_set import breakthroughs

    return _saved(breakthroughs(frame, asked), output_dir, _family_of(frame))


def make_comparison_figures(
    *,
    published_file: Annotated[
        Path | None,
        Parameter(help="Published means [default: reproduction/published/FAMILY.tsv if it is there]."),
    ] = None,
    study: Study = "ablation",
    family: OfFamily = "simplemlp",
    grid: GridOption = None,
    results_dir: ResultsDir = RESULTS,
    output_dir: OutputDir = REPORTS,
) -> int:
    """Draw the modes over all architectures at once, and our means beside published ones.

    Example: make-comparison-figures --family simplemlp
    """
    check_writable(output_dir)
    frame = _frame(study, family, grid, results_dir)

    from psa.reports.figure_published import published_cells
    from psa.reports.figure_set import comparison

    path = published_file or Path(f"reproduction/published/{_family_of(frame)}.tsv")
    published = published_cells(path) if published_file or path.exists() else None
    return _saved(comparison(frame, published), output_dir, _family_of(frame))


def _frame(
    study: str, family: str, grid: Path | None, results: Path, published: Path | None = None
) -> pd.DataFrame:
    """The rows of one study and family. Raises UserError where there is none."""
    from psa.collect import collect
    from psa.published import published_trials

    if published is not None:
        return published_trials(published, family)
    store = Store(Path("models"), results)
    if grid is not None:
        trials = load(grid).trials
        return collect(store, sorted({trial.study for trial in trials}), trials)
    found = collect(store, [study])
    rows = found[found["family"] == family]
    if not len(rows):
        others = ", ".join(sorted(map(str, found["family"].unique())))
        raise UserError(f"{results} holds no {family} trial of {study}", f"Name another --family: {others}")
    return rows


def _family_of(frame: pd.DataFrame) -> str:
    return str(frame["family"].iloc[0])


def _archs_in(path: Path, option: str) -> list[str]:
    """The architectures of a file, as tables name them. Raises UserError that names the option."""
    if not path.is_file():
        raise UserError(f"{option}: there is no file {path}", "Lists of architectures are in reproduction/")
    try:
        return [Arch.coerce(line).label for line in values_of(f"@{path.name}", path.parent, str(path))]
    except UserError as error:
        raise UserError(f"{path}: {error.what}", error.way_out) from None


def _targets(text: str) -> list[str]:
    """The architectures of an option, each once, in order. Raises UserError."""
    return list(dict.fromkeys(Arch.coerce(part).label for part in split_outside(text, ",")))


def _saved(
    figures: Iterator[tuple[str, Figure]] | list[tuple[str, Figure]], folder: Path, family: str = ""
) -> int:
    """Store each figure and say where it is."""
    from psa.reports.figures import save

    for name, figure in figures:
        for path in save(figure, folder / (f"{family}_{name}" if family else name)):
            console().print(str(path), markup=False, soft_wrap=True)
    return 0
