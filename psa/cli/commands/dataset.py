"""`analyze-dataset`: samples per class, and the score of always predicting the majority class."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from psa.cli.console import class_table, console, print_line
from psa.cli.options import DataDir
from psa.core.errors import UserError
from psa.experiments.study import DATASET_HELP, data_named
from psa.specs.data import IMAGES, PRESETS, WHY, label_mapping

if TYPE_CHECKING:
    from psa.data.splits import ClassCounts


def analyze_dataset(
    *,
    dataset: Annotated[str, Parameter(help=f"Data set to count: {DATASET_HELP}.")] = "mnist",
    data_dir: DataDir = Path("dataset"),
    filters: Annotated[bool, Parameter(negative="", help="Show the named sets of digits instead.")] = False,
) -> int:
    """Show the number of samples of each class, in every split.

    Shows the train file and the test file, and the training and validation splits drawn from the train file.
    If a data set has no test file, shows all samples and the three splits drawn from them. With --filters,
    shows the named sets of digits (digits = "even" in a grid), their numbers of samples, and the label of
    each digit.

    Example: analyze-dataset --dataset mnist
    """
    from psa.data.splits import class_counts  # torch is imported here, not while options are read

    out = console()
    data = data_named(dataset)
    if filters and data.facts.train != IMAGES:
        raise UserError(
            f"--filters shows sets of digits, got {dataset}, which is not of digits", "Leave --filters out"
        )
    counted = class_counts(data, data_dir, lambda message: print_line(out, message))
    if filters:
        _print_filters(counted, out)
    else:
        _print_classes(counted, out)
    return 0


def _print_classes(counted: list[ClassCounts], out: Console) -> None:
    for counts in counted:
        out.print(class_table(counts))
    out.print(
        "ZeroR always answers with the most frequent class; whatever has learnt something beats its score:"
    )
    for counts in counted:
        share = f"{counts.zero_r_percent:.2f} % of {counts.total:,}"
        out.print(f"  {counts.title}: class {counts.names[counts.zero_r_class]}, {share}", markup=False)


def _print_filters(counted: list[ClassCounts], out: Console) -> None:
    """Print one line per named set: digits, labels while training, samples of the three splits."""
    _, test, train, validation = counted
    table = Table(title="Named sets of digits", title_justify="left")
    for heading in ("name", "digits", "digit→label"):
        table.add_column(heading)
    for heading in ("training", "validation", "test"):
        table.add_column(heading, justify="right")
    table.add_column("what for")
    for name, digits in PRESETS.items():
        kept = [sum(part.counts[digit] for digit in digits) for part in (train, validation, test)]
        shown = ",".join(map(str, digits))
        table.add_row(name, shown, label_mapping(digits), *[f"{count:,}" for count in kept], WHY[name])
    out.print(table)
    out.print(
        'In a grid: digits = "even", or any two digits and more: digits = [0, 1, 7]; on the command line '
        "digits=even or digits=0,1,7.",
        markup=False,
    )
