"""The hypotheses of the study, each with an answer, positive or negative, and its evidence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pandas as pd

from psa.analysis.stats import ALPHA, LEAST_N, blocked_f_test, holm
from psa.core.formatting import pluralize
from psa.reports.memory.comparisons import Arms, MemoryComparison
from psa.reports.memory.runs import final_stage

_SETTINGS: Final = {
    "site": "Where the memory acts matters",
    "forgetting.policy": "How a full memory forgets matters",
}
NOTICED: Final = 0.001  # of the length of a hidden vector: a smaller change counts as none


@dataclass(frozen=True)
class Hypothesis:
    """A claim, whether the runs support it (yes, no, cannot be told), and the evidence."""

    claim: str
    answer: str
    evidence: str


def hypotheses(
    runs: pd.DataFrame, arms: Arms, comparisons: Mapping[str, MemoryComparison]
) -> list[Hypothesis]:
    """Return all hypotheses that the runs give evidence on."""
    found = [
        _compared("A memory makes a network more accurate", comparisons.get("nn")),
        _both("What is retrieved matters, not that something is", comparisons),
        _compared("A memory is worth more than parameters", comparisons.get("nn_large")),
        _compared("A memory is worth more than a vote of embeddings", comparisons.get("embedding_knn")),
        _compared("A growing network beats the best fixed one", comparisons.get("growing")),
        _compared("A growing network beats a fixed one of its size", comparisons.get("matched")),
        *_effect(runs, arms),
        *_ranges(runs),
    ]
    return [each for each in found if each is not None]


def _said(comparison: MemoryComparison) -> str:
    """Format a difference with its interval; for a single seed without."""
    found = comparison.found
    if not found.n:
        return f"{comparison.one} and {comparison.other} have no seed in common"
    names = f"{comparison.one} minus {comparison.other}{comparison.sizes}"
    arms = f"{names}: {found.difference:+.2f} points of test accuracy"
    if found.n < LEAST_N:
        return f"{arms}, {pluralize(found.n, 'seed')}"
    return (
        f"{arms}, 95 % interval {found.low:+.2f} to {found.high:+.2f}, adjusted p {comparison.adjusted:.3f}, "
        f"n = {found.n}"
    )


def _compared(claim: str, comparison: MemoryComparison | None) -> Hypothesis | None:
    return None if comparison is None else Hypothesis(claim, comparison.answer, _said(comparison))


def _both(claim: str, comparisons: Mapping[str, MemoryComparison]) -> Hypothesis | None:
    """Return the hypothesis that needs both controls, None if one of them is missing."""
    there = [comparisons[name] for name in ("random_memory", "hybrid_inactive") if name in comparisons]
    if len(there) < 2:
        return None
    evidence = "; ".join(map(_said, there))
    answers = {each.answer for each in there}
    if "cannot be told" in answers:
        return Hypothesis(claim, "cannot be told", evidence)
    return Hypothesis(claim, "yes" if answers == {"yes"} else "no, not shown", evidence)


def _effect(runs: pd.DataFrame, arms: Arms) -> Iterator[Hypothesis]:
    """Yield the hypothesis that the memory changes what the network computes."""
    mine = final_stage(runs).query("arm == @arm", local_dict={"arm": arms.memory})
    seen = mine[["relative", "neutral", "delta"]].mean()
    if seen.isna().any():
        return
    evidence = (
        f"hidden vectors were moved by {100 * seen['relative']:.3g} % of their length on the test split; "
        f"{seen['neutral']:.1f} % of the samples kept their loss to 1e-6, and the mean change was "
        f"{seen['delta']:+.2g} nats"
    )
    yield Hypothesis(
        "The memory changes what the network computes",
        "yes" if seen["relative"] >= NOTICED else "no, hardly",
        evidence,
    )


@dataclass(frozen=True)
class _Range:
    """The range of the arms of one setting of the memory, and p of the test that all have one mean."""

    claim: str
    evidence: str
    seeds: int
    p: float

    def hypothesis(self, adjusted: float) -> Hypothesis:
        """Return the hypothesis that the arms differ. adjusted: p, corrected for all ranges."""
        if self.seeds < LEAST_N:
            return Hypothesis(
                self.claim, "cannot be told", f"{self.evidence}, {pluralize(self.seeds, 'seed')}"
            )
        tested = (
            "F test with the seeds as blocks, corrected by Holm's method over the claims on settings: "
            f"adjusted p {adjusted:.3f}, n = {self.seeds}"
        )
        answer = "yes" if adjusted < ALPHA else "no, not shown"
        return Hypothesis(self.claim, answer, f"{self.evidence}; {tested}")


def _range(runs: pd.DataFrame, key: str, claim: str) -> _Range | None:
    """Return the range over one setting of the memory, in the stage with the most arms that vary it alone;
    None without two of them.
    """
    hybrids = runs[(runs["method"] == "hybrid") & runs["changed"].isin(["", key])]
    groups = hybrids.groupby(["stage", "network"])["arm"].nunique()
    if groups.empty or groups.max() < 2:
        return None
    stage, network = groups.idxmax()
    part = hybrids[(hybrids["stage"] == stage) & (hybrids["network"] == network)]
    table = part.pivot(index="seed", columns="arm", values="test")
    means = table.mean()
    best, worst = str(means.idxmax()), str(means.idxmin())
    evidence = (
        f"mean test accuracy of {len(means)} arms in the stage of {stage}: from {means.min():.2f} % "
        f"({worst}) to {means.max():.2f} % ({best})"
    )
    return _Range(claim, evidence, len(table.dropna()), blocked_f_test(table))


def _ranges(runs: pd.DataFrame) -> list[Hypothesis]:
    """Return the hypotheses on single settings of the memory, with p adjusted by Holm's method."""
    asked = [_range(runs, key, claim) for key, claim in _SETTINGS.items()]
    found = [each for each in asked if each is not None]
    adjusted = holm([each.p for each in found])
    return [each.hypothesis(float(p)) for each, p in zip(found, adjusted, strict=True)]
