"""The questions of the study: the arms compared seed by seed, and the conclusions.

Everything is computed from runs (psa.reports.memory.runs). Arms are chosen by their settings and, where one
of several is compared, by validation accuracy alone; the comparison is of test accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pandas as pd

from psa.analysis.stats import Paired, benjamini_hochberg, paired, t_test
from psa.reports.memory.runs import KNN, final_stage

# The arms that the memory is compared with, in the order of the questions.
RIVALS: Final = ("nn", "random_memory", "hybrid_inactive", "nn_large", KNN, "best_fixed_hybrid")
NEEDED: Final = ("random_memory", "hybrid_inactive", "nn_large", KNN)
_ASKED: Final = {
    "nn": "Is the memory better than the same network without one?",
    "random_memory": "Is it better than entries drawn at random?",
    "hybrid_inactive": "Is it better than a memory that is filled and never used?",
    "nn_large": "Is it better than the largest plain network, which has more parameters?",
    KNN: "Is it better than a vote of the nearest embeddings?",
    "best_fixed_hybrid": "Does a memory gain from growing, beside the best one in a fixed network?",
}
HypothesisVerdict = Literal["promising", "currently unsupported", "unresolved", "undecided"]


@dataclass(frozen=True)
class Arms:
    """The arms by their roles. rivals: those that exist, by their names in RIVALS.

    memory: the memory that the verdict is on. growing, fixed, matched: the growing network without a memory,
    the best fixed one, and the fixed one with exactly as many parameters.
    """

    memory: str | None
    rivals: dict[str, str]
    growing: str | None
    fixed: str | None
    matched: str | None


@dataclass(frozen=True)
class MemoryComparison:
    """One arm minus another in test accuracy, percentage points, with p of the paired t test. adjusted: p
    adjusted by Benjamini and Hochberg over all questions of the page.
    """

    key: str
    question: str
    one: str
    other: str
    one_mean: float
    other_mean: float
    found: Paired
    adjusted: float = float("nan")

    @property
    def positive(self) -> bool:
        """True if the difference and all of its 95 % interval are above 0."""
        return self.found.difference > 0 and self.found.low > 0


def compared_arms(runs: pd.DataFrame) -> Arms:
    """Return the roles of the arms of the final stage."""
    last = final_stage(runs)
    grows = last["network"].str.startswith("growing ")
    fixed, plain = last[~grows], last[last["method"] == "nn"]
    fixed_plain, growing_plain = fixed[fixed["method"] == "nn"], last[grows & (last["method"] == "nn")]
    memory, growing = _treatment(last), _best(growing_plain)
    rivals = {KNN: _best(last[last["method"] == KNN])}
    if memory is not None:
        mine = last[last["arm"] == memory].iloc[0]
        alike = last[last["same"] == mine["same"]]
        for control in ("random_memory", "hybrid_inactive"):
            rivals[control] = _best(alike[alike["method"] == control])
        rivals["nn"] = _best(plain[plain["network"] == mine["network"]])
        rivals["nn_large"] = _largest(fixed_plain[fixed_plain["parameters"] > mine["parameters"]])
        if mine["network"].startswith("growing "):
            rivals["best_fixed_hybrid"] = _best(fixed[fixed["method"] == "hybrid"])
    final = growing_plain.loc[growing_plain["arm"] == growing, "parameters"].max()
    return Arms(
        memory,
        {name: arm for name in RIVALS if (arm := rivals.get(name)) is not None},
        growing,
        _best(fixed_plain[fixed_plain["arm"] != rivals.get("nn_large")]),
        _best(fixed_plain[fixed_plain["parameters"] == final]),
    )


def _treatment(last: pd.DataFrame) -> str | None:
    """Return the memory with the most of its two controls; of several the best by validation."""
    hybrids = last[last["method"] == "hybrid"]
    controls = last[last["method"].isin(["random_memory", "hybrid_inactive"])]
    count = hybrids["same"].map(controls.groupby("same")["method"].nunique()).fillna(0)
    return None if hybrids.empty else _best(hybrids[count == count.max()])


def _largest(runs: pd.DataFrame) -> str | None:
    """Return the best of the largest networks; runs: of plain ones with more parameters than the memory."""
    return _best(runs[runs["parameters"] == runs["parameters"].max()])


def _best(runs: pd.DataFrame) -> str | None:
    """Return the arm with the greatest mean validation accuracy; of equal ones the first by name."""
    if runs.empty:
        return None
    means = runs.groupby("arm")["validation"].mean()
    return str(min(means.index, key=lambda arm: (-means[arm], arm)))


def comparisons_of(runs: pd.DataFrame) -> list[MemoryComparison]:
    """Return every comparison that the arms of the final stage allow."""
    last, arms = final_stage(runs), compared_arms(runs)
    asked: list[tuple[str, str, str, str]] = []
    if arms.memory is not None:
        asked = [(key, _ASKED[key], arms.memory, arms.rivals[key]) for key in RIVALS if key in arms.rivals]
    if arms.growing is not None and arms.fixed is not None:
        text = "Is a growing network better than the best fixed one?"
        asked.append(("growing", text, arms.growing, arms.fixed))
    if arms.growing is not None and arms.matched is not None:
        text = "Is a growing network better than a fixed one with as many parameters?"
        asked.append(("matched", text, arms.growing, arms.matched))
    found = [_compared(last, *each) for each in asked]
    adjusted = benjamini_hochberg([each.found.p for each in found])
    return [replace(each, adjusted=float(p)) for each, p in zip(found, adjusted, strict=True)]


def _compared(last: pd.DataFrame, key: str, question: str, one: str, other: str) -> MemoryComparison:
    table = last.pivot_table(index="seed", columns="arm", values="test")
    first, second = (np.asarray(table[arm], dtype=np.float64) for arm in (one, other))
    means = [float(np.nanmean(each)) for each in (first, second)]
    found = replace(paired(first, second), p=t_test(first, second))
    return MemoryComparison(key, question, one, other, means[0], means[1], found)


def verdict(comparisons: Mapping[str, MemoryComparison]) -> tuple[HypothesisVerdict, str]:
    """Return the verdict on a memory from its comparisons (by key), and the reason.

    promising: better than random entries, than an idle memory, than the largest network and than the vote.
    currently unsupported: not better than random entries or than an idle memory. unresolved: better than
    both, but not than the two others. undecided: one of the four is missing, or has one seed.
    """
    lacking = [name for name in NEEDED if name not in comparisons or comparisons[name].found.n < 2]
    if lacking:
        return "undecided", f"no paired comparison over two seeds or more with {', '.join(lacking)}"
    against = [name for name in NEEDED if not comparisons[name].positive]
    if not against:
        return "promising", f"better than all of {', '.join(NEEDED)}, with intervals above 0"
    why = f"not shown to be better than {', '.join(against)}"
    if {"random_memory", "hybrid_inactive"} & set(against):
        return "currently unsupported", why
    return "unresolved", why
