"""`analyze-dataset`: how many of each class, and what answering the majority class would score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from psa.commands.options import DataDir
from psa.console import class_table, console
from psa.specs import DataSpec


def analyze_dataset(
    *,
    dataset: Annotated[Literal["mnist", "fashion-mnist"], Parameter(help="Which data set.")] = "mnist",
    data_dir: DataDir = Path("dataset"),
) -> int:
    """Show samples per class of the train file, the test file, the training split and the validation split.

    Example: analyze-dataset --dataset mnist
    """
    from psa.data import class_counts  # torch is imported here, not while options are read

    out = console()
    counted = class_counts(
        DataSpec(name=dataset), data_dir, lambda message: out.print(message, markup=False, soft_wrap=True)
    )
    for counts in counted:
        out.print(class_table(counts))
    out.print(
        "ZeroR always answers with the most frequent class; whatever has learnt something beats its score:"
    )
    for counts in counted:
        share = f"{counts.zero_r_percent:.2f} % of {counts.total:,}"
        out.print(f"  {counts.title}: class {counts.zero_r_class}, {share}", markup=False)
    return 0
