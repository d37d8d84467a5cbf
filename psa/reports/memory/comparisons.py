"""The questions of the study: the arms compared seed by seed, and the conclusions.

Everything is computed from runs (psa.reports.memory.runs). Arms are chosen by their settings and, where one
of several is compared, by validation accuracy alone; the comparison is of test accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import pandas as pd

from psa.analysis.stats import ALPHA, LEAST_N, Paired, benjamini_hochberg, paired, t_test
from psa.core.formatting import join_names
from psa.reports.memory.arm_names import KNN
from psa.reports.memory.runs import final_stage

# The arms that the memory is compared with, in the order of the questions.
RIVALS: Final = ("nn", "random_memory", "hybrid_inactive", "nn_large", KNN, "best_fixed_hybrid")
NEEDED: Final = ("random_memory", "hybrid_inactive", "nn_large", KNN)
CALLED: Final = {
    "random_memory": "random entries",
    "hybrid_inactive": "an idle memory",
    "nn_large": "the largest plain network",
    KNN: "a vote of embeddings",
}
_ASKED: Final = {
    "nn": "Is the memory better than the same network without one?",
    "random_memory": "Is it better than entries drawn at random?",
    "hybrid_inactive": "Is it better than a memory that is filled and never used?",
    "nn_large": "Is it better than the largest plain network, which has more parameters?",
    KNN: "Is it better than a vote of the nearest embeddings?",
    "best_fixed_hybrid": "Does a memory gain from growing, beside the best one in a fixed network?",
}
Answer = Literal["cannot be told", "yes", "no, the opposite", "no, not shown"]
# The answers and their conditions: the first that holds counts. n: pairs; low, high: the 95 % interval of the
# difference; adjusted: its p, corrected for all questions of the page.
ANSWERS: Final[tuple[tuple[Answer, Callable[[int, float, float, float], bool]], ...]] = (
    ("cannot be told", lambda n, low, high, adjusted: n < LEAST_N),
    ("yes", lambda n, low, high, adjusted: low > 0 and adjusted < ALPHA),
    ("no, the opposite", lambda n, low, high, adjusted: high < 0 and adjusted < ALPHA),
    ("no, not shown", lambda n, low, high, adjusted: True),
)
HypothesisVerdict = Literal["promising", "currently unsupported", "unresolved", "undecided"]


@dataclass(frozen=True)
class Arms:
    """The arms by their roles. rivals: those that exist, by their names in RIVALS.

    memory: the memory that the verdict is on. others: all other memories, each with its rivals. growing,
    fixed, matched: the growing network without a memory, the best fixed one, and the fixed one with exactly
    as many parameters.
    """

    memory: str | None
    rivals: dict[str, str]
    growing: str | None
    fixed: str | None
    matched: str | None
    others: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class MemoryComparison:
    """One arm minus another in test accuracy, percentage points, with p of the paired t test. adjusted: p
    adjusted by Benjamini and Hochberg over all questions of the page, those with the same accuracies counted
    once. key: of the question; those of other memories than the judged one are `KEY of ARM`. parameters: of
    both networks, empty if unknown. accuracies: of both arms, seed by seed.
    """

    key: str
    question: str
    one: str
    other: str
    one_mean: float
    other_mean: float
    found: Paired
    adjusted: float = float("nan")
    parameters: tuple[int, ...] = ()
    accuracies: tuple[tuple[float, ...], ...] = ()

    @property
    def sizes(self) -> str:
        """The parameters of both networks in brackets, after a space; empty if they are equal."""
        different = len(set(self.parameters)) > 1
        return " ({:,} and {:,} parameters)".format(*self.parameters) if different else ""

    @property
    def answer(self) -> Answer:
        """The answer to the question, the first of ANSWERS whose condition holds."""
        found = self.found
        return next(name for name, holds in ANSWERS if holds(found.n, found.low, found.high, self.adjusted))


def compared_arms(runs: pd.DataFrame) -> Arms:
    """Return the roles of the arms of the final stage."""
    last = final_stage(runs)
    grows, is_plain = last["network"].str.startswith("growing "), last["method"] == "nn"
    fixed_plain, growing_plain = last[~grows & is_plain], last[grows & is_plain]
    memory, growing = _treatment(last), _best(growing_plain)
    hybrids = [str(arm) for arm in dict.fromkeys(last["arm"][last["method"] == "hybrid"]) if arm != memory]
    final = growing_plain.loc[growing_plain["arm"] == growing, "parameters"].max()
    return Arms(
        memory,
        {} if memory is None else _rivals(last, memory),
        growing,
        _best(fixed_plain),
        _best(fixed_plain[fixed_plain["parameters"] == final]),
        {arm: _rivals(last, arm) for arm in hybrids},
    )


def _rivals(last: pd.DataFrame, memory: str) -> dict[str, str]:
    """Return the arms that a memory is compared with: its own controls, the plain network of its layers and
    training, the largest plain network, the best vote of embeddings, and the best fixed memory.
    """
    grows = last["network"].str.startswith("growing ")
    fixed, plain = last[~grows], last[last["method"] == "nn"]
    mine = last[last["arm"] == memory].iloc[0]
    alike = last[last["same"] == mine["same"]]
    found = {
        "nn": _best(plain[plain["network"] == mine["network"]]),
        **{each: _best(alike[alike["method"] == each]) for each in ("random_memory", "hybrid_inactive")},
        "nn_large": _largest(fixed[(fixed["method"] == "nn") & (fixed["parameters"] > mine["parameters"])]),
        KNN: _best(last[last["method"] == KNN]),
    }
    if mine["network"].startswith("growing "):
        found["best_fixed_hybrid"] = _best(fixed[fixed["method"] == "hybrid"])
    return {name: arm for name in RIVALS if (arm := found.get(name)) is not None}


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
    for memory, rivals in arms.others.items():
        asked += [
            (f"{key} of {memory}", _ASKED[key], memory, rivals[key])
            for key in ("nn", "random_memory", "hybrid_inactive")
            if key in rivals
        ]
    found = [_compared(last, *each) for each in asked]
    tests = {each.accuracies: each.found.p for each in found}
    adjusted = dict(zip(tests, benjamini_hochberg(list(tests.values())), strict=True))
    return [replace(each, adjusted=float(adjusted[each.accuracies])) for each in found]


def distinct_tests(comparisons: Iterable[MemoryComparison]) -> int:
    """Return the number of tests behind comparisons: those of the same accuracies are one test."""
    return len({each.accuracies for each in comparisons})


def identical_compared_arms(comparisons: Iterable[MemoryComparison]) -> list[list[str]]:
    """Return the groups of compared arms that have the same test accuracy with every seed."""
    arms: dict[tuple[float, ...], dict[str, None]] = {}
    for each in comparisons:
        for arm, accuracies in zip((each.one, each.other), each.accuracies, strict=False):
            arms.setdefault(accuracies, {})[arm] = None
    return [list(group) for group in arms.values() if len(group) > 1]


def _compared(last: pd.DataFrame, key: str, question: str, one: str, other: str) -> MemoryComparison:
    table = last.pivot(index="seed", columns="arm", values="test")
    first, second = (np.asarray(table[arm], dtype=np.float64) for arm in (one, other))
    means = [float(np.nanmean(each)) for each in (first, second)]
    found = replace(paired(first, second), p=t_test(first, second))
    sizes = last.groupby("arm")["parameters"].max()
    return MemoryComparison(
        key, question, one, other, means[0], means[1], found,
        parameters=(int(sizes[one]), int(sizes[other])),
        accuracies=tuple(tuple(np.nan_to_num(each, nan=-1.0).tolist()) for each in (first, second)),
    )  # fmt: skip


def verdict(comparisons: Mapping[str, MemoryComparison]) -> tuple[HypothesisVerdict, str]:
    """Return the verdict on a memory from its comparisons (by key), and the reason.

    One arm is better than another where the answer to that question is yes. promising: better than random
    entries, than an idle memory, than the largest network and than the vote.
    currently unsupported: not better than random entries or than an idle memory. unresolved: better than
    both, but not than the two others. undecided: one of the four is missing, or has fewer than LEAST_N seeds.
    """
    lacking = [name for name in NEEDED if name not in comparisons or comparisons[name].found.n < LEAST_N]
    if lacking:
        return "undecided", f"no paired comparison over {LEAST_N} seeds or more with {_listed(lacking)}"
    against = [name for name in NEEDED if comparisons[name].answer != "yes"]
    if not against:
        return "promising", f"better than {_listed(NEEDED)}"
    why = f"not shown to be better than {_listed(against)}"
    if {"random_memory", "hybrid_inactive"} & set(against):
        return "currently unsupported", why
    return "unresolved", why


def _listed(names: Iterable[str]) -> str:
    """Return what rivals are, as a reader of the rule of the verdict knows them."""
    return join_names([CALLED[name] for name in names])
