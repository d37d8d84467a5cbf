"""The tables of the answers of a memory study: paired comparisons, and hypotheses with their evidence."""

from __future__ import annotations

from collections.abc import Sequence

from psa.analysis.stats import LEAST_N
from psa.core.formatting import pluralize
from psa.reports.memory.comparisons import MemoryComparison, distinct_tests, identical_compared_arms
from psa.reports.memory.hypotheses import Hypothesis
from psa.reports.rendering.paired import paired_columns, paired_notes, paired_row
from psa.reports.rendering.tables import Column, Table


def comparison_table(comparisons: Sequence[MemoryComparison]) -> Table:
    """Return each question with its difference, p-value and effect."""
    seeds, *shared = paired_columns(corrected=("p adjusted",), pairs="Seeds", effect="Effect")
    columns = (
        Column("Question", breaks=5), Column("Arm", breaks=4), Column("Minus", breaks=4),
        seeds, Column("Arm %", "number"), Column("Minus %", "number"), *shared,
    )  # fmt: skip
    rows = []
    for each in comparisons:
        n, *cells = paired_row(each.found, each.adjusted)
        question = f"{each.question}{each.sizes}"
        rows.append((question, each.one, each.other, n, each.one_mean, each.other_mean, *cells))
    text = (
        "Test accuracy in percent, paired by seed; 95 % t intervals. p: paired t test, adjusted by Benjamini "
        f"and Hochberg over the questions of this table, of every memory.{_identical_note(comparisons)} "
        "Effect: Hedges' g of the differences. "
        f"Below {LEAST_N} seeds there is a difference alone. With three seeds only differences several times "
        "their scatter can be significant." + paired_notes([each.found for each in comparisons])
    )
    return Table("Paired comparisons", "tab:memory_questions", columns, tuple(rows), text, wide=True)


def _identical_note(comparisons: Sequence[MemoryComparison]) -> str:
    """Return a note, after a space, on arms with the same accuracies; "" where no two tests are the same."""
    count = distinct_tests(comparisons)
    if count == len(comparisons):
        return ""
    groups = "; ".join(" = ".join(map(_short, group)) for group in identical_compared_arms(comparisons))
    return (
        f" Arms with the same test accuracy with every seed: {groups}. Questions with the same accuracies on "
        f"both sides count as one test, so these {len(comparisons)} questions are {pluralize(count, 'test')}."
    )


def _short(arm: str) -> str:
    """Return the name of the variant of an arm; of an arm without one its label."""
    return arm.partition(": ")[0]


def hypothesis_table(answers: Sequence[Hypothesis]) -> Table:
    """Return each claim with its answer and the evidence."""
    columns = (Column("Claim", breaks=4), Column("Shown"), Column("Evidence", breaks=9))
    rows = tuple((each.claim, each.answer, each.evidence) for each in answers)
    return Table("Hypotheses and evidence", "tab:memory_answers", columns, rows, wide=True)
